//! Running code, by polling and over a websocket, with an agent that is played.

use std::sync::Arc;
use std::time::Duration;

use backendai_rpc::agent_api::{ConsoleItem, Execute, ExecuteMode, ExecuteReply, RunStatus};
use backendai_rpc::call::{
    CallContext, CallError, Connection, ErrorKind, RemoteError, decode, encode,
};
use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::world::{Key, Options, PATIENCE, World};

type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// Answers `execute` from a script and notes what it was asked.
#[derive(Default)]
struct Agent {
    asked: Mutex<Vec<ExecuteMode>>,
    interrupted: Notify,
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
        match method {
            "execute" => self.execute(decode(&body).unwrap()).await.map(|reply| encode(&reply)),
            "interrupt" => {
                self.interrupted.notify_one();
                Ok(encode(&()))
            }
            "complete" => Ok(encode(&vec!["print".to_owned()])),
            other => panic!("unexpected call: {other}"),
        }
    }
}

impl Agent {
    async fn execute(&self, request: Execute) -> Result<ExecuteReply, CallError> {
        self.asked.lock().push(request.mode.clone());
        let run_id = request.run_id.unwrap_or_else(|| "named-by-agent".into());
        let (status, text) = match &request.mode {
            ExecuteMode::Query { code } if code == "hang" => std::future::pending().await,
            ExecuteMode::Query { code } if code == "fail" => {
                return Err(RemoteError::new(ErrorKind::Internal, "boom").into());
            }
            ExecuteMode::Query { code } if code == "ask" => {
                (RunStatus::WaitingInput, "name? ".into())
            }
            ExecuteMode::Query { code } => (RunStatus::Continued, format!("ran {code}\n")),
            ExecuteMode::Batch { exec, .. } => (RunStatus::Finished, format!("batch {exec:?}\n")),
            ExecuteMode::Continue => (RunStatus::Finished, "more\n".into()),
            ExecuteMode::Input { text } => (RunStatus::Finished, format!("hello {text}\n")),
        };
        Ok(ExecuteReply {
            run_id,
            status,
            exit_code: (status == RunStatus::Finished).then_some(0),
            is_password: (status == RunStatus::WaitingInput).then_some(false),
            console: vec![ConsoleItem::Stdout(text)],
            last_record: 0,
        })
    }
}

async fn world() -> (World, Arc<Agent>, Key) {
    let agent = Arc::new(Agent::default());
    let agents: Arc<dyn Connection> = Arc::<Agent>::clone(&agent);
    let world = World::with(Options { agents: Some(agents), ..Options::default() }).await;
    super::graphql::insert_sessions(&world).await;
    let key = world.key("admin").await;
    (world, agent, key)
}

async fn connect(world: &World, key: Key, name: &str) -> Socket {
    let target = format!("/stream/session/{name}/execute");
    let request = world.get(&target);
    let mut handshake = format!("ws://{}{target}", world.addr).into_client_request().unwrap();
    let headers = handshake.headers_mut();
    headers.insert("date", request.date.parse().unwrap());
    headers.insert("x-backendai-version", "v7.20230615".parse().unwrap());
    headers.insert("authorization", request.authorization(key).parse().unwrap());
    tokio_tungstenite::connect_async(handshake).await.unwrap().0
}

async fn next(socket: &mut Socket) -> Message {
    tokio::time::timeout(PATIENCE, socket.next()).await.expect("a message").unwrap().unwrap()
}

async fn say(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
}

/// The socket's messages until it closes, and the close code.
async fn rest(socket: &mut Socket) -> (Vec<String>, CloseCode) {
    let mut texts = Vec::new();
    loop {
        match next(socket).await {
            Message::Text(text) => texts.push(text.to_string()),
            Message::Close(Some(frame)) => return (texts, frame.code),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_run_over_a_websocket_ends_with_a_clean_close() {
    let (world, _, key) = world().await;
    let mut socket = connect(&world, key, "capB").await;
    say(&mut socket, r#"{"code": "1+1", "mode": "query", "options": {}}"#).await;
    let (texts, code) = rest(&mut socket).await;
    assert_eq!(
        texts,
        [
            r#"{"status":"continued","console":[["stdout","ran 1+1\n"]],"exitCode":null,"options":null,"files":[]}"#,
            r#"{"status":"finished","console":[["stdout","more\n"]],"exitCode":0,"options":null,"files":[]}"#,
        ]
    );
    assert_eq!(code, CloseCode::Normal);
}

#[tokio::test]
async fn input_goes_to_the_program_that_waits_for_it() {
    let (world, agent, key) = world().await;
    let mut socket = connect(&world, key, "capB").await;
    say(&mut socket, r#"{"code": "ask", "mode": "query", "options": {}}"#).await;
    let asked = next(&mut socket).await.into_text().unwrap();
    assert!(asked.contains(r#""status":"waiting-input""#), "{asked}");
    assert!(asked.contains(r#""options":{"is_password":false}"#), "{asked}");
    say(&mut socket, "Ann").await;
    let (texts, _) = rest(&mut socket).await;
    assert!(texts[0].contains(r#"["stdout","hello Ann\n"]"#), "{texts:?}");
    assert_eq!(agent.asked.lock()[1], ExecuteMode::Input { text: "Ann".into() });
}

#[tokio::test]
async fn errors_are_frames_and_wrong_beginnings_too() {
    let (world, _, key) = world().await;
    for (first, message) in [
        (r#"{"code": "x"}"#, "Invalid API parameters: mode is missing or empty!"),
        ("nonsense", "Invalid API parameters: the first message is not a JSON object"),
        (
            r#"{"code": "fail", "mode": "query"}"#,
            "BackendError: Executing user code in the kernel has failed.",
        ),
    ] {
        let mut socket = connect(&world, key, "capB").await;
        say(&mut socket, first).await;
        let (texts, code) = rest(&mut socket).await;
        assert_eq!(texts, [json!({"status": "error", "msg": message}).to_string()]);
        assert_eq!(code, CloseCode::Normal);
    }
}

#[tokio::test]
async fn a_client_that_leaves_interrupts_its_run() {
    let (world, agent, key) = world().await;
    for clean in [true, false] {
        let mut socket = connect(&world, key, "capB").await;
        say(&mut socket, r#"{"code": "hang", "mode": "query"}"#).await;
        let running = async {
            while agent.asked.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, running).await.unwrap();
        agent.asked.lock().clear();
        if clean {
            socket.close(None).await.unwrap();
        }
        drop(socket);
        tokio::time::timeout(PATIENCE, agent.interrupted.notified()).await.expect("interrupted");
    }
}

#[tokio::test]
async fn a_stopping_manager_says_so() {
    let (world, agent, key) = world().await;
    let mut socket = connect(&world, key, "capB").await;
    say(&mut socket, r#"{"code": "hang", "mode": "query"}"#).await;
    let running = async {
        while agent.asked.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, running).await.unwrap();
    world.lifecycle.stop();
    let (texts, code) = rest(&mut socket).await;
    assert!(texts[0].contains(r#""status":"server-restarting""#), "{texts:?}");
    assert_eq!(code, CloseCode::Away);
    world.lifecycle.shut_down(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn errors_before_the_upgrade_are_plain_answers() {
    let (world, _, key) = world().await;
    let reply = world.get("/stream/session/nosuch/execute").signed(key).send().await;
    assert_eq!(reply.problem().0, 404);
    let reply = world.get("/stream/session/capB/execute").signed(key).send().await;
    assert_eq!(reply.problem().1, "generic-bad-request");
}

#[tokio::test]
async fn runs_can_be_polled() {
    let (world, _, key) = world().await;
    let post = |body: serde_json::Value| {
        world.request("POST", "/session/capB").json(&body).signed(key).send()
    };
    let reply = post(json!({"runId": "r1", "mode": "query", "code": "1"})).await;
    assert_eq!(
        reply.text,
        r#"{"result":{"status":"continued","runId":"r1","exitCode":null,"options":null,"files":[],"console":[["stdout","ran 1\n"]]}}"#
    );
    let reply =
        post(json!({"runId": null, "mode": "batch", "code": "", "options": {"exec": "ls"}})).await;
    assert_eq!(reply.json()["result"]["runId"], "named-by-agent");
    assert_eq!(reply.json()["result"]["exitCode"], 0);
    for (body, message) in [
        (json!({"mode": "query"}), "runId is missing!"),
        (json!({"runId": "r", "mode": ""}), "mode is missing or empty!"),
        (json!({"runId": "r", "mode": "x"}), "mode has an invalid value."),
        (json!({"runId": null, "mode": "continue"}), "continuation requires explicit run ID"),
    ] {
        assert_eq!(post(body).await.problem(), (400, "invalid-api-params".into(), message.into()));
    }
    let reply = post(json!({"runId": "r", "mode": "query", "code": "fail"})).await;
    assert_eq!(reply.json()["agent-details"]["title"], "Agent-side exception occurred.");

    let body = json!({"code": "pri", "options": {"row": 0, "col": 3}});
    let reply =
        world.request("POST", "/session/capB/complete").json(&body).signed(key).send().await;
    assert_eq!(reply.text, r#"{"result":{"status":"finished","completions":["print"]}}"#);
    let reply = world.request("POST", "/session/capB/interrupt").signed(key).send().await;
    assert_eq!((reply.status.as_u16(), reply.text.as_str()), (204, ""));
}

#[tokio::test]
async fn sessions_are_shown_and_matched() {
    let (world, _, key) = world().await;
    let reply = world.get("/session/capB").signed(key).send().await.json();
    assert_eq!(reply["status"], "RUNNING");
    assert_eq!(reply["requestedSlots"], "{'cpu': '1', 'mem': '536870912'}");
    assert_eq!(reply["creationTime"], "2026-11-21 04:03:15.117314+00:00");
    let reply = world.get("/session/_/match?id=capB").signed(key).send().await.json();
    assert_eq!(
        reply,
        json!({"matches": [{"id": "6f4f0499-5c42-484a-be48-1f36123e2c71", "name": "capB",
                            "status": "RUNNING"}]})
    );
    // Another's sessions are not there.
    let stranger = world.key("user1").await;
    assert_eq!(world.get("/session/capB").signed(stranger).send().await.problem().0, 404);
}
