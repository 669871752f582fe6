//! A container's definition in Docker's words.
//!
//! Everything is stated here; nothing that a user sends reaches Docker by another way. No
//! port is published, no device is passed, and the image's own command is not run.

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
    MountType, NetworkingConfig, ResourcesUlimits,
};

use super::limits::Rlimits;
use crate::backend::{ContainerLimits, ContainerSpec};

/// Docker's unit of processor quotas, in microseconds: its own default.
const CPU_PERIOD_US: i64 = 100_000;
/// Weight of one core against other containers: Docker's default for a whole container.
const SHARES_PER_CORE: i64 = 1024;
/// The engine rotates the log over so many files.
const LOG_FILES: u64 = 5;

/// Capabilities the kernel runner (PID 1, root) keeps. It drops them with its uid when it
/// starts the user's programs, and no-new-privileges keeps them from coming back.
const CAPABILITIES: [&str; 4] = [
    // To become the kernel's user and group before user code starts.
    "SETUID", "SETGID", // To interrupt and end processes of that user.
    "KILL",   // To give the user its pipes and terminals.
    "CHOWN",
];
/// Besides, where the agent is not root: root inside then reads what belongs to the
/// agent's user outside, the runner's configuration and socket.
const READ_ANY_FILE: &str = "DAC_OVERRIDE";

/// What differs between engines.
#[derive(Clone, Copy, Debug)]
pub struct EngineFacts {
    /// The compact log driver with rotation exists.
    pub has_local_log: bool,
    /// What containers may be given.
    pub rlimits: Rlimits,
    /// The agent itself is root.
    pub agent_is_root: bool,
}

/// The body of Docker's create call.
pub fn body(spec: &ContainerSpec, facts: &EngineFacts) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: Some(spec.hostname.clone()),
        entrypoint: Some(vec![spec.entrypoint.clone()]),
        cmd: Some(Vec::new()),
        // The runner needs root to switch users; an image's USER would take that away.
        user: Some("0:0".to_owned()),
        working_dir: Some(spec.working_dir.clone()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        // An image's health check would run its programs as root beside the runner.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..Default::default()
        }),
        tty: Some(false),
        open_stdin: Some(false),
        host_config: Some(host_config(spec, facts)),
        networking_config: spec.network.as_ref().map(|network| NetworkingConfig {
            endpoints_config: Some([(network.clone(), endpoint(spec))].into()),
        }),
        ..Default::default()
    }
}

/// The other containers of a network find this one by its host name.
fn endpoint(spec: &ContainerSpec) -> EndpointSettings {
    EndpointSettings { aliases: Some(vec![spec.hostname.clone()]), ..Default::default() }
}

fn host_config(spec: &ContainerSpec, facts: &EngineFacts) -> HostConfig {
    let limits = &spec.limits;
    let mounts = spec
        .mounts
        .iter()
        .map(|mount| Mount {
            typ: Some(MountType::BIND),
            source: Some(mount.source.to_string_lossy().into_owned()),
            target: Some(mount.target.clone()),
            read_only: Some(mount.read_only),
            ..Default::default()
        })
        .collect();
    let cores: Vec<String> = limits.cores.iter().map(u32::to_string).collect();
    let cpu_count = i64::from(limits.cpu_count);
    let read_any = (!facts.agent_is_root).then_some(READ_ANY_FILE);
    let capabilities = CAPABILITIES.into_iter().chain(read_any);
    let bytes = |count: u64| (count > 0).then(|| i64::try_from(count).unwrap_or(i64::MAX));
    HostConfig {
        mounts: Some(mounts),
        // Docker's own init would take PID 1 from the runner, which reaps by itself.
        init: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(capabilities.map(str::to_owned).collect()),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        privileged: Some(false),
        publish_all_ports: Some(false),
        pids_limit: Some(i64::from(limits.pids)),
        cpuset_cpus: (!cores.is_empty()).then(|| cores.join(",")),
        cpu_period: (cpu_count > 0).then_some(CPU_PERIOD_US),
        cpu_quota: (cpu_count > 0).then_some(CPU_PERIOD_US * cpu_count),
        cpu_shares: (cpu_count > 0).then_some(SHARES_PER_CORE * cpu_count),
        memory: bytes(limits.mem_bytes),
        // Memory and swap together: no swap.
        memory_swap: bytes(limits.mem_bytes),
        shm_size: bytes(limits.shm_bytes),
        ulimits: Some(vec![
            ulimit("nofile", facts.rlimits.nofile),
            ulimit("memlock", facts.rlimits.memlock),
        ]),
        log_config: log_config(limits, facts),
        network_mode: spec.network.clone(),
        ..Default::default()
    }
}

fn ulimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) }
}

fn log_config(limits: &ContainerLimits, facts: &EngineFacts) -> Option<HostConfigLogConfig> {
    let driver = if facts.has_local_log { "local" } else { "json-file" };
    let size = (limits.log_bytes / LOG_FILES).max(1024);
    Some(HostConfigLogConfig {
        typ: Some(driver.to_owned()),
        config: Some(
            [
                ("max-size", format!("{size}b")),
                ("max-file", LOG_FILES.to_string()),
                // Compressing takes time at rotation and saves little of so few bytes.
                ("compress", "false".to_owned()),
            ]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::backend::ContainerMount;

    #[test]
    fn a_container_gets_its_limits_and_nothing_else() {
        let spec = ContainerSpec {
            name: "kernel.x.y".into(),
            image: "x".into(),
            hostname: "main1".into(),
            labels: BTreeMap::from([("a".into(), "b".into())]),
            entrypoint: "/runner".into(),
            working_dir: "/home/work".into(),
            mounts: vec![ContainerMount {
                source: "/s".into(),
                target: "/t".into(),
                read_only: true,
            }],
            limits: ContainerLimits {
                cores: vec![0, 3],
                cpu_count: 2,
                mem_bytes: 1 << 30,
                shm_bytes: 1 << 20,
                pids: 100,
                log_bytes: 10 << 20,
            },
            network: Some("bai-singlenode-x".into()),
        };
        let rlimits = Rlimits { nofile: 1024, memlock: -1 };
        let body = body(&spec, &EngineFacts { has_local_log: true, rlimits, agent_is_root: true });
        let host = body.host_config.unwrap();
        assert_eq!(host.cpuset_cpus.as_deref(), Some("0,3"));
        assert_eq!((host.cpu_period, host.cpu_quota), (Some(100_000), Some(200_000)));
        assert_eq!((host.memory, host.memory_swap), (Some(1 << 30), Some(1 << 30)));
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(host.cap_add.unwrap(), ["SETUID", "SETGID", "KILL", "CHOWN"]);
        assert!(host.port_bindings.is_none() && body.exposed_ports.is_none());
        assert!(host.devices.is_none() && host.binds.is_none());
        assert_eq!(body.cmd, Some(Vec::new()));
        assert_eq!(host.network_mode.as_deref(), Some("bai-singlenode-x"));
        let endpoints = body.networking_config.unwrap().endpoints_config.unwrap();
        assert_eq!(endpoints["bai-singlenode-x"].aliases, Some(vec!["main1".to_owned()]));
        let log = host.log_config.unwrap();
        assert_eq!(log.config.unwrap()["max-size"], "2097152b");
    }
}
