//! Callback URLs are told what happens to their sessions.

use std::sync::Arc;

use backendai_manager::app::session::CreateSession;
use backendai_types::{SessionId, SessionStatus};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use warp::Filter;
use warp::http::{Response, StatusCode};

use super::world::{TestManager, World, config, eventually, request};

/// Notes what it is told; refuses the first so many.
#[derive(Clone)]
struct Receiver {
    url: String,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    /// Answers with these codes, then with 200.
    async fn start(world: &World, answers: &[u16]) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let mut answers: Vec<u16> = answers.iter().rev().copied().collect();
        let (noted, listener) =
            (Arc::clone(&told), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let answers = Arc::new(Mutex::new(std::mem::take(&mut answers)));
        let routes = warp::post().and(warp::path!("hook")).and(warp::body::json()).then(
            move |body: Value| {
                let code = answers.lock().pop().unwrap_or(200);
                if code == 200 {
                    noted.lock().push(body);
                }
                async move {
                    let mut reply = Response::new("");
                    *reply.status_mut() = StatusCode::from_u16(code).unwrap();
                    let elsewhere = "http://127.0.0.1:1/".parse().unwrap();
                    reply.headers_mut().insert("location", elsewhere);
                    reply
                }
            },
        );
        world.lifecycle.spawn("receiver", warp::serve(routes).incoming(listener).run());
        Self { url, told }
    }

    fn request(&self, name: &str) -> CreateSession {
        CreateSession { callback_url: Some(self.url.clone()), ..request(name) }
    }

    fn events(&self) -> Vec<String> {
        self.told.lock().iter().map(|body| body["event"].as_str().unwrap().into()).collect()
    }
}

const WHOLE_LIFE: [&str; 6] =
    ["enqueued", "scheduled", "preparing", "started", "terminating", "terminated"];

async fn whole_life(world: &World, request: CreateSession) -> SessionId {
    let name = request.name.clone();
    let id = world.create(request).await.unwrap().session_id;
    world.destroy(&name, false).await.unwrap();
    world.until_status(id, SessionStatus::Terminated).await;
    id
}

#[tokio::test]
async fn each_receiver_hears_of_its_session_in_order_whatever_others_do() {
    let world = World::new(&[8]).await;
    // Takes connections and never answers.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf_url = format!("http://{}/", deaf.local_addr().unwrap());
    let lost = CreateSession { callback_url: Some(deaf_url), ..request("deaf") };
    whole_life(&world, lost).await;
    let nobody = CreateSession { callback_url: Some("http://[bad".into()), ..request("bad-url") };
    whole_life(&world, nobody).await;

    let receiver = Receiver::start(&world, &[]).await;
    let id = whole_life(&world, receiver.request("told")).await;
    eventually("all is told", || async { receiver.events() == WHOLE_LIFE }).await;
    let told = receiver.told.lock().clone();
    for body in &told {
        assert_eq!(body["type"], "session_lifecycle");
        assert_eq!(body["session_id"], id.to_string());
        let when = body["when"].as_str().unwrap();
        chrono::DateTime::parse_from_rfc3339(when).unwrap();
    }
    // A URL that is none is not tried again and again.
    world
        .until(
            "SELECT count(*) FROM session_callbacks c JOIN sessions s ON s.id = c.session_id
             WHERE s.name = 'bad-url'",
            |count| count == "0",
        )
        .await;
    world.lifecycle.kill().await;
}

#[tokio::test]
async fn a_restart_repeats_and_loses_nothing_and_failures_are_tried_again() {
    let world = World::new(&[8]).await;
    // Broken at first; a redirect counts as an answer and is not followed.
    let receiver = Receiver::start(&world, &[500, 307]).await;
    let created = world.create(receiver.request("told")).await.unwrap();
    let none_left = "SELECT count(*) FROM session_callbacks";
    world.until("SELECT seq > 0 FROM session_callback_position", |moved| moved == "true").await;
    world.until(none_left, |count| count == "0").await;
    eventually("it runs", || async { receiver.events().last().unwrap() == "started" }).await;
    assert_eq!(receiver.events(), ["scheduled", "preparing", "started"], "after a redirect");
    world.until(none_left, |count| count == "0").await;

    // What happens while nobody leads is told by the next leader.
    world.manager.lifecycle.kill().await;
    world
        .sql(&format!(
            "INSERT INTO transitions (session_id, event, actor) VALUES ('{}', 'session_success', 'x')",
            created.session_id
        ))
        .await;
    let next = TestManager::start(&world.database, config(), &world.fleet, true).await;
    let expected = ["scheduled", "preparing", "started", "success"];
    eventually("the rest is told", || async { receiver.events() == expected }).await;
    world.until(none_left, |count| count == "0").await;
    assert_eq!(receiver.events(), expected);
    next.lifecycle.kill().await;
    world.lifecycle.kill().await;
}
