//! What administrators do to a site with the stock client.

use anyhow::{Context, Result};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

use backendai_tests::client::Venv;
use backendai_tests::process::run;
use backendai_tests::progress::Progress;
use backendai_tests::{Layout, TestCluster};

use crate::support::{LIMIT, create_body, wait_nothing_left, wait_status};

#[tokio::test]
async fn the_manager_is_frozen_and_thawed_and_sessions_are_killed() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let admin = cluster.client(&cluster.identities.superadmin)?;
    let user = cluster.client(&cluster.identities.user1)?;
    let signed = cluster.signed(&cluster.identities.user1);
    signed.post("/session", create_body("victim", "busybox", json!({}))).await?.ok();

    user.run(&["admin", "manager", "freeze"]).await?.failure();
    let status = admin.run(&["admin", "manager", "status"]).await?.success();
    assert!(status.stdout.contains("running") && status.stdout.contains('1'), "{status}");
    admin.run(&["admin", "manager", "freeze", "--force-kill"]).await?.success();
    let row = wait_status(&cluster, "victim", &["TERMINATED"]).await?;
    assert_eq!(row.status_info.as_deref(), Some("force-terminated"), "{row:?}");
    let status = admin.run(&["admin", "manager", "status"]).await?.success();
    assert!(status.stdout.contains("frozen"), "{status}");

    let refused = user.run(&["session", "create", "-t", "late", "busybox"]).await?.failure();
    assert!(refused.all().contains("frozen"), "{refused}");
    // Looking is not changing.
    user.run(&["ps", "--dead"]).await?.success();
    admin.run(&["admin", "manager", "unfreeze"]).await?.success();
    let created = signed.post("/session", create_body("again", "busybox", json!({}))).await?;
    assert_eq!(created.status, 201, "{created:?}");
    user.run(&["session", "rm", "again"]).await?.success();
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn agents_are_taken_from_scheduling_and_given_back() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let admin = cluster.client(&cluster.identities.superadmin)?;
    let agent = cluster.agents[0].id();
    let operate = async |what| admin.run(&["admin", "manager", "scheduler", what, agent]).await;
    operate("exclude-agents").await?.success();
    let signed = cluster.signed(&cluster.identities.user1);
    let waiting = create_body("waiting", "busybox", json!({"enqueueOnly": true}));
    signed.post("/session", waiting).await?.ok();
    let database = cluster.database().await?;
    let row = database.query_one("SELECT schedulable FROM agents", &[]).await?;
    assert!(!row.get::<_, bool>(0));
    wait_status(&cluster, "waiting", &["PENDING"]).await?;
    operate("include-agents").await?.success();
    wait_status(&cluster, "waiting", &["RUNNING"]).await?;
    let unknown = ["admin", "manager", "scheduler", "exclude-agents", "i-none"];
    admin.run(&unknown).await?.failure();
    signed.delete("/session/waiting").await?;
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn configuration_is_read_and_written() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let admin = cluster.client(&cluster.identities.superadmin)?;
    let user = cluster.client(&cluster.identities.user1)?;
    let key = "config/docker/image/auto_pull";
    admin.run(&["admin", "etcd", "set", key, "tag"]).await?.success();
    let shown = admin.run(&["admin", "etcd", "get", key]).await?.success();
    assert!(shown.all().contains("\"tag\""), "{shown}");
    let tree = admin.run(&["admin", "etcd", "get", "-p", "config/docker/image"]).await?.success();
    assert!(tree.all().contains("auto_pull"), "{tree}");
    assert_eq!(cluster.manager_cli(&["etcd", "get", key]).await?.trim(), "tag");
    admin.run(&["admin", "etcd", "delete", key]).await?.success();
    let gone = admin.run(&["admin", "etcd", "get", key]).await?;
    assert!(!gone.all().contains("\"tag\""), "{gone}");
    user.run(&["admin", "etcd", "get", key]).await?.failure();

    let slots = admin.run(&["admin", "resource", "query-slots"]).await?.success();
    assert_eq!(slots.stdout, "cpu (count)\nmem (bytes)\n");
    let types = admin.run(&["admin", "resource", "vfolder-types"]).await?.success();
    assert!(types.stdout.contains("user"), "{types}");
    let registries = admin.run(&["admin", "resource", "docker-registries"]).await?.success();
    assert!(registries.stdout.contains(&cluster.servers.registry.addr()), "{registries}");
    admin.run(&["admin", "resource", "recalculate-usage"]).await?.success();
    for command in ["docker-registries", "recalculate-usage"] {
        // The client exits with 0 all the same.
        let refused = user.run(&["admin", "resource", command]).await?;
        assert!(refused.all().contains("401 Unauthorized"), "{refused}");
    }
    cluster.stop().await
}

#[tokio::test]
async fn announcements_reach_users() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let admin = cluster.client(&cluster.identities.superadmin)?;
    let user = cluster.client(&cluster.identities.user1)?;
    let none = admin.run(&["admin", "announcement", "get"]).await?.success();
    assert!(none.all().contains("No announcements."), "{none}");
    let post = ["admin", "announcement", "update", "-m", "Down on Friday"];
    user.run(&post).await?.failure();
    admin.run(&post).await?.success();
    let shown = user.run(&["admin", "announcement", "get"]).await?.success();
    assert!(shown.all().contains("Down on Friday"), "{shown}");
    let delete = ["admin", "announcement", "delete"];
    admin.run_with(&delete, "y\n", LIMIT).await?.success();
    let none = user.run(&["admin", "announcement", "get"]).await?.success();
    assert!(none.all().contains("No announcements."), "{none}");
    cluster.stop().await
}

#[tokio::test]
async fn usage_and_scaling_groups_are_shown() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let admin = cluster.client(&cluster.identities.superadmin)?;
    let user = cluster.client(&cluster.identities.user1)?;
    let signed = cluster.signed(&cluster.identities.user1);
    let batch = json!({"type": "batch", "startupCommand": "true"});
    signed.post("/session", create_body("counted", "busybox", batch)).await?.ok();
    wait_status(&cluster, "counted", &["TERMINATED"]).await?;

    let now = chrono::Utc::now();
    let (month, day) = (now.format("%Y%m").to_string(), now.format("%Y%m%d").to_string());
    let first = (now - chrono::TimeDelta::days(1)).format("%Y%m%d").to_string();
    let query = "SELECT id::text FROM groups WHERE name = 'default'";
    let group: String = cluster.database().await?.query_one(query, &[]).await?.get(0);
    let per_month = ["admin", "resource", "usage-per-month", &month, &group];
    let usage = admin.run(&per_month).await?.success();
    for shown in ["Group: default", "Identity: counted /", "Containers (1):"] {
        assert!(usage.stdout.contains(shown), "{shown} in {usage}");
    }
    user.run(&per_month).await?.failure();
    let per_period = ["admin", "resource", "usage-per-period", &group, &first, &day];
    let usage = admin.run(&per_period).await?.success();
    for shown in ["Group: default", "Identity: counted /", "Containers (1):"] {
        assert!(usage.stdout.contains(shown), "{shown} in {usage}");
    }
    let long_ago = ["admin", "resource", "usage-per-period", &group, "20010101", "20010102"];
    let usage = admin.run(&long_ago).await?.success();
    assert!(usage.stdout.contains("No usage information"), "{usage}");
    user.run(&per_period).await?.failure();
    let groups = user.run(&["admin", "scaling-group", "get-available", "default"]).await?.success();
    assert!(groups.stdout.contains("default"), "{groups}");
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

/// What a watcher answers, as its contract says.
pub async fn watcher(answers: Vec<&'static str>) -> Result<(u16, JoinSet<Vec<String>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut heads = Vec::new();
        for body in answers {
            let Ok((mut socket, _)) = listener.accept().await else { break };
            let mut head = vec![0; 8192];
            let count = socket.read(&mut head).await.unwrap_or_default();
            let head = String::from_utf8_lossy(&head[..count]).into_owned();
            heads.push(head.lines().next().unwrap_or_default().to_owned());
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            socket.write_all(answer.as_bytes()).await.expect("the manager listens");
        }
        heads
    });
    Ok((port, server))
}

#[tokio::test]
async fn watchers_start_and_stop_agents() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let admin = cluster.client(&cluster.identities.superadmin)?;
    let user = cluster.client(&cluster.identities.user1)?;
    let status = r#"{"agent-status": "active", "watcher-status": "active"}"#;
    let ok = r#"{"result": "ok"}"#;
    let (port, mut heard) = watcher(vec![status, ok, ok, ok]).await.context("a watcher")?;
    let agent = cluster.agents[0].id();
    let node = format!("nodes/agents/{agent}");
    cluster.manager_cli(&["etcd", "put", &format!("{node}/ip"), "127.0.0.1"]).await?;
    let port = port.to_string();
    cluster.manager_cli(&["etcd", "put", &format!("{node}/watcher_port"), &port]).await?;

    user.run(&["admin", "watcher", "status", agent]).await?.failure();
    let shown = admin.run(&["admin", "watcher", "status", agent]).await?.success();
    assert!(shown.stdout.contains("active"), "{shown}");
    for command in ["agent-start", "agent-stop", "agent-restart"] {
        admin.run(&["admin", "watcher", command, agent]).await?.success();
    }
    let heads = heard.join_next().await.context("the watcher")??;
    assert_eq!(
        heads,
        [
            "GET / HTTP/1.1",
            "POST /agent/start HTTP/1.1",
            "POST /agent/stop HTTP/1.1",
            "POST /agent/restart HTTP/1.1"
        ]
    );
    admin.run(&["admin", "watcher", "status", "i-none"]).await?.failure();
    cluster.stop().await
}

#[tokio::test]
async fn the_launcher_manages_the_site_and_leaves_the_rest_to_the_client() -> Result<()> {
    let layout = Layout::discover()?;
    let venv = Venv::ensure(&layout, &Progress::silent()).await?;
    let cluster = TestCluster::builder().agents(0).start().await?;
    let launcher = layout.launcher()?;
    let path = std::env::var("PATH")?;
    let path = format!("{}:{}:{path}", launcher.display(), venv.bin().display());
    let run_it = async |args: &[&str]| {
        let mut command = Command::new(launcher.join("backend.ai"));
        command.args(args).env("PATH", &path);
        run(command.env("BACKEND_CONFIG_FILE", cluster.dir().join("manager.toml"))).await
    };
    run_it(&["mgr", "etcd", "put", "config/seeded", "127.0.0.1:8110"]).await?;
    assert_eq!(run_it(&["mgr", "etcd", "get", "config/seeded"]).await?.trim(), "127.0.0.1:8110");
    assert!(run_it(&["mgr", "redis", "ping"]).await?.contains("healthy"));
    assert!(run_it(&["ag", "--version"]).await?.starts_with("backendai-agent"));
    let client = run_it(&["--help"]).await?;
    assert!(client.contains("session-template"), "{client}");
    assert!(run_it(&["mgr", "etcd", "get", "config/nothing"]).await.is_err());
    cluster.stop().await
}
