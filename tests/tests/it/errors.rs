//! What clients are told when they ask for what cannot be.

use anyhow::Result;
use chrono::{TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use backendai_tests::{SignedClient, TestCluster};

use crate::support::{create_body, wait_nothing_left, wait_status};

#[tokio::test]
async fn bad_credentials_are_refused() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let user = cluster.identities.user1.clone();
    let good = cluster.signed(&user);
    good.get("/resource/presets").await?.ok();

    let wrong_secret =
        SignedClient::with_keys(good.endpoint(), &user.access_key, "x".repeat(40).as_str());
    let reply = wrong_secret.get("/resource/presets").await?;
    assert_eq!((reply.status, reply.problem()), (401, Some("auth-failed")), "{reply:?}");
    assert_eq!(reply.body["msg"], "Signature mismatch");

    let unknown =
        SignedClient::with_keys(good.endpoint(), "AKIAAAAAAAAAAAAAAAAA", &user.secret_key);
    let reply = unknown.get("/resource/presets").await?;
    assert_eq!((reply.status, reply.problem()), (401, Some("auth-failed")), "{reply:?}");
    assert_eq!(reply.body["msg"], "Access key not found");

    for skew in [TimeDelta::minutes(-16), TimeDelta::minutes(16)] {
        let target = "/resource/presets";
        let headers = good.sign(&Method::GET, target, "text/plain", Utc::now() + skew);
        let reply = good.send_raw(Method::GET, target, headers, Vec::new()).await?;
        assert_eq!(
            (reply.status, reply.problem()),
            (400, Some("invalid-auth-params")),
            "{reply:?}"
        );
        assert_eq!(reply.body["msg"], "Date/time sync error");
    }

    // What is signed is what counts: another path with the same headers is refused.
    let headers = good.sign(&Method::GET, "/resource/presets", "text/plain", Utc::now());
    let reply = good.send_raw(Method::GET, "/session/x", headers, Vec::new()).await?;
    assert_eq!(reply.status, 401, "{reply:?}");

    // The stock client shows why.
    let client = cluster.client(&user)?.with_env("BACKEND_SECRET_KEY", "wrong");
    let output = client.run(&["ps"]).await?.failure();
    assert!(output.all().contains("Signature mismatch"), "{output}");
    cluster.stop().await
}

#[tokio::test]
async fn bad_requests_are_explained() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    let target = "/session";
    let headers = client.sign(&Method::POST, target, "application/json", Utc::now());
    let reply = client.send_raw(Method::POST, target, headers, b"{\"name\": ".to_vec()).await?;
    assert_eq!((reply.status, reply.problem()), (400, Some("invalid-api-params")), "{reply:?}");
    assert_eq!(reply.body["msg"], "Malformed body");

    let body = create_body("unknown-field", "python", json!({"colour": "blue"}));
    let reply = client.post(target, body).await?;
    assert_eq!((reply.status, reply.problem()), (400, Some("invalid-api-params")), "{reply:?}");
    assert_eq!(reply.body["data"]["colour"], "colour is not allowed key");

    let reply = client.post(target, json!({})).await?;
    assert_eq!(
        reply.body["data"],
        json!({"session_name": "is required", "image": "is required"}),
        "{reply:?}"
    );

    let reply = client.post(target, create_body("no-image", "no/such:image", json!({}))).await?;
    assert_eq!((reply.status, reply.problem()), (404, Some("object-not-found")), "{reply:?}");

    for (resources, status) in [
        (json!({"cpu": "1", "mem": "1m"}), 400),
        (json!({"cpu": "-1", "mem": "384m"}), 400),
        (json!({"gold": "1"}), 400),
    ] {
        let config = json!({"config": {"resources": resources}});
        let reply = client.post(target, create_body("bad-slots", "python", config)).await?;
        assert_eq!(reply.status, status, "{resources}: {reply:?}");
    }

    let reply = client.get("/session/nobody").await?;
    assert_eq!((reply.status, reply.problem()), (404, Some("object-not-found")), "{reply:?}");
    let reply = client.get("/no/such/path").await?;
    assert_eq!((reply.status, reply.problem()), (404, Some("url-not-found")), "{reply:?}");
    let reply = client.send(Method::PUT, "/session", Value::Null).await?;
    assert_eq!((reply.status, reply.problem()), (405, Some("method-not-allowed")), "{reply:?}");
    cluster.stop().await
}

#[tokio::test]
async fn a_session_larger_than_any_agent_waits_and_says_why() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    let config = json!({"resources": {"cpu": "100000", "mem": "384m"}});
    let extra = json!({"config": config, "maxWaitSeconds": 1});
    let reply = client.post("/session", create_body("giant", "python", extra)).await?.ok();
    assert_eq!(reply["status"], "TIMEOUT", "{reply}");
    let row = wait_status(&cluster, "giant", &["PENDING"]).await?;
    assert_eq!(row.status_info.as_deref(), Some("no-available-instances"), "{row:?}");
    let reason = row.status_data["scheduler"]["msg"].as_str().unwrap_or_default();
    assert!(reason.contains("big enough"), "{row:?}");
    // It stands in nobody's way.
    let small = client.post("/session", create_body("small", "python", json!({}))).await?.ok();
    assert_eq!(small["status"], "RUNNING", "{small}");
    for name in ["giant", "small"] {
        client.delete(&format!("/session/{name}")).await?.ok();
    }
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn sessions_of_others_look_absent() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let owner = cluster.signed(&cluster.identities.user1);
    let other = cluster.signed(&cluster.identities.user2);
    owner.post("/session", create_body("mine", "python", json!({}))).await?.ok();
    let absent = other.get("/session/absent").await?;
    let foreign = other.get("/session/mine").await?;
    assert_eq!((foreign.status, foreign.problem()), (absent.status, absent.problem()));
    let reply = other.delete("/session/mine").await?;
    assert_eq!(reply.status, 404, "{reply:?}");
    wait_status(&cluster, "mine", &["RUNNING"]).await?;
    owner.delete("/session/mine").await?.ok();
    cluster.stop().await
}
