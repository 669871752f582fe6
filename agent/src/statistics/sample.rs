//! What is read at one moment, before anything is computed from it.

/// The counters of a running container.
pub trait ContainerMeter: Send {
    /// The present counters; `None` once the container is gone.
    fn read(&mut self) -> Option<ContainerSample>;
}

/// The counters of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ContainerSample {
    /// Processor time used since it started, milliseconds.
    pub cpu_ms: f64,
    /// Memory in use, without files that can be dropped at once.
    pub mem_bytes: u64,
    /// The most memory it can use.
    pub mem_limit: u64,
    /// Bytes read from block devices since it started.
    pub io_read: u64,
    /// Bytes written to block devices since it started.
    pub io_write: u64,
    /// Bytes received from the network since it started.
    pub net_rx: u64,
    /// Bytes sent to the network since it started.
    pub net_tx: u64,
}

/// The counters of a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeSample {
    /// Its cores.
    pub cores: Vec<CoreSample>,
    /// Memory there is, bytes.
    pub mem_total: u64,
    /// Memory that is not available for new work, bytes.
    pub mem_used: u64,
    /// Its own file systems.
    pub disks: Vec<DiskSample>,
    /// Bytes received through its network devices since it started.
    pub net_rx: u64,
    /// Bytes sent through its network devices since it started.
    pub net_tx: u64,
}

/// Time of one core since the host started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreSample {
    /// Its number.
    pub core: u32,
    /// Milliseconds in which it did something.
    pub busy_ms: u64,
    /// All milliseconds.
    pub total_ms: u64,
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSample {
    /// Where it is mounted.
    pub mount_point: String,
    /// Bytes it holds at most.
    pub size: u64,
    /// Bytes in use.
    pub used: u64,
}
