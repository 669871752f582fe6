//! What the engine and the runner are told about a kernel.

use std::collections::BTreeMap;
use std::path::PathBuf;

use backendai_rpc::agent_api::{KernelSpec, SessionSpec};
use backendai_rpc::runner::{CONFIG_PATH, IPC_DIR, RUNNER_PATH, RunnerConfig, WORK_DIR};
use backendai_types::image::ImageLabels;
use rust_decimal::prelude::ToPrimitive;

use super::network;
use super::summary::{KernelSummary, service_ports, service_ports_label};
use crate::backend::{ContainerLimits, ContainerMount, ContainerSpec, labels};
use crate::core::Core;
use crate::resources::Allocation;

/// The name of a kernel's container; the same for the same kernel, so that two can never
/// exist and one that nobody noted is found again.
pub fn container_name(spec: &KernelSpec) -> String {
    let path = spec.image.canonical.rsplit_once(':').map_or(&*spec.image.canonical, |(p, _)| p);
    let last = path.rsplit('/').next().unwrap_or(path);
    format!("kernel.{last}.{}", spec.kernel_id)
}

/// Everything the engine is told.
pub fn container_spec(
    core: &Core,
    session: &SessionSpec,
    spec: &KernelSpec,
    allocation: &Allocation,
    restart: Option<i64>,
    folders: Vec<ContainerMount>,
) -> ContainerSpec {
    let settings = &core.settings;
    let paths = core.scratch.paths(spec.kernel_id);
    let config_dir = CONFIG_PATH.rsplit_once('/').map_or(CONFIG_PATH, |(dir, _)| dir);
    let mount = |source: PathBuf, target: &str, read_only: bool| ContainerMount {
        source,
        target: target.to_owned(),
        read_only,
    };
    let mut mounts = vec![
        mount(paths.work, WORK_DIR, false),
        mount(paths.config, config_dir, true),
        mount(paths.ipc, IPC_DIR, true),
        mount(settings.runner_path.clone(), RUNNER_PATH, true),
    ];
    if let Some(tmp) = paths.tmp {
        mounts.extend(["/tmp", "/var/tmp"].map(|target| mount(tmp.clone(), target, false)));
    }
    mounts.extend(folders);

    let cores = core_numbers(allocation);
    let cpu_count = allocation.slots().amount("cpu").ceil().to_u32().unwrap_or(0);
    let mem_bytes = allocation.slots().mem_bytes();
    let summary = KernelSummary::of(session, spec, allocation, restart);
    ContainerSpec {
        name: container_name(spec),
        image: spec.image.canonical.clone(),
        hostname: spec.hostname.clone(),
        labels: BTreeMap::from([
            (labels::KERNEL_ID.to_owned(), spec.kernel_id.to_string()),
            (labels::SESSION_ID.to_owned(), session.session_id.to_string()),
            (labels::OWNER.to_owned(), core.agent_id.to_string()),
            (labels::SERVICE_PORTS.to_owned(), service_ports_label(spec)),
            (labels::BLOCK_SERVICE_PORTS.to_owned(), "0".to_owned()),
            (labels::RECORD.to_owned(), serde_json::to_string(&summary).unwrap_or_default()),
        ]),
        entrypoint: RUNNER_PATH.to_owned(),
        working_dir: WORK_DIR.to_owned(),
        mounts,
        limits: ContainerLimits {
            cores,
            cpu_count,
            // Shared memory is part of what was asked for, and counted beside.
            mem_bytes: mem_bytes.saturating_sub(spec.shmem),
            shm_bytes: spec.shmem,
            pids: settings.pids_limit,
            log_bytes: settings.log_bytes,
        },
        network: network::name(session),
    }
}

/// What the runner is told.
pub fn runner_config(
    core: &Core,
    session: &SessionSpec,
    spec: &KernelSpec,
    allocation: &Allocation,
) -> RunnerConfig {
    let image = ImageLabels(&spec.image.labels);
    let (uid, gid) = core.scratch.owner();
    let mut environ = spec.environ.clone();
    if image.has_feature("uid-match") {
        environ.insert("LOCAL_USER_ID".to_owned(), uid.to_string());
        environ.insert("LOCAL_GROUP_ID".to_owned(), gid.to_string());
    }
    let core_count = allocation.slots().amount("cpu").ceil().to_string();
    for variable in image.corecount_variables() {
        environ.entry(variable.to_owned()).or_insert_with(|| core_count.clone());
    }
    RunnerConfig {
        kernel_id: spec.kernel_id.to_string(),
        uid,
        gid,
        runtime_type: image.runtime_type().to_owned(),
        runtime_path: image.runtime_path().map(str::to_owned),
        environ,
        bootstrap_script: spec.bootstrap_script.clone(),
        startup_command: spec.startup_command.clone(),
        service_ports: service_ports(spec),
        cluster_hosts: session.hosts.iter().map(|host| host.hostname.clone()).collect(),
    }
}

fn core_numbers(allocation: &Allocation) -> Vec<u32> {
    let mut cores: Vec<u32> =
        allocation.devices("cpu").into_iter().filter_map(|id| id.parse().ok()).collect();
    cores.sort_unstable();
    cores
}
