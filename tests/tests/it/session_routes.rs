//! Smaller commands of the stock client about sessions.

use anyhow::Result;
use serde_json::json;

use backendai_tests::TestCluster;

use crate::support::{create_body, wait_nothing_left, wait_status};

#[tokio::test]
async fn a_session_is_renamed_and_its_graph_and_task_log_are_shown() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    let signed = cluster.signed(&cluster.identities.user1);
    // The client shows the part of a name before its last dash.
    let first = json!({"type": "batch", "startupCommand": "echo from the task"});
    let created = signed.post("/session", create_body("job-first-1", "busybox", first)).await?;
    let first = created.ok()["sessionId"].as_str().unwrap_or_default().to_owned();
    wait_status(&cluster, "job-first-1", &["TERMINATED"]).await?;
    let output = client.run(&["task-logs", &first]).await?.success();
    assert!(output.stdout.contains("from the task"), "{output}");

    let second = json!({"dependencies": [first]});
    signed.post("/session", create_body("job-second-1", "python", second)).await?.ok();
    let output = client.run(&["session", "show-graph", "job-second-1"]).await?.success();
    assert!(output.stdout.contains("second (\"RUNNING\""), "{output}");
    assert!(output.stdout.contains("first (\"TERMINATED\""), "{output}");
    let output = client.run(&["session", "abuse-history", "job-second-1"]).await?.success();
    assert!(output.stdout.contains("{}"), "{output}");
    let output = client.run(&["session", "rename", "job-second-1", "renamed"]).await?.success();
    assert!(output.all().contains("Session renamed to renamed"), "{output}");
    client.run(&["session", "rm", "renamed"]).await?.success();
    let output = client.run(&["server-logs", "list"]).await?.success();
    assert!(output.stdout.contains("Total log count: 0"), "{output}");
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}
