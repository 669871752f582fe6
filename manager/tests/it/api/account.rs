//! What people do to their own account, and what is written down of it.

use std::time::Duration;

use chrono::Utc;
use serde_json::{Value, json};

use super::world::{Key, PATIENCE, World};

async fn post(world: &World, key: Option<Key>, path: &str, body: Value) -> (u16, Value) {
    let mut request = world.request("POST", path).json(&body);
    if let Some(key) = key {
        request = request.signed(key);
    }
    let reply = request.send().await;
    (reply.status.as_u16(), reply.json())
}

async fn configure(world: &World, key: &str, value: &str) {
    world.app.etcd.put(&format!("config/auth/{key}"), value).await.unwrap();
    world.app.shared.invalidate();
}

async fn log_in(world: &World, email: &str, password: &str, code: &str) -> (u16, Value) {
    let body = json!({"type": "keypair", "domain": "default", "username": email,
                      "password": password, "otp": code});
    post(world, None, "/auth/authorize", body).await
}

#[tokio::test]
async fn signing_up_is_off_until_allowed_and_waits_for_approval() {
    let world = World::start().await;
    let body = json!({"domain": "default", "email": "new@example.org", "password": "s3cret",
                      "full_name": "New"});
    let (status, answer) = post(&world, None, "/auth/signup", body.clone()).await;
    assert_eq!(status, 403, "{answer}");
    configure(&world, "signup", "true").await;
    let (status, keys) = post(&world, None, "/auth/signup", body.clone()).await;
    assert_eq!(status, 201, "{keys}");
    let (status, again) = post(&world, None, "/auth/signup", body).await;
    assert_eq!((status, &again["msg"]), (400, &json!("Email already exists")));

    let leak = |name: &str| -> &'static str { keys[name].as_str().unwrap().to_owned().leak() };
    let key = Key { access: leak("access_key"), secret: leak("secret_key") };
    let test = async || world.get("/auth?echo=x").signed(key).send().await.status.as_u16();
    assert_eq!(test().await, 401, "nobody has approved yet");
    assert_eq!(log_in(&world, "new@example.org", "s3cret", "").await.0, 401);
    let admin = world.key("admin").await;
    let approve = r#"mutation { modify_user(email: "new@example.org", props: {status: "active"}) { ok msg } }"#;
    assert!(world.gql(admin, approve, json!({})).await.contains(r#""ok":true"#));
    assert_eq!(log_in(&world, "new@example.org", "s3cret", "").await.0, 200);
    let approved = async {
        while test().await != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, approved).await.expect("managers notice it");

    let wrong = json!({"email": "new@example.org", "password": "wrong"});
    assert_eq!(post(&world, Some(key), "/auth/signout", wrong).await.0, 400);
    let others = json!({"email": "user1@example.org", "password": "s3cret"});
    assert_eq!(post(&world, Some(key), "/auth/signout", others).await.0, 403);
    let own = json!({"email": "new@example.org", "password": "s3cret"});
    assert_eq!(post(&world, Some(key), "/auth/signout", own).await, (200, json!({})));
    assert_eq!(log_in(&world, "new@example.org", "s3cret", "").await.0, 401);
}

#[tokio::test]
async fn passwords_are_changed_and_expire() {
    let world = World::start().await;
    configure(&world, "signup", "true").await;
    let admin = world.key("admin").await;
    let make = r#"mutation { create_user(email: "p@example.org", props: {username: "p", password: "first", need_password_change: true}) { ok msg } }"#;
    assert!(world.gql(admin, make, json!({})).await.contains(r#""ok":true"#));
    let key = world.key("p").await;
    let change = async |old: &str, new: &str, repeated: &str| {
        let body = json!({"old_password": old, "new_password": new, "new_password2": repeated});
        post(&world, Some(key), "/auth/update-password", body).await
    };
    let (status, answer) = change("wrong", "second", "second").await;
    assert_eq!((status, &answer["msg"]), (401, &json!("Old password mismatch")));
    let mismatch = (400, json!({"error_msg": "new password mismatch"}));
    assert_eq!(change("first", "second", "2nd").await, mismatch);
    assert_eq!(change("first", "second", "second").await, (200, json!({})));
    assert_eq!(log_in(&world, "p@example.org", "first", "").await.0, 401);
    assert_eq!(log_in(&world, "p@example.org", "second", "").await.0, 200);

    let renew = async |current: &str, new: &str| {
        let body = json!({"domain": "default", "username": "p@example.org",
                          "current_password": current, "new_password": new});
        post(&world, None, "/auth/update-password-no-auth", body).await
    };
    let (status, answer) = renew("second", "third").await;
    assert_eq!((status, &answer["msg"]), (400, &json!("Unsupported function.")));
    configure(&world, "max_password_age", "90d").await;
    let age =
        "UPDATE users SET password_changed_at = now() - interval '91 days' WHERE username = 'p'";
    world.sql.batch_execute(age).await.unwrap();
    let (status, answer) = log_in(&world, "p@example.org", "second", "").await;
    assert_eq!(status, 401);
    assert!(answer["type"].as_str().unwrap().ends_with("/password-expired"), "{answer}");
    assert_eq!(renew("wrong", "third").await.0, 401);
    assert_eq!(renew("second", "second").await.0, 401);
    let (status, answer) = renew("second", "third").await;
    assert_eq!(status, 201, "{answer}");
    assert!(answer["password_changed_at"].is_string());
    assert_eq!(log_in(&world, "p@example.org", "third", "").await.0, 200);

    let name = json!({"email": "p@example.org", "full_name": "P. P."});
    assert_eq!(post(&world, Some(key), "/auth/update-full-name", name).await, (200, json!({})));
    let sql = "SELECT full_name FROM users WHERE username = 'p'";
    let row = world.sql.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "P. P.");
}

#[tokio::test]
async fn a_second_factor_is_asked_for_once_it_was_shown_to_work() {
    let world = World::start().await;
    let admin = world.key("admin").await;
    let make = r#"mutation { create_user(email: "t@example.org", props: {username: "t", password: "first", need_password_change: false}) { ok msg } }"#;
    assert!(world.gql(admin, make, json!({})).await.contains(r#""ok":true"#));
    let key = world.key("t").await;
    let (status, enrolment) = post(&world, Some(key), "/totp", json!({})).await;
    assert_eq!(status, 200, "{enrolment}");
    let secret = enrolment["totp_key"].as_str().unwrap();
    assert_eq!(secret.len(), 32);
    assert!(enrolment["totp_uri"].as_str().unwrap().starts_with("otpauth://totp/"));
    assert_eq!(log_in(&world, "t@example.org", "first", "").await.0, 200, "it does not count yet");
    let wrong = post(&world, Some(key), "/totp/verify", json!({"otp": "no"})).await;
    assert_eq!(wrong.0, 400);
    let code = backendai_manager::app::totp::code(secret, Utc::now()).unwrap();
    assert_eq!(post(&world, Some(key), "/totp/verify", json!({"otp": code})).await.0, 200);
    let (status, answer) = log_in(&world, "t@example.org", "first", "").await;
    assert_eq!((status, &answer["msg"]), (401, &json!("OTP not provided")));
    let (status, answer) = log_in(&world, "t@example.org", "first", "nonsense").await;
    assert_eq!((status, &answer["msg"]), (401, &json!("Invalid TOTP code provided.")));
    let user = world.key("user1").await;
    let other = world.request("DELETE", "/totp?email=t%40example.org").signed(user).send().await;
    assert_eq!(other.status, 403);
    let own = world.request("DELETE", "/totp").signed(key).send().await;
    assert_eq!(own.status, 200);
    assert_eq!(log_in(&world, "t@example.org", "first", "").await.0, 200);
}

#[tokio::test]
async fn what_is_changed_is_written_down_and_secrets_are_not() {
    let world = World::start().await;
    let admin = world.key("admin").await;
    let make = r#"mutation { create_user(email: "c@example.org", props: {username: "c", password: "canary-password", need_password_change: false}) { ok msg } }"#;
    assert!(world.gql(admin, make, json!({})).await.contains(r#""ok":true"#));
    let key = world.key("c").await;
    log_in(&world, "c@example.org", "canary-wrong", "").await;
    log_in(&world, "c@example.org", "canary-password", "").await;
    let body = json!({"old_password": "canary-password", "new_password": "canary-new",
                      "new_password2": "canary-new"});
    post(&world, Some(key), "/auth/update-password", body).await;
    let refused = r#"mutation { delete_user(email: "user1@example.org") { ok msg } }"#;
    world.gql(key, refused, json!({})).await;

    let query = r#"{ audit_log_list(limit: 10, offset: 0, order: "at", filter: "operation != \"x\"") {
        items { email operation target outcome message client request_id } total_count } }"#;
    let found: Value = serde_json::from_str(&world.gql(admin, query, json!({})).await).unwrap();
    let list = &found["data"]["audit_log_list"];
    let items = list["items"].as_array().unwrap();
    let told: Vec<_> = items
        .iter()
        .map(|item| {
            assert_eq!(item["client"], "127.0.0.1", "{item}");
            ["operation", "outcome", "target"].map(|name| item[name].as_str().unwrap())
        })
        .collect();
    let target = "domain=default username=c@example.org";
    assert_eq!(
        told,
        [
            ["create_user", "success", "c@example.org"],
            ["POST /auth/authorize", "refused", target],
            ["POST /auth/authorize", "success", target],
            ["POST /auth/update-password", "success", ""],
            ["delete_user", "refused", "user1@example.org"],
        ]
    );
    assert_eq!(items[0]["email"], "admin@example.org");
    let sql = "SELECT count(*) FROM audit_log a WHERE a::text LIKE '%canary%' OR a::text LIKE $1";
    let secret = format!("%{}%", key.secret);
    let leaked: i64 = world.sql.query_one(sql, &[&secret]).await.unwrap().get(0);
    assert_eq!(leaked, 0);
    let denied = world.gql(key, query, json!({})).await;
    assert!(denied.contains("Insufficient privilege."), "{denied}");
}
