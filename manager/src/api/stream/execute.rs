//! `/stream/session/{name}/execute`: one websocket carries one run.
//!
//! The client's first message says what to run. Output follows as it comes; when the
//! program wants input, the next message is that input. The socket is read during the whole
//! run, so a client that goes away interrupts what it started.

use std::sync::Arc;
use std::time::Duration;

use backendai_rpc::agent_api::{ExecuteMode, ExecuteReply, RunStatus};
use futures::{SinkExt, StreamExt};
use serde_json::{Map, Value, json};
use warp::reply::Response;
use warp::ws::Message;

use super::super::ApiState;
use super::super::call::Call;
use super::super::problem::Problem;
use super::super::run;
use super::socket::{self, GOING_AWAY, NORMAL, Socket, is_end};
use crate::app::session::execute::{self as run_code, ExecuteRequest, RunningKernel};

/// How long output is gathered into one frame.
const FLUSH: Duration = Duration::from_millis(200);
/// `GET /stream/session/{name}/execute`
pub async fn execute(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let kernel = run_code::open(&call.app, &context, call.segment(0)).await?;
    let state = Arc::clone(&call.state);
    socket::upgrade(call, async move |socket| Conversation { socket, kernel, state }.run().await)
}

struct Conversation {
    socket: Socket,
    kernel: RunningKernel,
    state: Arc<ApiState>,
}

/// Why a conversation ends before its run does.
enum End {
    /// The client is gone.
    Disconnected,
    /// The manager stops.
    Stopping,
}

impl Conversation {
    async fn run(mut self) {
        let end = match self.first_message().await {
            Ok(Ok(mode)) => self.carry(mode).await,
            Ok(Err(complaint)) => {
                self.send_error(&format!("Invalid API parameters: {complaint}")).await
            }
            // Nothing runs yet.
            Err(End::Disconnected) => return,
            Err(End::Stopping) => Err(End::Stopping),
        };
        match end {
            Ok(()) => self.socket.close(NORMAL, "").await,
            Err(End::Stopping) => {
                let notice =
                    json!({ "status": "server-restarting", "msg": "The manager is stopping." });
                // The client may be gone as well: nothing is owed to it then.
                let _ = self.send(notice.to_string()).await;
                self.socket.close(GOING_AWAY, "").await;
            }
            Err(End::Disconnected) => {
                tracing::debug!(session.id = %self.kernel.session_id, "the client left: interrupting its run");
                if let Err(error) = self.kernel.interrupt().await {
                    tracing::debug!(
                        session.id = %self.kernel.session_id,
                        error = backendai_service::telemetry::chain(&error),
                        "the run of a client that left was not interrupted"
                    );
                }
            }
        }
    }

    /// Runs to the end, handing output out and input in.
    async fn carry(&mut self, first: ExecuteMode) -> Result<(), End> {
        let run_id = uuid::Uuid::new_v4().simple().to_string();
        let mut mode = first;
        loop {
            let request = ExecuteRequest { run_id: Some(run_id.clone()), mode, flush: FLUSH };
            let reply = match self.step(request).await? {
                Ok(reply) => reply,
                Err(error) => {
                    let problem = Problem::from(error);
                    if let Some(cause) = problem.cause() {
                        tracing::warn!(session.id = %self.kernel.session_id, "a run failed: {cause}");
                    }
                    return self.send_error(&format!("BackendError: {}", problem.summary())).await;
                }
            };
            let status = reply.status;
            for frame in run::frames(reply) {
                self.send(frame).await?;
            }
            mode = match status {
                RunStatus::Finished | RunStatus::ExecTimeout => return Ok(()),
                RunStatus::WaitingInput => ExecuteMode::Input { text: self.next_text().await? },
                RunStatus::Continued | RunStatus::CleanFinished | RunStatus::BuildFinished => {
                    ExecuteMode::Continue
                }
            };
        }
    }

    /// One step, while watching for the client to leave. What it sends unasked is dropped:
    /// it has nothing to say before the program wants input.
    async fn step(
        &mut self,
        request: ExecuteRequest,
    ) -> Result<Result<ExecuteReply, crate::app::Error>, End> {
        let kernel = self.kernel.clone();
        let step = kernel.step(request);
        tokio::pin!(step);
        loop {
            tokio::select! {
                reply = &mut step => return Ok(reply),
                message = self.socket.stream.next() => {
                    if is_end(message.as_ref()) {
                        return Err(End::Disconnected);
                    }
                }
                () = self.state.stopping.cancelled() => return Err(End::Stopping),
            }
        }
    }

    /// The next text message.
    async fn next_text(&mut self) -> Result<String, End> {
        loop {
            let message = tokio::select! {
                message = self.socket.stream.next() => message,
                () = self.state.stopping.cancelled() => return Err(End::Stopping),
            };
            if is_end(message.as_ref()) {
                return Err(End::Disconnected);
            }
            if let Some(Ok(message)) = message
                && let Ok(text) = message.to_str()
            {
                return Ok(text.to_owned());
            }
        }
    }

    async fn first_message(&mut self) -> Result<Result<ExecuteMode, &'static str>, End> {
        let text = self.next_text().await?;
        Ok(read_first(&text))
    }

    async fn send(&mut self, text: String) -> Result<(), End> {
        self.socket.sink.send(Message::text(text)).await.map_err(|_| End::Disconnected)
    }

    async fn send_error(&mut self, message: &str) -> Result<(), End> {
        self.send(json!({ "status": "error", "msg": message }).to_string()).await
    }
}

fn read_first(text: &str) -> Result<ExecuteMode, &'static str> {
    let Ok(Value::Object(body)) = serde_json::from_str(text) else {
        return Err("the first message is not a JSON object");
    };
    let no_options = Map::new();
    let options = body.get("options").and_then(Value::as_object).unwrap_or(&no_options);
    match body.get("mode").and_then(Value::as_str) {
        None | Some("") => Err("mode is missing or empty!"),
        Some("query") => {
            let code = body.get("code").and_then(Value::as_str).unwrap_or_default();
            Ok(ExecuteMode::Query { code: code.to_owned() })
        }
        Some("batch") => Ok(run::batch_mode(options)),
        Some(_) => Err("mode has an invalid value."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_says_what_to_run() {
        assert_eq!(
            read_first(r#"{"code": "print(1)", "mode": "query", "options": {}}"#),
            Ok(ExecuteMode::Query { code: "print(1)".into() })
        );
        assert_eq!(
            read_first(
                r#"{"code": "", "mode": "batch", "options": {"clean": "*", "build": "", "buildLog": false, "exec": "python3 main.py"}}"#
            ),
            Ok(ExecuteMode::Batch {
                clean: Some("*".into()),
                build: None,
                exec: Some("python3 main.py".into()),
            })
        );
        assert_eq!(read_first("{}"), Err("mode is missing or empty!"));
        assert_eq!(read_first(r#"{"mode": "input"}"#), Err("mode has an invalid value."));
        assert_eq!(read_first("[]"), Err("the first message is not a JSON object"));
    }
}
