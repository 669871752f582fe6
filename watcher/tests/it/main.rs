//! The watcher as a program, with a real etcd and a real message bus on which the test plays
//! systemd. (`backendai-tests` runs it under a real systemd, too.)

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod config;
mod systemd;
mod world;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use world::World;

#[tokio::test]
async fn only_the_token_opens_any_path() {
    let world = World::start().await;
    for token in [None, Some(""), Some("insecure"), Some(&world.token[1..])] {
        for path in ["/", "/agent/restart", "/mounts", "/fstab", "/no/such/path"] {
            let reply = world.send(Method::GET, path, token, None).await;
            assert_eq!(reply.status, StatusCode::FORBIDDEN, "{path} with {token:?}");
            assert_eq!(reply.server, "BackendAI-AgentWatcher");
        }
    }
    assert_eq!(world.get("/").await.json()["watcher-status"], "active");
    assert_eq!(world.get("/no/such/path").await.status, StatusCode::NOT_FOUND);
    assert_eq!(world.get("/agent/restart").await.status, StatusCode::METHOD_NOT_ALLOWED);

    // The token is followed, and a bad one opens nothing.
    let second = "fedcba98765432100123456789abcdef";
    world.etcd.put("config/watcher/token", second).await.unwrap();
    assert_eq!(world.get("/").await.status, StatusCode::FORBIDDEN);
    assert_eq!(world.send(Method::GET, "/", Some(second), None).await.status, StatusCode::OK);
    world.etcd.put("config/watcher/token", "insecure").await.unwrap();
    let reply = world.send(Method::GET, "/", Some("insecure"), None).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    world.stop().await;
}

#[tokio::test]
async fn the_agents_unit_and_no_other_is_started_and_stopped() {
    let world = World::start().await;
    let status = async || world.get("/").await.json();
    assert_eq!(status().await, json!({"agent-status": "inactive", "watcher-status": "active"}));
    for (path, expected) in
        [("/agent/start", "active"), ("/agent/stop", "inactive"), ("/agent/restart", "active")]
    {
        let reply = world.post(path, &json!({"unit": "sshd.service"})).await;
        assert_eq!(reply.json(), json!({"result": "ok"}), "{path}");
        assert_eq!(status().await["agent-status"], expected, "{path}");
    }
    for path in ["/hard-reset", "/shutdown"] {
        let reply = world.post(path, &Value::Null).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{path}");
        assert!(reply.text.contains("watcher.host-control"), "{}", reply.text);
    }
    assert_eq!(world.post("/soft-reset", &Value::Null).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        world.systemd.jobs(),
        ["start", "stop", "restart"].map(|job| format!("{job} backendai-agent.service"))
    );

    world.systemd.fail_next("failed");
    let reply = world.post("/agent/restart", &Value::Null).await;
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(reply.text.contains("journalctl -u backendai-agent.service"), "{}", reply.text);
    world.stop().await;
}

#[tokio::test]
async fn health_tells_what_systemd_the_cluster_and_the_port_say() {
    let world = World::start().await;
    let health = world.get("/agent/health").await.json();
    assert_eq!(health["healthy"], false);
    assert_eq!(health["unit"]["active"], "inactive");
    assert_eq!(health["node-status"], Value::Null);

    let agent = tokio::net::TcpListener::bind(("127.0.0.1", world.agent_port)).await.unwrap();
    world.etcd.put("nodes/agents/i-watched", "running").await.unwrap();
    world.etcd.put("nodes/agents/i-watched/ip", "127.0.0.1").await.unwrap();
    world.post("/agent/start", &Value::Null).await;
    let health = world.get("/agent/health").await.json();
    assert_eq!(health["healthy"], true, "{health}");
    drop(agent);
    assert_eq!(world.get("/agent/health").await.json()["rpc-reachable"], false);
    assert!(world.get("/hardware").await.json()["memory-bytes"].as_u64().unwrap() > 0);
    world.stop().await;
}

#[tokio::test]
async fn without_systemd_every_unit_action_is_refused_clearly() {
    let world = World::without_systemd().await;
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/agent/health"),
        (Method::POST, "/agent/start"),
        (Method::POST, "/agent/stop"),
        (Method::POST, "/agent/restart"),
    ] {
        let reply = world.send(method, path, Some(&world.token), None).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {}", reply.text);
        assert_eq!(reply.json()["message"], "Agent is not loaded with systemctl.");
    }
    world.stop().await;
}

#[tokio::test]
async fn mounts_and_the_mount_table_stay_inside_the_prefix() {
    let world = World::start().await;
    let prefix = world.dir.path().join("mnt");
    world.etcd.put("volumes/_mount", prefix.to_str().unwrap()).await.unwrap();
    assert_eq!(world.get("/mounts").await.json(), json!([]));
    assert_eq!(world.get("/fstab").await.text, "# empty\n");

    let other = world.get("/fstab?fstab_path=/etc/shadow").await;
    assert_eq!(other.status, StatusCode::BAD_REQUEST, "{}", other.text);
    let mount = |name: &str, options: &str| {
        json!({"name": name, "fs_type": "tmpfs", "fs_location": "none", "options": options,
               "edit_fstab": true, "fstab_path": null})
    };
    for wrong in [mount("../escaped", "ro"), mount("a/b", "ro"), mount("a", "bind"), json!({})] {
        let reply = world.post("/mounts", &wrong).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{wrong}: {}", reply.text);
    }
    let unmount = json!({"name": "absent", "edit_fstab": true});
    let reply = world.send(Method::DELETE, "/mounts", Some(&world.token), Some(&unmount)).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.text);
    assert_eq!(world.get("/fstab").await.text, "# empty\n");

    // Mounting itself wants a right that a container's root may lack: either way the table says
    // what is mounted.
    let reply = world.post("/mounts", &mount("data", "size=1m")).await;
    let table = world.get("/fstab").await.text;
    if reply.status == StatusCode::OK {
        let folder = prefix.join("data");
        assert_eq!(world.get("/mounts").await.json(), json!([folder]));
        assert_eq!(table, format!("# empty\nnone {} tmpfs size=1m 0 0\n", folder.display()));
        let unmount = json!({"name": "data", "edit_fstab": true});
        let reply = world.send(Method::DELETE, "/mounts", Some(&world.token), Some(&unmount)).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
        assert!(!folder.exists());
    } else {
        assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", reply.text);
        assert!(!prefix.join("data").exists(), "the folder of a mount that failed is left over");
    }
    assert_eq!(world.get("/fstab").await.text, "# empty\n");
    world.stop().await;
}
