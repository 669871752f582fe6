//! What this manager is and does, for operators: its status, freezing, the announcement, and
//! what the scheduler may use.

use backendai_types::SessionId;

use super::session::destroy;
use super::{Error, Result, SharedApp};
use crate::context::RequestContext;
use crate::shared_config::{ANNOUNCEMENT_KEY, ManagerStatus, STATUS_KEY};
use crate::wake::Task;

/// Looks for sessions that requests under way at the freeze have still made.
const KILL_PASSES: usize = 5;

/// A manager's own view of itself.
#[derive(Clone, Debug)]
pub struct ManagerReport {
    /// This manager's id.
    pub manager_id: String,
    /// Where its API listens, as configured.
    pub service_addr: String,
    /// An agent that was silent this long is LOST; seconds.
    pub heartbeat_timeout_s: f64,
    /// What managers may do now.
    pub status: ManagerStatus,
    /// Sessions that occupy something.
    pub active_sessions: i64,
}

/// Reports on this manager.
///
/// # Errors
/// PostgreSQL or etcd is not available.
pub async fn report(app: &SharedApp) -> Result<ManagerReport> {
    let section = &app.config.manager;
    Ok(ManagerReport {
        manager_id: app.config.manager_id(),
        service_addr: section.service_addr.to_string(),
        heartbeat_timeout_s: section.heartbeat_timeout,
        status: app.shared.manager_status().await?,
        active_sessions: app.datastore.autocommit().await?.active_session_count().await?,
    })
}

/// What somebody is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Looks, or ends and uses what there is: also while FROZEN.
    Read,
    /// Makes or changes something: only while RUNNING.
    Change,
}

/// Whether the managers' status admits some work. Everything that asks for a status asks here.
///
/// # Errors
/// FROZEN or not ready; or etcd was never reached.
pub async fn admit(app: &SharedApp, work: Work) -> Result<()> {
    match (work, app.shared.manager_status().await?) {
        (_, ManagerStatus::Running) | (Work::Read, ManagerStatus::Frozen) => Ok(()),
        (Work::Change, ManagerStatus::Frozen) => Err(Error::Frozen),
        (_, ManagerStatus::Preparing | ManagerStatus::Terminated) => Err(Error::NotReady),
    }
}

/// Sets what the managers may do. With `force_kill`, ends every session by force after that,
/// so that none can be made in between.
///
/// # Errors
/// PostgreSQL or etcd is not available.
pub async fn set_status(
    app: &SharedApp,
    context: &RequestContext,
    status: ManagerStatus,
    force_kill: bool,
) -> Result<()> {
    app.etcd.put(STATUS_KEY, status.as_str()).await?;
    app.shared.invalidate();
    tracing::info!(status = status.as_str(), by = %context.access_key, "the managers' status");
    if force_kill {
        kill_all(app, context.access_key.as_str()).await?;
    }
    Ok(())
}

async fn kill_all(app: &SharedApp, actor: &str) -> Result<()> {
    let mut told = Vec::new();
    for _ in 0..KILL_PASSES {
        let unfinished: Vec<SessionId> =
            app.datastore.autocommit().await?.sessions_unfinished().await?;
        let new: Vec<_> = unfinished.into_iter().filter(|id| !told.contains(id)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for id in new {
            match destroy::kill(app, id, actor).await {
                // It has ended meanwhile.
                Ok(_) | Err(Error::NotFound { .. }) => told.push(id),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Sets or removes the announcement to users.
///
/// # Errors
/// It has no message, or etcd is not available.
pub async fn announce(app: &SharedApp, enabled: bool, message: Option<&str>) -> Result<()> {
    match (enabled, message.filter(|message| !message.is_empty())) {
        (true, Some(message)) => app.etcd.put(ANNOUNCEMENT_KEY, message).await?,
        (true, None) => {
            return Err(Error::invalid("Empty message not allowed to enable announcement"));
        }
        (false, _) => {
            app.etcd.delete(ANNOUNCEMENT_KEY).await?;
        }
    }
    app.shared.invalidate();
    Ok(())
}

/// Lets agents take new sessions, or keeps them from it. All or none.
///
/// # Errors
/// There is no such agent.
pub async fn set_schedulable(app: &SharedApp, agents: &[String], schedulable: bool) -> Result<()> {
    app.datastore
        .run_tx("agents_set_schedulable", |tx| async move {
            let found = tx.agents_set_schedulable(agents, schedulable).await?;
            match agents.iter().find(|agent| !found.contains(agent)) {
                None => Ok(()),
                Some(missing) => Err(Error::NotFound {
                    object: "agent instance",
                    message: Some(missing.clone()),
                }),
            }
        })
        .await?;
    if schedulable {
        app.wake.task(Task::ScheduleSessions);
    }
    Ok(())
}

/// A step of scheduling that an operator may have repeated at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedulerEvent {
    /// Look for room for waiting sessions.
    Schedule,
    /// Have kernels created.
    Prepare,
    /// Compare services with what they should be.
    ScaleServices,
}

/// Has the leader repeat a step now.
pub fn trigger(app: &SharedApp, event: SchedulerEvent) {
    match event {
        SchedulerEvent::Schedule => app.wake.task(Task::ScheduleSessions),
        SchedulerEvent::Prepare => app.wake.task(Task::StartSessions),
        // No task scales services: replicas are sessions, which the scheduler looks at.
        SchedulerEvent::ScaleServices => app.wake.task(Task::ScheduleSessions),
    }
}
