//! An image that is in the registry and not on the agent.

use anyhow::{Context, Result};
use serde_json::json;
use tokio::process::Command;

use backendai_tests::images::Image;
use backendai_tests::process::run;
use backendai_tests::{TestCluster, cluster::docker};

use crate::support::{create_body, wait_nothing_left, wait_status};

#[tokio::test]
async fn an_image_that_the_agent_lacks_is_pulled() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let source = cluster.image(Image::Busybox);
    let (registry, _) = source.split_once('/').context("a registry")?;
    let image = format!("{registry}/stable/only-in-the-registry:1");
    for args in [["tag", &source, &image].as_slice(), &["push", "-q", &image], &["rmi", &image]] {
        run(Command::new("docker").args(args)).await?;
    }
    assert!(docker()?.inspect_image(&image).await.is_err(), "the engine lacks {image}");
    cluster.manager_cli(&["image", "rescan", &image]).await?;

    let client = cluster.signed(&cluster.identities.user1);
    let batch = json!({"type": "batch", "startupCommand": "echo pulled", "enqueueOnly": true});
    client.post("/session", create_body("pulled", &image, batch)).await?.ok();
    let row = wait_status(&cluster, "pulled", &["TERMINATED", "CANCELLED"]).await?;
    assert_eq!(row.result, "SUCCESS", "{row:?}");

    let database = cluster.database().await?;
    let query = "SELECT t.event, t.reason FROM transitions t JOIN sessions s ON s.id = t.session_id \
        WHERE s.name = 'pulled' AND t.kernel_id IS NOT NULL ORDER BY t.seq";
    let rows = database.query(query, &[]).await?;
    let events: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let names: Vec<&str> = events.iter().map(|(event, _)| event.as_str()).collect();
    let expected = ["kernel_preparing", "kernel_pulling", "kernel_creating", "kernel_started"];
    let mut seen = names.iter().filter(|name| expected.contains(name));
    assert!(expected.iter().all(|event| seen.next() == Some(event)), "{events:?}");
    assert!(events.contains(&("kernel_pulling".into(), image.clone())), "{events:?}");

    wait_nothing_left(&cluster).await?;
    run(Command::new("docker").args(["rmi", &image])).await?;
    cluster.stop().await
}
