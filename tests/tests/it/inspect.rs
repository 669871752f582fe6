//! What Docker says about a kernel's container.

use anyhow::{Context, Result};
use serde_json::json;

use backendai_tests::TestCluster;
use backendai_tests::cluster::docker;

use crate::support::{create_body, execute};

#[tokio::test]
async fn a_container_has_the_limits_asked_for_and_no_privileges() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    let resources = json!({"resources": {"cpu": "2", "mem": "512m"}});
    let body = create_body("limits", "python", json!({"config": resources}));
    let created = client.post("/session", body).await?;
    assert_eq!(created.body["status"], "RUNNING", "{created:?}");

    let containers = cluster.containers().await?;
    assert_eq!(containers.len(), 1, "{containers:?}");
    let id = containers[0].id.as_deref().context("an id")?;
    let docker = docker()?;
    let container = docker.inspect_container(id, None).await?;
    let config = container.config.context("config")?;
    let host = container.host_config.context("host config")?;

    // Shared memory is part of what was asked for: 448 and 64 MiB make the 512.
    assert_eq!(host.memory, Some(448 << 20));
    assert_eq!(host.memory_swap, Some(448 << 20), "no swap on top");
    assert_eq!(host.shm_size, Some(64 << 20), "the image's preferred shared memory");
    let quota = host.cpu_quota.unwrap_or_default() as f64;
    let cores = quota / host.cpu_period.unwrap_or(100_000) as f64;
    let set = host.cpuset_cpus.unwrap_or_default();
    assert!(
        cores == 2.0 || host.nano_cpus == Some(2_000_000_000) || !set.is_empty(),
        "two cores: quota {quota}, set {set:?}"
    );
    assert!(host.pids_limit.is_some_and(|limit| limit > 0), "{:?}", host.pids_limit);

    assert_eq!(host.privileged, Some(false));
    assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
    let kept = host.cap_add.unwrap_or_default();
    for dangerous in ["ALL", "SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "MKNOD", "NET_RAW"] {
        assert!(!kept.iter().any(|cap| cap.trim_start_matches("CAP_") == dangerous), "{kept:?}");
    }
    let options = host.security_opt.unwrap_or_default();
    assert!(options.iter().any(|o| o.starts_with("no-new-privileges")), "{options:?}");
    assert!(host.devices.unwrap_or_default().is_empty());
    for other in [host.pid_mode, host.ipc_mode, host.network_mode] {
        assert_ne!(other.as_deref(), Some("host"));
    }

    assert!(host.port_bindings.unwrap_or_default().is_empty(), "no published port");
    let ports = container.network_settings.context("network")?.ports.unwrap_or_default();
    assert!(ports.values().all(Option::is_none), "{ports:?}");

    let scratch = cluster.dir().join(cluster.agents[0].id()).join("scratch");
    let binds = host.mounts.unwrap_or_default();
    let work = binds.iter().find(|m| m.target.as_deref() == Some("/home/work"));
    let source = work.and_then(|m| m.source.clone()).context("a mount of /home/work")?;
    assert!(source.starts_with(&scratch.display().to_string()), "{source}");
    assert!(
        !binds.iter().any(|m| m.source.as_deref().is_some_and(|s| s.contains("docker.sock"))),
        "{binds:?}"
    );

    let labels = config.labels.unwrap_or_default();
    let session_id = created.body["sessionId"].as_str().context("a session id")?;
    assert_eq!(labels.get("ai.backend.session-id").map(String::as_str), Some(session_id));
    assert_eq!(labels.get("ai.backend.owner").map(String::as_str), Some(cluster.agents[0].id()));

    // The same seen from inside.
    let status = "print(open('/proc/self/status').read())";
    let seen = execute(&client, "limits", status).await?;
    let line = |name: &str| seen.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    assert_eq!(line("CapEff:"), Some("0000000000000000"), "{seen}");
    assert_eq!(line("NoNewPrivs:"), Some("1"), "{seen}");
    assert!(line("Uid:").is_some_and(|uid| uid.starts_with("1000")), "{seen}");

    client.delete("/session/limits").await?.ok();
    cluster.stop().await
}
