//! What Prometheus sees of a manager. Names and labels are listed in `docs/metrics.md`.

use std::time::Duration;

use ::metrics::{counter, gauge, histogram};
use async_trait::async_trait;
use backendai_datastore::DatastoreError;
use backendai_rpc::call::CallError;
use backendai_rpc::manager_api::KernelChange;
use backendai_service::metrics::Gauges;
use backendai_service::telemetry::chain;

use crate::app::SharedApp;

/// A request that was answered. Requests for no route count as one of them.
pub fn request(method: &str, route: Option<&'static str>, status: u16, took: Duration) {
    // A method of the caller's invention must not become a series.
    let method = if route.is_some() { method.to_owned() } else { "other".to_owned() };
    let route = route.unwrap_or("none");
    let status = status.to_string();
    counter!("backendai_api_requests_total", "method" => method, "route" => route, "status" => status)
        .increment(1);
    histogram!("backendai_api_request_seconds", "route" => route).record(took);
}

/// One pass of a task.
pub fn pass(task: &'static str, succeeded: bool, took: Duration) {
    histogram!("backendai_task_pass_seconds", "task" => task).record(took);
    if !succeeded {
        counter!("backendai_task_failures_total", "task" => task).increment(1);
    }
}

/// One call to an agent.
pub fn agent_call<T>(method: &'static str, result: &Result<T, CallError>, took: Duration) {
    let outcome = match result {
        Ok(_) => "ok",
        Err(CallError::Remote(_)) => "refused",
        Err(CallError::Timeout { .. }) => "timeout",
        Err(CallError::Closed) => "closed",
        Err(CallError::Malformed(_)) => "malformed",
    };
    counter!("backendai_agent_calls_total", "method" => method, "outcome" => outcome).increment(1);
    histogram!("backendai_agent_call_seconds", "method" => method).record(took);
}

/// A sign of life of an agent.
pub fn heartbeat() {
    counter!("backendai_agent_heartbeats_total").increment(1);
}

/// Something that an agent reported.
pub fn event(change: &KernelChange) {
    let name = match change {
        KernelChange::Pulling { .. } => "pulling",
        KernelChange::Creating => "creating",
        KernelChange::Started(_) => "started",
        KernelChange::Failed(_) => "failed",
        KernelChange::BatchFinished { .. } => "batch_finished",
        KernelChange::Restarted { .. } => "restarted",
        KernelChange::Terminated { .. } => "terminated",
    };
    counter!("backendai_agent_events_total", "change" => name).increment(1);
}

/// What is counted when somebody asks: live sessions, agents, and connections to PostgreSQL.
pub struct LiveGauges(pub SharedApp);

#[async_trait]
impl Gauges for LiveGauges {
    async fn refresh(&self) {
        let pool = self.0.datastore.pool_use();
        for (state, count) in [("open", pool.open), ("free", pool.free), ("most", pool.most)] {
            gauge!("backendai_db_connections", "state" => state).set(count as f64);
        }
        gauge!("backendai_db_waiting").set(pool.waiting as f64);
        if let Err(error) = self.count_rows().await {
            tracing::debug!("metrics: {}", chain(&error));
        }
    }
}

impl LiveGauges {
    async fn count_rows(&self) -> Result<(), DatastoreError> {
        let db = self.0.datastore.autocommit().await?;
        for (status, count) in db.live_session_counts().await? {
            gauge!("backendai_sessions", "status" => status.as_str()).set(count as f64);
        }
        for (status, count) in db.agent_counts().await? {
            gauge!("backendai_agents", "status" => status.as_str()).set(count as f64);
        }
        Ok(())
    }
}
