//! The sections of `agent.toml`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use backendai_rpc::runner::RUNNER_PATH;
use backendai_service::config::HostPort;
use backendai_service::config::agent_file::Unused;
use backendai_types::ByteCount;

use crate::scratch::volume::Volume;

/// Which container engine runs kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// Docker.
    #[default]
    Docker,
    /// None: containers in memory, for simulations.
    Dummy,
}

/// The agent itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AgentSection {
    /// Which container engine runs kernels; `docker` if absent.
    pub backend: Option<BackendKind>,
    /// The older name of `backend`.
    pub mode: Option<BackendKind>,
    /// Where managers call; an empty host is the address by which etcd is reached, port 0
    /// any free one.
    pub rpc_listen_addr: HostPort,
    /// Replaces the host of `rpc-listen-addr`.
    pub rpc_listen_host: Option<String>,
    /// Replaces the port of `rpc-listen-addr`.
    pub rpc_listen_port: Option<u16>,
    /// The address told to managers, where it differs (NAT).
    pub advertised_rpc_addr: Option<HostPort>,
    /// Certificate with the agent's CURVE keys; made in `var-base-path` if absent.
    pub rpc_auth_agent_keypair: Option<PathBuf>,
    /// Certificate with a manager's public key that may call besides those in etcd.
    pub rpc_auth_manager_public_key: Option<PathBuf>,
    /// Leaves RPC without encryption and authentication; loopback only.
    pub rpc_plain: bool,
    /// The agent's id; `i-<hostname>` if absent.
    pub id: Option<String>,
    /// Folder of the runners' sockets, one folder a kernel.
    pub ipc_base_path: PathBuf,
    /// Folder of what must survive a restart: kernel records, keys, logs to hand over.
    pub var_base_path: PathBuf,
    /// Directory that holds the hosts of users' folders, the same as on the managers;
    /// `volumes/_mount` in etcd if absent.
    pub mount_path: Option<PathBuf>,
    /// Folder of the archives that committed sessions become.
    pub image_commit_path: PathBuf,
    /// Host name or address by which users reach apps; the RPC host if absent.
    pub public_host: Option<String>,
    /// `local` on premises.
    pub region: String,
    /// Scaling group the agent belongs to.
    pub scaling_group: String,
    /// Containers made at once, 1 to 32.
    pub kernel_creation_concurrency: usize,
    /// How often the node's and the kernels' statistics are taken and told.
    #[serde(with = "seconds")]
    pub statistics_interval: Duration,
    /// Tells kernels about themselves at http://169.254.169.254/, by rules in the host's
    /// firewall (iptables) that last as long as the agent runs.
    pub metadata_server_enabled: bool,
    /// Where the service of that listens: containers reach it at their bridge's address, and
    /// nobody but the agent's containers is answered.
    pub metadata_server_bind_host: String,
    /// The port of that; 0 lets the system choose.
    pub metadata_server_port: u16,
    /// File with the process id, if one is wanted.
    pub pid_file: Option<PathBuf>,

    #[serde(skip_serializing)]
    agent_sock_port: Unused,
    #[serde(skip_serializing)]
    cohabiting_storage_proxy: Unused,
    #[serde(skip_serializing)]
    instance_type: Unused,
    #[serde(skip_serializing)]
    event_loop: Unused,
    #[serde(skip_serializing)]
    skip_manager_detection: Unused,
    #[serde(skip_serializing)]
    aiomonitor_port: Unused,
    #[serde(skip_serializing)]
    aiomonitor_termui_port: Unused,
    #[serde(skip_serializing)]
    aiomonitor_webui_port: Unused,
    #[serde(skip_serializing)]
    allow_compute_plugins: Unused,
    #[serde(skip_serializing)]
    block_compute_plugins: Unused,
    #[serde(skip_serializing)]
    abuse_report_path: Unused,
    #[serde(skip_serializing)]
    force_terminate_abusing_containers: Unused,
}

impl Default for AgentSection {
    fn default() -> Self {
        Self {
            backend: None,
            mode: None,
            rpc_listen_addr: HostPort::new("", 6001),
            rpc_listen_host: None,
            rpc_listen_port: None,
            advertised_rpc_addr: None,
            rpc_auth_agent_keypair: None,
            rpc_auth_manager_public_key: None,
            rpc_plain: false,
            id: None,
            ipc_base_path: PathBuf::from("/tmp/backend.ai/ipc"),
            var_base_path: PathBuf::from("./var/lib/backend.ai"),
            mount_path: None,
            image_commit_path: PathBuf::from("./tmp/backend.ai/commit"),
            public_host: None,
            region: "local".to_owned(),
            scaling_group: "default".to_owned(),
            kernel_creation_concurrency: 4,
            statistics_interval: Duration::from_secs(5),
            metadata_server_enabled: true,
            metadata_server_bind_host: "0.0.0.0".to_owned(),
            metadata_server_port: 40128,
            pid_file: None,
            agent_sock_port: Unused,
            cohabiting_storage_proxy: Unused,
            instance_type: Unused,
            event_loop: Unused,
            skip_manager_detection: Unused,
            aiomonitor_port: Unused,
            aiomonitor_termui_port: Unused,
            aiomonitor_webui_port: Unused,
            allow_compute_plugins: Unused,
            block_compute_plugins: Unused,
            abuse_report_path: Unused,
            force_terminate_abusing_containers: Unused,
        }
    }
}

impl AgentSection {
    /// Which container engine runs kernels.
    pub fn kind(&self) -> BackendKind {
        self.backend.or(self.mode).unwrap_or_default()
    }

    /// Where managers call, with the replacements.
    pub fn listen_addr(&self) -> HostPort {
        HostPort {
            host: self.rpc_listen_host.clone().unwrap_or_else(|| self.rpc_listen_addr.host.clone()),
            port: self.rpc_listen_port.unwrap_or(self.rpc_listen_addr.port),
        }
    }

    pub(super) fn listens_on_loopback(&self) -> bool {
        let host = self.listen_addr().host;
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// Where kernels' folders lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScratchType {
    /// Folders on the host, as large as its file system.
    #[default]
    Hostdir,
    /// A file system of its own for each kernel, in a file of `scratch-size`. Wants root.
    Hostfile,
    /// Main memory, `scratch-size` of it or 64 MiB. Wants root.
    Memory,
}

/// Containers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ContainerSection {
    /// Numeric user that the user's code runs as; -1 is the agent's own, or 1000 where the
    /// agent is root.
    pub kernel_uid: i64,
    /// Numeric group, likewise.
    pub kernel_gid: i64,
    /// Host name or address told as the kernels' host; the RPC host if empty.
    pub bind_host: String,
    /// The older name of `bind-host`.
    pub kernel_host: Option<String>,
    /// Told instead of `bind-host`.
    pub advertised_host: Option<String>,
    /// Where kernels' folders lie: `hostdir`, `hostfile` (each in a file that holds
    /// `scratch-size`) or `memory`. The last two want root.
    pub scratch_type: ScratchType,
    /// Folder with a folder for each kernel.
    pub scratch_root: PathBuf,
    /// How much one kernel can write, where `scratch-type` limits it: `/home/work`, `/tmp` and
    /// `/var/tmp` together.
    pub scratch_size: ByteCount,
    /// The kernel runner's binary on this host.
    pub runner_path: PathBuf,
    /// How long a container may take from its start to its runner's readiness; its
    /// bootstrap script runs in this time.
    #[serde(with = "seconds")]
    pub ready_timeout: Duration,
    /// How long a kernel's processes may take to end after SIGTERM.
    #[serde(with = "seconds")]
    pub stop_grace: Duration,
    /// Processes and threads of one container.
    pub pids_limit: u32,
    /// Bytes of log kept of a container.
    pub log_max_length: ByteCount,
    /// First and last of the ports from which the agent takes the one where managers fetch
    /// the traffic of apps and terminals.
    pub port_range: (u16, u16),

    #[serde(skip_serializing)]
    stats_type: Unused,
    #[serde(skip_serializing)]
    sandbox_type: Unused,
    #[serde(skip_serializing)]
    jail_args: Unused,
    #[serde(skip_serializing)]
    scratch_nfs_address: Unused,
    #[serde(skip_serializing)]
    scratch_nfs_options: Unused,
    #[serde(skip_serializing)]
    alternative_bridge: Unused,
    #[serde(skip_serializing)]
    swarm_enabled: Unused,
}

impl Default for ContainerSection {
    fn default() -> Self {
        Self {
            kernel_uid: -1,
            kernel_gid: -1,
            bind_host: String::new(),
            kernel_host: None,
            advertised_host: None,
            scratch_type: ScratchType::Hostdir,
            scratch_root: PathBuf::from("./scratches"),
            scratch_size: ByteCount(0),
            runner_path: PathBuf::from(RUNNER_PATH),
            ready_timeout: Duration::from_secs(60),
            stop_grace: Duration::from_secs(2),
            // Enough for builds with many jobs, too few to exhaust a host's pids.
            pids_limit: 8192,
            log_max_length: ByteCount(10 << 20),
            port_range: (30000, 31000),
            stats_type: Unused,
            sandbox_type: Unused,
            jail_args: Unused,
            scratch_nfs_address: Unused,
            scratch_nfs_options: Unused,
            alternative_bridge: Unused,
            swarm_enabled: Unused,
        }
    }
}

/// The product's own size of scratch folders in memory.
const MEMORY_BYTES: u64 = 64 << 20;

impl ContainerSection {
    /// What kernels' folders lie on.
    pub fn scratch_volume(&self) -> Volume {
        match (self.scratch_type, self.scratch_size.bytes()) {
            (ScratchType::Hostdir, _) => Volume::Folder,
            (ScratchType::Hostfile, size) => Volume::Image(size),
            (ScratchType::Memory, 0) => Volume::Memory(MEMORY_BYTES),
            (ScratchType::Memory, size) => Volume::Memory(size),
        }
    }

    /// The numeric user and group of the user's code.
    pub fn owner(&self) -> (u32, u32) {
        // What the first user of a Linux host gets: never root by mere omission.
        const UNPRIVILEGED: u32 = 1000;
        let pick = |configured: i64, own: u32| match u32::try_from(configured) {
            Ok(id) => id,
            Err(_) if own == 0 => UNPRIVILEGED,
            Err(_) => own,
        };
        (
            pick(self.kernel_uid, rustix::process::geteuid().as_raw()),
            pick(self.kernel_gid, rustix::process::getegid().as_raw()),
        )
    }
}

/// How devices on several NUMA nodes are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AffinityPolicy {
    /// From all nodes in turn.
    #[default]
    #[serde(rename = "INTERLEAVED")]
    Interleaved,
    /// From one node before the next.
    #[serde(rename = "PREFER_SINGLE_NODE")]
    PreferSingleNode,
}

/// What the host offers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ResourceSection {
    /// Cores kept for the host.
    pub reserved_cpu: u32,
    /// Memory kept for the host.
    pub reserved_mem: ByteCount,
    /// Device kinds in the order in which they are chosen; others follow.
    pub allocation_order: Vec<String>,
    /// How devices on several NUMA nodes are chosen.
    pub affinity_policy: AffinityPolicy,
    /// How many kernels may share a core, 1 to 10.
    pub cpu_overcommit_factor: u32,
    /// How many times the memory is given away, 1 to 10.
    pub mem_overcommit_factor: u32,

    #[serde(skip_serializing)]
    reserved_disk: Unused,
}

impl Default for ResourceSection {
    fn default() -> Self {
        Self {
            reserved_cpu: 1,
            reserved_mem: ByteCount(1 << 30),
            allocation_order: ["cuda", "rocm", "tpu", "cpu", "mem"].map(str::to_owned).to_vec(),
            affinity_policy: AffinityPolicy::default(),
            cpu_overcommit_factor: 1,
            mem_overcommit_factor: 1,
            reserved_disk: Unused,
        }
    }
}

/// What helps developers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DebugSection {
    /// Logs at level DEBUG.
    pub enabled: bool,
    /// Seconds between heartbeats.
    pub heartbeat_interval: f64,
    /// Seconds between looks at the engine's images.
    pub image_interval: f64,

    #[serde(skip_serializing)]
    asyncio: Unused,
    #[serde(skip_serializing)]
    kernel_runner: Unused,
    #[serde(skip_serializing)]
    enhanced_aiomonitor_task_info: Unused,
    #[serde(skip_serializing)]
    skip_container_deletion: Unused,
    #[serde(skip_serializing)]
    log_stats: Unused,
    #[serde(skip_serializing)]
    log_kernel_config: Unused,
    #[serde(skip_serializing)]
    log_alloc_map: Unused,
    #[serde(skip_serializing)]
    log_events: Unused,
    #[serde(skip_serializing)]
    log_heartbeats: Unused,
    #[serde(skip_serializing)]
    log_docker_events: Unused,
    #[serde(skip_serializing)]
    coredump: Unused,
}

impl Default for DebugSection {
    fn default() -> Self {
        Self {
            enabled: false,
            heartbeat_interval: 1.0,
            image_interval: 20.0,
            asyncio: Unused,
            kernel_runner: Unused,
            enhanced_aiomonitor_task_info: Unused,
            skip_container_deletion: Unused,
            log_stats: Unused,
            log_kernel_config: Unused,
            log_alloc_map: Unused,
            log_events: Unused,
            log_heartbeats: Unused,
            log_docker_events: Unused,
            coredump: Unused,
        }
    }
}

/// Durations as numbers of seconds.
mod seconds {
    use serde::Serializer;

    use super::{Deserialize, Deserializer, Duration};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(value.as_secs_f64())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}
