//! The sections of `agent.toml` that the agent and the watcher beside it both read.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::{ConfigError, HostPort, Secret};
use crate::etcd::EtcdAddress;
use crate::telemetry::LogFormat;

/// Where the cluster's shared configuration is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct EtcdSection {
    /// Key namespace: names the cluster. Must be set.
    #[serde(deserialize_with = "super::text")]
    pub namespace: String,
    /// etcd's address.
    pub addr: HostPort,
    /// User; empty without authentication.
    #[serde(deserialize_with = "super::text")]
    pub user: String,
    /// Password.
    pub password: Secret,
}

impl Default for EtcdSection {
    fn default() -> Self {
        Self {
            namespace: String::new(),
            addr: HostPort::new("127.0.0.1", 2379),
            user: String::new(),
            password: Secret::default(),
        }
    }
}

impl EtcdSection {
    /// How to reach etcd.
    pub fn address(&self) -> EtcdAddress {
        EtcdAddress {
            addr: self.addr.to_string(),
            namespace: self.namespace.clone(),
            credentials: (!self.user.is_empty())
                .then(|| (self.user.clone(), self.password.clone())),
        }
    }
}

/// Log lines.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LoggingSection {
    /// CRITICAL, ERROR, WARNING, INFO, DEBUG or a filter.
    pub level: String,
    /// `text` or `json`.
    pub format: LogFormat,

    #[serde(skip_serializing)]
    pkg_ns: Unused,
    #[serde(skip_serializing)]
    drivers: Unused,
    #[serde(skip_serializing)]
    console: Unused,
    #[serde(skip_serializing)]
    file: Unused,
    #[serde(skip_serializing)]
    logstash: Unused,
    #[serde(skip_serializing)]
    graylog: Unused,
}

impl Default for LoggingSection {
    fn default() -> Self {
        Self {
            level: "INFO".to_owned(),
            format: LogFormat::default(),
            pkg_ns: Unused,
            drivers: Unused,
            console: Unused,
            file: Unused,
            logstash: Unused,
            graylog: Unused,
        }
    }
}

/// The watcher, which the agent tells managers about.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct WatcherSection {
    /// Where managers reach the watcher; port 0 lets the system choose.
    pub service_addr: HostPort,
    /// Replaces the host of `service-addr`.
    pub service_ip: Option<String>,
    /// Replaces the port of `service-addr`.
    pub service_port: Option<u16>,
    /// The systemd unit of the agent, the only one that is started and stopped.
    pub target_service: String,
    /// Offers `POST /soft-reset`, which reloads the unit.
    pub soft_reset_available: bool,
    /// Offers `POST /hard-reset`, which restarts Docker too, and `POST /shutdown`, which
    /// powers the host off.
    pub host_control: bool,
    /// The mount table that mounts may be kept in.
    pub fstab_path: PathBuf,
    /// Must stay false: the watcher does not serve TLS, and managers call by http.
    pub ssl_enabled: bool,

    #[serde(skip_serializing)]
    ssl_cert: Unused,
    #[serde(skip_serializing)]
    ssl_key: Unused,
    #[serde(skip_serializing)]
    ssl_privkey: Unused,
}

impl Default for WatcherSection {
    fn default() -> Self {
        Self {
            service_addr: HostPort::new("0.0.0.0", 6009),
            service_ip: None,
            service_port: None,
            target_service: "backendai-agent.service".to_owned(),
            soft_reset_available: false,
            host_control: false,
            fstab_path: PathBuf::from("/etc/fstab"),
            ssl_enabled: false,
            ssl_cert: Unused,
            ssl_key: Unused,
            ssl_privkey: Unused,
        }
    }
}

impl WatcherSection {
    /// Where managers reach the watcher, with the replacements.
    pub fn listen_addr(&self) -> HostPort {
        HostPort {
            host: self.service_ip.clone().unwrap_or_else(|| self.service_addr.host.clone()),
            port: self.service_port.unwrap_or(self.service_addr.port),
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A contradiction, with its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::Contradiction(text));
        let unit = &self.target_service;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "@%:_.-\\".contains(c);
        if unit.strip_suffix(".service").is_none_or(str::is_empty) || !unit.chars().all(is_plain) {
            return wrong(format!(
                "watcher.target-service: {unit:?} is not the name of a service unit, such as \
                 backendai-agent.service"
            ));
        }
        if !self.fstab_path.is_absolute() {
            return wrong("watcher.fstab-path: must be an absolute path".into());
        }
        if self.ssl_enabled {
            return wrong(
                "watcher.ssl-enabled: the watcher does not serve TLS and managers call it by \
                 http: set this to false and keep port 6009 inside the cluster's network"
                    .into(),
            );
        }
        Ok(())
    }
}

/// The value of a key that this program accepts and ignores, whatever it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unused;

impl<'de> Deserialize<'de> for Unused {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}
