//! What Prometheus sees of an agent. Names and labels are listed in `docs/metrics.md`.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, gauge, histogram};
use async_trait::async_trait;

use backendai_rpc::manager_api::KernelPhase;
use backendai_service::metrics::Gauges;

use crate::core::Core;

/// A kernel that was made.
pub fn created(took: Duration) {
    histogram!("backendai_agent_kernel_creation_seconds").record(took);
}

/// A kernel that could not be made.
pub fn failed() {
    counter!("backendai_agent_kernel_failures_total").increment(1);
}

/// Counts a stream into a kernel as long as the value lives.
pub struct OpenStream(());

impl OpenStream {
    /// Counts one more.
    pub fn count() -> Self {
        gauge!("backendai_agent_streams").increment(1.0);
        Self(())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        gauge!("backendai_agent_streams").decrement(1.0);
    }
}

/// What is counted when somebody asks: kernels, and the load of the node.
pub struct LiveGauges(pub Arc<Core>);

#[async_trait]
impl Gauges for LiveGauges {
    async fn refresh(&self) {
        let phases = [
            (KernelPhase::Creating, "creating"),
            (KernelPhase::Running, "running"),
            (KernelPhase::Destroying, "destroying"),
            (KernelPhase::Gone, "gone"),
        ];
        let kernels = self.0.registry.reports();
        for (phase, name) in phases {
            let count = kernels.iter().filter(|kernel| kernel.phase == phase).count();
            gauge!("backendai_agent_kernels", "phase" => name).set(count as f64);
        }
        gauge!("backendai_agent_events_waiting").set(self.0.events.len() as f64);
        for (name, metric) in self.0.statistics.last_node() {
            gauge!("backendai_agent_node", "metric" => name.clone()).set(metric.current);
            if let Some(capacity) = metric.capacity {
                gauge!("backendai_agent_node_capacity", "metric" => name).set(capacity);
            }
        }
    }
}
