//! Receives heartbeats. In the normal case this touches memory only.

use backendai_datastore::DatastoreError;
use backendai_datastore::agent::{AgentProfile, AgentStatus};
use backendai_datastore::kernel::AgentAddr;
use backendai_rpc::call::{ErrorKind, RemoteError};
use backendai_rpc::manager_api::{AgentInfo, Heartbeat, HeartbeatReply};
use backendai_types::AgentId;

use super::{AgentEvents, reconcile, unavailable};
use crate::app::SharedApp;
use crate::shared_config::SLOT_TYPES_PREFIX;
use crate::wake::Task;

pub(super) async fn receive(
    events: &AgentEvents,
    epoch: u64,
    heartbeat: Heartbeat,
) -> Result<HeartbeatReply, RemoteError> {
    crate::metrics::heartbeat();
    let agent = &heartbeat.agent_id;
    let heard = events.registry.hear(
        agent,
        heartbeat.incarnation,
        heartbeat.info.as_ref(),
        &heartbeat.kernels,
    );
    if heard.is_stranger {
        return Ok(HeartbeatReply { send_info: true, epoch });
    }
    if heard.is_news
        && let Some(info) = &heartbeat.info
    {
        store(&events.app, agent, heartbeat.incarnation, info).await?;
        events.registry.know(agent, heartbeat.incarnation, info.clone());
    } else if heard.is_back {
        let back = async {
            let tx = events.app.datastore.autocommit().await?;
            tx.agents_set_status(std::slice::from_ref(agent), AgentStatus::Alive).await
        };
        back.await.map_err(|error| unavailable("note that an agent is back", &error))?;
        events.registry.revive(agent);
        tracing::info!(agent.id = %agent, "the agent is back");
        wake_all(&events.app);
    }
    if heard.should_reconcile {
        reconcile::agent(events, agent, &heartbeat.kernels)
            .await
            .map_err(|error| unavailable("compare an agent's kernels", &error))?;
        reconcile::networks(events, agent, &heartbeat.networks)
            .await
            .map_err(|error| unavailable("compare an agent's networks", &error))?;
    }
    Ok(HeartbeatReply { send_info: false, epoch })
}

async fn store(
    app: &SharedApp,
    agent: &AgentId,
    incarnation: u64,
    info: &AgentInfo,
) -> Result<(), RemoteError> {
    let profile = AgentProfile {
        addr: AgentAddr {
            id: agent.clone(),
            addr: info.addr.clone(),
            public_key: info.public_key.clone(),
        },
        incarnation,
        region: info.region.clone(),
        scaling_group: info.scaling_group.clone(),
        available_slots: info
            .slots
            .iter()
            .map(|(slot, (_, amount))| (slot.clone(), *amount))
            .collect(),
        public_host: info.public_host.clone(),
        version: info.version.clone(),
        architecture: info.architecture.clone(),
        compute_plugins: serde_json::to_value(&info.compute_plugins)
            .map_err(|error| RemoteError::new(ErrorKind::InvalidInput, error.to_string()))?,
        images: info.images.iter().map(|(name, _)| name.clone()).collect(),
    };
    let stored = async {
        let tx = app.datastore.autocommit().await?;
        tx.agent_upsert(&profile).await
    };
    let revived = stored.await.map_err(|error| match error {
        DatastoreError::Reference { .. } => {
            let text = format!(
                "agent {agent} wants to join scaling group {:?}, which does not exist: create it, \
                 or set agent.scaling-group in agent.toml",
                info.scaling_group
            );
            tracing::warn!("{text}");
            RemoteError::new(ErrorKind::InvalidInput, text)
        }
        other => unavailable("store an agent", &other),
    })?;
    for (slot, (kind, _)) in &info.slots {
        let known = app.shared.slot_types().await;
        if known.is_ok_and(|types| types.get(slot) != Some(kind)) {
            let key = format!("{SLOT_TYPES_PREFIX}/{slot}");
            app.etcd
                .put(&key, kind.as_str())
                .await
                .map_err(|error| unavailable("note a slot type", &error))?;
            app.shared.invalidate();
        }
    }
    if revived {
        tracing::info!(agent.id = %agent, slots = ?profile.available_slots.humanize(), "the agent is ALIVE");
    }
    wake_all(app);
    Ok(())
}

/// There may be room for sessions, and kernels to create and destroy that had to wait.
fn wake_all(app: &SharedApp) {
    app.wake.task(Task::ScheduleSessions);
    app.wake.task(Task::StartSessions);
    app.wake.task(Task::ReapSessions);
}
