//! What the watcher reads of `agent.toml`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use backendai_service::config::agent_file::{EtcdSection, LoggingSection, WatcherSection};
use backendai_service::config::{ConfigError, HostPort, Loaded, Schema};

/// Where the configuration comes from.
pub const SCHEMA: Schema = Schema {
    name: "agent",
    env_prefix: "BACKENDAI_WATCHER",
    env_names: &[
        ("BACKEND_NAMESPACE", "etcd.namespace"),
        ("BACKEND_ETCD_ADDR", "etcd.addr"),
        ("BACKEND_ETCD_USER", "etcd.user"),
        ("BACKEND_ETCD_PASSWORD", "etcd.password"),
        ("BACKEND_AGENT_PORT", "agent.rpc-listen-port"),
        ("BACKEND_SCRATCH_ROOT", "container.scratch-root"),
        ("BACKEND_WATCHER_SERVICE_IP", "watcher.service-ip"),
        ("BACKEND_WATCHER_SERVICE_PORT", "watcher.service-port"),
    ],
};

/// Sections of the file that are the agent's alone. The agent checks them.
const IGNORED: &[&str] = &["debug", "metrics", "plugins", "resource"];

/// The part of the file that matters here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct WatcherConfig {
    /// Where the cluster's shared configuration is.
    pub etcd: EtcdSection,
    /// The watcher itself.
    pub watcher: WatcherSection,
    /// Log lines.
    pub logging: LoggingSection,
    /// The agent that is watched.
    pub agent: AgentSection,
    /// Where the agent's containers keep their files.
    pub container: ContainerSection,
}

/// What the watcher must know of the agent. The section's other keys are the agent's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct AgentSection {
    /// The agent's id; `i-<hostname>` if absent.
    pub id: Option<String>,
    /// Where managers call the agent.
    pub rpc_listen_addr: HostPort,
    /// Replaces the port of `rpc-listen-addr`.
    pub rpc_listen_port: Option<u16>,
}

impl Default for AgentSection {
    fn default() -> Self {
        Self { id: None, rpc_listen_addr: HostPort::new("", 6001), rpc_listen_port: None }
    }
}

impl AgentSection {
    /// The agent's id.
    pub fn id(&self) -> String {
        self.id.clone().unwrap_or_else(|| {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            format!("i-{host}")
        })
    }

    /// The port of the agent's RPC.
    pub fn rpc_port(&self) -> u16 {
        self.rpc_listen_port.unwrap_or(self.rpc_listen_addr.port)
    }
}

/// What the watcher must know of containers. The section's other keys are the agent's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ContainerSection {
    /// Folder of the kernels' files.
    pub scratch_root: PathBuf,
}

impl Default for ContainerSection {
    fn default() -> Self {
        Self { scratch_root: PathBuf::from("./scratches") }
    }
}

impl WatcherConfig {
    /// Loads and checks the configuration. `file` is the one named on the command line.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense; the message names file and key.
    pub fn load(file: Option<&Path>) -> Result<Loaded<Self>, ConfigError> {
        let loaded = SCHEMA.load_ignoring::<Self>(file, &[], IGNORED)?;
        loaded.check(|config| {
            if config.etcd.namespace.is_empty() {
                let why = "etcd.namespace: must be set: it names the cluster";
                return Err(ConfigError::Contradiction(why.to_owned()));
            }
            config.watcher.check()
        })?;
        Ok(loaded)
    }
}
