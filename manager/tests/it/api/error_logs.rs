//! Errors that clients report.

use serde_json::{Value, json};

use super::world::{Key, World};

async fn ask(world: &World, key: Key, method: &str, target: &str, body: Value) -> (u16, Value) {
    let request = world.request(method, target).signed(key);
    let request = if body.is_null() { request } else { request.json(&body) };
    let reply = request.send().await;
    (reply.status.as_u16(), reply.json())
}

fn report(message: &str) -> Value {
    json!({"severity": "warning", "source": "webui", "message": message, "context_lang": "js",
           "context_env": "{\"browser\": \"x\"}", "request_url": "/x", "request_status": 500})
}

#[tokio::test]
async fn users_see_their_own_reports_until_they_clear_them_and_administrators_all() {
    let world = World::start().await;
    let (user, other) = (world.key("user1").await, world.key("user2").await);
    let admin = world.key("admin").await;
    let route = "/logs/error";
    for (key, message) in [(user, "first"), (user, "second"), (other, "third")] {
        let reply = ask(&world, key, "POST", route, report(message)).await;
        assert_eq!(reply, (200, json!({"success": true})));
    }
    // As the stock client asks.
    let first_page = format!("{route}?mark_read=False&page_size=1&page_no=1");
    let (_, page) = ask(&world, user, "GET", &first_page, Value::Null).await;
    assert_eq!((&page["count"], page["logs"].as_array().unwrap().len()), (&json!(2), 1));
    let log = &page["logs"][0];
    for (field, value) in [
        ("message", json!("second")),
        ("severity", json!("warning")),
        ("source", json!("webui")),
        ("context_env", json!({"browser": "x"})),
        ("request_status", json!(500)),
        ("traceback", json!(null)),
        ("is_read", json!(false)),
        ("is_cleared", json!(null)),
    ] {
        assert_eq!(log[field], value, "{field}");
    }
    assert!(log["created_at"].is_f64());
    let marking = format!("{route}?mark_read=True&page_no=2&page_size=1");
    let (_, page) = ask(&world, user, "GET", &marking, Value::Null).await;
    assert_eq!(page["logs"][0]["message"], "first");
    let (_, page) = ask(&world, user, "GET", &marking, Value::Null).await;
    assert_eq!(page["logs"][0]["is_read"], true);

    let clear = format!("{route}/{}/clear", log["log_id"].as_str().unwrap());
    assert_eq!(ask(&world, other, "POST", &clear, Value::Null).await.0, 404);
    assert_eq!(ask(&world, user, "POST", &clear, Value::Null).await.1, json!({"success": true}));
    assert_eq!(ask(&world, user, "POST", &clear, Value::Null).await.0, 404);
    assert_eq!(ask(&world, user, "GET", route, Value::Null).await.1["count"], 1);
    let (_, everything) = ask(&world, admin, "GET", route, Value::Null).await;
    assert_eq!(everything["count"], 3);
    assert_eq!(everything["logs"][1]["is_cleared"], true);
    let domain_admin = world.key("domain-admin").await;
    assert_eq!(ask(&world, domain_admin, "GET", route, Value::Null).await.1["count"], 3);
    world
        .sql
        .batch_execute("UPDATE users SET domain_name = NULL WHERE username = 'user2'")
        .await
        .unwrap();
    assert_eq!(ask(&world, domain_admin, "GET", route, Value::Null).await.1["count"], 2);
}

#[tokio::test]
async fn wrong_reports_are_refused_by_field() {
    let world = World::start().await;
    let user = world.key("user1").await;
    let body = json!({"severity": "bad", "source": "", "context_env": "{", "context_lang": "x"});
    let (status, reply) = ask(&world, user, "POST", "/logs/error", body).await;
    assert_eq!(status, 400);
    assert_eq!(
        reply["data"],
        json!({"severity": "value is not a valid member of LogSeverity",
               "source": "blank value is not allowed", "message": "is required",
               "context_env": "value is not a valid JSON string"})
    );
    let (_, reply) = ask(&world, user, "GET", "/logs/error?page_size=101", Value::Null).await;
    assert_eq!(reply["data"], json!({"page_size": "value is greater than 100"}));
    assert_eq!(ask(&world, user, "POST", "/logs/error/x/clear", Value::Null).await.0, 400);
}
