//! The contract an agent uses towards the leading manager (port 5002).
//!
//! Delivery is at least once: an agent keeps an event until `report` returned, which it
//! does after the manager committed it. Heartbeats carry the list of live kernels, so that
//! whatever was lost all the same is noticed and mended.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use backendai_types::{AgentId, KernelId, SessionId, SlotName, SlotType};

use crate::agent_api::CreationInfo;
use crate::call::RemoteError;
use crate::statistics::{Metrics, Packed, Statistics};

/// Longer than a transaction under load, shorter than the patience of the event queue.
const REPORT_TIMEOUT: Duration = Duration::from_secs(15);
/// A heartbeat that took longer is worth less than the next one.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);

crate::rpc_api! {
    /// What the leading manager does for agents.
    trait ManagerApi, service ManagerService, client ManagerClient {
        /// Says that the agent lives and what it holds.
        fn heartbeat(Heartbeat) -> HeartbeatReply, timeout HEARTBEAT_TIMEOUT;
        /// Reports what happened to kernels, oldest first. Answered after the commit.
        fn report(Report) -> (), timeout REPORT_TIMEOUT;
        /// Tells how busy the node and its kernels are. Never repeated: the next ones follow.
        fn statistics(Statistics) -> (), timeout HEARTBEAT_TIMEOUT;
        /// Hands over the log of a kernel that is gone. Later calls replace earlier ones.
        fn store_kernel_log(StoreKernelLog) -> (), timeout REPORT_TIMEOUT;
        /// Says good-bye. Kernels live on.
        fn leave(Leave) -> (), timeout HEARTBEAT_TIMEOUT;
    }
}

/// One sign of life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The agent.
    pub agent_id: AgentId,
    /// New at every start of the agent's process.
    pub incarnation: u64,
    /// Sent at first, when asked for, and when it changed.
    pub info: Option<AgentInfo>,
    /// Every kernel the agent has a record of.
    pub kernels: Vec<KernelReport>,
    /// Sessions for which it has made a network of several hosts.
    pub networks: Vec<SessionId>,
}

/// The manager's answer to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// True when the manager does not know this incarnation yet.
    pub send_info: bool,
    /// The leader's epoch.
    pub epoch: u64,
}

/// What an agent is; changes rarely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// RPC address, `tcp://host:port`.
    pub addr: String,
    /// CURVE public key (Z85), if the agent's RPC is encrypted.
    pub public_key: Option<String>,
    /// Host name or address for users.
    pub public_host: String,
    /// Scaling group it belongs to.
    pub scaling_group: String,
    /// `local` on premises.
    pub region: String,
    /// Version of the agent.
    pub version: String,
    /// `x86_64`…
    pub architecture: String,
    /// What it offers: type and amount by slot, the reserved part already taken off.
    pub slots: BTreeMap<SlotName, (SlotType, Decimal)>,
    /// Versions and facts of its compute devices, by kind.
    pub compute_plugins: BTreeMap<String, BTreeMap<String, String>>,
    /// Kernel images its engine has: full name and image id.
    pub images: Vec<(String, String)>,
}

/// One kernel an agent knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelReport {
    /// The kernel.
    pub kernel_id: KernelId,
    /// Its session.
    pub session_id: SessionId,
    /// How far it is.
    pub phase: KernelPhase,
}

/// How far a kernel is, as its agent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KernelPhase {
    /// Wanted; not answering yet.
    Creating,
    /// Its runner answers.
    Running,
    /// Being removed.
    Destroying,
    /// Gone; kept until the manager has acknowledged it.
    Gone,
}

/// Events of one agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The agent.
    pub agent_id: AgentId,
    /// Oldest first.
    pub events: Vec<KernelEvent>,
}

/// Something that happened to a kernel. Receiving one twice must do no harm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelEvent {
    /// The kernel.
    pub kernel_id: KernelId,
    /// Its session.
    pub session_id: SessionId,
    /// When, by the agent's clock.
    pub at: DateTime<Utc>,
    /// What.
    pub change: KernelChange,
}

/// What happened to a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KernelChange {
    /// The agent pulls the image.
    Pulling {
        /// The image's full name.
        image: String,
    },
    /// The agent makes the container.
    Creating,
    /// The kernel runs.
    Started(Box<CreationInfo>),
    /// The kernel runs again, in another container.
    Restarted {
        /// The name of the restart, as the agent was told it.
        restart: i64,
        /// What it turned out to be.
        info: Box<CreationInfo>,
    },
    /// The kernel could not be made; nothing of it is left.
    Failed(RemoteError),
    /// The batch command ended.
    BatchFinished {
        /// Its exit code; negative when it had none.
        exit_code: i32,
    },
    /// The container is gone and cleaned up.
    Terminated {
        /// Why: `user-requested`, `self-terminated`…
        reason: String,
        /// Exit code of the container's main process, if known.
        exit_code: Option<i32>,
        /// The last figures of it, if there are any.
        metrics: Option<Packed<Metrics>>,
    },
}

/// A log that outlives its container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreKernelLog {
    /// The kernel.
    pub kernel_id: KernelId,
    /// The last bytes of its log, at most as many as configured.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// An agent's good-bye.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Leave {
    /// The agent.
    pub agent_id: AgentId,
    /// Why: `shutdown`…
    pub reason: String,
}
