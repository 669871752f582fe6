//! `kill -9` at bad moments.

use anyhow::{Context, Result};
use serde_json::json;

use backendai_tests::TestCluster;

use crate::support::{
    LIMIT, Outcome, carry_on, create_body, execute, new_run_id, step, wait_nothing_left,
    wait_status,
};

/// Where a session may rest after its creation was disturbed.
const RESTING: [&str; 4] = ["RUNNING", "TERMINATED", "CANCELLED", "ERROR"];
/// How many times the creation is disturbed, each at another moment.
const MOMENTS: usize = 4;

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Agent,
    Manager,
}

impl Victim {
    async fn kill(self, cluster: &mut TestCluster) -> Result<()> {
        match self {
            Self::Agent => cluster.agents[0].process.kill().await,
            Self::Manager => cluster.manager.process.kill().await,
        }
    }

    async fn restart(self, cluster: &mut TestCluster) -> Result<()> {
        match self {
            Self::Agent => cluster.agents[0].start().await?,
            Self::Manager => cluster.manager.start().await?,
        };
        Ok(())
    }
}

async fn a_running_session_survives(victim: Victim) -> Result<()> {
    let mut cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    for (name, image) in [("plain", "python"), ("rich", "python-ipykernel")] {
        let created = client.post("/session", create_body(name, image, json!({}))).await?;
        assert_eq!(created.body["status"], "RUNNING", "{created:?}");
        execute(&client, name, "x = 42").await?;
    }
    let before = container_ids(&cluster).await?;

    victim.kill(&mut cluster).await?;
    victim.restart(&mut cluster).await?;

    for name in ["plain", "rich"] {
        wait_status(&cluster, name, &["RUNNING"]).await?;
        assert_eq!(execute(&client, name, "print(x)").await?, "42\n", "{name} kept its variables");
    }
    assert_eq!(container_ids(&cluster).await?, before, "the containers were left alone");
    for name in ["plain", "rich"] {
        client.delete(&format!("/session/{name}")).await?.ok();
    }
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

/// A program goes on while its agent or the manager is away, and one that asked still asks.
async fn a_program_goes_on(victim: Victim) -> Result<()> {
    let mut cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    client.post("/session", create_body("going-on", "python", json!({}))).await?.ok();
    let scratch = cluster.dir().join(cluster.agents[0].id()).join("scratch");
    let kernel = std::fs::read_dir(scratch)?.next().context("a kernel's folder")??;

    let code = "import os, time\nprint('begun', flush=True)\n\
        while not os.path.exists('go'): time.sleep(0.02)\n\
        for line in range(20_000): print(line)\nopen('done', 'w').close()";
    let run = new_run_id();
    let mut outcome = Outcome::default();
    let mut body = step(&run, "query", code);
    while outcome.stdout != "begun\n" {
        outcome.add(&client.post("/session/going-on", body).await?.ok()["result"]);
        body = step(&run, "continue", "");
    }
    victim.kill(&mut cluster).await?;
    let work = kernel.path().join("work");
    std::fs::write(work.join("go"), "")?;
    let ended = async || Ok(work.join("done").exists());
    backendai_tests::wait::wait_until(LIMIT, "the program to end", ended).await?;
    victim.restart(&mut cluster).await?;
    wait_status(&cluster, "going-on", &["RUNNING"]).await?;
    carry_on(&client, "going-on", body, &[], &mut outcome).await?;
    let lines: String = (0..20_000).map(|line| format!("{line}\n")).collect();
    assert_eq!((outcome.stdout, outcome.statuses.len()), (format!("begun\n{lines}"), 1));

    let run = new_run_id();
    let mut outcome = Outcome::default();
    let body = step(&run, "query", "print('hello', input('name? '))");
    carry_on(&client, "going-on", body, &[], &mut outcome).await?;
    victim.kill(&mut cluster).await?;
    victim.restart(&mut cluster).await?;
    wait_status(&cluster, "going-on", &["RUNNING"]).await?;
    // Only the agent forgets what it has asked.
    let (body, answers) = match victim {
        Victim::Agent => (step(&run, "continue", ""), &["Ada"][..]),
        Victim::Manager => (step(&run, "input", "Ada"), &[][..]),
    };
    carry_on(&client, "going-on", body, answers, &mut outcome).await?;
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("name? hello Ada\n", Some(0)));
    cluster.stop().await
}

async fn container_ids(cluster: &TestCluster) -> Result<Vec<Option<String>>> {
    let mut ids: Vec<_> = cluster.containers().await?.into_iter().map(|c| c.id).collect();
    ids.sort();
    Ok(ids)
}

async fn a_session_being_created_comes_to_rest(victim: Victim, size: u32) -> Result<()> {
    let mut cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    for moment in 0..MOMENTS {
        let name = format!("moment-{moment}");
        let body = create_body(&name, "python", json!({"enqueueOnly": true, "clusterSize": size}));
        client.post("/session", body).await?.ok();
        // Different stages of the creation have been reached by then.
        match moment {
            0 => {}
            1 => drop(wait_status(&cluster, &name, &stages("SCHEDULED")).await?),
            2 => drop(wait_status(&cluster, &name, &stages("PREPARING")).await?),
            _ => {
                let seen = async || Ok(!cluster.containers().await?.is_empty());
                backendai_tests::wait::wait_until(LIMIT, "a container", seen).await?;
            }
        }
        victim.kill(&mut cluster).await?;
        victim.restart(&mut cluster).await?;
        let row = wait_status(&cluster, &name, &RESTING).await?;
        if row.status == "RUNNING" {
            assert_eq!(execute(&client, &name, "print(1)").await?, "1\n", "moment {moment}");
            client.delete(&format!("/session/{name}")).await?.ok();
        } else {
            assert!(row.status_info.is_some_and(|reason| !reason.is_empty()), "moment {moment}");
        }
        wait_nothing_left(&cluster).await?;
    }
    cluster.stop().await
}

/// A status and all that may follow it before anybody looks.
fn stages(first: &str) -> Vec<&str> {
    let all = ["SCHEDULED", "PREPARING", "PULLING", "RUNNING", "ERROR", "CANCELLED"];
    all.into_iter().skip_while(|status| *status != first).collect()
}

#[tokio::test]
async fn a_running_session_survives_the_agent() -> Result<()> {
    a_running_session_survives(Victim::Agent).await
}

#[tokio::test]
async fn a_running_session_survives_the_manager() -> Result<()> {
    a_running_session_survives(Victim::Manager).await
}

#[tokio::test]
async fn a_program_goes_on_without_the_agent() -> Result<()> {
    a_program_goes_on(Victim::Agent).await
}

#[tokio::test]
async fn a_program_goes_on_without_the_manager() -> Result<()> {
    a_program_goes_on(Victim::Manager).await
}

#[tokio::test]
async fn a_session_being_created_comes_to_rest_without_its_agent() -> Result<()> {
    a_session_being_created_comes_to_rest(Victim::Agent, 1).await
}

#[tokio::test]
async fn a_session_being_created_comes_to_rest_without_its_manager() -> Result<()> {
    a_session_being_created_comes_to_rest(Victim::Manager, 1).await
}

#[tokio::test]
async fn a_cluster_being_created_comes_to_rest_without_its_agent() -> Result<()> {
    a_session_being_created_comes_to_rest(Victim::Agent, 3).await
}

#[tokio::test]
async fn a_cluster_being_created_comes_to_rest_without_its_manager() -> Result<()> {
    a_session_being_created_comes_to_rest(Victim::Manager, 3).await
}
