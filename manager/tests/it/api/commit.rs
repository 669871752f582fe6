//! Committing sessions, and their history, with an agent that is played.

use std::sync::Arc;
use std::time::Duration;

use backendai_manager::app::background_task;
use backendai_rpc::agent_api::{CommitKernel, CommitState};
use backendai_rpc::call::{
    CallContext, CallError, Connection, ErrorKind, RemoteError, decode, encode,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::graphql::insert_sessions;
use super::world::{Key, Options, World};
use crate::sse;

const KERNEL: &str = "e664959e-6296-4e5e-8fe7-cb700a396cca";

/// Answers `commit` with what a test says.
struct Agent {
    answer: tokio::sync::watch::Sender<Result<CommitState, ErrorKind>>,
    asked: Mutex<Vec<CommitKernel>>,
}

impl Agent {
    fn say(&self, answer: Result<CommitState, ErrorKind>) {
        self.answer.send_modify(|said| *said = answer);
    }
}

#[async_trait::async_trait]
impl Connection for Agent {
    async fn call(
        &self,
        _: &CallContext,
        method: &'static str,
        body: Vec<u8>,
        _: Duration,
    ) -> Result<Vec<u8>, CallError> {
        assert_eq!(method, "commit");
        let first = {
            let mut asked = self.asked.lock();
            asked.push(decode(&body).unwrap());
            asked.len() == 1
        };
        let mut answer = self.answer.subscribe();
        // The first answer comes at once, a later one when there is news.
        if !first {
            answer.changed().await.map_err(|_| CallError::Closed)?;
        }
        let answer = answer.borrow().clone();
        answer.map(|state| encode(&state)).map_err(|kind| RemoteError::new(kind, "no").into())
    }
}

async fn world() -> (World, Arc<Agent>, Key) {
    let ongoing = Ok(CommitState::Ongoing { bytes: 3 << 20 });
    let answer = tokio::sync::watch::Sender::new(ongoing);
    let agent = Arc::new(Agent { answer, asked: Mutex::default() });
    let agents: Arc<dyn Connection> = Arc::<Agent>::clone(&agent);
    let world = World::with(Options { agents: Some(agents), ..Options::default() }).await;
    insert_sessions(&world).await;
    let key = world.key("admin").await;
    (world, agent, key)
}

async fn begin(world: &World, key: Key) -> Value {
    let reply = world.request("POST", "/session/capB/commit").signed(key).send().await;
    assert_eq!(reply.status.as_u16(), 201, "{}", reply.text);
    reply.json()
}

async fn status(world: &World, key: Key) -> Value {
    let reply = world.get("/session/capB/commit").signed(key).send().await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text);
    assert_eq!(reply.json()["kernel"], KERNEL);
    reply.json()["status"].clone()
}

async fn watch(world: &World, key: Key, commit: &Value) -> sse::Stream {
    let target =
        format!("/events/background-task?task_id={}", commit["bgtask_id"].as_str().unwrap());
    sse::open(world.addr, (key.access, key.secret), &target, None).await
}

#[tokio::test]
async fn a_commit_is_watched_to_its_end_and_only_one_is_under_way() {
    let (world, agent, key) = world().await;
    assert_eq!(status(&world, key).await, "ready");
    let commit = begin(&world, key).await;
    assert_eq!(commit["kernel"], KERNEL);
    let path = commit["path"].as_str().unwrap().to_owned();
    assert!(
        path.starts_with("admin_example.org/2")
            && path.ends_with("_capB_python-3.11-debian12.tar.gz"),
        "{path}"
    );
    assert_eq!(status(&world, key).await, "ongoing");
    assert_eq!(begin(&world, key).await, commit, "the one that is under way");

    let mut stream = watch(&world, key, &commit).await;
    let event = stream.expect().await;
    assert_eq!(
        (event.name.as_str(), &event.data["message"]),
        ("bgtask_updated", &json!("Exported 3 MiB"))
    );
    agent.say(Ok(CommitState::Done { bytes: 1 }));
    let event = stream.expect().await;
    assert_eq!((event.name.as_str(), &event.data["message"]), ("bgtask_done", &json!(path)));
    assert_eq!(status(&world, key).await, "ready");
    let asked = agent.asked.lock();
    assert_eq!(format!("{}/{}", asked[0].subdir, asked[0].filename), path);
    assert_eq!(asked[0].commit_id.to_string(), commit["bgtask_id"].as_str().unwrap());
}

#[tokio::test]
async fn commits_that_fail_say_why() {
    for (answer, name, message) in [
        (Ok(CommitState::Failed { message: "disk full".into() }), "bgtask_failed", "disk full"),
        (Err(ErrorKind::KernelNotFound), "bgtask_cancelled", "The session ended before that."),
        (Err(ErrorKind::KernelNotReady), "bgtask_failed", "KernelNotReady: no"),
    ] {
        let (world, agent, key) = world().await;
        agent.say(answer);
        let commit = begin(&world, key).await;
        let event = watch(&world, key, &commit).await.expect().await;
        assert_eq!((event.name.as_str(), &event.data["message"]), (name, &json!(message)));
    }
    let (world, _, key) = world().await;
    let reply = world.request("POST", "/session/capC/commit").signed(key).send().await;
    assert_eq!((reply.problem().0, reply.problem().1.as_str()), (400, "invalid-api-params"));
    let reply = world.request("POST", "/session/nope/commit").signed(key).send().await;
    assert_eq!(reply.problem().0, 404);
}

#[tokio::test]
async fn another_manager_carries_a_commit_on() {
    let (world, agent, key) = world().await;
    let other_agent: Arc<dyn Connection> = Arc::<Agent>::clone(&agent);
    let options = Options { agents: Some(other_agent), ..Options::default() };
    let other = World::beside(Arc::clone(&world.database), options).await;
    let commit = begin(&other, key).await;
    let mut stream = watch(&world, key, &commit).await;
    stream.expect().await;
    other.lifecycle.shut_down(super::world::PATIENCE).await.unwrap();
    let asked = agent.asked.lock().len();
    background_task::carry_on(&world.app).await.unwrap();
    while agent.asked.lock().len() == asked {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&world, key).await, "ongoing");
    agent.say(Ok(CommitState::Done { bytes: 1 }));
    let event = stream.expect().await;
    assert_eq!(event.name, "bgtask_done", "{event:?}");
    let asked = agent.asked.lock();
    assert!(asked.iter().all(|call| call.commit_id == asked[0].commit_id));
}

#[tokio::test]
async fn a_session_tells_when_it_came_to_each_status() {
    let (world, _, key) = world().await;
    let reply = world.get("/session/capB/status-history").signed(key).send().await;
    let expected = json!({"result": {
        "pending": "2026-11-21T04:03:15+00:00", "scheduled": "2026-11-21T04:03:16+00:00",
    }});
    assert_eq!(reply.json(), expected);
    // Ended sessions have one too, strangers see none.
    let ended = world.get("/session/capA/status-history").signed(key).send().await;
    assert_eq!(ended.json(), json!({"result": {}}));
    let stranger = world.key("user1").await;
    let foreign = world.get("/session/capB/status-history").signed(stranger).send().await;
    assert_eq!(foreign.problem().0, 404);
    let target = format!("/session/capB/status-history?owner_access_key={}", key.access);
    let forbidden = world.get(&target).signed(stranger).send().await;
    assert_eq!(forbidden.problem().0, 403);
}
