//! The contract a manager uses towards an agent (port 6001).
//!
//! Creating and destroying only state what is wanted and return at once; what happens is
//! reported through [`manager_api`](crate::manager_api). Both are idempotent: the same
//! kernel id never yields a second container.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use backendai_types::image::ServicePort;
use backendai_types::{
    BackgroundTaskId, ClusterMode, KernelId, ResourceSlots, SessionId, SessionType,
};

use crate::statistics::{Metrics, Packed};

/// Commands are acknowledged, not awaited: the agent answers once it has noted them on disk.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// The public API's own limit for execute, interrupt, logs and files (`rest-errors.md` §4).
const INTERACTIVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Figures are at hand: an agent that takes longer is too busy to be asked.
const METRICS_TIMEOUT: Duration = Duration::from_secs(1);

crate::rpc_api! {
    /// What an agent does for managers.
    trait AgentApi, service AgentService, client AgentClient {
        /// Answers with who the agent is.
        fn hello(Hello) -> HelloReply, timeout COMMAND_TIMEOUT;
        /// Wants these kernels to run. Kernels that already exist are left as they are, and
        /// their last event is reported again. Refused when the epoch is stale.
        fn create_kernels(CreateKernels) -> (), timeout COMMAND_TIMEOUT;
        /// Wants the containers of these running kernels made anew, their folders kept. A
        /// kernel that has been restarted by this very request is left as it is, and its
        /// last event is reported again. Refused when the epoch is stale.
        fn restart_kernels(RestartKernels) -> (), timeout COMMAND_TIMEOUT;
        /// Wants these kernels gone. For a kernel that does not exist the agent reports
        /// it as terminated. Refused when the epoch is stale.
        fn destroy_kernels(DestroyKernels) -> (), timeout COMMAND_TIMEOUT;
        /// Makes the network of a session whose kernels lie on several hosts, unless it is
        /// there. Refused with `NotSupported` where the engine cannot: another agent may.
        fn create_network(SessionNetwork) -> (), timeout COMMAND_TIMEOUT;
        /// Removes such networks that this agent made. Those that are not there are no error.
        fn remove_networks(SessionNetworks) -> (), timeout COMMAND_TIMEOUT;
        /// Starts or continues a run of code. Not idempotent: a lost reply loses its output.
        fn execute(Execute) -> ExecuteReply, timeout INTERACTIVE_TIMEOUT;
        /// Interrupts what the kernel is running, as Ctrl-C would.
        fn interrupt(KernelCall) -> (), timeout INTERACTIVE_TIMEOUT;
        /// Completes code at a position.
        fn complete(Complete) -> Vec<String>, timeout COMMAND_TIMEOUT;
        /// Starts a service of the kernel and waits until it listens.
        fn start_service(StartService) -> ServiceStart, timeout INTERACTIVE_TIMEOUT;
        /// Ends a service. One that does not run is no error.
        fn stop_service(StopService) -> (), timeout COMMAND_TIMEOUT;
        /// Opens a stream into the kernel, to be fetched at the agent's stream port.
        fn open_stream(OpenStream) -> StreamTicket, timeout COMMAND_TIMEOUT;
        /// The container's log so far, its last bytes if it is longer than the agent keeps.
        fn kernel_log(KernelCall) -> KernelLog, timeout INTERACTIVE_TIMEOUT;
        /// A kernel's figures of this moment; `None` where it is not counted (yet).
        fn kernel_metrics(KernelCall) -> Option<Packed<Metrics>>, timeout METRICS_TIMEOUT;
        /// Begins to write the kernel's container into an archive on the agent's host, or
        /// takes up the commit with this id, and tells how far it is.
        fn commit(CommitKernel) -> CommitState, timeout INTERACTIVE_TIMEOUT;
        /// Health of the host's devices, by device kind.
        fn hardware(Hello) -> BTreeMap<String, DeviceHealth>, timeout COMMAND_TIMEOUT;
    }
}

/// Carries nothing; who asks is in the context.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Hello {}

/// Who an agent is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HelloReply {
    /// The agent's id.
    pub agent_id: String,
    /// Its version.
    pub version: String,
}

/// A call about one kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KernelCall {
    /// The kernel.
    pub kernel_id: KernelId,
}

/// Kernels of one session, those that lie on this agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateKernels {
    /// The session as a whole.
    pub session: SessionSpec,
    /// The kernels wanted on this agent.
    pub kernels: Vec<KernelSpec>,
}

/// A network for kernels of one session on several hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionNetwork {
    /// The session.
    pub session_id: SessionId,
    /// Largest packet in bytes, where it is not the engine's own choice.
    pub mtu: Option<u32>,
}

/// Networks of sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionNetworks {
    /// The sessions.
    pub sessions: Vec<SessionId>,
}

/// What all kernels of a session share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionSpec {
    /// The session.
    pub session_id: SessionId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub session_type: SessionType,
    /// Where its kernels may lie.
    pub cluster_mode: ClusterMode,
    /// Host names of all kernels with their roles, `main1` first.
    pub hosts: Vec<ClusterHost>,
    /// OpenSSH key pair shared by the kernels of a cluster; `None` for single kernels.
    pub cluster_ssh_keypair: Option<SshKeypair>,
}

/// One kernel's place in its session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterHost {
    /// `main1`, `sub1`…
    pub hostname: String,
    /// `main` or `sub`.
    pub role: String,
}

/// A key pair in OpenSSH (public) and PEM (private) form.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SshKeypair {
    /// One line, OpenSSH form.
    pub public_key: String,
    /// PEM.
    pub private_key: String,
}

impl std::fmt::Debug for SshKeypair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshKeypair").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

/// Everything an agent needs to make one kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelSpec {
    /// The kernel.
    pub kernel_id: KernelId,
    /// `main` or `sub`.
    pub cluster_role: String,
    /// From 1 within the role.
    pub cluster_idx: i32,
    /// 0 for the main kernel, then counting up.
    pub local_rank: i32,
    /// The container's host name.
    pub hostname: String,
    /// The image.
    pub image: ImageSpec,
    /// When to pull.
    pub auto_pull: AutoPull,
    /// Amounts of each resource slot.
    pub slots: ResourceSlots,
    /// Shared memory in bytes; part of the `mem` amount.
    pub shmem: u64,
    /// Environment variables, complete but for those the agent adds.
    pub environ: BTreeMap<String, String>,
    /// Folders to mount; made by the vfolder layer alone.
    pub mounts: Vec<MountSpec>,
    /// Script run before the kernel is RUNNING.
    pub bootstrap_script: Option<String>,
    /// Command of a batch session, run by the shell in `/home/work`.
    pub startup_command: Option<String>,
    /// Ports to serve that no label declares.
    pub preopen_ports: Vec<u16>,
    /// The user's own ssh key, placed into the container.
    pub ssh_keypair: Option<SshKeypair>,
    /// Files to place into the work folder; no two have the same path.
    pub dotfiles: Vec<Dotfile>,
}

/// A file of the user's, placed into the work folder before the kernel starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dotfile {
    /// Relative to `/home/work`, and beneath it.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub data: String,
}

/// An image to run, and where to pull it from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// Full name.
    pub canonical: String,
    /// `x86_64`…
    pub architecture: String,
    /// Digest of the image configuration, `sha256:…`; also the engine's image id where it
    /// does not use the containerd store.
    pub config_digest: String,
    /// Base URL of the registry; `None` for images that exist only in the agent's engine.
    pub registry_url: Option<String>,
    /// User name for the registry.
    pub registry_username: Option<String>,
    /// Password for the registry. Never logged.
    pub registry_password: Option<String>,
    /// The image's labels.
    pub labels: BTreeMap<String, String>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutoPull {
    /// When the engine's image differs from the registered digest.
    #[default]
    Digest,
    /// When the engine has no image of that name.
    Tag,
    /// Never.
    None,
}

/// A host folder seen inside the container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountSpec {
    /// The folder's name.
    pub name: String,
    /// Path on the host.
    pub host_path: String,
    /// Path in the container.
    pub kernel_path: String,
    /// True for `ro`.
    pub read_only: bool,
}

/// Kernels of one session to restart, those that lie on this agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestartKernels {
    /// The session as a whole.
    pub session: SessionSpec,
    /// The kernels.
    pub kernels: Vec<RestartKernel>,
}

/// A kernel to restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestartKernel {
    /// Names this restart among all of the kernel.
    pub restart: i64,
    /// The kernel as it shall be.
    pub spec: KernelSpec,
}

/// Kernels to remove.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DestroyKernels {
    /// The kernels with their sessions.
    pub kernels: Vec<(KernelId, SessionId)>,
    /// Why, as reported back: `user-requested`, `task-finished`…
    pub reason: String,
}

/// One step of running code.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Execute {
    /// The kernel.
    pub kernel_id: KernelId,
    /// Which run; `None` lets the agent name a new one.
    pub run_id: Option<String>,
    /// What to do.
    pub mode: ExecuteMode,
    /// The last [`ExecuteReply::last_record`] of this run that reached the caller, 0 for none:
    /// an agent that was killed after its answer hands out nothing twice.
    pub received: u64,
    /// How long to gather output before answering `continued`.
    pub flush_ms: u64,
}

/// What to do in one step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ExecuteMode {
    /// Run a piece of code in the language runtime.
    Query {
        /// Source text.
        code: String,
    },
    /// Run clean, build and exec commands; `None` skips one, `*` is the runtime's default.
    Batch {
        /// Cleaning command.
        clean: Option<String>,
        /// Building command.
        build: Option<String>,
        /// Main command.
        exec: Option<String>,
    },
    /// Wait for more output.
    Continue,
    /// Answer `waiting-input`.
    Input {
        /// The text, without a newline.
        text: String,
    },
}

/// What a step of a run gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecuteReply {
    /// The run.
    pub run_id: String,
    /// How the step ended.
    pub status: RunStatus,
    /// Exit code with the `*-finished` statuses.
    pub exit_code: Option<i32>,
    /// True when the awaited input is a password; only with `waiting-input`.
    pub is_password: Option<bool>,
    /// Output since the last step, adjacent pieces of one stream merged.
    pub console: Vec<ConsoleItem>,
    /// Up to which of the runner's records the run's output has been handed out.
    pub last_record: u64,
}

/// How one step of a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunStatus {
    /// More will come.
    Continued,
    /// The program waits for a line of input.
    WaitingInput,
    /// The clean step is done.
    CleanFinished,
    /// The build step is done.
    BuildFinished,
    /// The run is over.
    Finished,
    /// The run was ended for taking too long.
    ExecTimeout,
}

impl RunStatus {
    /// The spelling of the public API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Continued => "continued",
            Self::WaitingInput => "waiting-input",
            Self::CleanFinished => "clean-finished",
            Self::BuildFinished => "build-finished",
            Self::Finished => "finished",
            Self::ExecTimeout => "exec-timeout",
        }
    }
}

pub use crate::runner::{ConsoleItem, ServiceStart, StreamTarget};

/// A position in code to complete at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Complete {
    /// The kernel.
    pub kernel_id: KernelId,
    /// All of the code.
    pub code: String,
    /// Row and column of the cursor, from 0; the end of the code if absent.
    pub cursor: Option<(u32, u32)>,
}

/// A service to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartService {
    /// The kernel.
    pub kernel_id: KernelId,
    /// The service's name.
    pub name: String,
    /// Command-line arguments by flag: none, one or several values each.
    pub arguments: BTreeMap<String, Vec<String>>,
    /// Environment variables.
    pub envs: BTreeMap<String, String>,
}

/// A service to end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StopService {
    /// The kernel.
    pub kernel_id: KernelId,
    /// The service's name.
    pub name: String,
}

/// A stream to open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenStream {
    /// The kernel.
    pub kernel_id: KernelId,
    /// Where it shall lead.
    pub target: StreamTarget,
}

/// What fetches an open stream: whoever connects to the port, on the host of the agent's
/// RPC address, and sends the token first has the stream. Good once, for a few seconds.
#[derive(Clone, Serialize, Deserialize)]
pub struct StreamTicket {
    /// TCP port.
    pub port: u16,
    /// The token.
    pub token: [u8; STREAM_TOKEN_LEN],
}

/// Bytes of a [`StreamTicket`]'s token.
pub const STREAM_TOKEN_LEN: usize = 32;

impl std::fmt::Debug for StreamTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamTicket").field("port", &self.port).finish_non_exhaustive()
    }
}

/// A container's log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KernelLog {
    /// Raw bytes, stdout and stderr as they came.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// An archive that is wanted of a kernel's container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CommitKernel {
    /// Which commit: two calls with one id are about the same.
    pub commit_id: BackgroundTaskId,
    /// The kernel.
    pub kernel_id: KernelId,
    /// Folder of the archive, below the agent's folder for commits.
    pub subdir: String,
    /// The archive's name.
    pub filename: String,
    /// How long the answer may wait for the end.
    pub wait_ms: u64,
}

/// How far a commit is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommitState {
    /// It is under way.
    Ongoing {
        /// What the engine has given out so far, before compression.
        bytes: u64,
    },
    /// The archive is whole.
    Done {
        /// Its size.
        bytes: u64,
    },
    /// There will be no archive.
    Failed {
        /// Why.
        message: String,
    },
}

/// Health of one kind of device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceHealth {
    /// `healthy`, `degraded`, `offline` or `unavailable`.
    pub status: String,
    /// In words.
    pub status_info: Option<String>,
    /// More facts.
    pub metadata: BTreeMap<String, String>,
}

/// What a started kernel turned out to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreationInfo {
    /// The engine's id of the container.
    pub container_id: String,
    /// Address of the agent as clients of apps would see it.
    pub kernel_host: String,
    /// Apps it can serve.
    pub service_ports: Vec<ServicePort>,
    /// What it really occupies.
    pub slots: ResourceSlots,
    /// Which devices it got: kind → slot → device → amount as text.
    pub allocations: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
}
