//! What Prometheus sees.

use anyhow::{Context, Result};
use serde_json::json;

use backendai_tests::TestCluster;
use backendai_tests::wait::wait_for;

use crate::support::{LIMIT, create_body};

/// The text of a daemon's metrics, at the address that its log tells.
async fn metrics(log: &str) -> Result<String> {
    let line = log.lines().find(|line| line.contains("metrics are shown")).context("a line")?;
    let addr = line.split_once("127.0.0.1:").context("an address")?.1;
    let port: String = addr.chars().take_while(char::is_ascii_digit).collect();
    let reply = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await?;
    anyhow::ensure!(reply.status() == 200, "{}", reply.status());
    let elsewhere = reqwest::get(format!("http://127.0.0.1:{port}/")).await?;
    anyhow::ensure!(elsewhere.status() == 404, "{}", elsewhere.status());
    Ok(reply.text().await?)
}

/// Waits until a daemon shows all of these lines' beginnings.
async fn wait_shown(log: impl Fn() -> String, wanted: &[&str]) -> Result<()> {
    wait_for(LIMIT, "metrics", async || {
        let text = metrics(&log()).await?;
        for line in wanted {
            anyhow::ensure!(text.lines().any(|l| l.starts_with(line)), "no {line} in {text}");
        }
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn daemons_show_what_they_do_to_prometheus() -> Result<()> {
    let shown = json!({"metrics": {"listen-addr": "127.0.0.1:0"}});
    let quick = json!({"metrics": shown["metrics"], "agent": {"statistics-interval": 0.1}});
    let cluster = TestCluster::builder().manager_config(shown).agent_config(quick).start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    client.post("/session", create_body("watched", "busybox", json!({}))).await?.ok();
    client.get("/no/such/route/4711").await?;

    wait_shown(
        || cluster.manager.process.log_text(),
        &[
            r#"backendai_sessions{status="RUNNING"} 1"#,
            r#"backendai_sessions{status="PENDING"} 0"#,
            r#"backendai_agents{status="ALIVE"} 1"#,
            r#"backendai_api_requests_total{method="POST",route="session::create",status="201"} 1"#,
            r#"backendai_api_requests_total{method="other",route="none",status="404"} 1"#,
            r#"backendai_api_request_seconds_bucket{route="session::create",le="#,
            r#"backendai_task_pass_seconds_count{task="schedule_sessions"}"#,
            r#"backendai_agent_calls_total{method="create_kernels",outcome="ok"} 1"#,
            r#"backendai_agent_events_total{change="started"} 1"#,
            "backendai_agent_heartbeats_total ",
            r#"backendai_db_connections{state="open"} "#,
        ],
    )
    .await?;
    wait_shown(
        || cluster.agents[0].process.log_text(),
        &[
            r#"backendai_agent_kernels{phase="running"} 1"#,
            "backendai_agent_kernel_creation_seconds_count 1",
            r#"backendai_agent_node{metric="mem"} "#,
        ],
    )
    .await?;
    cluster.stop().await
}
