//! RESTARTING → (the agents report) RUNNING: has agents make the containers of kernels anew.
//!
//! Each restart of a kernel has a name, the moment at which the kernel became RESTARTING: an
//! agent that is told twice restarts once, and the report of an earlier restart is not
//! taken for that of a later one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backendai_datastore::kernel::{AgentAddr, LocatedKernel};
use backendai_datastore::start::{StartingKernel, StartingSession};
use backendai_rpc::agent_api::{CreateKernels, RestartKernel, RestartKernels};
use backendai_rpc::call::CallError;
use backendai_rpc::manager_api::KernelPhase;
use backendai_types::{KernelId, KernelStatus, SessionId};
use tokio::time::Instant;

use super::calls::{About, Calls};
use super::start_sessions::spec;
use super::{Task, TaskError};
use crate::app::SharedApp;
use crate::events::AgentEvents;
use crate::wake;

const NAME: &str = "restart_sessions";

pub(super) struct RestartSessions {
    app: SharedApp,
    events: Arc<AgentEvents>,
    calls: Calls,
    /// The restart that each kernel's agent was told of last.
    told: HashMap<KernelId, i64>,
    interval: Duration,
}

impl RestartSessions {
    pub fn new(app: SharedApp, events: Arc<AgentEvents>) -> Self {
        let interval = Duration::from_secs_f64(app.config.tunables.task_interval_s);
        Self { app, events, calls: Calls::default(), told: HashMap::new(), interval }
    }

    /// True when the kernel's agent can be told, and has not been or does not seem to know.
    fn is_due(&mut self, kernel: &LocatedKernel) -> bool {
        let restart = kernel.status_changed.timestamp_micros();
        if self.told.insert(kernel.id, restart).is_some_and(|before| before != restart) {
            self.calls.renew(kernel.id);
        }
        // The deadline ends kernels of agents that do not come back.
        let reachable = kernel.agent_alive && self.events.agent_is_alive(&kernel.agent.id);
        let reported = self.events.reported(&kernel.agent.id, kernel.id);
        reachable && reported != Some(KernelPhase::Creating) && self.calls.is_due(kernel.id)
    }

    /// Calls the agents of those of a session's kernels that are to be restarted.
    async fn restart(
        &mut self,
        session: &StartingSession,
        restarts: &HashMap<KernelId, i64>,
    ) -> Result<(), TaskError> {
        let mut by_agent = BTreeMap::<_, (&AgentAddr, Vec<&StartingKernel>)>::new();
        for kernel in session.kernels.iter().filter(|kernel| restarts.contains_key(&kernel.id)) {
            if let Some(agent) = &kernel.agent {
                by_agent.entry(&agent.id).or_insert_with(|| (agent, Vec::new())).1.push(kernel);
            }
        }
        for (agent, kernels) in by_agent.into_values() {
            while self.calls.is_full() {
                note(self.calls.ended().await);
            }
            let about = About {
                agent: agent.id.clone(),
                kernels: kernels.iter().map(|kernel| (kernel.id, session.id)).collect(),
            };
            let CreateKernels { session, kernels } =
                spec::create_kernels(&self.app, session, &kernels).await?;
            let kernels = kernels
                .into_iter()
                .filter_map(|spec| {
                    let restart = *restarts.get(&spec.kernel_id)?;
                    Some(RestartKernel { restart, spec })
                })
                .collect();
            let request = RestartKernels { session, kernels };
            let client = self.app.agents.client(agent, None);
            self.calls.start(about, async move { client.restart_kernels(&request).await });
        }
        Ok(())
    }
}

#[async_trait]
impl Task for RestartSessions {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn pass(&mut self) -> Result<(), TaskError> {
        let tx = self.app.datastore.autocommit().await?;
        let kernels = tx.kernels_located(&[KernelStatus::Restarting]).await?;
        let known: HashSet<KernelId> = kernels.iter().map(|kernel| kernel.id).collect();
        self.calls.retain(|kernel| known.contains(&kernel));
        self.told.retain(|kernel, _| known.contains(kernel));

        let mut due = HashMap::<SessionId, HashMap<KernelId, i64>>::new();
        for kernel in kernels {
            if self.is_due(&kernel) {
                let restarts = due.entry(kernel.session_id).or_default();
                restarts.insert(kernel.id, kernel.status_changed.timestamp_micros());
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        let ids: Vec<SessionId> = due.keys().copied().collect();
        let sessions = tx.sessions_starting(&ids).await?;
        drop(tx);
        for session in &sessions {
            let restarts = due.remove(&session.id).unwrap_or_default();
            self.restart(session, &restarts).await?;
        }
        Ok(())
    }

    async fn wait(&mut self) {
        let next_look = Instant::now() + self.interval;
        loop {
            tokio::select! {
                () = self.app.wake.woken(wake::Task::RestartSessions) => return,
                () = tokio::time::sleep_until(next_look) => return,
                ended = self.calls.ended() => note(ended),
            }
        }
    }
}

fn note((about, result): (About, Result<(), CallError>)) {
    if let Err(error) = result {
        tracing::warn!(
            agent.id = %about.agent, kernels = about.kernels.len(), %error,
            "the agent could not be told to restart kernels; it will be told again"
        );
    }
}
