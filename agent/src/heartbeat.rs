//! Telling the leading manager that the agent lives, and what it holds.
//!
//! A heartbeat is small: who, and which kernels. What the agent *is* goes along only
//! at first, when it changed, and when the manager asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use backendai_rpc::manager_api::{AgentInfo, Heartbeat, Leave};

use crate::backend::LocalImage;
use crate::core::{Core, EngineState, chain};
use crate::leader::ManagerLink;

/// A good-bye is a courtesy: the manager would notice anyway.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// What is said of the agent itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// RPC address, `tcp://host:port`.
    pub addr: String,
    /// CURVE public key, if the agent's RPC is encrypted.
    pub public_key: Option<String>,
    /// Host name or address for users.
    pub public_host: String,
    /// Scaling group it belongs to.
    pub scaling_group: String,
    /// `local` on premises.
    pub region: String,
    /// New at every start of the process.
    pub incarnation: u64,
}

/// How often things are told.
#[derive(Clone, Copy, Debug)]
pub struct HeartbeatSettings {
    /// Between heartbeats.
    pub interval: Duration,
    /// Between looks at the engine's images.
    pub image_interval: Duration,
}

/// Sends heartbeats until the shutdown, then says good-bye.
pub async fn beat(
    core: Arc<Core>,
    identity: Identity,
    settings: HeartbeatSettings,
    mut link: ManagerLink,
) {
    let mut engine = core.engine.subscribe();
    // Not before everything was taken up: the list of kernels must be whole.
    tokio::select! {
        _ = engine.wait_for(|state| *state != EngineState::NotReached) => {}
        () = core.lifecycle.stopping() => return,
    }
    drop(engine);
    let mut images = follow_images(&core, settings.image_interval);
    let mut told: Option<AgentInfo> = None;
    let mut is_failing = false;
    let mut is_waiting = false;
    let mut ticks = tokio::time::interval(settings.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = link.changed() => told = None,
            Ok(()) = images.changed() => {}
            () = core.lifecycle.stopping() => break,
        }
        let Some(manager) = link.client() else {
            if !std::mem::replace(&mut is_waiting, true) {
                tracing::info!("waiting for a manager to lead");
            }
            continue;
        };
        is_waiting = false;
        let info = agent_info(&core, &identity, &images.borrow());
        let is_news = told.as_ref() != Some(&info);
        let heartbeat = Heartbeat {
            agent_id: core.agent_id.clone(),
            incarnation: identity.incarnation,
            info: is_news.then(|| info.clone()),
            kernels: core.registry.reports(),
            networks: core.networks.ordered(),
        };
        let answer = tokio::select! {
            answer = manager.heartbeat(&heartbeat) => answer,
            () = link.changed() => {
                told = None;
                ticks.reset_immediately();
                continue;
            }
            () = core.lifecycle.stopping() => break,
        };
        match answer {
            Ok(reply) => {
                told = (!reply.send_info).then_some(info);
                if reply.send_info && !is_news {
                    ticks.reset_immediately();
                }
                if let Err(error) = core.epoch.admit(reply.epoch) {
                    tracing::debug!(%error, "a manager of the past answers heartbeats");
                }
                if std::mem::take(&mut is_failing) {
                    tracing::info!("the manager answers heartbeats again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!("heartbeat: {error}; trying on");
                }
            }
        }
    }
    leave(&core, &link).await;
}

async fn leave(core: &Core, link: &ManagerLink) {
    let Some(manager) = link.client() else { return };
    let message = Leave { agent_id: core.agent_id.clone(), reason: "shutdown".to_owned() };
    match tokio::time::timeout(LEAVE_TIMEOUT, manager.leave(&message)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("leave: {error}"),
        Err(_) => tracing::debug!("leave: the manager did not answer"),
    }
}

fn agent_info(core: &Core, identity: &Identity, images: &[LocalImage]) -> AgentInfo {
    let host = core.host.get();
    let mut facts = host.map(|host| host.fingerprint.facts.clone()).unwrap_or_default();
    facts.insert("agent_version".to_owned(), crate::VERSION.to_owned());
    AgentInfo {
        addr: identity.addr.clone(),
        public_key: identity.public_key.clone(),
        public_host: identity.public_host.clone(),
        scaling_group: identity.scaling_group.clone(),
        region: identity.region.clone(),
        version: crate::VERSION.to_owned(),
        architecture: host.map(|h| h.fingerprint.architecture.clone()).unwrap_or_default(),
        slots: core.pool().map(|pool| pool.lock().offered()).unwrap_or_default(),
        compute_plugins: BTreeMap::from([
            ("cpu".to_owned(), facts),
            ("mem".to_owned(), BTreeMap::new()),
        ]),
        images: images.iter().map(|image| (image.name.clone(), image.id.clone())).collect(),
    }
}

/// The engine's images, looked at from time to time in a task of their own: the engine may
/// take longer than a heartbeat should.
fn follow_images(core: &Arc<Core>, interval: Duration) -> watch::Receiver<Vec<LocalImage>> {
    let (known, images) = watch::channel(Vec::new());
    let core = Arc::clone(core);
    let lifecycle = core.lifecycle.clone();
    lifecycle.clone().spawn("images", async move {
        loop {
            let looked = tokio::select! {
                looked = core.backend.images() => looked,
                () = lifecycle.stopping() => return,
            };
            match looked {
                Ok(images) => {
                    known.send_if_modified(|known| {
                        let is_new = *known != images;
                        *known = images;
                        is_new
                    });
                }
                Err(error) => tracing::debug!("list images: {}", chain(&error)),
            }
            if !lifecycle.sleep(interval).await {
                return;
            }
        }
    });
    images
}
