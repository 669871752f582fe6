//! `/stream/session/{name}/pty`: one viewer of the session's terminal.
//!
//! The terminal lives in the container and outlives viewers, agents and managers. Its bytes
//! are numbered, so that a viewer who comes back may ask for what it has not seen
//! (`?from=`), and one whose agent restarts is joined again here without noticing. The
//! `offset` of each output frame is the number of its first byte.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use backendai_rpc::agent_api::StreamTarget;
use backendai_rpc::runner::terminal::{MAX_INPUT, TerminalCodec, TerminalInput};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::codec::Encoder;
use warp::reply::Response;
use warp::ws::Message;

use super::super::ApiState;
use super::super::call::Call;
use super::super::params::rules;
use super::super::problem::Problem;
use super::socket::{self, GOING_AWAY, INTERNAL, NORMAL, Socket, is_end};
use crate::app::SharedApp;
use crate::app::session::execute::{self as run_code, RunningKernel};
use crate::app::session::restart::restart;
use crate::app::session::stream::{is_ended, is_gone};
use crate::context::RequestContext;

/// Bytes of output read at once.
const READ_SIZE: usize = 64 << 10;
/// How long the way to the terminal may be broken: an agent that restarts is back sooner.
const AWAY_LIMIT: Duration = Duration::from_secs(60);
/// Between attempts to reach the terminal; then doubling.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// `GET /stream/session/{name}/pty`
pub async fn pty(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let from = params.optional(&["from"], None, rules::null_or(rules::int_within(0, i64::MAX)));
    params.finish_ignoring_others()?;
    let kernel = run_code::open(&call.app, &context, call.segment(0)).await?;
    let (app, state) = (call.app.clone(), Arc::clone(&call.state));
    let next = from.and_then(|from| u64::try_from(from).ok());
    socket::upgrade(call, async move |socket| {
        let mut viewer = Viewer { socket, app, context, kernel, state, next };
        let (code, reason) = viewer.watch().await;
        viewer.socket.close(code, &reason).await;
    })
}

struct Viewer {
    socket: Socket,
    app: SharedApp,
    context: Arc<RequestContext>,
    kernel: RunningKernel,
    state: Arc<ApiState>,
    /// Number of the first byte that the client has not been sent; `None` before the first.
    next: Option<u64>,
}

/// What a client sends.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Request {
    Stdin {
        chars: String,
    },
    Resize {
        rows: u16,
        cols: u16,
    },
    Ping,
    Restart,
    #[serde(other)]
    Unknown,
}

/// Why a viewer ends: close code and reason.
type End = (u16, String);

/// Why a stream is left.
enum Left {
    /// It broke off, or the terminal has ended: the next attempt to join it tells.
    BrokeOff,
    /// The client wants the session to be restarted.
    Restart,
    /// The viewer ends.
    End(End),
}

impl Viewer {
    /// Shows the terminal until it, the client or the manager ends.
    async fn watch(&mut self) -> End {
        let mut away_since: Option<Instant> = None;
        let mut retry = FIRST_RETRY;
        loop {
            match self.kernel.open_stream(StreamTarget::Terminal { from: self.next }).await {
                Ok(stream) => {
                    (away_since, retry) = (None, FIRST_RETRY);
                    match self.carry(stream).await {
                        Left::BrokeOff => {}
                        Left::Restart => {
                            let id = self.kernel.session_id.to_string();
                            if let Err(error) = restart(&self.app, &self.context, &id, None).await {
                                return (INTERNAL, Problem::from(error).summary());
                            }
                            // The terminal of the new container counts anew.
                            self.next = None;
                        }
                        Left::End(end) => return end,
                    }
                    continue;
                }
                Err(error) if is_ended(&error) => {
                    return (NORMAL, "the terminal has ended".to_owned());
                }
                Err(error) if is_gone(&error) => {
                    return (GOING_AWAY, "the session has ended".to_owned());
                }
                Err(error) => {
                    let since = *away_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > AWAY_LIMIT {
                        let cause = backendai_service::telemetry::chain(&error);
                        tracing::warn!(session.id = %self.kernel.session_id, "a terminal was not reached: {cause}");
                        return (INTERNAL, "the terminal was not reached".to_owned());
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(retry) => retry = (retry * 2).min(LAST_RETRY),
                () = self.state.stopping.cancelled() => return stopping(),
            }
        }
    }

    /// Carries one stream.
    async fn carry(&mut self, mut stream: TcpStream) -> Left {
        let Ok(first) = stream.read_u64().await else { return Left::BrokeOff };
        let next = self.next.insert(first);
        let (mut reader, mut writer) = stream.split();
        let Socket { sink, stream: frames } = &mut self.socket;
        let outward = async {
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(READ_SIZE);
                match reader.read_buf(&mut buffer).await {
                    Ok(0) | Err(_) => return Left::BrokeOff,
                    Ok(_) => {}
                }
                let bytes = buffer.split();
                let frame =
                    json!({ "type": "out", "data": BASE64.encode(&bytes), "offset": *next });
                if sink.send(Message::text(frame.to_string())).await.is_err() {
                    return Left::End((NORMAL, String::new()));
                }
                *next += bytes.len() as u64;
            }
        };
        let inward = async {
            loop {
                let message = frames.next().await;
                if is_end(message.as_ref()) {
                    return Left::End((NORMAL, String::new()));
                }
                // Pings are answered below us; binary frames mean nothing here.
                let Some(Ok(message)) = message else { continue };
                let Ok(text) = message.to_str() else { continue };
                let Ok(request) = serde_json::from_str(text) else {
                    return Left::End((NORMAL, "the message is not understood".to_owned()));
                };
                if matches!(request, Request::Restart) {
                    return Left::Restart;
                }
                match handle(request, &mut writer).await {
                    Ok(None) => {}
                    Ok(Some(end)) => return Left::End(end),
                    Err(_) => return Left::BrokeOff,
                }
            }
        };
        tokio::select! {
            end = outward => end,
            end = inward => end,
            () = self.state.stopping.cancelled() => Left::End(stopping()),
        }
    }
}

/// Does what the client wants; an end if that is impossible.
async fn handle(
    request: Request,
    writer: &mut (impl AsyncWriteExt + Unpin),
) -> io::Result<Option<End>> {
    let mut out = BytesMut::new();
    match request {
        Request::Stdin { chars } => {
            let Ok(typed) = BASE64.decode(chars.as_bytes()) else {
                return Ok(Some((NORMAL, "chars is not base64".to_owned())));
            };
            let mut typed = Bytes::from(typed);
            while !typed.is_empty() {
                let piece = typed.split_to(typed.len().min(MAX_INPUT));
                encode(TerminalInput::Input(piece), &mut out)?;
            }
        }
        Request::Resize { rows, cols } => encode(TerminalInput::Resize { rows, cols }, &mut out)?,
        Request::Ping | Request::Restart | Request::Unknown => {}
    }
    writer.write_all(&out).await?;
    Ok(None)
}

fn encode(input: TerminalInput, out: &mut BytesMut) -> io::Result<()> {
    TerminalCodec.encode(input, out).map_err(io::Error::other)
}

fn stopping() -> End {
    (GOING_AWAY, "the manager is stopping".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_messages_are_ignored_and_malformed_ones_are_not() {
        let read = |text: &str| serde_json::from_str::<Request>(text);
        assert!(matches!(read(r#"{"type": "ping"}"#), Ok(Request::Ping)));
        assert!(matches!(read(r#"{"type": "dance"}"#), Ok(Request::Unknown)));
        assert!(matches!(
            read(r#"{"type": "resize", "rows": 24, "cols": 80}"#),
            Ok(Request::Resize { rows: 24, cols: 80 })
        ));
        assert!(read(r#"{"type": "stdin"}"#).is_err());
        assert!(read("{").is_err());
    }
}
