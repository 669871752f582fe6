//! The whole agent with Docker and the real kernel runner, where an engine is present.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::docker_image;
use crate::support::world::{self, Running, World, eventually};
use backendai_agent::backend::ContainerBackend;
use backendai_agent::backend::docker::{DockerAddress, DockerBackend};
use backendai_rpc::agent_api::{ExecuteMode, KernelCall, KernelSpec, MountSpec, RunStatus};
use backendai_rpc::runner::{ConsoleItem, IPC_DIR};
use serde_json::Value;

struct Bench {
    world: World,
    backend: DockerBackend,
    image: String,
}

impl Bench {
    /// `None` where there is no engine.
    fn new() -> Option<Self> {
        if !docker_image::engine_is_present() {
            eprintln!("no container engine here: skipped");
            return None;
        }
        let image = format!("test-{}/kernels:1", uuid::Uuid::new_v4().simple());
        docker_image::import(&image, "exit 1");
        let backend = || DockerBackend::new(DockerAddress::Environment);
        let mut world = World::new(Arc::new(backend()));
        world.config.container.runner_path = runner_path().into();
        world.config.container.pids_limit = 100;
        Some(Self { world, backend: backend(), image })
    }

    fn kernel(&self) -> KernelSpec {
        let mut spec = world::kernel(&self.image);
        spec.image.labels.insert("ai.backend.runtime-type".into(), "app".into());
        spec
    }

    async fn containers(&self) -> usize {
        let owner = self.world.config.agent.id.clone().unwrap();
        self.backend.list(&owner).await.unwrap().len()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let owner = self.world.config.agent.id.clone().unwrap();
        let cleaning = async {
            for container in self.backend.list(&owner).await.unwrap_or_default() {
                let _ = self.backend.remove(&container.handle.id).await;
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(cleaning));
        docker_image::remove(std::slice::from_ref(&self.image));
    }
}

/// The runner: `$HALFSTACK_KERNEL_RUNNER`, or built now as `kernel-runner/build.sh` does for
/// everybody.
fn runner_path() -> String {
    if let Ok(path) = std::env::var("HALFSTACK_KERNEL_RUNNER") {
        return path;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel-runner/build.sh");
    let output = Command::new(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn inspect(id: &str) -> Value {
    let output = Command::new("docker").args(["inspect", id]).output().unwrap();
    serde_json::from_slice::<Value>(&output.stdout).unwrap()[0].take()
}

/// Runs a shell command in the kernel; its output and exit code.
async fn shell(agent: &Running, spec: &KernelSpec, command: &str) -> (String, Option<i32>) {
    let run = uuid::Uuid::new_v4().simple().to_string();
    let mut mode = ExecuteMode::Batch { clean: None, build: None, exec: Some(command.to_owned()) };
    let mut text = String::new();
    loop {
        let reply = agent.execute(spec.kernel_id, Some(&run), mode, 5000).await.unwrap();
        for item in reply.console {
            match item {
                ConsoleItem::Stdout(piece) | ConsoleItem::Stderr(piece) => text.push_str(&piece),
                other => panic!("{other:?}"),
            }
        }
        if reply.status == RunStatus::Finished {
            return (text, reply.exit_code);
        }
        mode = ExecuteMode::Continue;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_kernel_has_its_limits_and_nothing_more() {
    let Some(mut bench) = Bench::new() else { return };
    bench.world.config.agent.mount_path = Some(bench.world.dir.path().to_owned());
    let agent = bench.world.start().await;
    let folder = bench.world.dir.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("file"), "from the host").unwrap();
    let mut spec = bench.kernel();
    spec.environ.insert("GREETING".into(), "hello there".into());
    spec.mounts = vec![MountSpec {
        name: "data".into(),
        host_path: folder.to_str().unwrap().into(),
        kernel_path: "/home/work/data".into(),
        read_only: true,
    }];
    let session = agent.create(spec.clone()).await;
    let info = bench.world.manager.started(spec.kernel_id).await;

    let made = inspect(&info.container_id);
    let host = &made["HostConfig"];
    assert_eq!(host["Memory"], 192 << 20);
    assert_eq!(host["MemorySwap"], 192 << 20);
    assert_eq!(host["ShmSize"], 64 << 20);
    assert_eq!((&host["CpuQuota"], &host["CpuPeriod"]), (&100_000.into(), &100_000.into()));
    assert_eq!(host["CpusetCpus"], info.allocations["cpu"]["cpu"].keys().next().unwrap().as_str());
    assert_eq!(host["PidsLimit"], 100);
    assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]));
    assert_eq!(host["SecurityOpt"], serde_json::json!(["no-new-privileges"]));
    assert_eq!(host["Privileged"], false);
    assert!(host["PortBindings"].as_object().is_none_or(|ports| ports.is_empty()));
    assert!(host["Devices"].as_array().is_none_or(|devices| devices.is_empty()));
    assert_eq!(host["LogConfig"]["Type"], "local");
    assert_eq!(made["Config"]["Hostname"], "main1");
    assert_eq!(made["Config"]["Tty"], false);
    let labels = &made["Config"]["Labels"];
    assert_eq!(labels["ai.backend.kernel-id"], spec.kernel_id.to_string());
    assert_eq!(labels["ai.backend.session-id"], session.to_string());
    let socket_folder = made["Mounts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|mount| mount["Destination"] == IPC_DIR)
        .unwrap();
    assert_eq!(socket_folder["RW"], false);

    let (id, code) = shell(&agent, &spec, "id -u; echo $GREETING; cat data/file").await;
    assert_eq!((id.as_str(), code), ("1000\nhello there\nfrom the host", Some(0)));
    let (text, code) = shell(&agent, &spec, "echo x > data/file").await;
    assert_ne!(code, Some(0), "{text}");
    let (text, code) = shell(&agent, &spec, "cat /home/config/runner.json").await;
    assert_ne!(code, Some(0), "the runner's file is not the user's: {text}");
    let (_, code) = shell(&agent, &spec, "cat /home/config/environ.txt && echo x > kept").await;
    assert_eq!(code, Some(0));

    let call = KernelCall { kernel_id: spec.kernel_id };
    let log = agent.client.kernel_log(&call).await.unwrap();
    assert!(String::from_utf8_lossy(&log.bytes).contains("hello there"));

    agent.destroy(spec.kernel_id, session).await;
    let (reason, _) = bench.world.manager.terminated(spec.kernel_id).await;
    assert_eq!(reason, "user-requested");
    let kept = bench.world.manager.log(spec.kernel_id).await;
    assert!(String::from_utf8_lossy(&kept).contains("hello there"));
    agent.forgotten(spec.kernel_id).await;
    assert_eq!(bench.containers().await, 0);
    assert_eq!(bench.world.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_kernel_killed_from_outside_is_told() {
    let Some(bench) = Bench::new() else { return };
    let agent = bench.world.start().await;
    let spec = bench.kernel();
    agent.create(spec.clone()).await;
    let info = bench.world.manager.started(spec.kernel_id).await;
    bench.backend.stop(&info.container_id, Duration::ZERO).await.unwrap();
    let (reason, code) = bench.world.manager.terminated(spec.kernel_id).await;
    assert_eq!((reason.as_str(), code), ("self-terminated", Some(137)));
    agent.forgotten(spec.kernel_id).await;
    assert_eq!(bench.containers().await, 0);
    assert_eq!(bench.world.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_kernel_is_adopted_and_runs_on() {
    let Some(bench) = Bench::new() else { return };
    let agent = bench.world.start().await;
    let spec = bench.kernel();
    let session = agent.create(spec.clone()).await;
    let info = bench.world.manager.started(spec.kernel_id).await;
    let command = "echo before; sleep 0.5; echo after";
    let mode = ExecuteMode::Batch { clean: None, build: None, exec: Some(command.into()) };
    let id = spec.kernel_id;
    for expected in [RunStatus::CleanFinished, RunStatus::BuildFinished] {
        let mode =
            if expected == RunStatus::CleanFinished { mode.clone() } else { ExecuteMode::Continue };
        assert_eq!(agent.execute(id, Some("r"), mode, 5000).await.unwrap().status, expected);
    }
    agent.kill().await;

    let agent = bench.world.start().await;
    let mut text = String::new();
    loop {
        let reply = agent.execute(id, Some("r"), ExecuteMode::Continue, 5000).await.unwrap();
        for item in reply.console {
            if let ConsoleItem::Stdout(piece) = item {
                text.push_str(&piece);
            }
        }
        if reply.status == RunStatus::Finished {
            break;
        }
    }
    assert_eq!(text, "before\nafter\n");
    let again = inspect(&info.container_id);
    assert_eq!(again["RestartCount"], 0);
    assert_eq!(shell(&agent, &spec, "echo more").await, ("more\n".into(), Some(0)));
    agent.destroy(id, session).await;
    bench.world.manager.terminated(id).await;
    agent.forgotten(id).await;
    assert_eq!(bench.containers().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_start_failure_tells_why_and_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    let mut bench = bench;
    // A program that is no runner: it ends at once.
    bench.world.config.container.runner_path = "/usr/bin/busybox".into();
    let agent = bench.world.start().await;
    let spec = bench.kernel();
    agent.create(spec.clone()).await;
    let failure = bench.world.manager.failed(spec.kernel_id).await;
    assert!(failure.message.contains("ended with exit code"), "{failure}");
    assert!(failure.message.contains("applet not found"), "{failure}");
    agent.forgotten(spec.kernel_id).await;
    assert_eq!(bench.containers().await, 0);
    assert_eq!(bench.world.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_stray_containers_are_removed() {
    let Some(bench) = Bench::new() else { return };
    let agent = bench.world.start().await;
    let spec = bench.kernel();
    agent.create(spec.clone()).await;
    bench.world.manager.started(spec.kernel_id).await;
    let stray = bench.kernel();
    agent.create(stray.clone()).await;
    let info = bench.world.manager.started(stray.kernel_id).await;
    agent.kill().await;
    bench.backend.stop(&info.container_id, Duration::ZERO).await.unwrap();
    let record = format!("var/kernels/{}.json", stray.kernel_id);
    std::fs::remove_file(bench.world.dir.path().join(record)).unwrap();

    let agent = bench.world.start().await;
    eventually(|| agent.core.registry.all().len() == 1).await;
    while bench.containers().await > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(shell(&agent, &spec, "echo alive").await.0, "alive\n");
}
