//! Taking up what an earlier process of the agent left.
//!
//! Records say what was wanted, containers what is. What runs is adopted without being
//! touched; what was half made is finished or made anew; what ended is removed and told.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use backendai_types::KernelId;

use super::record::{KernelRecord, KernelState};
use super::registry::{Kernel, blocking};
use super::summary::KernelSummary;
use super::{definition, mounts, task};
use crate::backend::{ContainerState, ExitStatus, OwnedContainer, labels};
use crate::core::Core;
use crate::runner_link::Outbox;

/// Why kernels could not be taken up.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Records or folders cannot be read.
    #[error("read the records of kernels")]
    Disk(#[from] io::Error),
    /// The engine does not answer.
    #[error(transparent)]
    Backend(#[from] crate::backend::BackendError),
}

struct Recovered {
    kernel: Arc<Kernel>,
    outbox: Outbox,
    begin: task::Begin,
}

/// Takes up all kernels. Called once, before anything new is made.
///
/// # Errors
/// See [`RecoverError`]; nothing has been changed then.
pub async fn recover(core: &Arc<Core>) -> Result<(), RecoverError> {
    let containers = core.backend.list(core.agent_id.as_str()).await?;
    let store = core.store.clone();
    let records = blocking(move || store.load_all()).await?;

    let mut by_kernel: HashMap<KernelId, OwnedContainer> = HashMap::new();
    let mut strays = Vec::new();
    for container in containers {
        match kernel_of(&container).filter(|id| !by_kernel.contains_key(id)) {
            Some(id) => {
                by_kernel.insert(id, container);
            }
            None => strays.push(container),
        }
    }
    let mut recovered = Vec::new();
    for record in records {
        let container = by_kernel.remove(&record.kernel_id);
        recovered.push(recover_one(core, record, container).await);
    }
    for container in by_kernel.into_values() {
        match rebuilt_record(core, &container) {
            Some(record) => {
                tracing::warn!(
                    kernel.id = %record.kernel_id,
                    "the record of a running kernel was lost and is rebuilt from its labels",
                );
                let one = recover_one(core, record, Some(container)).await;
                one.kernel.save(&core.store).await?;
                recovered.push(one);
            }
            None => strays.push(container),
        }
    }
    remove_leftover_folders(core, &recovered).await?;
    let count = recovered.len();
    for one in &recovered {
        // Ids of files are unique, and nothing else has been inserted yet.
        let _ = core.registry.insert(&one.kernel);
    }
    for one in recovered.iter().filter(|one| !matches!(one.begin, task::Begin::Report)) {
        if let Some(network) = one.kernel.network() {
            core.networks.take_up(&network, one.kernel.id).await;
        }
    }
    for Recovered { kernel, outbox, begin } in recovered {
        for event in kernel.last_events() {
            if !matches!(begin, task::Begin::Report) {
                core.events.push_again(event);
            }
        }
        task::spawn(core, kernel, outbox, begin);
    }
    for container in strays {
        tracing::warn!(container = container.handle.name, "removing a container nobody knows");
        core.insist("remove a container", || core.backend.remove(&container.handle.id)).await;
    }
    let networks = core.backend.networks(core.agent_id.as_str()).await?;
    core.networks.compare(core, &networks).await?;
    tracing::info!(kernels = count, "took up kernels");
    Ok(())
}

async fn recover_one(
    core: &Arc<Core>,
    record: KernelRecord,
    container: Option<OwnedContainer>,
) -> Recovered {
    let is_running = container.as_ref().is_some_and(|c| c.state == ContainerState::Running);
    let summary = container.as_ref().and_then(|c| KernelSummary::from_labels(&c.labels));
    let (state, restart) = (record.state.clone(), record.restart);
    let (kernel, outbox) = Kernel::new(record);
    let begin = match state {
        KernelState::Gone { .. } => {
            if let Some(container) = container {
                remove(core, &container).await;
            }
            task::Begin::Report
        }
        KernelState::Running(running) => {
            if let Some(pool) = core.pool() {
                pool.lock().restore(kernel.id, running.allocation);
            }
            if !is_running {
                kernel.container_ended(exit_status(container.as_ref()));
            }
            task::Begin::Adopt
        }
        KernelState::Creating { session, spec } => match (container, summary) {
            // One that an earlier life of a restarted kernel left is not its container.
            (Some(container), Some(summary)) if is_running && summary.restart == restart => {
                if let Some(pool) = core.pool() {
                    pool.lock().restore(kernel.id, summary.allocation.clone());
                }
                kernel.holds_container(&container.handle.id);
                task::Begin::Finish { container: container.handle, summary }
            }
            (container, _) => {
                // Made, perhaps started, and not running: begin from nothing.
                let name = container.map_or_else(
                    || definition::container_name(&spec),
                    |container| container.handle.name,
                );
                core.insist("remove a container", || core.backend.remove(&name)).await;
                task::Begin::Create { session, spec }
            }
        },
    };
    Recovered { kernel, outbox, begin }
}

async fn remove(core: &Core, container: &OwnedContainer) {
    core.insist("remove a container", || core.backend.remove(&container.handle.id)).await;
}

fn rebuilt_record(core: &Core, container: &OwnedContainer) -> Option<KernelRecord> {
    if container.state != ContainerState::Running {
        return None;
    }
    let kernel_host = &core.settings.kernel_host;
    KernelSummary::record(&container.labels, &container.handle, kernel_host, core.now())
}

async fn remove_leftover_folders(core: &Core, recovered: &[Recovered]) -> io::Result<()> {
    let kept: Vec<KernelId> = recovered
        .iter()
        .filter(|one| !matches!(one.begin, task::Begin::Report))
        .map(|one| one.kernel.id)
        .collect();
    let scratch = core.scratch.clone();
    blocking(move || {
        mounts::sweep(scratch.root())?;
        for id in scratch.kernels()?.into_iter().filter(|id| !kept.contains(id)) {
            tracing::info!(kernel.id = %id, "removing folders of a kernel that is gone");
            scratch.remove(id)?;
        }
        Ok(())
    })
    .await
}

/// The kernel a container belongs to, by its label.
pub fn kernel_of(container: &OwnedContainer) -> Option<KernelId> {
    container.labels.get(labels::KERNEL_ID)?.parse().ok()
}

/// How a container that does not run ended; unknown if there is none.
pub fn exit_status(container: Option<&OwnedContainer>) -> ExitStatus {
    match container.map(|container| container.state) {
        Some(ContainerState::Exited(status)) => status,
        _ => ExitStatus { code: None },
    }
}
