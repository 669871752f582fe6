//! `manager.toml`: one struct per section, defaults beside the fields.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use backendai_datastore::DatastoreConfig;
use backendai_service::config::{ConfigError, HostPort, Loaded, Schema, Secret, text};
use backendai_service::etcd::EtcdAddress;
use backendai_service::metrics::MetricsSection;
use backendai_service::telemetry::LogFormat;

/// Where the configuration comes from.
pub const SCHEMA: Schema = Schema {
    name: "manager",
    env_prefix: "BACKENDAI_MANAGER",
    env_names: &[
        ("BACKEND_NAMESPACE", "etcd.namespace"),
        ("BACKEND_ETCD_ADDR", "etcd.addr"),
        ("BACKEND_ETCD_USER", "etcd.user"),
        ("BACKEND_ETCD_PASSWORD", "etcd.password"),
        ("BACKEND_DB_ADDR", "db.addr"),
        ("BACKEND_DB_NAME", "db.name"),
        ("BACKEND_DB_USER", "db.user"),
        ("BACKEND_DB_PASSWORD", "db.password"),
        ("BACKEND_PID_FILE", "manager.pid-file"),
    ],
};

/// Keys and sections that existing files of the product have and that mean nothing here.
pub const IGNORED: &[&str] = &[
    "db.max-overflow",
    "db.pool-recycle",
    "db.type",
    "debug",
    "docker-registry",
    "logging.console",
    "logging.drivers",
    "logging.file",
    "logging.graylog",
    "logging.logstash",
    "logging.pkg-ns",
    "manager.aiomonitor-port",
    "manager.aiomonitor-termui-port",
    "manager.aiomonitor-webui-port",
    "manager.allowed-plugins",
    "manager.disabled-plugins",
    "manager.distributed-lock",
    "manager.event-loop",
    "manager.group",
    "manager.importer-image",
    "manager.ipc-base-path",
    "manager.num-proc",
    "manager.secret",
    "manager.ssl-cert",
    "manager.ssl-privkey",
    "manager.user",
];

/// Loads and checks the configuration; `explicit` is the file of the command line.
///
/// # Errors
/// No or unreadable file, unknown keys, wrong types, contradictions.
pub fn load(explicit: Option<&Path>) -> Result<Loaded<ManagerConfig>, ConfigError> {
    let loaded = SCHEMA.load_ignoring(explicit, &[], IGNORED)?;
    loaded.check(ManagerConfig::validate)?;
    Ok(loaded)
}

/// The whole file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ManagerConfig {
    /// The shared configuration store.
    pub etcd: EtcdSection,
    /// The database.
    pub db: DbSection,
    /// The manager itself.
    pub manager: ManagerSection,
    /// Logs.
    pub logging: LoggingSection,
    /// Figures for Prometheus.
    pub metrics: MetricsSection,
    /// Intervals and limits that operators rarely and tests often change.
    pub tunables: Tunables,
}

/// `[etcd]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct EtcdSection {
    /// Key namespace; clusters that share an etcd have different ones.
    pub namespace: String,
    /// Address of etcd.
    pub addr: HostPort,
    /// User; empty without authentication.
    #[serde(deserialize_with = "text")]
    pub user: String,
    /// Password.
    pub password: Secret,
}

impl Default for EtcdSection {
    fn default() -> Self {
        Self {
            namespace: "local".into(),
            addr: HostPort::new("127.0.0.1", 2379),
            user: String::new(),
            password: Secret::default(),
        }
    }
}

/// `[db]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct DbSection {
    /// Address of PostgreSQL.
    pub addr: HostPort,
    /// Database.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// User.
    #[serde(deserialize_with = "text")]
    pub user: String,
    /// Password; or `password-file`.
    pub password: Secret,
    /// File that holds the password, instead of `password`.
    pub password_file: Option<PathBuf>,
    /// Connections kept.
    pub pool_size: usize,
}

impl Default for DbSection {
    fn default() -> Self {
        Self {
            addr: HostPort::new("127.0.0.1", 5432),
            name: "backend".into(),
            user: "postgres".into(),
            password: Secret::default(),
            password_file: None,
            // Measured: around 4 per core serves best, more lengthen the tail.
            pool_size: 8,
        }
    }
}

/// `[manager]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ManagerSection {
    /// Name of this manager; `i-<hostname>` if empty. Unique in the cluster.
    pub id: String,
    /// Where the API listens; port 0 lets the system choose.
    pub service_addr: HostPort,
    /// Where agents deliver heartbeats and events.
    pub event_listen_addr: HostPort,
    /// The address agents connect to for that, if it differs.
    pub event_advertised_addr: Option<HostPort>,
    /// Speak to agents without encryption. Only for loopback.
    pub rpc_plain: bool,
    /// CURVE key of the manager (`.key_secret`); made in `state-dir` if absent.
    pub rpc_auth_manager_keypair: Option<PathBuf>,
    /// Where the manager keeps its own key.
    pub state_dir: PathBuf,
    /// File to write the process id to.
    pub pid_file: Option<PathBuf>,
    /// An agent that was silent this long (seconds) is LOST.
    pub heartbeat_timeout: f64,
    /// Serve the API over TLS. Not offered: put a proxy in front that does.
    pub ssl_enabled: bool,
    /// Hide agent ids from users.
    pub hide_agents: bool,
    /// Slots in the order in which they matter for choosing an agent.
    pub agent_selection_resource_priority: Vec<String>,
    /// Largest incoming websocket message, bytes.
    pub max_wsmsg_size: usize,
}

impl Default for ManagerSection {
    fn default() -> Self {
        Self {
            id: String::new(),
            service_addr: HostPort::new("0.0.0.0", 8080),
            event_listen_addr: HostPort::new("0.0.0.0", 5002),
            event_advertised_addr: None,
            rpc_plain: false,
            rpc_auth_manager_keypair: None,
            state_dir: "/var/lib/backend.ai/manager".into(),
            pid_file: None,
            heartbeat_timeout: 3.0,
            ssl_enabled: false,
            hide_agents: false,
            agent_selection_resource_priority: ["cuda", "rocm", "tpu", "cpu", "mem"]
                .map(str::to_owned)
                .to_vec(),
            max_wsmsg_size: 16 << 20,
        }
    }
}

/// `[logging]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct LoggingSection {
    /// CRITICAL, ERROR, WARNING, INFO, DEBUG, or a filter.
    pub level: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

impl Default for LoggingSection {
    fn default() -> Self {
        Self { level: "INFO".into(), format: LogFormat::Text }
    }
}

/// `[tunables]`: seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Tunables {
    /// How often every task looks, should a wake-up have been lost.
    pub task_interval_s: f64,
    /// How long a session may stay SCHEDULED.
    pub scheduled_deadline_s: f64,
    /// How long a session may stay PREPARING or PULLING.
    pub preparing_deadline_s: f64,
    /// How long a session may stay TERMINATING.
    pub terminating_deadline_s: f64,
    /// Life of the leader's lease: how long the cluster is without loops after a crash.
    pub leader_lease_s: u64,
    /// How long background tasks of a manager that died seem to go on.
    pub background_task_lease_s: f64,
    /// How long a deleted folder can be had back; 0 removes it at once.
    pub vfolder_trash_s: f64,
    /// How long a token for an upload or a download is good.
    pub transfer_token_s: f64,
}

impl Default for Tunables {
    fn default() -> Self {
        Self {
            task_interval_s: 5.0,
            scheduled_deadline_s: 60.0,
            // A large image over a slow link.
            preparing_deadline_s: 1800.0,
            terminating_deadline_s: 60.0,
            leader_lease_s: 2,
            background_task_lease_s: 15.0,
            // Three days: mistakes of a Friday are found on Monday.
            vfolder_trash_s: 259_200.0,
            // A day: the largest file over a slow link.
            transfer_token_s: 86_400.0,
        }
    }
}

impl ManagerConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A contradiction, with its keys.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::Contradiction(text));
        if self.etcd.namespace.is_empty() {
            return wrong("etcd.namespace: must not be empty".into());
        }
        if self.db.pool_size == 0 {
            return wrong("db.pool-size: must be at least 1".into());
        }
        if self.db.password_file.is_some() && !self.db.password.expose().is_empty() {
            return wrong("db.password and db.password-file: give one of them".into());
        }
        if self.manager.ssl_enabled {
            return wrong(
                "manager.ssl-enabled: the manager does not serve TLS: put a proxy in front that \
                 does, and set this to false"
                    .into(),
            );
        }
        if self.manager.heartbeat_timeout < 1.0 {
            return wrong("manager.heartbeat-timeout: must be at least 1 second".into());
        }
        self.metrics.check()?;
        if self.tunables.leader_lease_s == 0 {
            return wrong("tunables.leader-lease-s: must be at least 1 second".into());
        }
        Ok(())
    }

    /// How to reach PostgreSQL, with the password from its file if it is in one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn datastore(&self) -> Result<DatastoreConfig, ConfigError> {
        let password = match &self.db.password_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?
                .trim_end_matches(['\r', '\n'])
                .to_owned(),
            None => self.db.password.expose().to_owned(),
        };
        Ok(DatastoreConfig {
            host: self.db.addr.host.clone(),
            port: self.db.addr.port,
            name: self.db.name.clone(),
            user: self.db.user.clone(),
            password,
            pool_size: self.db.pool_size,
        })
    }

    /// How to reach etcd.
    pub fn etcd_address(&self) -> EtcdAddress {
        let user = &self.etcd.user;
        EtcdAddress {
            addr: self.etcd.addr.to_string(),
            namespace: self.etcd.namespace.clone(),
            credentials: (!user.is_empty()).then(|| (user.clone(), self.etcd.password.clone())),
        }
    }

    /// The manager's id.
    pub fn manager_id(&self) -> String {
        if self.manager.id.is_empty() {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            format!("i-{}", host.trim())
        } else {
            self.manager.id.clone()
        }
    }
}
