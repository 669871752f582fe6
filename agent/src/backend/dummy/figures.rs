//! Simulated figures: plausible, and the same for everybody who computes them.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::DummySettings;
use crate::backend::ExitStatus;
use crate::statistics::{ContainerMeter, ContainerSample, CoreSample, NodeSample};

/// Share of a core that a simulated container uses, as of each core of its node.
const CPU_SHARE: f64 = 0.25;
/// Bytes that a simulated container moves in a second, each way and kind.
const BYTES_PER_SECOND: u64 = 4096;
/// Memory that a simulated container uses.
const MEM_BYTES: u64 = 64 << 20;

/// The counters of a simulated container.
pub(super) struct Container {
    begin: Instant,
    mem_limit: u64,
    ended: watch::Receiver<Option<ExitStatus>>,
}

impl Container {
    /// Begins to count.
    pub fn new(mem_limit: u64, ended: watch::Receiver<Option<ExitStatus>>) -> Self {
        Self { begin: Instant::now(), mem_limit, ended }
    }
}

impl ContainerMeter for Container {
    fn read(&mut self) -> Option<ContainerSample> {
        if self.ended.borrow().is_some() {
            return None;
        }
        let life = self.begin.elapsed();
        let bytes = life.as_secs() * BYTES_PER_SECOND;
        Some(ContainerSample {
            cpu_ms: CPU_SHARE * life.as_secs_f64() * 1000.0,
            mem_bytes: MEM_BYTES,
            mem_limit: self.mem_limit,
            io_read: bytes,
            io_write: bytes,
            net_rx: bytes,
            net_tx: bytes,
        })
    }
}

/// The counters of the simulated node after so long a life.
pub(super) fn node(settings: &DummySettings, life: Duration) -> NodeSample {
    let total_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
    let busy_ms = (total_ms as f64 * CPU_SHARE) as u64;
    let bytes = life.as_secs() * BYTES_PER_SECOND;
    NodeSample {
        cores: (0..settings.cores).map(|core| CoreSample { core, busy_ms, total_ms }).collect(),
        mem_total: settings.mem_bytes,
        mem_used: settings.mem_bytes / 4,
        disks: Vec::new(),
        net_rx: bytes,
        net_tx: bytes,
    }
}
