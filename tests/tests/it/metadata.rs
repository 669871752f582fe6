//! What kernels are told about themselves at 169.254.169.254.

use anyhow::{Context, Result};
use serde_json::json;

use backendai_tests::TestCluster;
use backendai_tests::cluster::Builder;
use backendai_tests::wait::{wait_for, wait_until};

use crate::support::{LIMIT, create_body, execute};

/// Asks for everything there is.
const QUESTIONS: &str = "import json, socket, urllib.error, urllib.request
def ask(path):
    try:
        with urllib.request.urlopen('http://169.254.169.254' + path) as reply:
            return reply.read().decode()
    except urllib.error.HTTPError as error:
        return str(error.code)
leaves = '/latest/meta-data/'
print(ask('/'), ask('/latest/'), ask(leaves).split(), ask(leaves + 'sandbox'))
print(json.loads(ask(leaves + 'envs'))['GREETING'])
print(ask(leaves + 'local-ipv4') == socket.gethostbyname(socket.gethostname()))
print(ask('/latest/nothing'))";

fn with_metadata() -> Builder {
    // Any port: other agents of this machine have theirs.
    let agent = json!({"metadata-server-enabled": true, "metadata-server-port": 0});
    TestCluster::builder().agent_config(json!({"agent": agent}))
}

/// Rules of the firewall that mention the agent.
async fn rules(cluster: &TestCluster) -> Result<Vec<String>> {
    let mut command = tokio::process::Command::new("iptables");
    let output = command.args(["-w", "5", "-t", "nat", "-S"]).output().await?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let id = cluster.agents[0].id();
    Ok(text.lines().filter(|line| line.contains(id)).map(str::to_owned).collect())
}

/// Waits until the chain, the way into it and a rule for each container are there, alone.
async fn wait_rules(cluster: &TestCluster, containers: usize) -> Result<Vec<String>> {
    wait_for(LIMIT, "the firewall's rules", async || {
        let rules = rules(cluster).await?;
        let redirects = rules.iter().filter(|rule| rule.contains("REDIRECT")).count();
        anyhow::ensure!(redirects == containers && rules.len() == containers + 2, "{rules:?}");
        Ok(Some(rules))
    })
    .await
}

#[tokio::test]
async fn a_container_learns_about_itself_and_strangers_nothing() -> Result<()> {
    let cluster = with_metadata().start().await?;
    wait_rules(&cluster, 0).await?;
    let client = cluster.signed(&cluster.identities.user1);
    let config =
        json!({"environ": {"GREETING": "good day"}, "resources": {"cpu": "1", "mem": "384m"}});
    let body = create_body("curious", "python", json!({"config": config}));
    client.post("/session", body).await?.ok();
    let rules_now = wait_rules(&cluster, 1).await?;
    let told = execute(&client, "curious", QUESTIONS).await?;
    let expected = "latest/ meta-data/ ['envs', 'local-ipv4', 'sandbox'] docker\n\
        good day\nTrue\n404\n";
    assert_eq!(told, expected);

    let port = rules_now.iter().find_map(|rule| rule.rsplit_once("--to-ports "));
    let port = port.context("a port")?.1.trim();
    let stranger = reqwest::get(format!("http://127.0.0.1:{port}/latest/meta-data/envs")).await?;
    assert_eq!(stranger.status(), 403);

    client.delete("/session/curious").await?.ok();
    wait_rules(&cluster, 0).await?;
    cluster.stop().await
}

#[tokio::test]
async fn the_firewall_is_left_as_it_was_even_after_a_kill() -> Result<()> {
    let mut cluster = with_metadata().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    client.post("/session", create_body("lasting", "python", json!({}))).await?.ok();
    wait_rules(&cluster, 1).await?;
    cluster.agents[0].process.kill().await?;
    assert!(!rules(&cluster).await?.is_empty(), "a killed agent cleans nothing");
    cluster.agents[0].start().await?;
    wait_rules(&cluster, 1).await?;
    cluster.agents[0].process.terminate().await?;
    wait_until(LIMIT, "the rules to be gone", async || {
        let left = rules(&cluster).await?;
        anyhow::ensure!(left.is_empty(), "{left:?}");
        Ok(true)
    })
    .await?;
    cluster.stop().await
}
