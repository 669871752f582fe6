//! Figures of nodes and kernels, as people see them.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use backendai_tests::wait::wait_for;
use backendai_tests::{SignedClient, TestCluster};

use crate::support::{LIMIT, create_body, execute, wait_status};

/// Uses half a second of processor time, 64 MiB of memory and 5 MB of disk.
const WORK: &str = "import time
ballast = bytearray(64 << 20)
with open('file', 'wb') as file: file.write(bytes(5_000_000))
while time.process_time() < 0.5: pass";

fn quick() -> Value {
    json!({"agent": {"statistics-interval": 0.1}})
}

/// A number that an answer shows as text.
fn number(metric: &Value, field: &str) -> Result<f64> {
    let text = metric[field].as_str().with_context(|| format!("{field} of {metric}"))?;
    Ok(text.parse()?)
}

/// Waits until the live figures of a session are such as `is_good` wants.
async fn wait_live(
    client: &SignedClient,
    session: &str,
    is_good: impl Fn(&Value) -> Result<bool>,
) -> Result<Value> {
    wait_for(LIMIT, &format!("figures of {session}"), async || {
        let reply = client.get(&format!("/session/{session}")).await?;
        let stat = &reply.body["lastStat"];
        Ok((stat.is_object() && is_good(stat)?).then(|| stat.clone()))
    })
    .await
}

#[tokio::test]
async fn a_kernel_is_counted_while_it_runs_and_remembered_afterwards() -> Result<()> {
    let cluster = TestCluster::builder().agent_config(quick()).start().await?;
    let signed = cluster.signed(&cluster.identities.user1);
    let client = cluster.client(&cluster.identities.user1)?;
    let created = signed.post("/session", create_body("counted", "python", json!({}))).await?;
    let id = created.body["sessionId"].as_str().context("a session id")?.to_owned();
    execute(&signed, "counted", WORK).await?;

    let has_worked = |stat: &Value| {
        Ok(number(&stat["cpu_used"], "current")? >= 500.0
            && number(&stat["mem"], "stats.max")? >= f64::from(64 << 20)
            && number(&stat["io_scratch_size"], "current")? > 0.0)
    };
    let live = wait_live(&signed, "counted", has_worked).await?;
    // What the container may use: its shared memory is counted beside.
    assert_eq!(live["mem"]["capacity"], (320 << 20).to_string(), "{live}");
    assert!(number(&live["cpu_util"], "stats.max")? > 0.0, "{live}");
    for metric in ["net_rx", "net_tx", "io_read", "io_write"] {
        number(&live[metric], "current")?;
    }
    let shown = client.run(&["session", "info", &id]).await?.success();
    assert!(shown.stdout.contains("cpu_used") && shown.stdout.contains("net_rx"), "{shown}");

    let removed = client.run(&["session", "rm", "-s", "counted"]).await?.success();
    assert!(removed.stdout.contains("cpu_used") && removed.stdout.contains("msec"), "{removed}");
    wait_status(&cluster, "counted", &["TERMINATED"]).await?;
    let query = "SELECT k.last_stat FROM kernels k JOIN sessions s ON s.id = k.session_id";
    let last: Value = cluster.database().await?.query_one(query, &[]).await?.get(0);
    let used = |stat: &Value| number(&stat["cpu_used"], "current");
    assert!(used(&last)? >= used(&live)?, "{last} is older than {live}");
    cluster.stop().await
}

#[tokio::test]
async fn a_session_of_a_moment_has_figures_too() -> Result<()> {
    // Nothing is gathered by the clock in this test.
    let idle = json!({"agent": {"statistics-interval": 3600.0}});
    let cluster = TestCluster::builder().agent_config(idle).start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    let output = client.run(&["run", "--rm", "-s", "-c", WORK, "python"]).await?.success();
    let line = output.stdout.lines().find(|line| line.contains("cpu_used")).context("a line")?;
    let used: f64 = line.split_whitespace().nth(1).context("a number")?.replace(',', "").parse()?;
    assert!(used >= 500.0, "{output}");

    // Its container is gone before anybody asks.
    let command = "python3 -c 'sum(range(10_000_000))'";
    let create = ["session", "create", "--type", "batch", "-c", command, "-t", "batch", "python"];
    client.run(&create).await?.success();
    wait_status(&cluster, "batch", &["TERMINATED"]).await?;
    let query = "SELECT k.last_stat FROM kernels k JOIN sessions s ON s.id = k.session_id \
        WHERE s.name = 'batch'";
    let last: Value = cluster.database().await?.query_one(query, &[]).await?.get(0);
    assert!(number(&last["cpu_used"], "current")? > 0.0, "{last}");
    cluster.stop().await
}

#[tokio::test]
async fn administrators_see_how_busy_agents_are_and_losing_redis_costs_a_moment() -> Result<()> {
    let cluster = TestCluster::builder().private_servers().agent_config(quick()).start().await?;
    let signed = cluster.signed(&cluster.identities.superadmin);
    let id = cluster.agents[0].id();
    let query = json!({
        "query": "query($id: String!) { agent(agent_id: $id) { cpu_cur_pct mem_cur_bytes live_stat } }",
        "variables": {"id": id},
    });
    let live = async || {
        wait_for(LIMIT, "the agent's figures", async || {
            let reply = signed.post("/admin/graphql", query.clone()).await?;
            let agent = &reply.body["agent"];
            let is_known = agent["mem_cur_bytes"].as_f64().is_some_and(|bytes| bytes > 0.0);
            Ok(is_known.then(|| agent.clone()))
        })
        .await
    };
    let agent = live().await?;
    assert!(agent["cpu_cur_pct"].as_f64().is_some_and(|p| (0.0..=100.0).contains(&p)), "{agent}");
    let stat: Value = serde_json::from_str(agent["live_stat"].as_str().context("live_stat")?)?;
    let cores = stat["devices"]["cpu_util"].as_object().context("cores")?.len();
    assert_eq!(cores, std::thread::available_parallelism()?.get(), "{stat}");
    assert!(number(&stat["node"]["disk"], "capacity")? > 0.0, "{stat}");

    let client = cluster.client(&cluster.identities.superadmin)?;
    client.run(&["admin", "agent", "list"]).await?.success();
    let shown = client.run(&["admin", "agent", "info", id]).await?.success();
    for metric in ["cpu_util: ", "mem: ", "disk: ", "net_rx: "] {
        assert!(shown.stdout.contains(metric), "{metric} in {shown}");
    }

    let mut redis = tokio::net::TcpStream::connect(cluster.servers.redis.addr()).await?;
    redis.write_all(b"FLUSHALL\r\n").await?;
    let mut answer = [0; 5];
    redis.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"+OK\r\n");
    live().await?;
    cluster.stop().await
}
