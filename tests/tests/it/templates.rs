//! Session templates with the stock client.

use anyhow::{Context, Result};

use backendai_tests::TestCluster;
use backendai_tests::images::Image;

use crate::support::{execute, wait_nothing_left};

#[tokio::test]
async fn a_session_is_created_from_a_template() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("template.yaml");
    let yaml = |greeting: &str| {
        format!(
            "---\napiVersion: v1\nkind: taskTemplate\nmetadata:\n  name: greeter\nspec:\n  \
             kernel:\n    image: {}\n    environ:\n      GREETING: {greeting}\n    run:\n      \
             bootstrap: echo boots > /home/work/booted\n  \
             resources:\n    cpu: '1'\n    mem: 384m\n",
            cluster.image(Image::Python)
        )
    };
    let file = path.display().to_string();
    std::fs::write(&path, yaml("hello"))?;
    let output = client.run(&["session-template", "create", "-f", &file]).await?.success();
    let printed = output.all();
    let words: Vec<&str> = printed.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "template").context("an id is printed")?;
    let id = words[at + 1].to_owned();
    let output = client.run(&["session-template", "list"]).await?.success();
    assert!(output.stdout.contains("greeter") && output.stdout.contains(&id), "{output}");
    let output = client.run(&["session-template", "get", &id]).await?.success();
    assert!(output.stdout.contains("GREETING"), "{output}");
    std::fs::write(&path, yaml("goodday"))?;
    client.run(&["session-template", "update", "-f", &file, &id]).await?.success();

    let create = ["session", "create-from-template", "-t", "greets", &id];
    client.run(&create).await?.success();
    let signed = cluster.signed(&cluster.identities.user1);
    let code = "import os; print(os.environ['GREETING'], open('/home/work/booted').read().strip())";
    assert_eq!(execute(&signed, "greets", code).await?, "goodday boots\n");
    client.run(&["session", "rm", "greets"]).await?.success();

    client.run(&["session-template", "delete", "-f", &id]).await?.success();
    let output = client.run(&["session-template", "delete", "-f", &id]).await?.failure();
    assert!(output.all().contains("No such task template"), "{output}");
    let output = client.run(&create).await?.failure();
    assert!(output.all().contains("No such task template"), "{output}");
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}
