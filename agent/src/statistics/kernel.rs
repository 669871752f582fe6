//! A kernel's figures, computed from samples in order of time.

use std::time::Duration;

use backendai_rpc::statistics::{Metric, Metrics, Unit};

use super::sample::ContainerSample;

/// Milliseconds of one core in a second: what the product calls 100 percent.
const CORE_MS: f64 = 1000.0;
/// Rates over less time than this say more about the clock than about the kernel.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// What must be remembered of a kernel between samples.
#[derive(Clone, Debug, Default)]
pub struct KernelHistory {
    first: Option<(Duration, ContainerSample)>,
    /// The sample that the present rates count to.
    rated: Option<(Duration, ContainerSample)>,
    last: ContainerSample,
    rates: Rates,
    cpu_max: f64,
    cpu_avg: f64,
    mem_max: u64,
    scratch_bytes: u64,
    scratch_max: u64,
}

/// Changes in a second.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    cpu_ms: f64,
    io_read: f64,
    io_write: f64,
    net_rx: f64,
    net_tx: f64,
}

impl KernelHistory {
    /// Takes a sample in; `at` is the time since some moment that is always the same.
    pub fn observe(&mut self, at: Duration, sample: ContainerSample) {
        let (begin, first) = *self.first.get_or_insert((at, sample));
        let (before, earlier) = *self.rated.get_or_insert((at, sample));
        let elapsed = at.saturating_sub(before);
        if elapsed >= SHORTEST_INTERVAL {
            self.rates = Rates::between(&earlier, &sample, elapsed);
            self.rated = Some((at, sample));
            self.cpu_max = self.cpu_max.max(self.rates.cpu_ms);
        }
        let life = at.saturating_sub(begin);
        if life >= SHORTEST_INTERVAL {
            self.cpu_avg = Rates::between(&first, &sample, life).cpu_ms;
        }
        self.mem_max = self.mem_max.max(sample.mem_bytes);
        self.last = sample;
    }

    /// Takes in how large the kernel's folders are.
    pub fn observe_scratch(&mut self, bytes: u64) {
        self.scratch_bytes = bytes;
        self.scratch_max = self.scratch_max.max(bytes);
    }

    /// The figures after the last sample; `None` before the first.
    pub fn metrics(&self) -> Option<Metrics> {
        self.first?;
        let (last, rates) = (&self.last, &self.rates);
        let total = |bytes: u64, rate| Metric {
            rate: Some(rate),
            ..Metric::new(Unit::Bytes, bytes as f64)
        };
        let speed = |rate| Metric::new(Unit::BytesPerSecond, rate);
        let cpu_util = Metric {
            avg: Some(self.cpu_avg),
            max: Some(self.cpu_max),
            ..Metric::new(Unit::MillisecondsPerSecond, rates.cpu_ms).of(CORE_MS)
        };
        let mem = Metric {
            max: Some(self.mem_max as f64),
            ..Metric::new(Unit::Bytes, last.mem_bytes as f64).of(last.mem_limit as f64)
        };
        let scratch = Metric {
            max: Some(self.scratch_max as f64),
            ..Metric::new(Unit::Bytes, self.scratch_bytes as f64)
        };
        let metrics = [
            ("cpu_used", Metric::new(Unit::Milliseconds, last.cpu_ms)),
            ("cpu_util", cpu_util),
            ("mem", mem),
            ("io_read", total(last.io_read, rates.io_read)),
            ("io_write", total(last.io_write, rates.io_write)),
            ("io_scratch_size", scratch),
            ("net_rx", speed(rates.net_rx)),
            ("net_tx", speed(rates.net_tx)),
        ];
        Some(metrics.map(|(name, metric)| (name.to_owned(), metric)).into())
    }
}

impl Rates {
    fn between(earlier: &ContainerSample, later: &ContainerSample, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        // A counter that falls begins anew; what it showed before is not known.
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        Self {
            cpu_ms: (later.cpu_ms - earlier.cpu_ms).max(0.0) / seconds,
            io_read: rate(earlier.io_read, later.io_read),
            io_write: rate(earlier.io_write, later.io_write),
            net_rx: rate(earlier.net_rx, later.net_rx),
            net_tx: rate(earlier.net_tx, later.net_tx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu_ms: f64, mem_bytes: u64, bytes: u64) -> ContainerSample {
        ContainerSample {
            cpu_ms,
            mem_bytes,
            mem_limit: 1000,
            io_read: bytes,
            io_write: 2 * bytes,
            net_rx: 3 * bytes,
            net_tx: 4 * bytes,
        }
    }

    #[test]
    fn rates_means_and_peaks_follow_the_samples() {
        let mut history = KernelHistory::default();
        assert_eq!(history.metrics(), None);
        let seconds = Duration::from_secs;
        history.observe(seconds(10), sample(100.0, 500, 0));
        let fresh = history.metrics().unwrap();
        assert_eq!((fresh["cpu_used"].current, fresh["cpu_util"].current), (100.0, 0.0));
        history.observe(seconds(15), sample(5100.0, 800, 5000));
        history.observe(seconds(20), sample(6100.0, 200, 5000));
        let metrics = history.metrics().unwrap();
        let cpu = metrics["cpu_util"];
        assert_eq!((cpu.current, cpu.max, cpu.avg), (200.0, Some(1000.0), Some(600.0)));
        assert_eq!(cpu.percent(), 20.0);
        let mem = metrics["mem"];
        assert_eq!((mem.current, mem.capacity, mem.max), (200.0, Some(1000.0), Some(800.0)));
        assert_eq!((metrics["io_write"].current, metrics["io_write"].rate), (10000.0, Some(0.0)));
        assert_eq!(metrics["net_tx"].current, 0.0);
    }

    #[test]
    fn a_sample_right_after_another_changes_totals_and_no_rate() {
        let mut history = KernelHistory::default();
        history.observe(Duration::ZERO, sample(0.0, 1, 0));
        history.observe(Duration::from_secs(5), sample(500.0, 1, 5000));
        history.observe(Duration::from_millis(5001), sample(510.0, 1, 6000));
        let metrics = history.metrics().unwrap();
        assert_eq!(metrics["cpu_used"].current, 510.0);
        assert_eq!(metrics["cpu_util"].current, 100.0);
        assert_eq!((metrics["net_rx"].current, metrics["io_read"].current), (3000.0, 6000.0));
    }

    #[test]
    fn a_counter_that_begins_anew_is_no_huge_rate() {
        let mut history = KernelHistory::default();
        history.observe(Duration::ZERO, sample(500.0, 1, 5000));
        history.observe(Duration::from_secs(5), sample(0.0, 1, 10));
        let metrics = history.metrics().unwrap();
        assert_eq!((metrics["cpu_util"].current, metrics["net_rx"].current), (0.0, 0.0));
    }

    #[test]
    fn the_size_of_folders_is_kept_until_it_is_measured_again() {
        let mut history = KernelHistory::default();
        history.observe_scratch(70);
        history.observe_scratch(50);
        history.observe(Duration::ZERO, sample(0.0, 1, 0));
        let size = history.metrics().unwrap()["io_scratch_size"];
        assert_eq!((size.current, size.max), (50.0, Some(70.0)));
    }
}
