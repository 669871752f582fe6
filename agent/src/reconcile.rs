//! Keeping what the engine has and what the agent knows the same.
//!
//! The engine's events tell at once when a container ends. They may be lost (the engine
//! restarts, the stream breaks), so after every subscription, and now and then, the list
//! of containers is compared with the kernels: a kernel whose container ended or vanished
//! is told so, and a container of ours that belongs to no kernel is removed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use backendai_rpc::manager_api::KernelPhase;
use backendai_types::KernelId;

use crate::backend::{
    BackendError, ContainerChange, ContainerEvent, ContainerState, OwnedContainer,
};
use crate::core::{Core, EngineState, Host, chain};
use crate::kernel::recover::{exit_status, kernel_of, recover};
use crate::resources::{HostSettings, PoolSettings, ResourcePool, device_kinds};

/// Between attempts to reach an engine that does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// How often kernels and containers are compared although no event was missed, as far as
/// anybody knows.
const COMPARE_EVERY: Duration = Duration::from_secs(30);

/// How the host's devices are given away.
#[derive(Clone, Debug)]
pub struct ReconcileSettings {
    /// What is kept for the host.
    pub host: HostSettings,
    /// How devices are chosen.
    pub pool: PoolSettings,
}

/// Reaches the engine, takes up what runs, then follows the engine until the shutdown.
///
/// # Errors
/// The host cannot run kernels at all.
pub async fn follow_engine(core: Arc<Core>, settings: ReconcileSettings) -> Result<(), String> {
    let mut is_recovered = false;
    let mut is_told = false;
    while !core.lifecycle.is_stopping() {
        // Before the list is read, so that no event falls in between.
        let since = core.now();
        let reached = tokio::select! {
            reached = reach(&core, &settings) => reached,
            () = core.lifecycle.stopping() => break,
        };
        if let Err(error) = reached {
            match error {
                ReachError::Host(why) => return Err(why),
                ReachError::Engine(why) => {
                    note_down(&core, &why, &mut is_told);
                    core.lifecycle.sleep(RETRY).await;
                    continue;
                }
            }
        }
        let mut events = core.backend.events(core.agent_id.as_str(), since);
        let caught_up = if is_recovered {
            compare(&core).await.map_err(|error| chain(&error))
        } else {
            recover(&core).await.map_err(|error| chain(&error))
        };
        if let Err(why) = caught_up {
            note_down(&core, &why, &mut is_told);
            core.lifecycle.sleep(RETRY).await;
            continue;
        }
        is_recovered = true;
        note_up(&core, &mut is_told);
        let why = loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => hear(&core, &event),
                    Some(Err(error)) => break chain(&error),
                    None => break "its events ended".to_owned(),
                },
                () = tokio::time::sleep(COMPARE_EVERY) => {
                    if let Err(error) = compare(&core).await {
                        break chain(&error);
                    }
                }
                () = core.lifecycle.stopping() => return Ok(()),
            }
        };
        note_down(&core, &why, &mut is_told);
    }
    Ok(())
}

enum ReachError {
    Host(String),
    Engine(String),
}

async fn reach(core: &Core, settings: &ReconcileSettings) -> Result<(), ReachError> {
    let fingerprint =
        core.backend.fingerprint().await.map_err(|error| ReachError::Engine(chain(&error)))?;
    if core.host.get().is_none() {
        let kinds = device_kinds(&fingerprint, &settings.host)
            .map_err(|error| ReachError::Host(error.to_string()))?;
        let pool = ResourcePool::new(kinds, &settings.pool);
        tracing::info!(
            engine = fingerprint.engine,
            cgroup = fingerprint.cgroup_version,
            cores = fingerprint.cores.len(),
            mem_bytes = fingerprint.mem_bytes,
            "reached the container engine",
        );
        // Only this task sets it.
        let _ = core.host.set(Host { fingerprint, pool: pool.into() });
    }
    Ok(())
}

fn note_up(core: &Core, is_told: &mut bool) {
    core.engine.send_replace(EngineState::Up);
    if std::mem::take(is_told) {
        tracing::info!("the container engine answers again");
    }
}

/// Says so once; trying goes on quietly.
fn note_down(core: &Core, why: &str, is_told: &mut bool) {
    core.note_down();
    if !std::mem::replace(is_told, true) {
        tracing::warn!("waiting for the container engine: {why}");
    }
}

fn hear(core: &Core, event: &ContainerEvent) {
    let id = event.kernel_id.as_deref().and_then(|id| id.parse::<KernelId>().ok());
    let Some(kernel) = id.and_then(|id| core.registry.get(id)) else { return };
    match event.what {
        ContainerChange::Started => {}
        ContainerChange::Died(status) => kernel.container_with_id_ended(&event.id, status),
        ContainerChange::OutOfMemory => {
            tracing::warn!(kernel.id = %kernel.id, "a process was killed for want of memory");
        }
    }
}

/// Compares kernels with containers.
///
/// # Errors
/// The engine does not answer.
pub async fn compare(core: &Core) -> Result<(), BackendError> {
    // Kernels that run now must be in the list that is read next; the other way round one
    // that started in between would look lost.
    let running: Vec<_> = core
        .registry
        .all()
        .into_iter()
        .filter(|kernel| matches!(kernel.phase(), KernelPhase::Running | KernelPhase::Destroying))
        .collect();
    let mut containers: HashMap<KernelId, OwnedContainer> = HashMap::new();
    for container in core.backend.list(core.agent_id.as_str()).await? {
        match kernel_of(&container) {
            Some(id) if core.registry.get(id).is_some() => {
                containers.insert(id, container);
            }
            _ => {
                tracing::warn!(
                    container = container.handle.name,
                    "removing a container that belongs to no kernel",
                );
                core.backend.remove(&container.handle.id).await?;
            }
        }
    }
    let networks = core.backend.networks(core.agent_id.as_str()).await?;
    core.networks.compare(core, &networks).await?;
    for (id, container) in &containers {
        if matches!(container.state, ContainerState::Exited(_))
            && let Some(kernel) = core.registry.get(*id)
        {
            kernel.container_with_id_ended(&container.handle.id, exit_status(Some(container)));
        }
    }
    for kernel in running.iter().filter(|kernel| !containers.contains_key(&kernel.id)) {
        kernel.container_ended(exit_status(None));
    }
    Ok(())
}
