//! Sessions whose programs misbehave: they hurt nobody but themselves, and can be ended.

use anyhow::Result;
use backendai_tests::TestCluster;
use serde_json::json;

use crate::support::{create_body, execute, wait_nothing_left};

/// A child that ends only by SIGKILL, and that its parent's end does not reach.
const STUBBORN: &str = "
import os, signal, time
def ignore_everything():
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
ready, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    ignore_everything()
    os.write(tell, b'x')
    while True:
        time.sleep(1)
os.read(ready, 1)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('stubborn')
";

#[tokio::test]
async fn programs_that_ignore_signals_are_ended() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    client.post("/session", create_body("stubborn", "python", json!({}))).await?.ok();
    assert_eq!(execute(&client, "stubborn", STUBBORN).await?, "stubborn\n");
    client.delete("/session/stubborn").await?.ok();
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

/// Forks until the limit, counts, and leaves all children waiting for ever.
const FORK: &str = "
import os, signal
children = 0
while True:
    try:
        child = os.fork()
    except OSError as error:
        print('refused', error.errno, children)
        break
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    children += 1
";

#[tokio::test]
async fn forking_without_end_meets_a_limit() -> Result<()> {
    let config = json!({"container": {"pids-limit": 100}});
    let cluster = TestCluster::builder().agent_config(config).start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    for name in ["forks", "bystander"] {
        client.post("/session", create_body(name, "python", json!({}))).await?.ok();
    }
    let printed = execute(&client, "forks", FORK).await?;
    let words: Vec<&str> = printed.split_whitespace().collect();
    // EAGAIN, below the limit: the runner and the interpreter count too.
    assert_eq!(words[..2], ["refused", "11"], "{printed}");
    let children: u32 = words[2].parse()?;
    assert!((50..100).contains(&children), "{printed}");
    assert_eq!(execute(&client, "bystander", "print(1)").await?, "1\n");
    for name in ["forks", "bystander"] {
        client.delete(&format!("/session/{name}")).await?.ok();
    }
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

/// Writes to a folder until nothing more fits, and prints the error and how many MiB did.
const FILL: &str = "
import os
def fill(folder):
    written = 0
    try:
        with open(folder + '/filler', 'wb', buffering=0) as file:
            while True:
                written += file.write(bytes(1 << 20))
    except OSError as error:
        print(error.errno, written >> 20)
fill(FOLDER)
";

async fn a_full_disk_is_the_session_s_own(scratch_type: &str) -> Result<()> {
    let config = json!({"container": {"scratch-type": scratch_type, "scratch-size": "32m"}});
    let mut cluster = TestCluster::builder().agent_config(config).start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    for name in ["fills", "bystander"] {
        client.post("/session", create_body(name, "python", json!({}))).await?.ok();
    }
    let mut free = 32;
    for folder in ["/home/work", "/tmp", "/var/tmp"] {
        let code = FILL.replace("FOLDER", &format!("{folder:?}"));
        let printed = execute(&client, "fills", &code).await?;
        let (error, mib) = printed.trim().split_once(' ').unwrap_or_default();
        assert_eq!(error, "28", "ENOSPC in {folder}: {printed}");
        // Together they hold what one may hold.
        let mib: i64 = mib.parse()?;
        assert!(mib <= free, "{mib} MiB fit into {folder} with {free} free");
        free -= mib;
    }
    assert!(free < 16, "{free} MiB of 32 could not be used");
    let code = "open('/home/work/mine', 'w').write('x' * 1000); print('written')";
    assert_eq!(execute(&client, "bystander", code).await?, "written\n");

    // The disk of a session outlives the agent, and goes with the session.
    cluster.agents[0].process.kill().await?;
    cluster.agents[0].start().await?;
    let code = "import os; os.remove('/home/work/filler'); print(os.listdir('/home/work'))";
    assert!(execute(&client, "fills", code).await?.starts_with('['));
    assert_eq!(mounts_below(&cluster)?.len(), 2);
    for name in ["fills", "bystander"] {
        client.delete(&format!("/session/{name}")).await?.ok();
    }
    wait_nothing_left(&cluster).await?;
    assert_eq!(mounts_below(&cluster)?, Vec::<String>::new());
    cluster.stop().await
}

fn mounts_below(cluster: &TestCluster) -> Result<Vec<String>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let below = |path: &&str| std::path::Path::new(path).starts_with(cluster.dir());
    Ok(mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(below)
        .map(str::to_owned)
        .collect())
}

#[tokio::test]
async fn a_full_disk_in_a_file_is_the_session_s_own() -> Result<()> {
    a_full_disk_is_the_session_s_own("hostfile").await
}

#[tokio::test]
async fn a_full_disk_in_memory_is_the_session_s_own() -> Result<()> {
    a_full_disk_is_the_session_s_own("memory").await
}
