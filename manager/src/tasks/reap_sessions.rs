//! TERMINATING → (the agents report) TERMINATED: tells agents which kernels to remove.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backendai_datastore::kernel::{AgentAddr, LocatedKernel};
use backendai_rpc::agent_api::DestroyKernels;
use backendai_types::{KernelId, KernelStatus};
use chrono::{DateTime, Utc};

use super::calls::{About, Calls};
use super::{Task, TaskError};
use crate::app::SharedApp;
use crate::events::AgentEvents;
use crate::wake;

const NAME: &str = "reap_sessions";

pub(super) struct ReapSessions {
    app: SharedApp,
    events: Arc<AgentEvents>,
    calls: Calls,
    /// Since when each kernel is TERMINATING: when that changes, somebody wants it anew.
    since: HashMap<KernelId, DateTime<Utc>>,
    interval: Duration,
}

impl ReapSessions {
    pub fn new(app: SharedApp, events: Arc<AgentEvents>) -> Self {
        let interval = Duration::from_secs_f64(app.config.tunables.task_interval_s);
        Self { app, events, calls: Calls::default(), since: HashMap::new(), interval }
    }

    fn destroy(&mut self, agent: AgentAddr, reason: String, kernels: Vec<LocatedKernel>) {
        let kernels: Vec<_> = kernels.iter().map(|k| (k.id, k.session_id)).collect();
        let about = About { agent: agent.id.clone(), kernels: kernels.clone() };
        let client = self.app.agents.client(&agent, None);
        let request = DestroyKernels { kernels, reason };
        self.calls.start(about, async move { client.destroy_kernels(&request).await });
    }
}

#[async_trait]
impl Task for ReapSessions {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn pass(&mut self) -> Result<(), TaskError> {
        let tx = self.app.datastore.autocommit().await?;
        let kernels = tx.kernels_located(&[KernelStatus::Terminating]).await?;
        drop(tx);
        let since: HashMap<KernelId, DateTime<Utc>> =
            kernels.iter().map(|kernel| (kernel.id, kernel.status_changed)).collect();
        for (kernel, at) in &since {
            if self.since.get(kernel).is_some_and(|before| before != at) {
                self.calls.renew(*kernel);
            }
        }
        self.calls.retain(|kernel| since.contains_key(&kernel));
        self.since = since;

        // One call per agent and reason.
        let mut wanted = BTreeMap::<_, (AgentAddr, Vec<LocatedKernel>)>::new();
        for kernel in kernels {
            // The deadline ends kernels of agents that do not come back.
            let reachable = kernel.agent_alive && self.events.agent_is_alive(&kernel.agent.id);
            if !reachable || !self.calls.is_due(kernel.id) {
                continue;
            }
            let reason = kernel.status_info.clone().unwrap_or_default();
            let key = (kernel.agent.id.clone(), reason);
            let entry = wanted.entry(key).or_insert_with(|| (kernel.agent.clone(), Vec::new()));
            entry.1.push(kernel);
        }
        for ((_, reason), (agent, kernels)) in wanted {
            while self.calls.is_full() {
                note(self.calls.ended().await);
            }
            self.destroy(agent, reason, kernels);
        }
        Ok(())
    }

    async fn wait(&mut self) {
        let (app, calls) = (&self.app, &mut self.calls);
        let due = tokio::time::sleep(self.interval);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = app.wake.woken(wake::Task::ReapSessions) => return,
                () = &mut due => return,
                ended = calls.ended() => note(ended),
            }
        }
    }
}

fn note((about, result): (About, Result<(), backendai_rpc::call::CallError>)) {
    if let Err(error) = result {
        tracing::warn!(
            agent.id = %about.agent, kernels = about.kernels.len(), %error,
            "the agent could not be told to remove kernels; it will be told again"
        );
    }
}
