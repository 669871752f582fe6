//! Ends in-between statuses that have lasted too long: each gets an end and a reason.

use std::time::Duration;

use async_trait::async_trait;
use backendai_datastore::overdue::OverdueKernel;
use backendai_datastore::transition::{Change, FAILED_TO_START};
use backendai_types::{KernelStatus, SessionStatus};
use serde_json::json;
use tokio::time::Instant;

use super::{Task, TaskError};
use crate::app::SharedApp;

const NAME: &str = "deadlines";
/// Coarser than any deadline worth configuring.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Deadlines {
    app: SharedApp,
    /// Deadlines went on while nobody led; agents first tell what happened meanwhile.
    not_before: Instant,
}

impl Deadlines {
    pub fn new(app: SharedApp) -> Self {
        let grace = Duration::from_secs_f64(app.config.tunables.task_interval_s);
        Self { app, not_before: Instant::now() + grace }
    }
}

#[async_trait]
impl Task for Deadlines {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn pass(&mut self) -> Result<(), TaskError> {
        if Instant::now() < self.not_before {
            return Ok(());
        }
        let app = &self.app;
        let changed = app
            .datastore
            .run_tx(NAME, |tx| async move {
                let overdue = tx.kernels_overdue().await?;
                let changes: Vec<Change> = overdue.iter().filter_map(end).collect();
                tx.transition(&changes, app.by(NAME)).await
            })
            .await?;
        for (session, from, to) in &changed.sessions {
            tracing::warn!(session.id = %session, %from, %to, "the session's time was up");
        }
        app.wake_after(&changed);
        Ok(())
    }

    async fn wait(&mut self) {
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What becomes of a kernel of a session whose deadline has passed.
fn end(kernel: &OverdueKernel) -> Option<Change> {
    let (session, id) = (kernel.session_id, kernel.kernel_id);
    let timed_out = |operation: &str| json!({"src": "other", "name": "TimeoutError", "repr": format!("TimeoutError('{operation}')")});
    match kernel.session_status {
        // Nothing was begun: the scheduler may choose anew.
        SessionStatus::Scheduled => {
            Some(Change::session(session, KernelStatus::Pending, "scheduled-timeout"))
        }
        SessionStatus::Preparing | SessionStatus::Pulling => Some(
            Change::session(session, KernelStatus::Terminating, FAILED_TO_START)
                .with_data("error", timed_out("create_session")),
        ),
        SessionStatus::Restarting => Some(
            Change::kernel(session, id, KernelStatus::Error, "operation-timeout (restart_session)")
                .with_data("error", timed_out("restart_session")),
        ),
        // Its agent lives but does not say that it is gone: only force ends it now.
        SessionStatus::Terminating if kernel.agent_alive => Some(
            Change::kernel(session, id, KernelStatus::Error, "operation-timeout (destroy_session)")
                .with_data("error", timed_out("destroy_session")),
        ),
        // Should the agent come back, it is told that the kernel is not wanted.
        SessionStatus::Terminating => {
            Some(Change::kernel(session, id, KernelStatus::Terminated, "agent-lost"))
        }
        SessionStatus::Pending
        | SessionStatus::Running
        | SessionStatus::RunningDegraded
        | SessionStatus::Terminated
        | SessionStatus::Error
        | SessionStatus::Cancelled => None,
    }
}
