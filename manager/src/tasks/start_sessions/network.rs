//! The network of a session whose kernels may lie on several hosts.
//!
//! Only an engine that manages a swarm can make one, and any such will do: agents are asked
//! in turn, those of the session first. Whoever made it says so in its heartbeats, and is
//! told when the session has ended (`events/reconcile.rs`).

use std::sync::Arc;

use backendai_datastore::agent::AgentStatus;
use backendai_datastore::start::StartingSession;
use backendai_rpc::agent_api::{AgentClient, SessionNetwork};
use backendai_rpc::call::{CallError, ErrorKind};
use backendai_types::ClusterMode;
use tokio::sync::OnceCell;

use crate::app::App;
use crate::tasks::TaskError;

/// A network that must be there before any kernel of its session.
pub(super) struct Network {
    wanted: SessionNetwork,
    /// Agents that may be able to make it, the likeliest first.
    agents: Vec<AgentClient>,
    made: OnceCell<()>,
}

/// The network a session needs; `None` where its agent sees to it.
pub(super) async fn of(
    app: &App,
    session: &StartingSession,
) -> Result<Option<Arc<Network>>, TaskError> {
    if session.cluster_mode != ClusterMode::MultiNode || session.kernels.len() < 2 {
        return Ok(None);
    }
    let own: Vec<_> = session.kernels.iter().filter_map(|kernel| kernel.agent.as_ref()).collect();
    let known = app.datastore.autocommit().await?.agents_known().await?;
    let mut agents: Vec<_> = known
        .into_iter()
        .filter(|(_, status, _)| *status == AgentStatus::Alive)
        .map(|(agent, ..)| agent)
        .collect();
    agents.sort_by_key(|agent| !own.contains(&agent));
    Ok(Some(Arc::new(Network {
        wanted: SessionNetwork { session_id: session.id, mtu: app.shared.overlay_mtu().await? },
        agents: agents.iter().map(|agent| app.agents.client(agent, None)).collect(),
        made: OnceCell::new(),
    })))
}

impl Network {
    /// Has it made, once.
    ///
    /// # Errors
    /// No agent can. One that could not be asked counts for more than those that cannot: it
    /// may be able to later.
    pub(super) async fn make(&self) -> Result<(), CallError> {
        self.made.get_or_try_init(|| self.ask()).await.copied()
    }

    async fn ask(&self) -> Result<(), CallError> {
        let mut failed: Option<CallError> = None;
        for agent in &self.agents {
            match agent.create_network(&self.wanted).await {
                Ok(()) => return Ok(()),
                Err(error) if failed.as_ref().is_none_or(cannot) => failed = Some(error),
                Err(_) => {}
            }
        }
        Err(failed.unwrap_or(CallError::Closed))
    }
}

fn cannot(error: &CallError) -> bool {
    matches!(error, CallError::Remote(error) if error.kind == ErrorKind::NotSupported)
}
