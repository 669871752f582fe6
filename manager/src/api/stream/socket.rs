//! A websocket as the streams use it.

use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use warp::Reply;
use warp::http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use warp::http::{HeaderValue, StatusCode};
use warp::reply::Response;
use warp::ws::{Message, WebSocket};

use super::super::call::{Call, Handshake};
use super::super::problem::Problem;
use super::tunnel::Tunnel;

/// Close code of a socket whose work is done.
pub const NORMAL: u16 = 1000;
/// Close code of a socket that ends because its far end, or the manager, does.
pub const GOING_AWAY: u16 = 1001;
/// Close code when something failed that the client cannot mend.
pub const INTERNAL: u16 = 1011;
/// Close code when the far end does not listen (yet).
pub const TRY_AGAIN: u16 = 1013;

/// How long a client may take to answer the close.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

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
    let Some(Handshake { ws, .. }) = call.upgrade else { return Err(Problem::bad_request()) };
    let limit = call.app.config.manager.max_wsmsg_size;
    let open = call.state.sockets.token();
    let reply =
        ws.max_message_size(limit).max_frame_size(limit).on_upgrade(move |socket| async move {
            let (sink, stream) = socket.split();
            serve(Socket { sink, stream }).await;
            drop(open);
        });
    Ok(reply.into_response())
}

/// As [`upgrade`], for a socket that carries the bytes of a TCP connection.
///
/// # Errors
/// The request is no handshake.
pub fn tunnel<F>(
    call: Call,
    serve: impl FnOnce(Tunnel) -> F + Send + 'static,
) -> Result<Response, Problem>
where
    F: Future<Output = ()> + Send,
{
    let Some(Handshake { switched, .. }) = call.upgrade else {
        return Err(Problem::bad_request());
    };
    let key = call.headers.get(SEC_WEBSOCKET_KEY).ok_or_else(Problem::bad_request)?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let accept = accept.map_err(|_| Problem::bad_request())?;
    call.state.sockets.spawn(async move {
        let parts = switched.await.map(auto::upgrade::downcast::<TokioIo<TcpStream>>);
        match parts {
            Ok(Ok(parts)) => serve(Tunnel::new(parts.io.into_inner(), parts.read_buf)).await,
            Ok(Err(_)) => tracing::error!("a connection that is no TCP socket cannot be a tunnel"),
            Err(error) => tracing::debug!(%error, "a client was gone before its websocket began"),
        }
    });
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
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
