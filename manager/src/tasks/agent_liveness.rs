//! Notices agents that fell silent.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Task, TaskError};
use crate::app::SharedApp;
use crate::events::AgentEvents;

/// Finer than the shortest timeout an operator can configure (1 s).
const INTERVAL: Duration = Duration::from_millis(500);

pub(super) struct AgentLiveness {
    events: Arc<AgentEvents>,
    timeout: Duration,
}

impl AgentLiveness {
    pub fn new(app: &SharedApp, events: Arc<AgentEvents>) -> Self {
        let timeout = Duration::from_secs_f64(app.config.manager.heartbeat_timeout);
        Self { events, timeout }
    }
}

#[async_trait]
impl Task for AgentLiveness {
    fn name(&self) -> &'static str {
        "agent_liveness"
    }

    async fn pass(&mut self) -> Result<(), TaskError> {
        Ok(self.events.check_liveness(self.timeout).await?)
    }

    async fn wait(&mut self) {
        tokio::time::sleep(INTERVAL).await;
    }
}
