//! The Nix sources and the settings of hosts, as far as they can be checked without nixpkgs.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use backendai_tests::Layout;

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{command:?}: {words}{printed}");
    Ok(printed.into_owned())
}

/// `nix/check.sh`, which installs Nix and the linters where they are missing.
fn check_sh(layout: &Layout, args: &[&str]) -> Result<String> {
    output(Command::new(layout.root.join("nix/check.sh")).args(args))
}

#[test]
fn every_nix_source_parses_and_is_linted_and_formatted() -> Result<()> {
    check_sh(&Layout::discover()?, &[]).map(drop)
}

/// The product's documentation of host settings.
fn table() -> Value {
    let common = json!({
        "fs.file-max": 2_048_000,
        "net.core.somaxconn": 1024,
        "net.ipv4.tcp_max_syn_backlog": 1024,
        "net.ipv4.tcp_slow_start_after_idle": 0,
        "net.ipv4.tcp_fin_timeout": 10,
        "net.ipv4.tcp_window_scaling": 1,
        "net.ipv4.tcp_tw_reuse": 1,
        "net.ipv4.tcp_early_retrans": 1,
        "net.core.rmem_max": 16_777_216,
        "net.core.wmem_max": 16_777_216,
        "net.ipv4.tcp_rmem": "4096 12582912 16777216",
        "net.ipv4.tcp_wmem": "4096 12582912 16777216",
    });
    let agent = json!({
        "net.ipv4.ip_local_port_range": "40000 65000",
        "fs.inotify.max_user_watches": 524_288,
        "net.netfilter.nf_conntrack_max": 10_485_760,
        "net.netfilter.nf_conntrack_tcp_timeout_established": 432_000,
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait": 10,
        "net.netfilter.nf_conntrack_tcp_timeout_fin_wait": 10,
        "net.netfilter.nf_conntrack_tcp_timeout_time_wait": 10,
    });
    let over = |base: &Value, extra: &Value| {
        let mut merged = base.as_object().cloned().unwrap_or_default();
        merged.extend(extra.as_object().cloned().unwrap_or_default());
        Value::Object(merged)
    };
    let manager = json!({"net.ipv4.ip_local_port_range": "10000 65000"});
    let params = json!(["cgroup_enable=memory", "swapaccount=1"]);
    json!({
        "manager": {"sysctl": over(&common, &manager), "params": [], "modules": []},
        "agent": {"sysctl": over(&common, &agent), "params": params, "modules": ["nf_conntrack"]},
        "both": {"sysctl": over(&common, &agent), "params": params, "modules": ["nf_conntrack"]},
    })
}

#[test]
fn evaluated_host_settings_are_those_of_the_documentation() -> Result<()> {
    let data: Value = serde_json::from_str(&check_sh(&Layout::discover()?, &["--data"])?)?;
    assert_eq!(data["roles"], table());
    assert_eq!(data["limits"], json!({"nofile": 512_000, "nproc": 65_536}));
    assert_eq!(data["ports"]["manager"], json!({"api": [80, 443], "events": 5002}));
    let agent_ports = json!({"rpc": 6001, "watcher": 6009, "pool": [30_000, 31_000]});
    assert_eq!(data["ports"]["agent"], agent_ports);
    assert_eq!(data["paths"]["scratches"], "/var/cache/scratches");
    let agent = &data["units"]["backendai-agent"];
    assert_eq!(agent["requires"], json!(["docker.service"]));
    assert!(agent["after"].as_array().is_some_and(|a| a.contains(&json!("docker.service"))));
    for (key, value) in
        [("KillMode", json!("process")), ("Restart", json!("on-failure")), ("RestartSec", json!(5))]
    {
        assert_eq!(agent["service"][key], value, "{key}");
    }
    Ok(())
}

/// What the daemons do by themselves must be what the hosts are opened and tuned for.
#[test]
fn the_daemons_defaults_are_the_hosts_settings() -> Result<()> {
    let layout = Layout::discover()?;
    let data: Value = serde_json::from_str(&check_sh(&layout, &["--data"])?)?;
    let (manager, agent) = (&data["ports"]["manager"], &data["ports"]["agent"]);
    let reference = |name: &str| -> Result<toml::Table> {
        let path = layout.root.join("docs/config").join(name);
        Ok(std::fs::read_to_string(&path)?.parse()?)
    };
    let (of_agent, of_manager) = (reference("agent.toml")?, reference("manager.toml")?);
    let port = |table: &toml::Table, section: &str, key: &str| -> Option<u64> {
        table[section][key].as_str()?.rsplit_once(':')?.1.parse().ok()
    };
    assert_eq!(port(&of_agent, "agent", "rpc-listen-addr"), agent["rpc"].as_u64());
    assert_eq!(port(&of_agent, "watcher", "service-addr"), agent["watcher"].as_u64());
    assert_eq!(port(&of_manager, "manager", "event-listen-addr"), manager["events"].as_u64());
    let pool = json!(of_agent["container"]["port-range"]);
    assert_eq!(pool, agent["pool"]);
    let range = data["roles"]["both"]["sysctl"]["net.ipv4.ip_local_port_range"].as_str();
    let first = range.and_then(|range| range.split(' ').next()?.parse::<u64>().ok());
    assert!(first > agent["pool"][1].as_u64(), "outgoing connections would take the pool's ports");
    Ok(())
}

#[test]
fn the_printed_files_hold_the_settings_and_a_configuration_that_is_good() -> Result<()> {
    let layout = Layout::discover()?;
    let dir = tempfile::tempdir()?;
    let manager = layout.program("backendai-manager")?;
    let agent = layout.program("backendai-agent")?;
    output(
        Command::new(&manager).args(["host-config", "--role", "both", "--write"]).arg(dir.path()),
    )?;
    let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).context(path.to_owned());
    let sysctl = read("etc/sysctl.d/60-backendai.conf")?;
    for (key, value) in table()["both"]["sysctl"].as_object().context("a table")? {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        assert!(sysctl.lines().any(|line| line == format!("{key} = {value}")), "{key}: {sysctl}");
    }
    assert!(read("etc/security/limits.d/60-backendai.conf")?.contains("root soft nofile 512000"));
    assert!(read("etc/modules-load.d/60-backendai.conf")?.contains("nf_conntrack"));
    assert!(read("etc/default/grub.d/60-backendai.cfg")?.contains("swapaccount=1"));
    for (program, file) in [(&manager, "manager.toml"), (&agent, "agent.toml")] {
        let path = dir.path().join("etc/backend.ai").join(file);
        output(Command::new(program).args(["config", "check"]).arg(path))?;
    }
    let printed = output(Command::new(&agent).args(["host-config", "--print"]))?;
    assert!(printed.contains("### /etc/systemd/system/backendai-watcher.service"), "{printed}");
    // This machine is hardly set so; what matters is that it says what differs, and how to mend it.
    let checked = Command::new(&agent).args(["host-config", "--check"]).output()?;
    if !checked.status.success() {
        assert_eq!(checked.status.code(), Some(1));
        let told = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(told.contains("should be"), "{told}");
    }
    Ok(())
}

#[test]
fn the_lock_file_pins_what_the_flake_names() -> Result<()> {
    let layout = Layout::discover()?;
    let lock: Value = serde_json::from_slice(&std::fs::read(layout.root.join("flake.lock"))?)?;
    let flake = std::fs::read_to_string(layout.root.join("flake.nix"))?;
    assert_eq!(lock["version"], 7);
    assert_eq!(lock["nodes"]["root"]["inputs"], json!({"nixpkgs": "nixpkgs"}));
    let node = &lock["nodes"]["nixpkgs"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let original = &node["original"];
    let (owner, repo, branch) =
        (text(&original["owner"]), text(&original["repo"]), text(&original["ref"]));
    let url = format!("inputs.nixpkgs.url = \"github:{owner}/{repo}/{branch}\";");
    assert!(flake.contains(&url), "flake.nix does not say {url}");
    assert_eq!(node["locked"]["rev"], "8f0500b9660505dc3cb647775fe9a978a74b5283");
    assert_eq!(node["locked"]["narHash"], "sha256-O3/YajjWo001VUIgD8BwaRdSNLUFe7nZ1qV5TwhRBcw=");
    Ok(())
}

#[test]
fn the_reference_of_options_is_that_of_the_modules() -> Result<()> {
    let layout = Layout::discover()?;
    let written = std::fs::read_to_string(layout.root.join("docs/nixos-options.md"))?;
    let made = check_sh(&layout, &["--options"])?;
    ensure!(written == made, "run `nix/check.sh --options > docs/nixos-options.md`");
    Ok(())
}
