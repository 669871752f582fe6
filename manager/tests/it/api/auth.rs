//! Signatures, roles and passwords.

use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::json;

use super::world::{Key, World};
use backendai_manager::api::routes::{Level, ROUTES};

#[tokio::test]
async fn a_signed_request_is_its_keys() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let reply = world.get("/auth/test?echo=a+b%2Bc&x=%ED%95%9C").signed(key).send().await;
    assert_eq!(reply.json()["data"], json!({"x": "x is not allowed key"}), "{}", reply.text);
    let reply = world.get("/auth/test?echo=a+b%2Bc").signed(key).send().await;
    assert_eq!(reply.text, r#"{"authorized":"yes","echo":"a b+c"}"#);
    assert_eq!(reply.header("x-ratelimit-window"), Some("900"));

    let roles = |name: &'static str| {
        let world = &world;
        async move {
            let key = world.key(name).await;
            world.get("/auth/role").signed(key).send().await.text
        }
    };
    assert_eq!(
        roles("admin").await,
        r#"{"global_role":"superadmin","domain_role":"admin","group_role":null}"#
    );
    assert_eq!(
        roles("user1").await,
        r#"{"global_role":"user","domain_role":"user","group_role":null}"#
    );
    let reply =
        world.get("/auth/role?group=f3ee69b6-3224-40ae-aa56-837ce2c3e0db").signed(key).send().await;
    assert_eq!(reply.json()["group_role"], "user", "{}", reply.text);
    let reply =
        world.get("/auth/role?group=00000000-3224-40ae-aa56-837ce2c3e0db").signed(key).send().await;
    assert_eq!(reply.json()["title"], "No such project (user group).");
}

#[tokio::test]
async fn requests_that_prove_nothing_are_refused_with_the_contracts_words() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let target = "/auth/test?echo=x";
    let problem = |status, kind: &str, msg: &str| (status, kind.to_owned(), msg.to_owned());
    let invalid = |msg| problem(400, "invalid-auth-params", msg);
    let failed = |msg| problem(401, "auth-failed", msg);

    assert_eq!(world.get(target).send().await.problem(), failed("Unauthorized access"));

    // The date comes first, also for unsigned requests.
    let mut request = world.get(target);
    request.date = String::new();
    assert_eq!(request.send().await.problem(), invalid("Date/time sync error"));
    for minutes in [-16, 16] {
        let mut request = world.get(target);
        request.date = (chrono::Utc::now() + chrono::TimeDelta::minutes(minutes)).to_rfc3339();
        assert_eq!(request.signed(key).send().await.problem(), invalid("Date/time sync error"));
    }
    for minutes in [-14, 14] {
        let mut request = world.get(target);
        request.date = (chrono::Utc::now() + chrono::TimeDelta::minutes(minutes)).to_rfc2822();
        assert_eq!(request.signed(key).send().await.status, StatusCode::OK);
    }

    for (header, expected) in [
        ("BackendAI", invalid("Malformed authorization header")),
        ("Bearer x", invalid("Invalid authorization type name")),
        ("BackendAI x=1", invalid("Missing or malformed authorization parameters")),
        ("BackendAI nonsense", invalid("Missing or malformed authorization parameters")),
        (
            "BackendAI signMethod=HMAC-SHA256, credential=AKIANOSUCHKEY0000000:00",
            failed("Access key not found"),
        ),
    ] {
        let reply = world.get(target).header("authorization", header).send().await;
        assert_eq!(reply.problem(), expected, "{header}");
    }
    for (method, expected) in [
        ("HMAC-CRC32", invalid("Unsupported request signing method (hash type)")),
        ("CMAC-SHA256", invalid("Unsupported request signing method (MAC type)")),
        ("HMACSHA256", failed("Invalid signature")),
        ("HMAC-SHA1", failed("Signature mismatch")),
    ] {
        let request = world.get(target);
        let header = request.authorization(key).replace("HMAC-SHA256", method);
        let reply = request.header("authorization", &header).send().await;
        assert_eq!(reply.problem(), expected, "{method}");
    }
    let wrong = Key { secret: "wrong", ..key };
    assert_eq!(
        world.get(target).signed(wrong).send().await.text,
        r#"{"type":"https://api.backend.ai/probs/auth-failed","title":"Credential/signature mismatch.","msg":"Signature mismatch"}"#
    );
    let mut request = world.get(target);
    request.signed_as = Some("/auth/test?echo=y".into());
    assert_eq!(request.signed(key).send().await.problem(), failed("Signature mismatch"));
    let request = world.get(target).without("x-backendai-version").signed(key);
    assert_eq!(request.send().await.problem(), invalid("API version missing in request headers"));
}

#[tokio::test]
async fn keys_and_users_must_be_active_and_call_from_where_they_may() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let target = "/auth/test?echo=x";
    // Keys are kept for a moment, so each state is looked at by a manager that knows none yet.
    let ask = |sql: &'static str, forwarded: Option<&'static str>| {
        let world = &world;
        async move {
            world.sql.batch_execute(sql).await.unwrap();
            let fresh = World::beside(Arc::clone(&world.database), Default::default()).await;
            let mut request = fresh.get(target);
            if let Some(address) = forwarded {
                request = request.header("x-forwarded-for", address);
            }
            let reply = request.signed(key).send().await;
            if reply.status == StatusCode::OK { "ok".to_owned() } else { reply.problem().2 }
        }
    };
    assert_eq!(ask("SELECT 1", None).await, "ok");
    assert_eq!(
        ask("UPDATE users SET allowed_client_ip = '{10.1.*.*}' WHERE username = 'user1'", None)
            .await,
        "'127.0.0.1' is not allowed IP address"
    );
    assert_eq!(ask("SELECT 1", Some("10.1.2.3")).await, "ok");
    assert_eq!(ask("SELECT 1", Some("here")).await, "here is invalid IP address value");
    assert_eq!(
        ask("UPDATE users SET allowed_client_ip = '{127.0.0.0/8}', status = 'inactive' WHERE username = 'user1'", None).await,
        "Unauthorized access"
    );
    assert_eq!(
        ask(
            "UPDATE users SET status = 'active' WHERE username = 'user1';
             UPDATE keypairs SET is_active = false WHERE access_key =
                 (SELECT main_access_key FROM users WHERE username = 'user1')",
            None
        )
        .await,
        "Access key not found"
    );
}

/// A key beside the main one is its user's too.
#[tokio::test]
async fn every_active_keypair_of_a_user_works() {
    let world = World::start().await;
    world
        .sql
        .batch_execute(
            "INSERT INTO keypairs (access_key, user_id, secret_key, \"user\", resource_policy)
             SELECT 'AKIASECONDKEY0000001', email, 'second-secret', uuid, 'default'
             FROM users WHERE username = 'user1'",
        )
        .await
        .unwrap();
    let second = Key { access: "AKIASECONDKEY0000001", secret: "second-secret" };
    let reply = world.get("/auth/test?echo=x").signed(second).send().await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
}

/// Walks the route table: without a signature only public routes go beyond 401.
#[tokio::test]
async fn no_route_serves_strangers_unless_the_table_says_so() {
    let world = World::start().await;
    for route in ROUTES {
        let path = route.path.replace("{name}", "x");
        for method in route.methods {
            let status = world.request(method, &path).send().await.status;
            let refused = status == StatusCode::UNAUTHORIZED;
            assert_eq!(refused, route.level != Level::Public, "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn a_password_gives_the_main_key() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let authorize = |username: &str, password: &str, kind: &str| {
        let body = json!({
            "type": kind, "domain": "default", "username": username, "password": password,
            "otp": "",
        });
        world.request("POST", "/auth/authorize").json(&body).send()
    };
    let reply = authorize("user1@example.org", "demo-0EcvE9Kr2T", "keypair").await;
    assert_eq!(
        reply.json(),
        json!({"data": {"access_key": key.access, "secret_key": key.secret,
                        "role": "user", "status": "active"}})
    );
    let mismatch = (401, "auth-failed".to_owned(), "User credential mismatch.".to_owned());
    assert_eq!(authorize("user1@example.org", "other", "keypair").await.problem(), mismatch);
    assert_eq!(authorize("nobody@example.org", "other", "keypair").await.problem(), mismatch);
    assert_eq!(
        authorize("user1@example.org", "x", "jwt").await.problem().2,
        "Unsupported authorization type"
    );
    assert_eq!(
        authorize("user1@example.org", "x", "other").await.json()["data"],
        json!({"type": "value doesn't match any variant"})
    );
}
