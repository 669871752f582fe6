//! Resource policies, scaling groups, images and agents with the stock client's `admin`
//! commands, and one's own password.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use backendai_tests::images::Image;
use backendai_tests::{StockClient, TestCluster};

use crate::admin_people::{admin, list, parsed, refused, row};

/// What `--output json admin … info` shows.
async fn info(client: &StockClient, command: &[&str]) -> Result<Value> {
    let mut args = vec!["--output", "json", "admin"];
    args.extend(command);
    parsed(client.run(&args).await?)
}

#[tokio::test]
async fn a_keypair_resource_policy_lives_and_dies() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let client = cluster.client(&cluster.identities.superadmin)?;
    let group = "keypair-resource-policy";
    let slots = r#"{"cpu": "4", "mem": "8g"}"#;
    let add = [group, "add", "--total-resource-slots", slots, "--max-concurrent-sessions", "7"];
    admin(&client, &[&add[..], &["--idle-timeout", "600", "tight"]].concat()).await?;
    let shown = info(&client, &[group, "info", "tight"]).await?.to_string();
    assert!(shown.contains("8589934592") && shown.contains('7'), "{shown}");
    admin(&client, &[group, "update", "--max-concurrent-sessions", "9", "tight"]).await?;
    let rows = list(&client, &[group, "list"]).await?;
    let tight = row(&rows, "name", "tight").context("it is listed")?;
    assert_eq!(tight["max_concurrent_sessions"], 9, "{tight}");
    assert_eq!(tight["idle_timeout"].as_f64(), Some(600.0), "what was not named stays: {tight}");
    let used = refused(&client, &[group, "delete", "default"]).await?;
    assert!(used.contains("integrity error"), "{used}");
    let user = cluster.client(&cluster.identities.user1)?;
    let rows = list(&user, &[group, "list"]).await?;
    assert!(row(&rows, "name", "tight").is_none(), "users see the policies of their keypairs");
    for command in [[group, "delete", "tight"].as_slice(), &[group, "add", "mine"]] {
        let printed = refused(&user, command).await?;
        assert!(printed.contains("no permission to execute"), "{printed}");
    }
    admin(&client, &[group, "delete", "tight"]).await?;
    let gone = refused(&client, &[group, "delete", "tight"]).await?;
    assert!(gone.contains("no matching deletekeypairresourcepolicy"), "{gone}");
    cluster.stop().await
}

#[tokio::test]
async fn a_scaling_group_lives_and_dies() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let client = cluster.client(&cluster.identities.superadmin)?;
    let group = "scaling-group";
    let options = r#"{"allowed_session_types": ["batch"]}"#;
    let add = [group, "add", "-d", "Fast ones", "--driver", "static", "--scheduler", "fifo"];
    admin(&client, &[&add[..], &["--scheduler-opts", options, "fast"]].concat()).await?;
    let rows = list(&client, &[group, "list"]).await?;
    let fast = row(&rows, "name", "fast").context("it is listed")?;
    assert_eq!((&fast["is_active"], &fast["scheduler"]), (&json!(true), &json!("fifo")), "{fast}");
    let shown = info(&client, &[group, "info", "fast"]).await?.to_string();
    assert!(shown.contains("batch"), "{shown}");
    admin(&client, &[group, "update", "--scheduler", "drf", "fast"]).await?;
    let bad = refused(&client, &[group, "update", "--scheduler", "dice", "fast"]).await?;
    assert!(bad.contains("none of fifo, lifo, drf, mof"), "{bad}");

    let available = async || admin(&client, &[group, "get-available", "default"]).await;
    assert!(!available().await?.contains("fast"));
    admin(&client, &[group, "associate-scaling-group", "fast", "default"]).await?;
    assert!(available().await?.contains("fast"));
    let twice = refused(&client, &[group, "associate-scaling-group", "fast", "default"]).await?;
    assert!(twice.contains("integrity error"), "{twice}");
    // The client fails to print what came of it.
    client.run(&["admin", group, "dissociate-scaling-group", "fast", "default"]).await?;
    assert!(!available().await?.contains("fast"));
    let domain_admin = cluster.client(&cluster.identities.domain_admin)?;
    let printed = refused(&domain_admin, &[group, "delete", "fast"]).await?;
    assert!(printed.contains("no permission to execute"), "{printed}");
    admin(&client, &[group, "delete", "fast"]).await?;
    let rows = list(&client, &[group, "list"]).await?;
    assert!(row(&rows, "name", "fast").is_none());
    cluster.stop().await
}

#[tokio::test]
async fn images_get_and_lose_aliases() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let client = cluster.client(&cluster.identities.superadmin)?;
    let python = cluster.image(Image::Python);
    admin(&client, &["image", "alias", "snake", &python]).await?;
    let rows = list(&client, &["image", "list"]).await?;
    assert!(rows.iter().any(|image| image["aliases"].to_string().contains("snake")), "{rows:?}");
    let twice = refused(&client, &["image", "alias", "snake", &python]).await?;
    assert!(twice.contains("the alias snake is taken"), "{twice}");
    let user = cluster.client(&cluster.identities.user1)?;
    for command in [["image", "alias", "mine", &python].as_slice(), &["image", "dealias", "snake"]]
    {
        let printed = refused(&user, command).await?;
        assert!(printed.contains("no permission to execute"), "{printed}");
    }
    admin(&client, &["image", "dealias", "snake"]).await?;
    let gone = refused(&client, &["image", "dealias", "snake"]).await?;
    assert!(gone.contains("No such image alias"), "{gone}");
    cluster.stop().await
}

#[tokio::test]
async fn a_password_is_changed_and_then_counts() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let user = &cluster.identities.user1;
    // The client's own command wants the endpoint of a web server.
    let change = json!({"old_password": user.password, "new_password": "an0ther-one",
                        "new_password2": "an0ther-one"});
    cluster.signed(user).post("/auth/update-password", change).await?.ok();
    let login = async |password: &str| -> Result<u16> {
        let body = json!({"type": "keypair", "domain": "default", "username": user.email,
                          "password": password});
        let url = format!("{}/auth/authorize", cluster.signed(user).endpoint());
        Ok(backendai_tests::http().post(url).json(&body).send().await?.status().as_u16())
    };
    assert_eq!(login(&user.password).await?, 401);
    assert_eq!(login("an0ther-one").await?, 200);
    cluster.stop().await
}
