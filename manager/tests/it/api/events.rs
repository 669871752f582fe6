//! Who hears of what, and what is refused.

use serde_json::Value;

use super::graphql::insert_sessions;
use super::world::{Key, World};
use crate::sse;

/// Names of the sessions whose past events a caller is shown.
async fn heard(world: &World, key: Key, query: &str) -> Vec<String> {
    // Something of everybody's, to know when all that is older has been told.
    let sql = "INSERT INTO transitions (session_id, event, to_status, actor)
        SELECT id, 'session_started', 'RUNNING', 'x' FROM sessions WHERE name = 'capB'";
    world.sql.batch_execute(sql).await.unwrap();
    world.app.wake.task(backendai_manager::wake::Task::FollowTransitions);
    let target = format!("/events/session?lastEventId=0{query}");
    let mut stream = sse::open(world.addr, (key.access, key.secret), &target, None).await;
    let mut names = Vec::new();
    loop {
        let event = stream.expect().await;
        names.push(format!("{} {}", event.data["sessionName"].as_str().unwrap(), event.name));
        if event.name == "session_started" {
            return names;
        }
    }
}

async fn refused(world: &World, key: Key, query: &str) -> (u16, String, Value) {
    let target = format!("/events/session?{query}");
    let response = sse::get(world.addr, (key.access, key.secret), &target, None).await;
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let kind = body["type"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    (status, kind, body["data"].clone())
}

#[tokio::test]
async fn administrators_hear_of_their_domain_and_users_of_their_own() {
    let world = World::start().await;
    insert_sessions(&world).await;
    let (admin, user) = (world.key("admin").await, world.key("user1").await);
    let all = ["capB session_enqueued", "capB session_scheduled", "capB session_started"];
    for query in ["", "&name=capB", "&sessionName=capB&scope=session", "&group=default"] {
        assert_eq!(heard(&world, admin, query).await[..2], all[..2], "{query}");
    }
    // Sessions of this keypair are the admin's: a user may listen, and hears nothing of them.
    world
        .sql
        .execute(
            "UPDATE sessions SET user_uuid = (SELECT uuid FROM users WHERE username = 'user1'),
             access_key = $1 WHERE name = 'capB'",
            &[&user.access],
        )
        .await
        .unwrap();
    assert_eq!(heard(&world, user, "").await[..2], all[..2]);
    let alias = format!("&sessionName=capB&owner_access_key={}", user.access);
    assert_eq!(heard(&world, admin, &alias).await[..2], all[..2]);
}

#[tokio::test]
async fn wrong_parameters_are_refused() {
    let world = World::start().await;
    let (admin, user) = (world.key("admin").await, world.key("user1").await);
    let (status, kind, _) =
        refused(&world, user, &format!("ownerAccessKey={}", admin.access)).await;
    assert_eq!((status, kind.as_str()), (403, "generic-forbidden"));
    let (status, kind, _) = refused(&world, admin, "group=nowhere").await;
    assert_eq!((status, kind.as_str()), (404, "object-not-found"));
    for wrong in ["sessionId=7", "scope=agent", "lastEventId=x", "nonsense=1"] {
        let (status, kind, data) = refused(&world, admin, wrong).await;
        assert_eq!((status, kind.as_str()), (400, "invalid-api-params"), "{wrong}: {data}");
    }
    let unsigned = world.get("/events/session").send().await;
    assert_eq!(unsigned.status.as_u16(), 401);
}
