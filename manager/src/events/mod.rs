//! What agents report: heartbeats, and what happened to kernels.
//!
//! Only the leader listens; others refuse, and the agent looks for the leader again. An
//! event is acknowledged after it is committed, so that an agent repeats what was lost, and
//! repeating does no harm. Heartbeats list the kernels an agent holds: [`reconcile`] mends
//! what the events did not tell.

mod heartbeat;
pub mod reconcile;
mod registry;
mod report;

use std::time::Duration;

use async_trait::async_trait;

use backendai_datastore::agent::AgentStatus;
use backendai_rpc::call::{CallContext, ErrorKind, RemoteError};
use backendai_rpc::manager_api::{
    Heartbeat, HeartbeatReply, KernelPhase, Leave, ManagerApi, Report, StoreKernelLog,
};
use backendai_rpc::statistics::Statistics;
use backendai_service::telemetry::chain;
use backendai_types::{AgentId, KernelId};

use self::registry::Registry;
use crate::app::SharedApp;
use crate::leader::Leadership;
use crate::wake::Task;

/// The longest kernel log kept; agents are told to send less.
const MAX_LOG: usize = 16 << 20;

/// Receives what agents report, and remembers when each was heard.
pub struct AgentEvents {
    app: SharedApp,
    leadership: Leadership,
    registry: Registry,
    intake: report::Intake,
}

impl AgentEvents {
    /// Nothing heard yet.
    pub fn new(app: SharedApp, leadership: Leadership) -> Self {
        Self { app, leadership, registry: Registry::default(), intake: report::Intake::new() }
    }

    /// How far an agent said a kernel is in its last heartbeat; `None` if no live agent
    /// lists the kernel.
    pub fn reported(&self, agent: &AgentId, kernel: KernelId) -> Option<KernelPhase> {
        self.registry.reported(agent, kernel)
    }

    /// True when the agent was heard in this manager's time as leader and is not lost.
    pub fn agent_is_alive(&self, agent: &AgentId) -> bool {
        self.registry.is_alive(agent)
    }

    /// Marks agents LOST that were silent for longer than `timeout`, or that have not been
    /// heard at all since this manager leads.
    ///
    /// # Errors
    /// PostgreSQL failed; the agents are looked at again the next time.
    pub async fn check_liveness(&self, timeout: Duration) -> crate::app::Result<()> {
        let Some(epoch) = self.leadership.epoch() else { return Ok(()) };
        if self.registry.begin_epoch(epoch) {
            // A new leader has heard nobody yet: those the database calls ALIVE get the
            // same time to be heard as those it knows.
            let tx = self.app.datastore.autocommit().await?;
            let known = tx.agents_known().await?;
            self.registry.expect(
                known
                    .into_iter()
                    .filter(|(_, status, _)| *status == AgentStatus::Alive)
                    .map(|(addr, ..)| addr.id),
            );
            return Ok(());
        }
        let silent = self.registry.silent(timeout);
        if silent.is_empty() {
            return Ok(());
        }
        let tx = self.app.datastore.autocommit().await?;
        for agent in tx.agents_set_status(&silent, AgentStatus::Lost).await? {
            tracing::warn!(agent.id = %agent, "the agent fell silent and is LOST");
            self.app.agents.forget(&agent);
        }
        self.registry.lose(&silent);
        Ok(())
    }

    /// The epoch, or the refusal of one who does not lead.
    fn leading(&self) -> Result<u64, RemoteError> {
        self.leadership.epoch().ok_or_else(|| {
            RemoteError::new(ErrorKind::StaleEpoch, "this manager does not lead (any more)")
        })
    }
}

/// An agent may only speak for itself.
fn check_peer(context: &CallContext, agent: &AgentId) -> Result<(), RemoteError> {
    match &context.peer {
        Some(peer) if peer != agent.as_str() => Err(RemoteError::new(
            ErrorKind::InvalidInput,
            format!("the key of {peer} was used in the name of {agent}"),
        )),
        _ => Ok(()),
    }
}

/// A failure of ours, as the agent may see it: it tries again.
fn unavailable(what: &str, error: &(dyn std::error::Error + 'static)) -> RemoteError {
    let text = format!("{what}: {}", chain(error));
    tracing::warn!("{text}");
    RemoteError::new(ErrorKind::EngineUnavailable, text)
}

#[async_trait]
impl ManagerApi for AgentEvents {
    async fn heartbeat(
        &self,
        context: CallContext,
        request: Heartbeat,
    ) -> Result<HeartbeatReply, RemoteError> {
        check_peer(&context, &request.agent_id)?;
        let epoch = self.leading()?;
        heartbeat::receive(self, epoch, request).await
    }

    async fn report(&self, context: CallContext, request: Report) -> Result<(), RemoteError> {
        check_peer(&context, &request.agent_id)?;
        self.leading()?;
        self.intake.receive(&self.app, request).await
    }

    async fn statistics(
        &self,
        context: CallContext,
        request: Statistics,
    ) -> Result<(), RemoteError> {
        check_peer(&context, &request.agent_id)?;
        self.leading()?;
        crate::app::statistics::store(&self.app.redis, &request).await;
        Ok(())
    }

    async fn store_kernel_log(
        &self,
        _context: CallContext,
        request: StoreKernelLog,
    ) -> Result<(), RemoteError> {
        self.leading()?;
        let from = request.bytes.len().saturating_sub(MAX_LOG);
        let stored = async {
            let tx = self.app.datastore.autocommit().await?;
            tx.kernel_log_store(request.kernel_id, &request.bytes[from..]).await
        };
        match stored.await {
            Ok(true) => Ok(()),
            Ok(false) => {
                tracing::debug!(kernel.id = %request.kernel_id, "a log of an unknown kernel");
                Ok(())
            }
            Err(error) => Err(unavailable("keep a kernel's log", &error)),
        }
    }

    async fn leave(&self, context: CallContext, request: Leave) -> Result<(), RemoteError> {
        check_peer(&context, &request.agent_id)?;
        self.leading()?;
        let status = match request.reason.as_str() {
            "agent-restart" => AgentStatus::Restarting,
            _ => AgentStatus::Terminated,
        };
        let agent = request.agent_id;
        let left = async {
            let tx = self.app.datastore.autocommit().await?;
            tx.agents_set_status(std::slice::from_ref(&agent), status).await
        };
        left.await.map_err(|error| unavailable("note an agent's good-bye", &error))?;
        self.registry.forget(&agent);
        self.app.agents.forget(&agent);
        tracing::info!(agent.id = %agent, reason = request.reason, "the agent left");
        self.app.wake.task(Task::ScheduleSessions);
        Ok(())
    }
}
