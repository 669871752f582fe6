//! How busy the node and its kernels are.
//!
//! ```text
//! cgroup files, /proc  ──sample──▶  history  ──metrics──▶  the leading manager  ──▶  Redis
//! (seam: ContainerBackend)         (pure)                 every few seconds
//! ```
//! Agents do not speak to Redis. They have a channel to the leading manager, which is
//! encrypted and follows the leader by itself; ten thousand agents with connections and the
//! password of a store of their own would be one more thing to set up, to guard and to lose.
//! The manager hands on what it is told without unpacking it ([`backendai_rpc::statistics`]).
//!
//! A call of its own carries them, not the heartbeat: an agent with many kernels has much
//! to tell, and whether it lives must not hang on that. Figures are never repeated nor
//! queued; the next ones follow. A kernel's last ones travel with the news of its end,
//! which is never lost.

mod cgroup;
mod collect;
mod container;
pub mod host;
mod kernel;
mod net;
mod node;
mod sample;
mod scratch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use backendai_rpc::statistics::{Metrics, NodeMetrics};
use backendai_types::KernelId;

use self::kernel::KernelHistory;
use self::node::NodeHistory;

pub use collect::collect;
pub use container::HostMeter;
pub use sample::{ContainerMeter, ContainerSample, CoreSample, DiskSample, NodeSample};
pub use scratch::follow as follow_scratch;

/// The counters of an agent's kernels, and what was computed from them.
pub struct Statistics {
    /// Times are counted from here.
    begin: Instant,
    node: Mutex<NodeHistory>,
    kernels: Mutex<HashMap<KernelId, Arc<Mutex<Tracked>>>>,
}

struct Tracked {
    /// `None` once the container is gone.
    meter: Option<Box<dyn ContainerMeter>>,
    history: KernelHistory,
    scratch_measured: Option<Instant>,
}

impl Default for Statistics {
    fn default() -> Self {
        Self { begin: Instant::now(), node: Mutex::default(), kernels: Mutex::default() }
    }
}

impl Statistics {
    /// Counts a kernel from now on, unless it is counted already.
    pub fn track(&self, kernel: KernelId, meter: Box<dyn ContainerMeter>) {
        let mut tracked = Tracked {
            meter: Some(meter),
            history: KernelHistory::default(),
            scratch_measured: None,
        };
        tracked.read(self.begin.elapsed());
        self.kernels.lock().entry(kernel).or_insert_with(|| Arc::new(Mutex::new(tracked)));
    }

    /// True if the kernel is counted.
    pub fn tracks(&self, kernel: KernelId) -> bool {
        self.kernels.lock().contains_key(&kernel)
    }

    /// A kernel's figures of this moment, or its last ones. Takes microseconds.
    pub fn kernel(&self, kernel: KernelId) -> Option<Metrics> {
        let tracked = self.kernels.lock().get(&kernel).cloned()?;
        let mut tracked = tracked.lock();
        tracked.read(self.begin.elapsed());
        tracked.history.metrics()
    }

    /// A kernel's last figures. It is not counted any more.
    pub fn finish(&self, kernel: KernelId) -> Option<Metrics> {
        let metrics = self.kernel(kernel);
        self.kernels.lock().remove(&kernel);
        metrics
    }

    /// Forgets kernels that ended while somebody began to count them.
    fn keep(&self, is_there: impl Fn(KernelId) -> bool) {
        self.kernels.lock().retain(|id, _| is_there(*id));
    }

    /// The figures of all kernels at this moment. Blocks.
    pub fn kernels(&self) -> Vec<(KernelId, Metrics)> {
        let tracked: Vec<KernelId> = self.kernels.lock().keys().copied().collect();
        tracked.into_iter().filter_map(|id| Some((id, self.kernel(id)?))).collect()
    }

    /// The figures of the node since the last call.
    pub fn node(&self, sample: NodeSample) -> NodeMetrics {
        self.node.lock().observe(self.begin.elapsed(), sample)
    }

    /// The node's figures as they were told last; empty before that.
    pub fn last_node(&self) -> Metrics {
        self.node.lock().last_told()
    }

    /// Kernels whose folders have not been measured for so long.
    fn scratch_due(&self, interval: Duration) -> Vec<KernelId> {
        let is_due = |tracked: &Mutex<Tracked>| {
            tracked.lock().scratch_measured.is_none_or(|at| at.elapsed() >= interval)
        };
        let kernels = self.kernels.lock();
        kernels.iter().filter(|(_, tracked)| is_due(tracked)).map(|(id, _)| *id).collect()
    }

    fn note_scratch(&self, kernel: KernelId, bytes: u64) {
        let tracked = self.kernels.lock().get(&kernel).cloned();
        if let Some(tracked) = tracked {
            let mut tracked = tracked.lock();
            tracked.history.observe_scratch(bytes);
            tracked.scratch_measured = Some(Instant::now());
        }
    }
}

impl Tracked {
    fn read(&mut self, at: Duration) {
        match self.meter.as_mut().and_then(|meter| meter.read()) {
            Some(sample) => self.history.observe(at, sample),
            // The files of a container that is gone keep parts of it alive.
            None => self.meter = None,
        }
    }
}
