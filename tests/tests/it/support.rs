//! What several tests say.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use backendai_tests::client::{PtyClient, StockClient};
use backendai_tests::ports::Ports;
use backendai_tests::wait::{wait_for, wait_until};
use backendai_tests::{Layout, SignedClient, TestCluster};

/// Longer than anything takes on a busy machine; a passing test never waits that long.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The body of `POST /session` as the stock client sends it, with `extra` laid over it.
pub fn create_body(name: &str, image: &str, extra: Value) -> Value {
    let mut body = json!({
        "name": name, "image": image, "architecture": "x86_64", "type": "interactive",
        "config": {"resources": {"cpu": "1", "mem": "384m"}},
        "group": "default", "domain": "default", "clusterSize": 1, "clusterMode": "single-node",
        "enqueueOnly": false, "maxWaitSeconds": 0, "reuseIfExists": false,
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

/// The status, reason and result of a session, as the database has them.
#[derive(Debug)]
pub struct SessionRow {
    pub status: String,
    pub status_info: Option<String>,
    pub status_data: Value,
    pub result: String,
    pub exit_code: Option<i32>,
}

/// The newest session of a name; `None` if there is none.
pub async fn session(cluster: &TestCluster, name: &str) -> Result<Option<SessionRow>> {
    let database = cluster.database().await?;
    let query = "SELECT s.status, s.status_info, s.status_data, s.result, k.exit_code \
        FROM sessions s JOIN kernels k ON k.session_id = s.id AND k.cluster_role = 'main' \
        WHERE s.name = $1 ORDER BY s.created_at DESC LIMIT 1";
    Ok(database.query_opt(query, &[&name]).await?.map(|row| SessionRow {
        status: row.get(0),
        status_info: row.get(1),
        status_data: row.get(2),
        result: row.get(3),
        exit_code: row.get(4),
    }))
}

/// Waits until a session has one of these statuses.
pub async fn wait_status(cluster: &TestCluster, name: &str, wanted: &[&str]) -> Result<SessionRow> {
    let mut last = None;
    let found = wait_for(LIMIT, &format!("session {name} to be {wanted:?}"), async || {
        let row = session(cluster, name).await?;
        last = row.as_ref().map(|row| format!("{row:?}"));
        Ok(row.filter(|row| wanted.contains(&row.status.as_str())))
    })
    .await;
    found.with_context(|| format!("it was last {last:?}"))
}

/// Waits until nothing of any session is left: no container, no network, no allocation, no
/// scratch folder, no unfinished row.
pub async fn wait_nothing_left(cluster: &TestCluster) -> Result<()> {
    wait_until(LIMIT, "containers to be gone", async || {
        let names: Vec<_> = cluster.containers().await?.into_iter().map(|c| c.names).collect();
        anyhow::ensure!(names.is_empty(), "containers {names:?}");
        Ok(true)
    })
    .await?;
    wait_until(LIMIT, "networks to be gone", async || {
        let names = cluster.networks().await?;
        anyhow::ensure!(names.is_empty(), "networks {names:?}");
        Ok(true)
    })
    .await?;
    let database = cluster.database().await?;
    wait_until(LIMIT, "rows to be finished", async || {
        let query = "SELECT (SELECT count(*) FROM allocations) + (SELECT count(*) FROM sessions \
            WHERE status NOT IN ('TERMINATED', 'CANCELLED', 'ERROR'))";
        let unfinished: i64 = database.query_one(query, &[]).await?.get(0);
        anyhow::ensure!(unfinished == 0, "{unfinished} allocations or live sessions");
        Ok(true)
    })
    .await?;
    wait_until(LIMIT, "scratch folders to be gone", async || {
        for agent in &cluster.agents {
            let root = cluster.dir().join(agent.id()).join("scratch");
            let left: Vec<_> =
                std::fs::read_dir(root)?.flatten().map(|entry| entry.file_name()).collect();
            anyhow::ensure!(left.is_empty(), "scratch folders {left:?}");
        }
        Ok(true)
    })
    .await
}

/// All that a run gave.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Everything on standard output.
    pub stdout: String,
    /// Everything on standard error.
    pub stderr: String,
    /// Other items of the console: their types and values.
    pub items: Vec<(String, Value)>,
    /// The statuses with their exit codes, without `continued`.
    pub statuses: Vec<(String, Option<i64>)>,
    /// Whether the questions were for passwords.
    pub passwords: Vec<bool>,
}

impl Outcome {
    /// Takes in one answer; its status.
    pub fn add(&mut self, result: &Value) -> String {
        for item in result["console"].as_array().into_iter().flatten() {
            let text = item[1].as_str().unwrap_or_default();
            match item[0].as_str().unwrap_or_default() {
                "stdout" => self.stdout += text,
                "stderr" => self.stderr += text,
                other => self.items.push((other.to_owned(), item[1].clone())),
            }
        }
        let status = result["status"].as_str().unwrap_or_default().to_owned();
        match status.as_str() {
            "continued" => {}
            "waiting-input" => {
                self.passwords.push(result["options"]["is_password"] == Value::Bool(true));
            }
            _ => self.statuses.push((status.clone(), result["exitCode"].as_i64())),
        }
        status
    }

    /// The exit code of the run.
    pub fn exit_code(&self) -> Option<i64> {
        self.statuses.last().and_then(|(_, code)| *code)
    }
}

/// The body of `POST /session/{name}` for a step of a run.
pub fn step(run_id: &str, mode: &str, code: &str) -> Value {
    json!({"mode": mode, "code": code, "runId": run_id, "options": null})
}

/// Carries a run on over plain HTTP, from this step until it is over or has a question that is
/// not in `answers`.
pub async fn carry_on(
    client: &SignedClient,
    session: &str,
    mut body: Value,
    answers: &[&str],
    outcome: &mut Outcome,
) -> Result<()> {
    let run_id = body["runId"].as_str().unwrap_or_default().to_owned();
    let mut answers = answers.iter();
    loop {
        let reply = client.post(&format!("/session/{session}"), body).await?;
        anyhow::ensure!(reply.status == 200, "execute is answered {reply:?} after {outcome:?}");
        body = match outcome.add(&reply.body["result"]).as_str() {
            "finished" => return Ok(()),
            "waiting-input" => match answers.next() {
                Some(answer) => step(&run_id, "input", answer),
                None => return Ok(()),
            },
            _ => step(&run_id, "continue", ""),
        };
    }
}

/// A name that no other run has.
pub fn new_run_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// Runs code in query mode over plain HTTP and returns what it printed to standard output.
pub async fn execute(client: &SignedClient, session: &str, code: &str) -> Result<String> {
    let mut outcome = Outcome::default();
    carry_on(client, session, step(&new_run_id(), "query", code), &[], &mut outcome).await?;
    anyhow::ensure!(outcome.exit_code() == Some(0), "the run ended {outcome:?}");
    Ok(outcome.stdout)
}

/// Opens `backend.ai app`, the local proxy to an app of a session; the port it listens on.
pub async fn local_proxy(
    client: &StockClient,
    session: &str,
    app: &str,
) -> Result<(PtyClient, String)> {
    // Held until the proxy has the port.
    let mut ports = Ports::default();
    let port = ports.choose(&Layout::discover()?.cache)?.to_string();
    let address = format!("127.0.0.1:{port}");
    let mut proxy = client.pty(&["app", "-b", &address, session, app])?;
    proxy.expect(&address, LIMIT).await?;
    Ok((proxy, port))
}
