//! Background tasks as their watchers see them, and what becomes of them when a manager dies.

use std::sync::Arc;

use backendai_manager::app::background_task::{self, Begin, Begun, End, Reporter};
use backendai_types::{BackgroundTaskId, UserId};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::world::{Key, Options, PATIENCE, World};
use crate::sse;

/// Steps a task from outside.
#[derive(Clone, Default)]
struct Steps(Arc<Notify>);

impl Steps {
    /// A task that takes two steps and ends.
    async fn task(self, reporter: Reporter, end: End) -> End {
        self.0.notified().await;
        reporter.report(1, 2, "one");
        self.0.notified().await;
        end
    }
}

async fn user_id(world: &World, username: &str) -> UserId {
    let sql = "SELECT uuid FROM users WHERE username = $1";
    UserId(world.sql.query_one(sql, &[&username]).await.unwrap().get(0))
}

async fn begin(world: &World, username: &str, steps: &Steps, end: End) -> BackgroundTaskId {
    let (user, steps) = (user_id(world, username).await, steps.clone());
    let work = |_, reporter| steps.task(reporter, end);
    background_task::start(&world.app, user, Begin::new("test"), work).await.unwrap().id()
}

async fn open(world: &World, key: Key, id: BackgroundTaskId) -> sse::Stream {
    let target = format!("/events/background-task?task_id={id}");
    sse::open(world.addr, (key.access, key.secret), &target, None).await
}

/// Name and data of all events up to the end of the stream.
async fn all(mut stream: sse::Stream) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push((event.name, event.data));
    }
    events
}

#[tokio::test]
async fn a_watcher_sees_progress_and_end_and_a_late_one_the_end() {
    let world = World::start().await;
    let key = world.key("user1").await;
    for (end, name, message) in [
        (End::Done("three".into()), "bgtask_done", "three"),
        (End::Cancelled("never mind".into()), "bgtask_cancelled", "never mind"),
        (End::Failed("no luck".into()), "bgtask_failed", "no luck"),
    ] {
        let steps = Steps::default();
        let id = begin(&world, "user1", &steps, end).await;
        let mut stream = open(&world, key, id).await;
        steps.0.notify_one();
        let event = stream.expect().await;
        assert_eq!((event.name.as_str(), event.retry), ("bgtask_updated", Some(5)));
        let progress = json!({
            "task_id": id, "message": "one", "current_progress": 1, "total_progress": 2,
        });
        assert_eq!(event.data, progress);
        // One who comes while it runs sees how far it is.
        let between = open(&world, key, id).await;
        steps.0.notify_one();
        let ended = [
            (name.to_owned(), json!({"task_id": id, "message": message})),
            ("server_close".to_owned(), json!({})),
        ];
        assert_eq!(all(stream).await, ended);
        let seen = all(between).await;
        assert_eq!(seen[0], ("bgtask_updated".to_owned(), progress));
        assert_eq!(seen[1..], ended);

        let status = name.trim_start_matches("bgtask_");
        let past = json!({
            "task_id": id, "status": status, "current_progress": "1", "total_progress": "2",
            "message": message,
        });
        let late = all(open(&world, key, id).await).await;
        assert_eq!(late, [(name.to_owned(), past), ("server_close".to_owned(), json!({}))]);
    }
}

#[tokio::test]
async fn unknown_forgotten_and_foreign_tasks_look_alike() {
    let world = World::start().await;
    let steps = Steps::default();
    let id = begin(&world, "user1", &steps, End::Done(String::new())).await;
    let old = BackgroundTaskId::random();
    world
        .sql
        .execute(
            "INSERT INTO background_tasks
                (id, name, user_uuid, status, manager, incarnation, lease_until, updated_at)
             SELECT $1, 'test', uuid, 'done', 'm', $1, now(), now() - interval '25 hours'
             FROM users WHERE username = 'user2'",
            &[&old.0],
        )
        .await
        .unwrap();
    let stranger = world.key("user2").await;
    for id in [id, old, BackgroundTaskId::random()] {
        let target = format!("/events/background-task?taskId={id}");
        let reply = world.get(&target).signed(stranger).send().await;
        let (status, kind, _) = reply.problem();
        assert_eq!((status, kind.as_str()), (404, "object-not-found"));
        assert_eq!(reply.json()["title"], "No such background task.");
    }
    background_task::carry_on(&world.app).await.unwrap();
    let count = "SELECT count(*) FROM background_tasks";
    assert_eq!(world.sql.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 1);
    let wrong = world.get("/events/background-task?task_id=7").signed(stranger).send().await;
    assert_eq!(wrong.problem().1, "invalid-api-params");
    steps.0.notify_one();
    steps.0.notify_one();
}

#[tokio::test]
async fn a_task_whose_manager_died_or_stopped_has_failed_and_says_so() {
    let world = World::start().await;
    let key = world.key("user1").await;
    for is_killed in [true, false] {
        let other = World::beside(Arc::clone(&world.database), Options::default()).await;
        let id = begin(&other, "user1", &Steps::default(), End::Done(String::new())).await;
        let stream = open(&world, key, id).await;
        // It is alive: nobody may end it.
        background_task::carry_on(&world.app).await.unwrap();
        if is_killed {
            other.lifecycle.kill().await;
            let sql = "UPDATE background_tasks SET lease_until = now() - interval '1 second'";
            world.sql.execute(sql, &[]).await.unwrap();
        } else {
            other.lifecycle.shut_down(PATIENCE).await.unwrap();
        }
        background_task::carry_on(&world.app).await.unwrap();
        let message = "The manager i-test stopped before this was done.";
        assert_eq!(
            all(stream).await,
            [
                ("bgtask_failed".to_owned(), json!({"task_id": id, "message": message})),
                ("server_close".to_owned(), json!({})),
            ]
        );
    }
}

#[tokio::test]
async fn a_panic_is_a_failure_and_a_task_that_was_taken_away_writes_nothing() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let user = user_id(&world, "user1").await;
    let work = |_, _| async { panic!("on purpose") };
    let begun = background_task::start(&world.app, user, Begin::new("test"), work).await.unwrap();
    let seen = all(open(&world, key, begun.id()).await).await;
    assert_eq!(seen[0].0, "bgtask_failed");

    let steps = Steps::default();
    let id = begin(&world, "user1", &steps, End::Done("late".into())).await;
    let stream = open(&world, key, id).await;
    let sql = "UPDATE background_tasks SET lease_until = now() - interval '1 second'";
    world.sql.execute(sql, &[]).await.unwrap();
    background_task::carry_on(&world.app).await.unwrap();
    steps.0.notify_one();
    steps.0.notify_one();
    let seen = all(stream).await;
    assert_eq!(seen[0].0, "bgtask_failed", "{seen:?}");
}

#[tokio::test]
async fn a_subject_has_one_task_at_a_time() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let user = user_id(&world, "user1").await;
    let steps = Steps::default();
    let start = async |subject: &str| {
        let begin = Begin::new("test").only_one_for(subject).with_arguments(json!({"a": 1}));
        let steps = steps.clone();
        let work = |_, reporter| steps.task(reporter, End::Done(String::new()));
        background_task::start(&world.app, user, begin, work).await.unwrap()
    };
    let first = start("x").await;
    let Begun::UnderWay(same) = start("x").await else { panic!("two at once") };
    assert_eq!((same.id, &same.arguments), (first.id(), &json!({"a": 1})));
    steps.0.notify_one();
    let mut stream = open(&world, key, first.id()).await;
    stream.expect().await;
    steps.0.notify_one();
    all(stream).await;
    assert!(matches!(start("x").await, Begun::New(_)));
}

#[tokio::test]
async fn registries_are_rescanned_for_administrators() {
    const RESCAN: &str =
        "mutation($registry: String) {  rescan_images(registry:$registry) {   ok msg task_id  }}";
    let world = World::start().await;
    let (admin, user) = (world.key("admin").await, world.key("user1").await);
    let ask = async |key, registry: &str| -> Value {
        let reply = world.gql(key, RESCAN, json!({"registry": registry})).await;
        serde_json::from_str(&reply).unwrap()
    };
    let reply = ask(user, "").await;
    let refused = &reply["data"]["rescan_images"];
    assert_eq!(refused["ok"], false, "{reply}");
    assert_eq!(refused["msg"], "no permission to execute rescan_images");
    let reply = ask(admin, "nowhere:5000").await;
    assert!(reply["errors"][0]["message"].as_str().unwrap().contains("nowhere:5000"), "{reply}");
    assert_eq!(reply["data"]["rescan_images"], Value::Null);

    // Nobody answers there: the task fails, and says which registry it was.
    let port = crate::support::free_port();
    let name = format!("127.0.0.1:{port}");
    let key = format!("config/docker/registry/127.0.0.1%3A{port}");
    world.app.etcd.put(&key, &format!("http://{name}")).await.unwrap();
    world.app.shared.invalidate();
    let reply = ask(admin, &name).await;
    let result = &reply["data"]["rescan_images"];
    assert_eq!((&result["ok"], &result["msg"]), (&json!(true), &json!("")));
    let id: BackgroundTaskId = result["task_id"].as_str().unwrap().parse().unwrap();
    let seen = all(open(&world, admin, id).await).await;
    assert_eq!(seen[0].0, "bgtask_failed");
    assert!(seen[0].1["message"].as_str().unwrap().contains(&name), "{seen:?}");
}
