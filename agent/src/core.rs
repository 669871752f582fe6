//! What all parts of an agent share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use backendai_service::Lifecycle;
use backendai_types::{AgentId, KernelId};

use crate::backend::{BackendError, ContainerBackend, Fingerprint};
use crate::commit::Commits;
use crate::epoch::EpochFence;
use crate::events::EventQueue;
use crate::kernel::network::ClusterNetworks;
use crate::kernel::record::RecordStore;
use crate::kernel::registry::Registry;
use crate::logs::LogKeeper;
use crate::metadata::Addresses;
use crate::resources::ResourcePool;
use crate::scratch::Scratch;
use crate::statistics::Statistics;
use crate::streams::StreamGate;

/// Tells the time; tests tell another one.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// What all parts of an agent share.
pub struct Core {
    /// Who this agent is.
    pub agent_id: AgentId,
    /// How kernels are made and ended.
    pub settings: KernelSettings,
    /// The container engine.
    pub backend: Arc<dyn ContainerBackend>,
    /// The time.
    pub clock: Clock,
    /// Owns all tasks.
    pub lifecycle: Lifecycle,
    /// The kernels there are.
    pub registry: Registry,
    /// Their records on disk.
    pub store: RecordStore,
    /// Their folders.
    pub scratch: Scratch,
    /// Networks that some of them share.
    pub networks: ClusterNetworks,
    /// What the manager is to be told.
    pub events: EventQueue,
    /// Logs the manager is to be given.
    pub logs: LogKeeper,
    /// Where streams into kernels are fetched.
    pub streams: StreamGate,
    /// Where the kernels' containers are.
    pub addresses: Addresses,
    /// How busy the node and its kernels are.
    pub statistics: Statistics,
    /// Archives made of kernels' containers.
    pub commits: Commits,
    /// The fence against replaced managers.
    pub epoch: EpochFence,
    /// How many containers may be made at once.
    pub creations: Semaphore,
    /// Whether the engine answers.
    pub engine: watch::Sender<EngineState>,
    /// The host, known since the engine first answered.
    pub host: OnceLock<Host>,
    /// Configuration digests of images this process has pulled, by name: for engines whose
    /// image ids are something else.
    pub pulled: Mutex<BTreeMap<String, String>>,
}

/// The host as the engine described it.
pub struct Host {
    /// The engine and the host's devices.
    pub fingerprint: Fingerprint,
    /// Who holds how much of them.
    pub pool: Mutex<ResourcePool>,
}

/// Whether the container engine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// Not asked, or no answer, since this process started.
    NotReached,
    /// It answers.
    Up,
    /// It did answer, and does not now.
    Down,
}

impl EngineState {
    /// True once the engine has answered and earlier kernels have been taken up.
    pub fn is_reached(self) -> bool {
        self != Self::NotReached
    }
}

/// How kernels are made and ended.
#[derive(Clone, Debug)]
pub struct KernelSettings {
    /// Host name or address users see for this agent.
    pub kernel_host: String,
    /// The directory that users' folders lie beneath; without one there are none.
    pub mount_root: Option<PathBuf>,
    /// The runner binary on this host, mounted into every container.
    pub runner_path: PathBuf,
    /// How long a container may take from its start to its runner's readiness.
    pub ready_timeout: Duration,
    /// How long a kernel's processes may take to end.
    pub stop_grace: Duration,
    /// Bytes of log that are kept of a container.
    pub log_bytes: u64,
    /// Processes and threads of one container.
    pub pids_limit: u32,
}

impl Core {
    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// The host, once the engine has answered.
    pub fn pool(&self) -> Option<&Mutex<ResourcePool>> {
        self.host.get().map(|host| &host.pool)
    }

    /// Gives back what a kernel holds.
    pub fn release(&self, kernel_id: KernelId) {
        if let Some(pool) = self.pool() {
            pool.lock().release(kernel_id);
        }
    }

    /// Notes what a call to the engine showed about it.
    pub fn note_engine<T>(&self, result: &Result<T, BackendError>) {
        if matches!(result, Err(BackendError::Unavailable(_))) {
            self.note_down();
        }
    }

    /// Notes that the engine, if it did answer, does not now.
    pub fn note_down(&self) {
        self.engine.send_if_modified(|state| {
            let was_up = *state == EngineState::Up;
            if was_up {
                *state = EngineState::Down;
            }
            was_up
        });
    }

    /// Calls the engine again and again until it answers. For what must be done sooner or
    /// later, as removing a container.
    pub async fn insist<T, F>(&self, what: &'static str, call: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        const FIRST_RETRY: Duration = Duration::from_millis(200);
        const LAST_RETRY: Duration = Duration::from_secs(10);
        let mut retry = FIRST_RETRY;
        loop {
            let result = call().await;
            self.note_engine(&result);
            match result {
                Ok(value) => return value,
                Err(error) => {
                    tracing::warn!("{what}: {}; trying again", chain(&error));
                    let mut engine = self.engine.subscribe();
                    let is_down = *engine.borrow_and_update() != EngineState::Up;
                    tokio::select! {
                        () = tokio::time::sleep(retry) => {}
                        _ = engine.wait_for(|state| *state == EngineState::Up), if is_down => {}
                    }
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    }
}

/// An error with all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    backendai_service::telemetry::chain(error)
}
