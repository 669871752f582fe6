//! Manager, agent and watcher as services of a real systemd, from the units that `host-config`
//! makes: start, watchdog, restart, stop, journal, and the watcher's orders from the stock client.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use backendai_tests::ports::Ports;
use backendai_tests::systemd::SystemdHost;
use backendai_tests::wait::{wait_for, wait_until};
use backendai_tests::{Layout, TestCluster};

const LIMIT: Duration = Duration::from_secs(90);
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const SERVICES: [&str; 3] = ["backendai-manager", "backendai-agent", "backendai-watcher"];
/// How exposed a service may be at most, of 100, by `systemd-analyze security`. The agent and
/// the watcher are root, each for the reasons in `host.toml`.
const EXPOSURE: [(&str, u32); 3] =
    [("backendai-manager", 25), ("backendai-agent", 85), ("backendai-watcher", 65)];

fn write(root: &Path, path: &str, text: &str) -> Result<()> {
    let path = root.join(path);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}

/// The files of the host: what `host-config` writes, with this cluster's configuration.
fn prepare(layout: &Layout, cluster: &TestCluster, root: &Path, ports: [u16; 2]) -> Result<()> {
    let made = Command::new(layout.program("backendai-manager")?)
        .args(["host-config", "--role", "both", "--bin-dir", "/opt/backendai", "--write"])
        .arg(root)
        .output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let manager = std::fs::read_to_string(cluster.dir().join("manager.toml"))?;
    write(root, "etc/backend.ai/manager.toml", &manager)?;
    let own = "[manager]\nstate-dir = \"/var/lib/backend.ai/manager\"\n";
    write(root, "etc/backend.ai/manager.d/host.toml", own)?;
    let [rpc, watcher] = ports;
    let agent = format!(
        "[etcd]\nnamespace = \"{}\"\naddr = \"{}\"\n\
         [agent]\nbackend = \"dummy\"\nid = \"i-systemd\"\nrpc-listen-addr = \"127.0.0.1:{rpc}\"\n\
         ipc-base-path = \"/run/backend.ai/ipc\"\nvar-base-path = \"/var/lib/backend.ai/agent\"\n\
         metadata-server-enabled = false\n\
         [container]\nscratch-root = \"/var/cache/scratches\"\nbind-host = \"127.0.0.1\"\n\
         [watcher]\nservice-addr = \"127.0.0.1:{watcher}\"\n",
        cluster.plan.namespace,
        cluster.servers.etcd.addr(),
    );
    write(root, "etc/backend.ai/agent.toml", &agent)?;
    // The agent requires Docker's unit; this one's engine is in its memory.
    let docker = "[Service]\nType=oneshot\nRemainAfterExit=true\nExecStart=/bin/true\n";
    write(root, "etc/systemd/system/docker.service", docker)?;
    // Nobody waits half a minute for a watchdog in a test.
    let quick = "[Service]\nWatchdogSec=3\nRestartSec=1\n";
    write(root, "etc/systemd/system/backendai-agent.service.d/test.conf", quick)?;
    // What is copied becomes the root of the system, which other users than root must enter.
    std::fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(())
}

/// What the watcher says of the agent.
async fn health(port: u16) -> Result<Value> {
    let request = backendai_tests::http().get(format!("http://127.0.0.1:{port}/agent/health"));
    let reply = request.header("X-BackendAI-Watcher-Token", TOKEN).send().await?;
    Ok(reply.json().await?)
}

async fn is_alive(cluster: &TestCluster) -> Result<()> {
    let database = cluster.database().await?;
    let query = "SELECT 1 FROM agents WHERE id = 'i-systemd' AND status = 'ALIVE'";
    wait_until(LIMIT, "the agent to be alive", async || {
        Ok(database.query_opt(query, &[]).await?.is_some())
    })
    .await
}

#[tokio::test]
async fn daemons_are_good_services_of_a_real_systemd() -> Result<()> {
    let layout = Layout::discover()?;
    let cluster = TestCluster::builder().agents(0).set_up().await?;
    cluster.manager_cli(&["etcd", "put", "config/watcher/token", TOKEN]).await?;
    let root = tempfile::tempdir()?;
    let mut free = Ports::default();
    let ports = [free.choose(&layout.cache)?, free.choose(&layout.cache)?];
    prepare(&layout, &cluster, root.path(), ports)?;
    let programs = SERVICES.map(|name| layout.program(name));
    let programs = programs.into_iter().collect::<Result<Vec<_>>>()?;
    let programs: Vec<&Path> = programs.iter().map(|path| path.as_path()).collect();
    let name = format!("backendai-systemd-{}", cluster.plan.id);
    let host = SystemdHost::boot(&layout, &name, root.path(), &programs).await?;
    host.exec("systemd-sysusers && chown -R backendai: /etc/backend.ai/manager.*").await?;

    // The units are sound, and as closed as they claim.
    for (service, exposure) in EXPOSURE {
        let unit = format!("/etc/systemd/system/{service}.service");
        let said = host.exec(&format!("systemd-analyze verify {unit} 2>&1")).await?;
        assert_eq!(said.trim(), "", "{service}");
        let line = format!(
            "systemd-analyze security --no-pager --offline=true --threshold={exposure} {unit} 2>&1"
        );
        host.exec(&line).await.with_context(|| format!("{service} is too exposed"))?;
    }

    // `Type=notify`: start returns when the daemon says that it is ready.
    for service in SERVICES {
        host.start(service).await?;
        assert_eq!(host.property(service, "ActiveState").await?, "active", "{service}");
    }
    is_alive(&cluster).await?;
    let journal = host.exec("journalctl --no-pager -o cat -u backendai-manager").await?;
    assert!(journal.contains("the manager is ready"), "{journal}");
    let pid = host.property("backendai-manager", "MainPID").await?;
    let owner = host.exec(&format!("stat -c %U /proc/{pid}")).await?;
    assert_eq!(owner.trim(), "backendai");

    // An administrator orders, the manager passes it on to the watcher, systemd does it.
    let agent = "backendai-agent";
    let admin = cluster.client(&cluster.identities.superadmin)?;
    let order = async |order| admin.run(&["admin", "watcher", order, "i-systemd"]).await;
    let told = order("status").await?.success();
    assert!(told.stdout.contains("active"), "{told}");
    let before = host.property(agent, "MainPID").await?;
    order("agent-restart").await?.success();
    assert_ne!(host.property(agent, "MainPID").await?, before);
    order("agent-stop").await?.success();
    assert_eq!(host.property(agent, "ActiveState").await?, "inactive");
    assert_eq!(host.property(agent, "Result").await?, "success");
    let told = order("status").await?.success();
    assert!(told.stdout.contains("inactive"), "{told}");
    order("agent-start").await?.success();
    is_alive(&cluster).await?;
    let [_, watcher] = ports;
    wait_for(LIMIT, "the agent to be healthy", async || {
        let told = health(watcher).await?;
        Ok((told["healthy"] == true).then_some(()))
    })
    .await?;

    // An agent that hangs is noticed by its watchdog, and started again.
    let hung = host.property(agent, "MainPID").await?;
    host.exec(&format!("kill -STOP {hung}")).await?;
    wait_until(LIMIT, "the watchdog", async || {
        let restarts: u32 = host.property(agent, "NRestarts").await?.parse()?;
        Ok(restarts > 0 && host.property(agent, "ActiveState").await? == "active")
    })
    .await?;
    assert_ne!(host.property(agent, "MainPID").await?, hung);
    is_alive(&cluster).await?;

    // A manager that is killed comes back; one that is stopped ends well.
    let killed = host.property("backendai-manager", "MainPID").await?;
    host.exec(&format!("kill -KILL {killed}")).await?;
    wait_until(LIMIT, "the manager to be back", async || {
        let now = host.property("backendai-manager", "MainPID").await?;
        let state = host.property("backendai-manager", "ActiveState").await?;
        Ok(now != killed && now != "0" && state == "active")
    })
    .await?;
    for service in SERVICES {
        host.exec(&format!("systemctl stop {service}")).await?;
        assert_eq!(host.property(service, "Result").await?, "success", "{service}");
    }
    drop(host);
    cluster.stop().await
}
