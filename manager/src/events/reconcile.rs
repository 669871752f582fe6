//! Compares the kernels an agent lists with those the database has there.
//!
//! | database | agent | then |
//! |---|---|---|
//! | ended, or unknown | has it | destroy it |
//! | RUNNING, TERMINATING… | does not list it | TERMINATED `already-terminated` |
//! | SCHEDULED, PREPARING, PULLING | does not list it | `start_sessions` sends it again |
//!
//! A network over several hosts is removed when its session has ended.
//!
//! A list and the database never show the same instant, so a kernel is given up only when
//! it is missing several times in a row, and destroying one that is gone already is harmless.

use backendai_datastore::transition::Change;
use backendai_rpc::agent_api::{DestroyKernels, SessionNetworks};
use backendai_rpc::manager_api::{KernelPhase, KernelReport};
use backendai_types::{AgentId, KernelId, KernelStatus, SessionId};

use super::AgentEvents;
use crate::app::Result;
use crate::wake::Task;

/// Heartbeats a kernel must be missing in before it is given up.
const PATIENCE: u32 = 3;
/// Statuses of kernels that their agent need not have yet.
const BEING_MADE: &[KernelStatus] =
    &[KernelStatus::Scheduled, KernelStatus::Preparing, KernelStatus::Pulling];

/// Compares one agent's list with the database and acts on the differences.
///
/// # Errors
/// PostgreSQL failed.
pub async fn agent(events: &AgentEvents, agent: &AgentId, listed: &[KernelReport]) -> Result<()> {
    let app = &events.app;
    let tx = app.datastore.autocommit().await?;
    let stored = tx.agent_kernels(agent).await?;
    let live: Vec<&KernelReport> =
        listed.iter().filter(|report| report.phase != KernelPhase::Gone).collect();
    let strangers: Vec<(KernelId, SessionId)> = live
        .iter()
        .filter(|report| report.phase != KernelPhase::Destroying)
        .filter(|report| !stored.iter().any(|(id, ..)| *id == report.kernel_id))
        .map(|report| (report.kernel_id, report.session_id))
        .collect();
    let addr = if strangers.is_empty() { None } else { tx.agent_addr(agent).await? };
    drop(tx);

    if let Some(addr) = addr {
        tracing::info!(agent.id = %agent, kernels = ?strangers, "destroying kernels that should not exist");
        let request =
            DestroyKernels { kernels: strangers, reason: "terminated-unknown-container".into() };
        if let Err(error) = app.agents.client(&addr, None).destroy_kernels(&request).await {
            // The next comparison finds them again.
            tracing::warn!(agent.id = %agent, %error, "unknown kernels could not be destroyed");
        }
    }

    let (being_made, missing): (Vec<_>, Vec<_>) = stored
        .into_iter()
        .filter(|(id, ..)| !listed.iter().any(|report| report.kernel_id == *id))
        .partition(|(.., status)| BEING_MADE.contains(status));
    if !being_made.is_empty() {
        app.wake.task(Task::StartSessions);
    }
    // Only from when it ran: an agent that has not begun yet lists nothing, and its first
    // list after the start may be older than the start.
    let gone = events.registry.count_missing(agent, missing.iter().map(|(id, ..)| *id), PATIENCE);
    let mut changes = Vec::new();
    for (kernel, session, _) in missing.into_iter().filter(|(id, ..)| gone.contains(id)) {
        tracing::warn!(agent.id = %agent, kernel.id = %kernel, session.id = %session, "the kernel is gone");
        changes.push(
            Change::kernel(session, kernel, KernelStatus::Terminated, "already-terminated")
                .only_from(&[
                    KernelStatus::Running,
                    KernelStatus::Restarting,
                    KernelStatus::Terminating,
                    KernelStatus::Error,
                ]),
        );
    }
    if changes.is_empty() {
        return Ok(());
    }
    let actor = format!("agent:{agent}");
    let (changes, actor) = (&changes, actor.as_str());
    let changed = app
        .datastore
        .run_tx("agent_reconcile", |tx| async move { tx.transition(changes, app.by(actor)).await })
        .await?;
    app.wake_after(&changed);
    Ok(())
}

/// Has an agent remove the networks it made for sessions that have ended.
///
/// # Errors
/// PostgreSQL failed.
pub async fn networks(events: &AgentEvents, agent: &AgentId, made: &[SessionId]) -> Result<()> {
    if made.is_empty() {
        return Ok(());
    }
    let app = &events.app;
    let tx = app.datastore.autocommit().await?;
    let live = tx.sessions_not_ended(made).await?;
    let sessions: Vec<SessionId> = made.iter().filter(|id| !live.contains(id)).copied().collect();
    if sessions.is_empty() {
        return Ok(());
    }
    let Some(addr) = tx.agent_addr(agent).await? else { return Ok(()) };
    drop(tx);
    let client = app.agents.client(&addr, None);
    if let Err(error) = client.remove_networks(&SessionNetworks { sessions }).await {
        // The next comparison finds them again.
        tracing::warn!(agent.id = %agent, %error, "networks of ended sessions are still there");
    }
    Ok(())
}
