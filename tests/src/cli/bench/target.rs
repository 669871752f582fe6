//! What is measured: our cluster and, beside it, the original.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::process::Command;

use backendai_tests::process::run;
use backendai_tests::progress::Progress;
use backendai_tests::{Layout, SignedClient, TestCluster};

/// A cluster that can be asked.
#[derive(Debug)]
pub struct Target {
    /// Acts for its superadmin.
    pub client: SignedClient,
}

impl Target {
    /// The cluster of this run.
    pub fn ours(cluster: &TestCluster) -> Self {
        Self { client: cluster.signed(&cluster.identities.superadmin) }
    }

    /// Creates a session of the image `python` and returns the answer's body.
    ///
    /// # Errors
    /// It is refused.
    pub async fn create(&self, name: &str, extra: Value) -> Result<Value> {
        let mut body = json!({
            "name": name, "image": "python", "architecture": std::env::consts::ARCH,
            "type": "interactive", "group": "default", "domain": "default",
            "clusterSize": 1, "clusterMode": "single-node", "enqueueOnly": false,
            "maxWaitSeconds": 0, "reuseIfExists": false,
            "config": {"resources": {"cpu": "1", "mem": "384m"}},
        });
        for (key, value) in extra.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let reply = self.client.post("/session", body).await?;
        anyhow::ensure!(reply.status == 201, "creating {name} is answered {reply:?}");
        Ok(reply.body)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// It is refused.
    pub async fn destroy(&self, name: &str) -> Result<()> {
        let reply = self.client.delete(&format!("/session/{name}")).await?;
        anyhow::ensure!(reply.status == 200, "destroying {name} is answered {reply:?}");
        Ok(())
    }

    /// Runs `print(1)` and waits for its end.
    ///
    /// # Errors
    /// It does not print 1.
    pub async fn print_one(&self, name: &str) -> Result<()> {
        let run_id = format!("{:016x}", rand::random::<u64>());
        let mut body =
            json!({"mode": "query", "code": "print(1)", "runId": run_id, "options": null});
        let mut printed = String::new();
        loop {
            let reply = self.client.post(&format!("/session/{name}"), body).await?;
            let result = &reply.body["result"];
            for item in result["console"].as_array().into_iter().flatten() {
                printed += item[1].as_str().unwrap_or_default();
            }
            match result["status"].as_str() {
                Some("finished") => break,
                Some(_) => {}
                None => anyhow::bail!("execute is answered {reply:?}"),
            }
            body = json!({"mode": "continue", "code": "", "runId": run_id, "options": null});
        }
        anyhow::ensure!(printed == "1\n", "print(1) printed {printed:?}");
        Ok(())
    }

    /// How many sessions there are or were.
    ///
    /// # Errors
    /// The query is refused.
    pub async fn count(&self) -> Result<usize> {
        let query = "{ compute_session_list(limit: 1, offset: 0) { items { id } total_count } }";
        let data = self.client.gql(query, json!({})).await?;
        let total = data["compute_session_list"]["total_count"].as_u64();
        Ok(usize::try_from(total.context("a total count")?)?)
    }
}

/// The original, started for this run or before it.
#[derive(Debug)]
pub struct Upstream {
    /// How to ask it.
    pub target: Target,
    dir: PathBuf,
    ran_before: bool,
}

impl Upstream {
    /// Stops it, unless it ran before.
    ///
    /// # Errors
    /// Its script fails.
    pub async fn stop(self) -> Result<()> {
        if !self.ran_before {
            run(Command::new("bash").arg(self.dir.join("down.sh"))).await?;
        }
        Ok(())
    }
}

/// Starts the original.
///
/// # Errors
/// Its scripts are not there or fail.
pub async fn upstream(layout: &Layout) -> Result<Upstream> {
    let dir = std::env::var_os("UPSTREAM_DIR")
        .map_or_else(|| layout.root.join("../shared/upstream"), PathBuf::from);
    let script = dir.join("up.sh");
    anyhow::ensure!(
        script.exists(),
        "{} is not there: set UPSTREAM_DIR to the scripts that start the original",
        script.display()
    );
    let shell = "set -a; . \"$0/client-env.sh\" admin; \
        printf '%s\\n' \"$BACKEND_ENDPOINT\" \"$BACKEND_ACCESS_KEY\" \"$BACKEND_SECRET_KEY\"";
    let printed = run(Command::new("bash").args(["-c", shell]).arg(&dir)).await?;
    let mut lines = printed.lines();
    let mut next = || lines.next().context("client-env.sh sets too little");
    let target = Target { client: SignedClient::with_keys(next()?, next()?, next()?) };
    let ran_before = target.client.get("/").await.is_ok_and(|reply| reply.status == 200);
    let mut step = Progress::shown().step("the original");
    let log = layout.state.join("log/upstream.log");
    step.run(Command::new("bash").arg(&script), &log).await?;
    // Its agent is told not to pull, and its script makes the image only once.
    let image = "127.0.0.1:5000/stable/python:3.11-debian12";
    step.note(&format!("docker pull {image}"));
    step.run(Command::new("docker").args(["pull", image]), &log).await?;
    step.done(if ran_before { "ran before" } else { "started" });
    Ok(Upstream { target, dir, ran_before })
}
