//! What a host of the cluster is set to: kernel parameters, limits, units, ports.
//!
//! The settings are data in `nixos-modules/host.toml`, which the NixOS modules read too. This
//! module prints them as files for other distributions ([`files`]) and compares them with the
//! host it runs on ([`check`]).

pub mod check;
pub mod command;
pub mod files;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// The settings' source.
const SOURCE: &str = include_str!("../../../../nixos-modules/host.toml");

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// It runs the manager.
    Manager,
    /// It runs the agent and the watcher.
    Agent,
    /// It runs all of them.
    Both,
}

impl Role {
    fn is_manager(self) -> bool {
        self != Self::Agent
    }

    fn is_agent(self) -> bool {
        self != Self::Manager
    }
}

/// All settings.
#[derive(Clone, Debug, Deserialize)]
pub struct HostSettings {
    /// Limits of root and the service's user, hard and soft.
    pub limits: BTreeMap<String, u64>,
    /// Users that are made.
    pub users: Users,
    sysctl: PerRole<BTreeMap<String, Setting>>,
    kernel: KernelPerRole,
    /// Where services listen.
    pub ports: Ports,
    /// Where things are.
    pub paths: Paths,
    /// systemd units by name, without `.service`.
    pub units: BTreeMap<String, Unit>,
}

/// Users that are made.
#[derive(Clone, Debug, Deserialize)]
pub struct Users {
    /// Runs the manager.
    pub service: String,
}

#[derive(Clone, Debug, Deserialize)]
struct PerRole<T> {
    common: T,
    manager: T,
    agent: T,
}

#[derive(Clone, Debug, Deserialize)]
struct KernelPerRole {
    manager: Kernel,
    agent: Kernel,
}

/// What the kernel is started with.
#[derive(Clone, Debug, Deserialize)]
pub struct Kernel {
    /// Boot parameters.
    pub params: Vec<String>,
    /// Modules loaded at boot.
    pub modules: Vec<String>,
}

/// Where services listen.
#[derive(Clone, Debug, Deserialize)]
pub struct Ports {
    /// On a manager's host.
    pub manager: ManagerPorts,
    /// On an agent's host.
    pub agent: AgentPorts,
}

/// Ports of a manager's host.
#[derive(Clone, Debug, Deserialize)]
pub struct ManagerPorts {
    /// The API for people.
    pub api: Vec<u16>,
    /// Events from agents.
    pub events: u16,
}

/// Ports of an agent's host.
#[derive(Clone, Debug, Deserialize)]
pub struct AgentPorts {
    /// Calls of managers.
    pub rpc: u16,
    /// The watcher.
    pub watcher: u16,
    /// First and last port of streams into containers.
    pub pool: (u16, u16),
}

/// Where things are.
#[derive(Clone, Debug, Deserialize)]
pub struct Paths {
    /// Configuration.
    pub config: String,
    /// What must survive a restart.
    pub state: String,
    /// Files of kernels.
    pub scratches: String,
}

/// A systemd service.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    /// What it is.
    pub description: String,
    /// Started after these.
    #[serde(default)]
    pub after: Vec<String>,
    /// Started before these.
    #[serde(default)]
    pub before: Vec<String>,
    /// Started with these.
    #[serde(default)]
    pub wants: Vec<String>,
    /// Not without these.
    #[serde(default)]
    pub requires: Vec<String>,
    /// Started at boot by these.
    #[serde(default)]
    pub wanted_by: Vec<String>,
    /// The section `[Service]`.
    pub service: toml::Table,
}

/// A number or text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// A number.
    Number(u64),
    /// Text; several numbers are divided by single blanks.
    Text(String),
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl HostSettings {
    /// The settings this program was built with.
    #[expect(clippy::expect_used, reason = "the text is part of the program, and a test reads it")]
    pub fn built_in() -> Self {
        toml::from_str(SOURCE).expect("host.toml is read by a test")
    }

    /// Kernel settings of a role; on a host with both the agent's win.
    pub fn sysctl(&self, role: Role) -> BTreeMap<&str, &Setting> {
        let mut merged: BTreeMap<_, _> = entries(&self.sysctl.common).collect();
        if role.is_manager() {
            merged.extend(entries(&self.sysctl.manager));
        }
        if role.is_agent() {
            merged.extend(entries(&self.sysctl.agent));
        }
        merged
    }

    /// Boot parameters and modules of a role.
    pub fn kernel(&self, role: Role) -> &Kernel {
        if role.is_agent() { &self.kernel.agent } else { &self.kernel.manager }
    }

    /// Units of a role, by name.
    pub fn units(&self, role: Role) -> impl Iterator<Item = (&str, &Unit)> {
        self.units
            .iter()
            .filter(move |(name, _)| match name.strip_prefix("backendai-manager") {
                Some(_) => role.is_manager(),
                None => role.is_agent(),
            })
            .map(|(name, unit)| (name.as_str(), unit))
    }
}

fn entries(map: &BTreeMap<String, Setting>) -> impl Iterator<Item = (&str, &Setting)> {
    map.iter().map(|(key, value)| (key.as_str(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_read_and_merged() {
        let host = HostSettings::built_in();
        let range = "net.ipv4.ip_local_port_range";
        assert_eq!(host.sysctl(Role::Manager)[range].to_string(), "10000 65000");
        assert_eq!(host.sysctl(Role::Both)[range].to_string(), "40000 65000");
        assert!(!host.sysctl(Role::Manager).contains_key("net.netfilter.nf_conntrack_max"));
        let names = |role| host.units(role).map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(Role::Agent), ["backendai-agent", "backendai-watcher"]);
        assert_eq!(names(Role::Manager), ["backendai-manager", "backendai-manager-migrate"]);
    }

    #[test]
    fn limits_of_services_are_those_of_logins() {
        let host = HostSettings::built_in();
        for (name, unit) in
            host.units(Role::Both).filter(|(_, u)| u.service["Type"].as_str() == Some("notify"))
        {
            let limit =
                |key: &str| unit.service[key].as_integer().and_then(|n| u64::try_from(n).ok());
            assert_eq!(limit("LimitNOFILE"), Some(host.limits["nofile"]), "{name}");
            assert_eq!(limit("LimitNPROC"), Some(host.limits["nproc"]), "{name}");
        }
    }
}
