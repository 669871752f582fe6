//! `agent.toml`: one struct per section.
//!
//! Unknown keys are errors. Keys of the product's own file that this agent has no use for
//! are accepted and do nothing, so that an existing file can be kept; they are the fields
//! of type [`Unused`]. The watcher reads the same file.

mod sections;

use std::path::Path;

use serde::{Deserialize, Serialize};

use backendai_service::config::agent_file::{Unused, WatcherSection};
use backendai_service::config::{ConfigError, Loaded, Schema};
use backendai_service::metrics::MetricsSection;

pub use backendai_service::config::agent_file::{EtcdSection, LoggingSection};
pub use sections::{
    AffinityPolicy, AgentSection, BackendKind, ContainerSection, DebugSection, ResourceSection,
    ScratchType,
};

/// Where the configuration comes from.
pub const SCHEMA: Schema = Schema {
    name: "agent",
    env_prefix: "BACKENDAI_AGENT",
    env_names: &[
        ("BACKEND_NAMESPACE", "etcd.namespace"),
        ("BACKEND_ETCD_ADDR", "etcd.addr"),
        ("BACKEND_ETCD_USER", "etcd.user"),
        ("BACKEND_ETCD_PASSWORD", "etcd.password"),
        ("BACKEND_AGENT_HOST_OVERRIDE", "agent.rpc-listen-host"),
        ("BACKEND_AGENT_PORT", "agent.rpc-listen-port"),
        ("BACKEND_PID_FILE", "agent.pid-file"),
        ("BACKEND_REGION", "agent.region"),
        ("BACKEND_BIND_HOST_OVERRIDE", "container.bind-host"),
        ("BACKEND_CONTAINER_PORT_RANGE", "container.port-range"),
        ("BACKEND_SANDBOX_TYPE", "container.sandbox-type"),
        ("BACKEND_WATCHER_SERVICE_IP", "watcher.service-ip"),
        ("BACKEND_WATCHER_SERVICE_PORT", "watcher.service-port"),
        ("BACKEND_SCRATCH_ROOT", "container.scratch-root"),
        ("BACKEND_CPU_OVERCOMMIT_FACTOR", "resource.cpu-overcommit-factor"),
        ("BACKEND_MEM_OVERCOMMIT_FACTOR", "resource.mem-overcommit-factor"),
    ],
};

/// The whole file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AgentConfig {
    /// Where the cluster's shared configuration is.
    pub etcd: EtcdSection,
    /// The agent itself.
    pub agent: AgentSection,
    /// Containers.
    pub container: ContainerSection,
    /// What the host offers.
    pub resource: ResourceSection,
    /// What helps developers.
    pub debug: DebugSection,
    /// Log lines.
    pub logging: LoggingSection,
    /// Figures for Prometheus.
    pub metrics: MetricsSection,
    /// The watcher beside the agent, a program of its own that reads this file too.
    pub watcher: WatcherSection,
    #[serde(skip_serializing)]
    plugins: Unused,
}

/// Bytes of an image that holds the file system's own tables and what the agent writes.
const SMALLEST_IMAGE: u64 = 8 << 20;

impl AgentConfig {
    /// Loads and checks the configuration. `file` is the one named on the command line.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense; the message names file and key.
    pub fn load(
        file: Option<&Path>,
        overrides: &[(&str, String)],
    ) -> Result<Loaded<Self>, ConfigError> {
        let loaded = SCHEMA.load::<Self>(file, overrides)?;
        loaded.value.check()?;
        Ok(loaded)
    }

    /// Checks what single keys cannot show.
    ///
    /// # Errors
    /// Values that contradict each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: &str| Err(ConfigError::Contradiction(text.to_owned()));
        if self.etcd.namespace.is_empty() {
            return wrong("etcd.namespace must be set: it names the cluster");
        }
        if self.agent.backend.is_some() && self.agent.mode.is_some() {
            return wrong("agent.backend and agent.mode are the same key: set one");
        }
        if !(1..=32).contains(&self.agent.kernel_creation_concurrency) {
            return wrong("agent.kernel-creation-concurrency must lie between 1 and 32");
        }
        let factors = [self.resource.cpu_overcommit_factor, self.resource.mem_overcommit_factor];
        if factors.iter().any(|factor| !(1..=10).contains(factor)) {
            return wrong(
                "resource.cpu-overcommit-factor and resource.mem-overcommit-factor must lie \
                 between 1 and 10",
            );
        }
        self.metrics.check()?;
        self.watcher.check()?;
        if self.agent.statistics_interval.is_zero() {
            return wrong("agent.statistics-interval must be more than 0 seconds");
        }
        let container = &self.container;
        if container.scratch_type == ScratchType::Hostfile
            && container.scratch_size.bytes() < SMALLEST_IMAGE
        {
            return wrong(
                "container.scratch-type = \"hostfile\" wants container.scratch-size, at least 8m",
            );
        }
        if self.debug.heartbeat_interval <= 0.0 {
            return wrong("debug.heartbeat-interval must be more than 0 seconds");
        }
        if self.agent.rpc_plain && !self.agent.listens_on_loopback() {
            return wrong(
                "agent.rpc-plain leaves the RPC without encryption and is allowed on loopback \
                 addresses only: set agent.rpc-listen-addr to 127.0.0.1",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<AgentConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        AgentConfig::load(Some(&path), &[]).map(|l| l.value).map_err(|e| e.to_string())
    }

    #[test]
    fn a_file_of_the_product_is_accepted() {
        let config = load(
            r#"
            [etcd]
            namespace = "local"
            addr = { host = "127.0.0.1", port = 8120 }
            user = ""
            password = ""
            [agent]
            mode = "docker"
            rpc-listen-addr = { host = "", port = 6011 }
            agent-sock-port = 6007
            id = "i-dev"
            scaling-group = "default"
            pid-file = "./agent.pid"
            event-loop = "uvloop"
            [container]
            port-range = [30000, 31000]
            kernel-uid = -1
            kernel-gid = -1
            bind-host = "127.0.0.1"
            sandbox-type = "docker"
            jail-args = []
            scratch-type = "hostdir"
            scratch-root = "./scratches"
            scratch-size = "1G"
            [watcher]
            service-addr = { host = "127.0.0.1", port = 6019 }
            target-service = "backendai-agent.service"
            [logging]
            level = "INFO"
            drivers = ["console"]
            [logging.pkg-ns]
            "" = "WARNING"
            [logging.console]
            colored = true
            [resource]
            reserved-cpu = 1
            reserved-mem = "1G"
            reserved-disk = "8G"
            [debug]
            enabled = false
            log-heartbeats = false
            [debug.coredump]
            enabled = false
            "#,
        )
        .unwrap();
        assert_eq!(config.agent.kind(), BackendKind::Docker);
        assert_eq!(config.agent.listen_addr().port, 6011);
        assert_eq!(config.resource.reserved_mem.bytes(), 1 << 30);
    }

    #[test]
    fn typos_and_contradictions_are_told() {
        let typo = load("[etcd]\nnamespace='x'\n[agent]\nscaling-grup='x'\n").unwrap_err();
        assert!(typo.contains("scaling-grup"), "{typo}");
        let plain = "[etcd]\nnamespace='x'\n[agent]\nrpc-plain=true\nrpc-listen-addr='0.0.0.0:1'\n";
        assert!(load(plain).unwrap_err().contains("loopback"));
        assert!(load("[agent]\nid='x'\n").unwrap_err().contains("etcd.namespace"));
        let no_size = "[etcd]\nnamespace='x'\n[container]\nscratch-type='hostfile'\n";
        assert!(load(no_size).unwrap_err().contains("scratch-size"));
        let factor = "[etcd]\nnamespace='x'\n[resource]\ncpu-overcommit-factor=11\n";
        assert!(load(factor).unwrap_err().contains("overcommit"));
    }
}
