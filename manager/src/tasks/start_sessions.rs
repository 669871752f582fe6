//! SCHEDULED → PREPARING → (the agents report) RUNNING: has agents create kernels.
//!
//! What the agents make of it they report as events. A kernel whose agent should be about
//! it but does not say so is asked for again: after a change of leader, a restart of the
//! agent, or a lost call or event.

mod network;
pub(super) mod spec;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backendai_datastore::kernel::AgentAddr;
use backendai_datastore::start::{StartingKernel, StartingSession};
use backendai_datastore::transition::{Change, Changed, FAILED_TO_START};
use backendai_rpc::call::{CallError, ErrorKind, RemoteError};
use backendai_rpc::manager_api::KernelPhase;
use backendai_types::{KernelId, KernelStatus, SessionId, SessionStatus};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::calls::{About, Calls};
use super::{Task, TaskError};
use crate::app::SharedApp;
use crate::events::AgentEvents;
use crate::wake;

const NAME: &str = "start_sessions";
/// Sessions made PREPARING in one transaction.
const BATCH: i64 = 500;
/// Statuses of kernels whose agent should be about them.
const BEING_CREATED: &[KernelStatus] = &[KernelStatus::Preparing, KernelStatus::Pulling];

pub(super) struct StartSessions {
    app: SharedApp,
    events: Arc<AgentEvents>,
    calls: Calls,
    interval: Duration,
    /// When to look next for kernels that must be asked for again.
    next_look: Instant,
    /// Agents that refused kernels: to be written down.
    refused: Vec<(About, RemoteError)>,
}

impl StartSessions {
    pub fn new(app: SharedApp, events: Arc<AgentEvents>) -> Self {
        let interval = Duration::from_secs_f64(app.config.tunables.task_interval_s);
        Self {
            app,
            events,
            calls: Calls::default(),
            interval,
            next_look: Instant::now(),
            refused: Vec::new(),
        }
    }

    /// Makes what is SCHEDULED PREPARING, and calls the agents. True if there is more.
    async fn start_scheduled(&mut self) -> Result<bool, TaskError> {
        let app = &self.app;
        let (starting, changed) = app
            .datastore
            .run_tx(NAME, |tx| async move {
                let ids = tx.sessions_scheduled(BATCH).await?;
                if ids.is_empty() {
                    return Ok::<_, TaskError>((Vec::new(), Changed::default()));
                }
                let sessions = tx.sessions_starting(&ids).await?;
                let changes: Vec<Change> = sessions.iter().map(next_status).collect();
                let changed = tx.transition(&changes, app.by(NAME)).await?;
                Ok((sessions, changed))
            })
            .await?;
        app.wake_after(&changed);
        let preparing: HashSet<SessionId> = changed
            .sessions
            .iter()
            .filter(|(.., to)| *to == SessionStatus::Preparing)
            .map(|(id, ..)| *id)
            .collect();
        let more = i64::try_from(starting.len()).is_ok_and(|count| count >= BATCH);
        for session in starting.iter().filter(|session| preparing.contains(&session.id)) {
            self.create(session, |_| true).await?;
        }
        Ok(more)
    }

    /// Calls the agents of a session's kernels, those that are `wanted`.
    async fn create(
        &mut self,
        session: &StartingSession,
        wanted: impl Fn(KernelId) -> bool,
    ) -> Result<(), TaskError> {
        let network = network::of(&self.app, session).await?;
        let mut by_agent = BTreeMap::<_, (&AgentAddr, Vec<&StartingKernel>)>::new();
        for kernel in session.kernels.iter().filter(|kernel| wanted(kernel.id)) {
            if let Some(agent) = &kernel.agent {
                by_agent.entry(&agent.id).or_insert_with(|| (agent, Vec::new())).1.push(kernel);
            }
        }
        for (agent, kernels) in by_agent.into_values() {
            while self.calls.is_full() {
                let ended = self.calls.ended().await;
                self.note(ended);
            }
            let request = spec::create_kernels(&self.app, session, &kernels).await?;
            let about = About {
                agent: agent.id.clone(),
                kernels: kernels.iter().map(|kernel| (kernel.id, session.id)).collect(),
            };
            let client = self.app.agents.client(agent, None);
            let network = network.clone();
            self.calls.start(about, async move {
                if let Some(network) = network {
                    network.make().await?;
                }
                client.create_kernels(&request).await
            });
        }
        Ok(())
    }

    fn note(&mut self, (about, result): (About, Result<(), CallError>)) {
        let error = match result {
            Ok(()) => return,
            Err(error) => error,
        };
        let kernels = about.kernels.len();
        match error {
            // A newer leader has taken over; this one is about to notice.
            CallError::Remote(error) if is_final(&error) => {
                tracing::warn!(agent.id = %about.agent, kernels, %error, "the agent refuses kernels");
                self.refused.push((about, error));
            }
            error => tracing::warn!(
                agent.id = %about.agent, kernels, %error,
                "the agent could not be told to create kernels; it will be told again"
            ),
        }
    }

    /// Gives up sessions whose kernels an agent has refused.
    async fn give_up_refused(&mut self) -> Result<(), TaskError> {
        if self.refused.is_empty() {
            return Ok(());
        }
        let changes: Vec<Change> = self
            .refused
            .iter()
            .flat_map(|(about, error)| {
                let details = json!({
                    "src": "agent",
                    "agent_id": about.agent,
                    "name": error.kind.to_string(),
                    "repr": format!("{}({:?})", error.kind, error.message),
                });
                about.kernels.iter().map(move |(kernel, session)| Change {
                    with_siblings: true,
                    only_from: BEING_CREATED,
                    ..Change::kernel(*session, *kernel, KernelStatus::Cancelled, FAILED_TO_START)
                        .with_data("error", details.clone())
                })
            })
            .collect();
        let (app, changes) = (&self.app, &changes);
        let changed = app
            .datastore
            .run_tx(NAME, |tx| async move { tx.transition(changes, app.by(NAME)).await })
            .await?;
        app.wake_after(&changed);
        self.refused.clear();
        Ok(())
    }

    /// Asks again for kernels that should be on their way but are not reported to be.
    async fn ask_again(&mut self) -> Result<(), TaskError> {
        let tx = self.app.datastore.autocommit().await?;
        let kernels = tx.kernels_located(BEING_CREATED).await?;
        let known: HashSet<KernelId> = kernels.iter().map(|kernel| kernel.id).collect();
        self.calls.retain(|kernel| known.contains(&kernel));
        let mut due = HashMap::<SessionId, HashSet<KernelId>>::new();
        for kernel in kernels {
            let reported = self.events.reported(&kernel.agent.id, kernel.id);
            let on_its_way = reported == Some(KernelPhase::Creating);
            let reachable = kernel.agent_alive && self.events.agent_is_alive(&kernel.agent.id);
            if reachable && !on_its_way && self.calls.is_due(kernel.id) {
                due.entry(kernel.session_id).or_default().insert(kernel.id);
            }
        }
        let ids: Vec<SessionId> = due.keys().copied().collect();
        let sessions = if ids.is_empty() { Vec::new() } else { tx.sessions_starting(&ids).await? };
        drop(tx);
        for session in &sessions {
            let kernels = due.remove(&session.id).unwrap_or_default();
            self.create(session, |kernel| kernels.contains(&kernel)).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Task for StartSessions {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn pass(&mut self) -> Result<(), TaskError> {
        self.give_up_refused().await?;
        while self.start_scheduled().await? {}
        if Instant::now() >= self.next_look {
            self.ask_again().await?;
            self.next_look = Instant::now() + self.interval;
        }
        Ok(())
    }

    async fn wait(&mut self) {
        loop {
            tokio::select! {
                () = self.app.wake.woken(wake::Task::StartSessions) => return,
                () = tokio::time::sleep_until(self.next_look) => return,
                ended = self.calls.ended() => {
                    self.note(ended);
                    if !self.refused.is_empty() {
                        return;
                    }
                }
            }
        }
    }
}

/// PREPARING; or back to the queue when an agent has gone since; or given up when there is
/// no image any more.
fn next_status(session: &StartingSession) -> Change {
    if session.image.is_none() {
        let error: Value = json!({
            "src": "other",
            "name": "ImageNotFound",
            "repr": "ImageNotFound('the image has been deleted')",
        });
        return Change::session(session.id, KernelStatus::Cancelled, FAILED_TO_START)
            .with_data("error", error);
    }
    if session.kernels.iter().all(|kernel| kernel.agent_alive) {
        Change::session(session.id, KernelStatus::Preparing, "")
    } else {
        Change::session(session.id, KernelStatus::Pending, "agent-lost")
    }
}

/// True when calling again would give the same answer.
fn is_final(error: &RemoteError) -> bool {
    !matches!(
        error.kind,
        ErrorKind::StaleEpoch | ErrorKind::EngineUnavailable | ErrorKind::UnknownMethod
    )
}
