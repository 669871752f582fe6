//! What holds for every route: versions, methods, CORS, limits.

use reqwest::StatusCode;
use serde_json::json;

use super::world::{Options, World};

#[tokio::test]
async fn the_version_probe_answers_anybody() {
    let world = World::start().await;
    let reply = world.get("/").without("x-backendai-version").send().await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.text, r#"{"version":"v7.20230615","manager":"23.09.10"}"#);
    assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(reply.header("server"), Some("BackendAI"));
    assert_eq!(reply.header("x-ratelimit-limit"), Some("1000"));
    assert_eq!(reply.header("x-ratelimit-remaining"), Some("1000"));
    assert_eq!(reply.header("x-ratelimit-window"), Some("900"));
    let other = world.get("/").send().await;
    assert_ne!(reply.header("x-request-id").unwrap(), other.header("x-request-id").unwrap());

    let head = world.request("HEAD", "/").send().await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
    assert_eq!(head.header("content-length"), reply.header("content-length"));
}

#[tokio::test]
async fn unknown_paths_methods_and_versions_are_refused_before_anything_else() {
    let world = World::start().await;
    let reply = world.get("/nope/x?y=1").send().await;
    assert_eq!(
        reply.text,
        r#"{"type":"https://api.backend.ai/probs/url-not-found","title":"Unknown URL path.","data":"/nope/x"}"#
    );
    assert_eq!(reply.header("server"), Some("BackendAI"));

    let reply = world.request("PUT", "/session/x").send().await;
    assert_eq!(reply.problem().0, 405);
    assert_eq!(reply.header("allow"), Some("DELETE,GET,PATCH,POST"));

    let reply = world.get("/").header("x-backendai-version", "v9.20300101").send().await;
    assert_eq!(
        reply.problem(),
        (400, "generic-bad-request".into(), "Unsupported API version.".into())
    );
}

#[tokio::test]
async fn a_method_can_be_overridden_and_the_signature_covers_the_real_one() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let reply = world
        .request("POST", "/session/nosuch")
        .header("x-method-override", "DELETE")
        .signed(key)
        .send()
        .await;
    assert_eq!(
        reply.problem(),
        (404, "object-not-found".into(), "Session (id=nosuch) does not exist.".into())
    );
}

#[tokio::test]
async fn browsers_may_call_from_any_page() {
    let world = World::start().await;
    let reply = world
        .request("OPTIONS", "/session/x")
        .header("origin", "https://example.org")
        .header("access-control-request-method", "DELETE")
        .header("access-control-request-headers", "authorization,date")
        .send()
        .await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    assert_eq!(reply.header("access-control-allow-methods"), Some("DELETE,GET,PATCH,POST,OPTIONS"));
    assert_eq!(reply.header("access-control-allow-headers"), Some("authorization,date"));
    assert_eq!(world.request("OPTIONS", "/nope").send().await.problem().0, 404);

    for path in ["/", "/nope", "/auth/test?echo=x"] {
        let reply = world.get(path).header("origin", "https://example.org").send().await;
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{path}");
        assert_eq!(reply.header("access-control-expose-headers"), Some("*"), "{path}");
    }
}

#[tokio::test]
async fn bodies_are_read_of_every_method_and_have_a_limit() {
    let world = World::start().await;
    let key = world.key("user1").await;
    // A body on GET counts, whatever its type says, and hides the query.
    let echo = json!({"echo": "한"}).to_string().into_bytes();
    let reply =
        world.get("/auth/test?echo=query").body(echo, "text/plain").signed(key).send().await;
    assert_eq!(reply.text, r#"{"authorized":"yes","echo":"한"}"#);
    let reply = world.get("/auth?echo=a%20b").signed(key).send().await;
    assert_eq!(reply.json()["echo"], "a b");

    let post = |body: &str| {
        world.request("POST", "/auth/test").body(body.into(), "application/json").signed(key).send()
    };
    assert_eq!(
        post("{not json").await.problem(),
        (400, "invalid-api-params".into(), "Malformed body".into())
    );
    assert_eq!(post("[1]").await.json()["data"], "value is not a dict");
    let reply = post(r#"{"echo": "x", "other": 1}"#).await;
    assert_eq!(reply.json()["data"], json!({"other": "other is not allowed key"}));
    assert_eq!(post("{}").await.json()["data"], json!({"echo": "is required"}));

    let large = format!(r#"{{"echo": "{}"}}"#, "x".repeat(2 << 20));
    assert_eq!(post(&large).await.problem(), (400, "generic-bad-request".into(), String::new()));
    let fits = format!(r#"{{"echo": "{}"}}"#, "x".repeat(900 << 10));
    assert_eq!(post(&fits).await.status, StatusCode::OK);
}

#[tokio::test]
async fn public_facts_are_public() {
    let world = World::start().await;
    world.app.etcd.put("config/resource_slots/cuda.device", "count").await.unwrap();
    let reply = world.get("/config/resource-slots").send().await;
    assert_eq!(reply.json(), json!({"cpu": "count", "cuda.device": "count", "mem": "bytes"}));

    let reply = world.get("/manager/announcement").send().await;
    assert_eq!(reply.text, r#"{"enabled":false,"message":""}"#);
    world.app.etcd.put("manager/announcement", "Back at noon.").await.unwrap();
    world.app.shared.invalidate();
    let reply = world.get("/manager/announcement").send().await;
    assert_eq!(reply.text, r#"{"enabled":true,"message":"Back at noon."}"#);

    let body = json!({"status": "running"});
    let reply = world.get("/manager/status").json(&body).send().await.json();
    assert_eq!(reply["status"], "running");
    let node = &reply["nodes"][0];
    assert_eq!(node["id"], "i-test");
    assert_eq!(node["api_version"], json!([7, "20230615"]));
    assert_eq!(node["active_sessions"], 0);
}

#[tokio::test]
async fn a_frozen_manager_reads_but_does_not_create() {
    let world = World::start().await;
    let key = world.key("user1").await;
    world.app.etcd.put("manager/status", "frozen").await.unwrap();
    world.app.shared.invalidate();
    let body = json!({"name": "abcd", "image": "python"});
    let reply = world.request("POST", "/session").json(&body).signed(key).send().await;
    assert_eq!(reply.problem().1, "server-frozen");
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.get("/session/nosuch").signed(key).send().await.problem().0, 404);

    world.app.etcd.put("manager/status", "preparing").await.unwrap();
    world.app.shared.invalidate();
    let reply = world.get("/session/nosuch").signed(key).send().await;
    assert_eq!(reply.problem().1, "service-unavailable");
    assert_eq!(world.get("/").send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_database_that_is_away_is_named() {
    let world = World::with(Options { database_is_away: true, ..Options::default() }).await;
    let key = world.key("user1").await;
    let reply = world.get("/auth/test?echo=x").signed(key).send().await;
    assert_eq!(
        reply.problem(),
        (503, "service-unavailable".into(), "PostgreSQL is not available.".into())
    );
    assert_eq!(world.get("/").send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn creating_a_session_checks_every_field() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let create = |body: serde_json::Value| {
        world.request("POST", "/session/_/create").json(&body).signed(key).send()
    };
    let reply = create(json!({})).await;
    assert_eq!(
        reply.text,
        r#"{"type":"https://api.backend.ai/probs/invalid-api-params","title":"Missing or invalid API parameters.","msg":"Input validation error","data":{"session_name":"is required","image":"is required"}}"#
    );
    let reply = create(json!({"name": "from-template", "image": "x"})).await;
    assert_eq!(reply.problem().1, "invalid-api-params");
    let reply = create(json!({"name": "capX", "image": "no-such-image:1"})).await;
    assert_eq!(
        reply.text,
        r#"{"type":"https://api.backend.ai/probs/object-not-found","title":"No such environment image.","msg":"Unknown image references: ref:'index.docker.io/lablup/no-such-image:1', alias:'no-such-image:1'"}"#
    );
}

#[tokio::test]
async fn requests_under_way_finish_when_the_server_stops() {
    let world = World::start().await;
    assert_eq!(world.get("/").send().await.status, StatusCode::OK);
    world.lifecycle.shut_down(super::world::PATIENCE).await.unwrap();
    let refused = world.http.get(format!("http://{}/", world.addr)).send().await;
    assert!(refused.is_err());
}
