//! A websocket as the streams use it.

use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use warp::Reply;
use warp::reply::Response;
use warp::ws::{Message, WebSocket};

use super::super::call::Call;
use super::super::problem::Problem;

/// Close code of a socket whose work is done.
pub const NORMAL: u16 = 1000;
/// Close code of a socket that ends because its far end, or the manager, does.
pub const GOING_AWAY: u16 = 1001;
/// Close code when something failed that the client cannot mend.
pub const INTERNAL: u16 = 1011;
/// Close code when the far end does not listen (yet).
pub const TRY_AGAIN: u16 = 1013;

/// How long a client may take to answer the close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Both halves of a websocket.
pub struct Socket {
    /// What the client is sent.
    pub sink: SplitSink<WebSocket, Message>,
    /// What it sends.
    pub stream: SplitStream<WebSocket>,
}

/// Answers the handshake, and gives the open socket to `serve`. The manager's shutdown waits
/// for it to return.
///
/// # Errors
/// The request is no handshake.
pub fn upgrade<F>(
    call: Call,
    serve: impl FnOnce(Socket) -> F + Send + 'static,
) -> Result<Response, Problem>
where
    F: Future<Output = ()> + Send,
{
    let Some(upgrade) = call.upgrade else { return Err(Problem::bad_request()) };
    let limit = call.app.config.manager.max_wsmsg_size;
    let open = call.state.sockets.token();
    let reply = upgrade.max_message_size(limit).max_frame_size(limit).on_upgrade(
        move |socket| async move {
            let (sink, stream) = socket.split();
            serve(Socket { sink, stream }).await;
            drop(open);
        },
    );
    Ok(reply.into_response())
}

impl Socket {
    /// Says goodbye and waits a moment for the answer, so that the client sees a clean close.
    pub async fn close(&mut self, code: u16, reason: &str) {
        if self.sink.send(Message::close_with(code, reason.to_owned())).await.is_err() {
            return;
        }
        let answered = async { while !is_end(self.stream.next().await.as_ref()) {} };
        if tokio::time::timeout(CLOSE_TIMEOUT, answered).await.is_err() {
            tracing::debug!("a client did not answer the close of its websocket");
        }
    }
}

/// True when the client is gone or says goodbye.
pub fn is_end(message: Option<&Result<Message, warp::Error>>) -> bool {
    match message {
        None | Some(Err(_)) => true,
        Some(Ok(message)) => message.is_close(),
    }
}
