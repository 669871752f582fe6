//! The settings as files of a distribution that is not NixOS.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{HostSettings, Role, Unit};

/// A file of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFile {
    /// Where it belongs.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// Where a host keeps programs and configuration.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Folder of the daemons' programs.
    pub bin: &'a Path,
    /// Folder of the daemons' configuration.
    pub config: &'a Path,
}

const HEAD: &str = "# Made by `backendai-manager host-config` or `backendai-agent host-config`.\n";

/// Configuration to begin with; the places to fill in are marked.
const MANAGER_SAMPLE: &str = include_str!("../../../../sample-configs/host/manager.toml");
const AGENT_SAMPLE: &str = include_str!("../../../../sample-configs/host/agent.toml");

/// All files of a role.
pub fn files(host: &HostSettings, role: Role, place: &Place<'_>) -> Vec<HostFile> {
    let file = |path: &str, text: String| HostFile { path: path.into(), text };
    let kernel = host.kernel(role);
    let mut files = vec![
        file("/etc/sysctl.d/60-backendai.conf", sysctl(host, role)),
        file("/etc/security/limits.d/60-backendai.conf", limits(host)),
        file("/etc/sysusers.d/backendai.conf", sysusers(host)),
    ];
    if !kernel.modules.is_empty() {
        let text = format!("{HEAD}{}\n", kernel.modules.join("\n"));
        files.push(file("/etc/modules-load.d/60-backendai.conf", text));
    }
    if !kernel.params.is_empty() {
        let text = format!(
            "{HEAD}# After a change: update-grub, and a restart of the host.\n\
             GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {}\"\n",
            kernel.params.join(" ")
        );
        files.push(file("/etc/default/grub.d/60-backendai.cfg", text));
    }
    for (name, unit) in host.units(role) {
        files.push(HostFile {
            path: format!("/etc/systemd/system/{name}.service").into(),
            text: service(unit, place),
        });
    }
    for (name, text, is_wanted) in [
        ("manager.toml", MANAGER_SAMPLE, role.is_manager()),
        ("agent.toml", AGENT_SAMPLE, role.is_agent()),
    ] {
        if is_wanted {
            files.push(HostFile { path: place.config.join(name), text: text.to_owned() });
        }
    }
    files
}

fn sysctl(host: &HostSettings, role: Role) -> String {
    let mut text = HEAD.to_owned();
    for (key, value) in host.sysctl(role) {
        line(&mut text, &format!("{key} = {value}"));
    }
    text
}

fn limits(host: &HostSettings) -> String {
    let mut text = HEAD.to_owned();
    for user in ["root", &host.users.service] {
        for kind in ["hard", "soft"] {
            for (item, value) in &host.limits {
                line(&mut text, &format!("{user} {kind} {item} {value}"));
            }
        }
    }
    text
}

fn sysusers(host: &HostSettings) -> String {
    let (user, state) = (&host.users.service, &host.paths.state);
    format!("{HEAD}u {user} - \"Backend.AI\" {state}\n")
}

/// The text of a unit.
pub fn service(unit: &Unit, place: &Place<'_>) -> String {
    let mut text = HEAD.to_owned();
    line(&mut text, "[Unit]");
    line(&mut text, &format!("Description={}", unit.description));
    for (key, names) in [
        ("After", &unit.after),
        ("Before", &unit.before),
        ("Wants", &unit.wants),
        ("Requires", &unit.requires),
    ] {
        if !names.is_empty() {
            line(&mut text, &format!("{key}={}", names.join(" ")));
        }
    }
    line(&mut text, "\n[Service]");
    for (key, value) in &unit.service {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in values {
            let shown = value.as_str().map_or_else(|| value.to_string(), |text| fill(text, place));
            line(&mut text, &format!("{key}={shown}"));
        }
    }
    if !unit.wanted_by.is_empty() {
        line(&mut text, &format!("\n[Install]\nWantedBy={}", unit.wanted_by.join(" ")));
    }
    text
}

fn fill(text: &str, place: &Place<'_>) -> String {
    text.replace("@bin@", &place.bin.to_string_lossy())
        .replace("@config@", &place.config.to_string_lossy())
}

fn line(text: &mut String, words: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{words}");
}
