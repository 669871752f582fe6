//! Servers that are dead at start, die in the middle, and come back.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use backendai_tests::TestCluster;
use backendai_tests::servers::{Kind, Server};
use backendai_tests::wait::{wait_for, wait_until};

use crate::support::{LIMIT, create_body, execute, wait_nothing_left, wait_status};

fn server(cluster: &mut TestCluster, kind: Kind) -> &mut Server {
    match kind {
        Kind::Postgres => &mut cluster.servers.postgres,
        Kind::Redis => &mut cluster.servers.redis,
        Kind::Etcd => &mut cluster.servers.etcd,
        Kind::Registry => &mut cluster.servers.registry,
    }
}

/// Kills a server under a running session, looks what clients are told, brings it back, and
/// expects everything to go on by itself.
async fn a_server_dies_and_returns(kind: Kind) -> Result<()> {
    let mut cluster = TestCluster::builder().private_servers().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    client.post("/session", create_body("before", "python", json!({}))).await?.ok();
    execute(&client, "before", "x = 42").await?;

    server(&mut cluster, kind).kill().await?;
    if kind == Kind::Postgres {
        // Without the database nothing can be decided; the client is told so, soon.
        let reply =
            wait_for(LIMIT, "an answer", async || Ok(Some(client.get("/session/before").await?)))
                .await?;
        assert!(matches!(reply.status, 500 | 503), "{reply:?}");
        assert!(reply.problem().is_some(), "{reply:?}");
    }
    assert!(cluster.manager.process.is_alive(), "the manager outlives {kind:?}");
    assert!(cluster.agents[0].process.is_alive(), "the agent outlives {kind:?}");

    server(&mut cluster, kind).start().await?;
    wait_until(LIMIT, "the session to answer again", async || {
        Ok(execute(&client, "before", "print(x)").await? == "42\n")
    })
    .await?;
    wait_until(LIMIT, "new sessions to start again", async || {
        let extra = json!({"maxWaitSeconds": 30, "reuseIfExists": true});
        let reply = client.post("/session", create_body("after", "python", extra)).await?;
        Ok(reply.body["status"] == "RUNNING")
    })
    .await?;
    for name in ["before", "after"] {
        client.delete(&format!("/session/{name}")).await?.ok();
    }
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn postgresql_dies_and_returns() -> Result<()> {
    a_server_dies_and_returns(Kind::Postgres).await
}

#[tokio::test]
async fn redis_dies_and_returns() -> Result<()> {
    a_server_dies_and_returns(Kind::Redis).await
}

#[tokio::test]
async fn etcd_dies_and_returns() -> Result<()> {
    a_server_dies_and_returns(Kind::Etcd).await
}

#[tokio::test]
async fn docker_dies_and_returns() -> Result<()> {
    let cluster = TestCluster::builder().docker_proxy().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    client.post("/session", create_body("before", "python", json!({}))).await?.ok();
    execute(&client, "before", "x = 42").await?;
    let docker = cluster.docker_proxy.as_ref().expect("asked for");

    docker.cut();
    // The session lives on; only what needs Docker does not.
    assert_eq!(execute(&client, "before", "print(x)").await?, "42\n");
    let body = create_body("during", "python", json!({"enqueueOnly": true}));
    client.post("/session", body).await?.ok();
    docker.restore()?;

    let row = wait_status(&cluster, "during", &["RUNNING", "CANCELLED", "ERROR"]).await?;
    if row.status == "RUNNING" {
        client.delete("/session/during").await?.ok();
    } else {
        assert!(row.status_info.is_some(), "{row:?}");
    }
    wait_until(LIMIT, "new sessions to start again", async || {
        let extra = json!({"maxWaitSeconds": 30, "reuseIfExists": true});
        let reply = client.post("/session", create_body("after", "python", extra)).await?;
        Ok(reply.body["status"] == "RUNNING")
    })
    .await?;
    assert_eq!(execute(&client, "before", "print(x)").await?, "42\n");
    for name in ["before", "after"] {
        client.delete(&format!("/session/{name}")).await?.ok();
    }
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

/// A daemon whose server is dead at start either waits for it or ends with a clear message;
/// once the server is there it serves.
async fn a_server_is_dead_at_start(kind: Kind) -> Result<()> {
    let mut cluster = TestCluster::builder().private_servers().set_up().await?;
    server(&mut cluster, kind).stop().await?;
    cluster.manager.process.start()?;
    let word = match kind {
        Kind::Postgres => "postgres",
        Kind::Redis => "redis",
        Kind::Etcd => "etcd",
        Kind::Registry => "registry",
    };
    wait_until(LIMIT, "the log to say what is missing", async || {
        let log = cluster.manager.process.log_text();
        anyhow::ensure!(log.to_lowercase().contains(word), "no {word} in the log:\n{log}");
        Ok(true)
    })
    .await?;
    server(&mut cluster, kind).start().await?;
    // systemd restarts a daemon that gave up; here that is our part.
    wait_until(Duration::from_secs(90), "the manager to serve", async || {
        cluster.manager.start().await?;
        Ok(true)
    })
    .await?;
    cluster.agents[0].start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    let reply = client.post("/session", create_body("first", "python", json!({}))).await?.ok();
    assert_eq!(reply["status"], "RUNNING", "{reply}");
    client.delete("/session/first").await?.ok();
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn postgresql_is_dead_at_start() -> Result<()> {
    a_server_is_dead_at_start(Kind::Postgres).await
}

#[tokio::test]
async fn redis_is_dead_at_start() -> Result<()> {
    a_server_is_dead_at_start(Kind::Redis).await
}

#[tokio::test]
async fn etcd_is_dead_at_start() -> Result<()> {
    a_server_is_dead_at_start(Kind::Etcd).await
}

#[tokio::test]
async fn docker_is_dead_at_start() -> Result<()> {
    let mut cluster = TestCluster::builder().docker_proxy().set_up().await?;
    cluster.docker_proxy.as_ref().expect("asked for").cut();
    cluster.manager.start().await?;
    cluster.agents[0].process.start()?;
    wait_until(LIMIT, "the log to say what is missing", async || {
        Ok(cluster.agents[0].process.log_text().to_lowercase().contains("docker"))
    })
    .await?;
    cluster.docker_proxy.as_ref().expect("asked for").restore()?;
    wait_until(Duration::from_secs(90), "the agent to serve", async || {
        cluster.agents[0].start().await?;
        Ok(true)
    })
    .await?;
    let client = cluster.signed(&cluster.identities.user1);
    let reply = client.post("/session", create_body("first", "python", json!({}))).await?.ok();
    assert_eq!(reply["status"], "RUNNING", "{reply}");
    client.delete("/session/first").await?.ok();
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}
