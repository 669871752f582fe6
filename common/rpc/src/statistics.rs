//! Figures of nodes and kernels, on their way from an agent to whoever asks.
//!
//! An agent counts and computes; the leading manager puts what it is told into Redis
//! without reading it, which is why figures travel packed: with ten thousand agents,
//! unpacking every kernel's figures every few seconds would cost more than all else it
//! hears. They are unpacked when somebody asks for them.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use backendai_types::{AgentId, KernelId};

/// One measured quantity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What [`Metric::current`] counts.
    pub unit: Unit,
    /// The present value.
    pub current: f64,
    /// The most it can be; `None` where there is no such bound.
    pub capacity: Option<f64>,
    /// The mean since the beginning, where that says something.
    pub avg: Option<f64>,
    /// The highest value so far, where that says something.
    pub max: Option<f64>,
    /// Change in a second, of quantities that only grow.
    pub rate: Option<f64>,
}

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Bytes in a second.
    BytesPerSecond,
    /// Milliseconds.
    Milliseconds,
    /// Processor time of a kernel: milliseconds in a second, of which a core has 1000.
    MillisecondsPerSecond,
    /// Hundredths of the capacity.
    Percent,
}

impl Unit {
    /// The product's name of the unit (`unit_hint`), by which clients choose how to show it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bps",
            Self::Milliseconds => "msec",
            Self::MillisecondsPerSecond => "percent",
            Self::Percent => "pct",
        }
    }
}

impl Metric {
    /// A present value and nothing else.
    pub fn new(unit: Unit, current: f64) -> Self {
        Self { unit, current, capacity: None, avg: None, max: None, rate: None }
    }

    /// The same with a bound.
    pub fn of(self, capacity: f64) -> Self {
        Self { capacity: Some(capacity), ..self }
    }

    /// The present value in hundredths of the capacity; zero without one.
    pub fn percent(&self) -> f64 {
        match self.capacity {
            Some(capacity) if capacity > 0.0 => 100.0 * self.current / capacity,
            _ => 0.0,
        }
    }
}

/// Metrics by name: `cpu_util`, `mem`…
pub type Metrics = BTreeMap<String, Metric>;

/// Figures of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeMetrics {
    /// Of the whole node.
    pub node: Metrics,
    /// By metric and device: a core's number, a mount point…
    pub devices: BTreeMap<String, Metrics>,
}

/// Something that is carried and stored without being looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Packed<T> {
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    #[serde(skip)]
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Packed<T> {
    /// Packs a value.
    pub fn pack(value: &T) -> Self {
        let bytes = rmp_serde::to_vec(value).expect("figures are plain data, which always encodes");
        Self::from_bytes(bytes)
    }

    /// What was packed; `None` if another version of the product packed it otherwise.
    pub fn unpack(&self) -> Option<T> {
        rmp_serde::from_slice(&self.bytes).ok()
    }
}

impl<T> Packed<T> {
    /// Takes up bytes that [`Packed::as_bytes`] gave.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, of: PhantomData }
    }

    /// To be stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What an agent measured at one time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Statistics {
    /// The agent.
    pub agent_id: AgentId,
    /// For how long the figures are worth showing, in seconds.
    pub valid_s: u64,
    /// Of the node.
    pub node: Packed<NodeMetrics>,
    /// Of the kernels that run.
    pub kernels: Vec<(KernelId, Packed<Metrics>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_survive_being_packed_and_carried() {
        let mem = Metric { max: Some(7.0), ..Metric::new(Unit::Bytes, 5.0).of(10.0) };
        let metrics = Metrics::from([("mem".to_owned(), mem)]);
        let packed = Packed::pack(&metrics);
        let carried: Packed<Metrics> = crate::call::decode(&crate::call::encode(&packed)).unwrap();
        assert_eq!(carried.unpack(), Some(metrics));
        assert_eq!(Packed::<Metrics>::from_bytes(vec![0xc1]).unpack(), None);
    }

    #[test]
    fn a_share_needs_a_bound() {
        assert_eq!(Metric::new(Unit::Bytes, 5.0).of(10.0).percent(), 50.0);
        assert_eq!(Metric::new(Unit::Bytes, 5.0).percent(), 0.0);
        assert_eq!(Metric::new(Unit::Bytes, 5.0).of(0.0).percent(), 0.0);
    }
}
