//! The seam to the container engine.
//!
//! [`ContainerBackend`] is cut so that a restarted agent can take up what runs: every
//! container carries labels that say whose it is, and a handle is plain data.
//! [`docker`] talks to Docker; [`dummy`] keeps scripted containers in memory, so that a
//! simulated agent is the real agent. One suite of tests holds for both
//! (`tests/backend_contract.rs`).

pub mod docker;
pub mod dummy;

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::resources::DeviceKind;
use crate::statistics::{ContainerMeter, NodeSample};

/// Labels that the agent puts on its containers.
pub mod labels {
    /// The kernel's id.
    pub const KERNEL_ID: &str = "ai.backend.kernel-id";
    /// The session's id.
    pub const SESSION_ID: &str = "ai.backend.session-id";
    /// The agent's id; containers without it are not ours.
    pub const OWNER: &str = "ai.backend.owner";
    /// The image's service ports with the preopened ones added.
    pub const SERVICE_PORTS: &str = "ai.backend.service-ports";
    /// `0` or `1`.
    pub const BLOCK_SERVICE_PORTS: &str = "ai.backend.internal.block-service-ports";
    /// What a lost kernel record is rebuilt from, as JSON.
    pub const RECORD: &str = "ai.backend.internal.record";
    /// `1` on networks that were made for a cluster of kernels.
    pub const CLUSTER_NETWORK: &str = "ai.backend.cluster-network";
}

/// A container engine.
///
/// Operations are idempotent as far as the engine lets them be: removing what is gone and
/// stopping what has stopped succeed.
#[async_trait]
pub trait ContainerBackend: Send + Sync + 'static {
    /// What the engine is and what the host offers.
    ///
    /// # Errors
    /// The engine does not answer.
    async fn fingerprint(&self) -> Result<Fingerprint, BackendError>;

    /// The present counters of the host. Blocks.
    fn node_sample(&self) -> NodeSample;

    /// The named images the engine has.
    ///
    /// # Errors
    /// The engine does not answer.
    async fn images(&self) -> Result<Vec<LocalImage>, BackendError>;

    /// One image by its full name; `None` if the engine does not have it.
    ///
    /// # Errors
    /// The engine does not answer.
    async fn image(&self, name: &str) -> Result<Option<LocalImage>, BackendError>;

    /// Pulls an image, telling `progress` about it from time to time.
    ///
    /// # Errors
    /// The registry does not have it or refuses, or the engine does not answer.
    async fn pull_image(&self, pull: &PullImage, progress: &Progress) -> Result<(), BackendError>;

    /// Makes a container without starting it.
    ///
    /// # Errors
    /// [`BackendError::NameTaken`] if a container of that name exists.
    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerHandle, BackendError>;

    /// Starts a container.
    ///
    /// # Errors
    /// The engine cannot start it.
    async fn start(&self, container: &ContainerHandle) -> Result<(), BackendError>;

    /// The state of a container, by id or name; `None` if there is none.
    ///
    /// # Errors
    /// The engine does not answer.
    async fn inspect(&self, id: &str) -> Result<Option<ContainerState>, BackendError>;

    /// Where a running container is found on its host; `None` if it does not run.
    ///
    /// # Errors
    /// The engine does not answer.
    async fn locate(&self, id: &str) -> Result<Option<ContainerPlace>, BackendError>;

    /// Opens the counters of a running container. Blocks.
    ///
    /// # Errors
    /// It does not run any more, or the host does not let this process see its counters.
    fn meter(&self, place: &ContainerPlace) -> io::Result<Box<dyn ContainerMeter>>;

    /// All containers, running or not, that carry `owner` in their owner label.
    ///
    /// # Errors
    /// The engine does not answer.
    async fn list(&self, owner: &str) -> Result<Vec<OwnedContainer>, BackendError>;

    /// Waits until a container has ended. Cancel-safe.
    ///
    /// # Errors
    /// [`BackendError::NoSuchContainer`], or the engine does not answer.
    async fn wait(&self, id: &str) -> Result<ExitStatus, BackendError>;

    /// Ends a container: SIGTERM, then SIGKILL after `grace`; SIGKILL at once if it is zero.
    /// A container that does not run or does not exist is no error.
    ///
    /// # Errors
    /// The engine does not answer.
    async fn stop(&self, id: &str, grace: Duration) -> Result<(), BackendError>;

    /// Removes a container with its anonymous volumes, killing it if it runs. One that does
    /// not exist is no error.
    ///
    /// # Errors
    /// The engine does not answer.
    async fn remove(&self, id: &str) -> Result<(), BackendError>;

    /// The last `max_bytes` of what the container wrote, stdout and stderr as they came.
    ///
    /// # Errors
    /// [`BackendError::NoSuchContainer`], or the engine does not answer.
    async fn logs(&self, id: &str, max_bytes: usize) -> Result<Vec<u8>, BackendError>;

    /// Makes an image of a container's files, also while it runs.
    ///
    /// # Errors
    /// [`BackendError::NoSuchContainer`], or the engine does not answer.
    async fn snapshot(&self, id: &str, image: &str) -> Result<(), BackendError>;

    /// An image as an archive that an engine can load, in pieces. The stream is to be read
    /// to its end, or the archive is not whole.
    fn export_image(&self, image: &str) -> BoxStream<'static, Result<Bytes, BackendError>>;

    /// Removes an image by name. One that does not exist is no error.
    ///
    /// # Errors
    /// The engine does not answer, or the image is in use.
    async fn remove_image(&self, image: &str) -> Result<(), BackendError>;

    /// Names of the images of a repository that were made of the owner's containers.
    ///
    /// # Errors
    /// The engine does not answer.
    async fn snapshots(&self, repository: &str, owner: &str) -> Result<Vec<String>, BackendError>;

    /// Makes a network. One of that name that exists is left as it is.
    ///
    /// # Errors
    /// [`BackendError::NoSwarm`] for a network of several hosts where the engine cannot make
    /// one, or the engine does not answer or has no addresses left.
    async fn create_network(&self, network: &NetworkSpec) -> Result<(), BackendError>;

    /// Removes a network. One that does not exist is no error.
    ///
    /// # Errors
    /// A container is in it, or the engine does not answer.
    async fn remove_network(&self, name: &str) -> Result<(), BackendError>;

    /// Names of all networks that carry `owner` in their owner label.
    ///
    /// # Errors
    /// The engine does not answer.
    async fn networks(&self, owner: &str) -> Result<Vec<String>, BackendError>;

    /// Starts and ends of containers with that owner from `since` on. The stream ends or
    /// fails when the engine goes away; the reader then lists and subscribes anew.
    fn events(
        &self,
        owner: &str,
        since: DateTime<Utc>,
    ) -> BoxStream<'static, Result<ContainerEvent, BackendError>>;
}

/// What an engine is and what its host offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Fingerprint {
    /// Name and version: `docker 20.10.24`.
    pub engine: String,
    /// `x86_64`…
    pub architecture: String,
    /// Version of cgroups, if the engine uses them.
    pub cgroup_version: Option<String>,
    /// True where an image's id is the digest of its configuration, as registries know it.
    pub image_id_is_config_digest: bool,
    /// Cores containers may use, with their NUMA nodes.
    pub cores: Vec<(u32, Option<i32>)>,
    /// Main memory in bytes.
    pub mem_bytes: u64,
    /// Devices besides cores and memory.
    pub accelerators: Vec<DeviceKind>,
    /// More facts, for the list of compute devices.
    pub facts: BTreeMap<String, String>,
}

/// An image the engine has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalImage {
    /// Full name with registry and tag.
    pub name: String,
    /// The engine's id of it.
    pub id: String,
}

/// An image to pull.
#[derive(Clone, Debug)]
pub struct PullImage {
    /// Full name with registry and tag.
    pub name: String,
    /// `x86_64`…
    pub architecture: String,
    /// Base URL of the registry.
    pub registry_url: Option<String>,
    /// User and password for the registry.
    pub credentials: Option<(String, String)>,
}

/// Everything an engine is told about a container. There is no way to pass it anything else.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// The container's name; two of one name cannot exist.
    pub name: String,
    /// Full name of the image.
    pub image: String,
    /// Host name inside.
    pub hostname: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The program that is run, without arguments.
    pub entrypoint: String,
    /// Working directory.
    pub working_dir: String,
    /// Host paths seen inside.
    pub mounts: Vec<ContainerMount>,
    /// What it may use.
    pub limits: ContainerLimits,
    /// The network it shares with the other kernels of its session, where its host name
    /// leads to it. Without one it reaches the outside and no other container.
    pub network: Option<String>,
}

/// A network for the kernels of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Which containers can be in it.
    pub reach: NetworkReach,
}

/// Which containers can be in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkReach {
    /// Those of one host.
    Host,
    /// Those of all hosts of the engine's swarm.
    Swarm {
        /// Largest packet in bytes, where it is not the engine's own choice.
        mtu: Option<u32>,
    },
}

/// A host path seen inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerMount {
    /// Absolute path on the host; must exist.
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: String,
    /// True if it cannot be written inside.
    pub read_only: bool,
}

/// What a container may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerLimits {
    /// Numbers of the host's cores it runs on; empty means all.
    pub cores: Vec<u32>,
    /// Processor time in units of whole cores; 0 is unlimited.
    pub cpu_count: u32,
    /// Memory in bytes, swap included; 0 is unlimited.
    pub mem_bytes: u64,
    /// Size of `/dev/shm` in bytes, in addition to the memory.
    pub shm_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes of log the engine keeps.
    pub log_bytes: u64,
}

/// Names a container across restarts of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerHandle {
    /// The engine's id.
    pub id: String,
    /// The name it was made with.
    pub name: String,
}

/// Where a running container is found on its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPlace {
    /// The engine's id of it.
    pub id: String,
    /// Number of its first process.
    pub pid: u32,
    /// Its addresses in the engine's networks.
    pub addresses: Vec<Ipv4Addr>,
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started yet.
    Created,
    /// Runs (or is paused).
    Running,
    /// Has ended.
    Exited(ExitStatus),
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code of its first process, 128 + signal if a signal ended it; `None` if the
    /// engine does not know.
    pub code: Option<i32>,
}

/// A container of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedContainer {
    /// Names it.
    pub handle: ContainerHandle,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it is doing. Exit codes may be missing.
    pub state: ContainerState,
}

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEvent {
    /// The engine's id of the container.
    pub id: String,
    /// Its kernel label.
    pub kernel_id: Option<String>,
    /// What happened.
    pub what: ContainerChange,
}

/// What happened to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerChange {
    /// It runs.
    Started,
    /// It has ended.
    Died(ExitStatus),
    /// The kernel killed a process in it for want of memory.
    OutOfMemory,
}

/// Why an engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// It does not answer.
    #[error("the container engine does not answer")]
    Unavailable(#[source] BoxError),
    /// It has no such container.
    #[error("no container {0}")]
    NoSuchContainer(String),
    /// A container of that name exists.
    #[error("a container named {0} exists already")]
    NameTaken(String),
    /// It cannot make a network of several hosts.
    #[error(
        "the container engine of this agent cannot make a network of several hosts: {0} \
         (multi-node sessions want their hosts in one Docker swarm, and an agent on one of \
         its managers)"
    )]
    NoSwarm(String),
    /// An image cannot be had.
    #[error("image {name} cannot be had")]
    ImageNotAvailable {
        /// The image.
        name: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// Anything else.
    #[error("{action}")]
    Failed {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: BoxError,
    },
}

/// An error of a library below a backend.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Hears how far a pull is, in the engine's words.
pub type Progress = dyn for<'a> Fn(&'a str) + Send + Sync;
