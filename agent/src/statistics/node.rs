//! A node's figures, computed from samples in order of time.

use std::collections::BTreeMap;
use std::time::Duration;

use backendai_rpc::statistics::{Metric, Metrics, NodeMetrics, Unit};

use super::sample::{CoreSample, NodeSample};

/// What must be remembered of the node between samples.
#[derive(Debug, Default)]
pub struct NodeHistory {
    last: Option<(Duration, NodeSample)>,
    told: Metrics,
}

impl NodeHistory {
    /// Takes a sample in and gives the figures of the time since the one before (at first:
    /// since the host started). `at` is the time since some moment that is always the same.
    pub fn observe(&mut self, at: Duration, sample: NodeSample) -> NodeMetrics {
        let before = self.last.take();
        let earlier = before.as_ref().map(|(_, earlier)| earlier);
        let seconds = before.as_ref().map(|(before, _)| at.saturating_sub(*before).as_secs_f64());
        let rate = |now: u64, count: fn(&NodeSample) -> u64| match (earlier, seconds) {
            (Some(earlier), Some(seconds)) if seconds > 0.0 => Metric::new(
                Unit::BytesPerSecond,
                now.saturating_sub(count(earlier)) as f64 / seconds,
            ),
            _ => Metric::new(Unit::BytesPerSecond, 0.0),
        };
        let cores: Metrics = sample
            .cores
            .iter()
            .map(|core| (core.core.to_string(), use_since(earlier, core)))
            .collect();
        let mem = bytes(sample.mem_used, sample.mem_total);
        let disks: Metrics = sample
            .disks
            .iter()
            .map(|disk| (disk.mount_point.clone(), bytes(disk.used, disk.size)))
            .collect();
        let net_rx = rate(sample.net_rx, |sample| sample.net_rx);
        let net_tx = rate(sample.net_tx, |sample| sample.net_tx);
        let node = [
            ("cpu_util", sum(Unit::Percent, &cores)),
            ("mem", mem),
            ("disk", sum(Unit::Bytes, &disks)),
            ("net_rx", net_rx),
            ("net_tx", net_tx),
        ];
        let only = |name: &str, metric| Metrics::from([(name.to_owned(), metric)]);
        let devices = [
            ("cpu_util", cores),
            ("mem", only("root", mem)),
            ("disk", disks),
            ("net_rx", only("node", net_rx)),
            ("net_tx", only("node", net_tx)),
        ];
        self.last = Some((at, sample));
        self.told = named(node);
        NodeMetrics { node: self.told.clone(), devices: named(devices) }
    }

    /// The figures of the whole node that [`NodeHistory::observe`] gave last.
    pub fn last_told(&self) -> Metrics {
        self.told.clone()
    }
}

fn named<T, const N: usize>(entries: [(&str, T); N]) -> BTreeMap<String, T> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Milliseconds a core was busy, of those there were.
fn use_since(earlier: Option<&NodeSample>, core: &CoreSample) -> Metric {
    let before = earlier.and_then(|sample| sample.cores.iter().find(|c| c.core == core.core));
    let (busy, total) = before.map_or((0, 0), |before| (before.busy_ms, before.total_ms));
    let busy = core.busy_ms.saturating_sub(busy) as f64;
    Metric::new(Unit::Percent, busy).of(core.total_ms.saturating_sub(total) as f64)
}

fn bytes(used: u64, size: u64) -> Metric {
    Metric::new(Unit::Bytes, used as f64).of(size as f64)
}

fn sum(unit: Unit, parts: &Metrics) -> Metric {
    let current = parts.values().map(|part| part.current).sum();
    Metric::new(unit, current).of(parts.values().filter_map(|part| part.capacity).sum())
}

#[cfg(test)]
mod tests {
    use super::super::sample::DiskSample;
    use super::*;

    fn sample(busy_ms: u64, total_ms: u64, net_rx: u64) -> NodeSample {
        let core = |core, busy_ms| CoreSample { core, busy_ms, total_ms };
        let disk = |mount_point: &str, used| DiskSample {
            mount_point: mount_point.to_owned(),
            size: 1000,
            used,
        };
        NodeSample {
            cores: vec![core(0, busy_ms), core(1, 0)],
            mem_total: 400,
            mem_used: 100,
            disks: vec![disk("/", 300), disk("/data", 100)],
            net_rx,
            net_tx: 0,
        }
    }

    #[test]
    fn a_node_is_the_sum_of_its_devices() {
        let mut history = NodeHistory::default();
        history.observe(Duration::from_secs(5), sample(1000, 9000, 50));
        let metrics = history.observe(Duration::from_secs(10), sample(2000, 11000, 100));
        assert_eq!(metrics.devices["cpu_util"]["0"].percent(), 50.0);
        assert_eq!(metrics.devices["cpu_util"]["1"].percent(), 0.0);
        assert_eq!(metrics.node["cpu_util"].percent(), 25.0);
        assert_eq!(metrics.node["mem"].percent(), 25.0);
        assert_eq!(metrics.node["disk"].percent(), 20.0);
        assert_eq!(metrics.devices["disk"]["/data"].percent(), 10.0);
        assert_eq!(metrics.node["net_rx"].current, 10.0);
    }

    #[test]
    fn the_first_figures_are_those_since_the_start() {
        let metrics = NodeHistory::default().observe(Duration::ZERO, sample(4000, 8000, 50));
        assert_eq!(metrics.node["cpu_util"].percent(), 25.0);
        assert_eq!(metrics.node["net_rx"].current, 0.0);
    }
}
