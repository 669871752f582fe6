//! The rate limit, in one manager and in two.

use std::sync::Arc;

use reqwest::StatusCode;

use super::world::{Key, Options, World};

async fn limit(world: &World, limit: i32) -> Key {
    let key = world.key("user2").await;
    let sql = "UPDATE keypairs SET rate_limit = $1 WHERE access_key = $2";
    world.sql.execute(sql, &[&limit, &key.access]).await.unwrap();
    key
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused() {
    let world = World::start().await;
    let key = limit(&world, 3).await;
    for remaining in ["2", "1", "0"] {
        let reply = world.get("/auth/test?echo=x").signed(key).send().await;
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.header("x-ratelimit-limit"), Some("3"));
        assert_eq!(reply.header("x-ratelimit-remaining"), Some(remaining));
    }
    for _ in 0..3 {
        let reply = world.get("/auth/test?echo=x").signed(key).send().await;
        assert_eq!(reply.problem(), (429, "rate-limit-exceeded".into(), String::new()));
        assert_eq!(reply.header("x-ratelimit-limit"), None);
    }
    // Every call counts as a use of the key, refused ones too.
    let admin = world.key("admin").await;
    let query = format!("{{ keypair(access_key: {:?}) {{ num_queries last_used }} }}", key.access);
    let reply = world.gql(admin, &query, serde_json::json!({})).await;
    let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
    assert!(reply["data"]["keypair"]["num_queries"].as_i64().unwrap() >= 4, "{reply}");
    assert!(reply["data"]["keypair"]["last_used"].is_string(), "{reply}");
    // Others are not concerned.
    let other = world.key("user1").await;
    let reply = world.get("/auth/test?echo=x").signed(other).send().await;
    assert_eq!(reply.status, StatusCode::OK);
}

/// Calls through two managers at once: never more than the limit pass, and no fewer than
/// what a manager may hold back.
#[tokio::test]
async fn managers_share_one_limit() {
    const LIMIT: i32 = 300;
    let first = World::start().await;
    let second = World::beside(Arc::clone(&first.database), Options::default()).await;
    let key = limit(&first, LIMIT).await;
    let calls = (0..400).map(|n| {
        let world = if n % 2 == 0 { &first } else { &second };
        async move { world.get("/auth/test?echo=x").signed(key).send().await.status }
    });
    let statuses = futures::future::join_all(calls).await;
    let passed = statuses.iter().filter(|status| **status == StatusCode::OK).count() as i32;
    assert!(statuses.iter().all(|s| [200, 429].contains(&s.as_u16())), "{statuses:?}");
    assert!((LIMIT - LIMIT / 64 - 1..=LIMIT).contains(&passed), "{passed}");
}

#[tokio::test]
async fn calls_pass_while_redis_is_away() {
    let world = World::with(Options { redis_is_away: true, ..Options::default() }).await;
    let key = limit(&world, 1).await;
    for _ in 0..5 {
        let reply = world.get("/auth/test?echo=x").signed(key).send().await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    }
}
