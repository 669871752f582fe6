//! A small HTTP server beside a daemon's real interface: metrics for operators, metadata for
//! containers, and the whole of the watcher.
//!
//! It bounds the time and number of its callers, and what they may send. [`serve`] answers GET
//! with pages of text and nothing else; [`serve_requests`] leaves everything to its answerer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
pub use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
pub use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Lifecycle;

/// Connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 256;
/// How long a caller may take to send the head of a request, and be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an accept error that is not the connection's (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A question.
#[derive(Clone, Debug)]
pub struct Get {
    /// The path, as it was sent.
    pub path: String,
    /// Who asks.
    pub peer: SocketAddr,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The status.
    pub status: StatusCode,
    /// What the text is.
    pub content_type: &'static str,
    /// The text.
    pub text: String,
}

impl Page {
    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        let content_type = "text/plain; charset=utf-8";
        Self { status: StatusCode::OK, content_type, text: text.into() }
    }

    /// A status with its own words.
    pub fn status(status: StatusCode) -> Self {
        let text = status.canonical_reason().unwrap_or_default();
        Self { status, ..Self::text(format!("{text}\n")) }
    }
}

/// Answers GET with pages until the soft stage begins.
pub async fn serve<A, F>(listener: TcpListener, lifecycle: Lifecycle, answer: A)
where
    A: Fn(Get) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Page> + Send,
{
    serve_requests(listener, lifecycle, move |request, peer| {
        let answer = answer.clone();
        async move { respond(request, peer, answer).await }
    })
    .await;
}

/// Answers requests until the soft stage begins.
pub async fn serve_requests<A, F>(listener: TcpListener, lifecycle: Lifecycle, answer: A)
where
    A: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<String>> + Send,
{
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = lifecycle.stopping() => return,
        };
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let answer = answer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer.clone();
            async move { Ok::<_, Infallible>(answer(request, peer).await) }
        });
        connections.spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "a connection ended early");
            }
            drop(slot);
        });
    }
}

/// A body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is longer than it may be.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    /// It did not come in time.
    #[error("the body did not arrive in time")]
    Late,
    /// The connection broke.
    #[error("read the body")]
    Broken(#[source] hyper::Error),
}

/// A whole body of at most `limit` bytes.
///
/// # Errors
/// It is longer, late, or the connection broke.
pub async fn read_body(body: Incoming, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = std::pin::pin!(body);
    let mut bytes = Vec::new();
    let read = async {
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            if let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() {
                if bytes.len() + data.len() > limit {
                    return Err(BodyError::TooLong(limit));
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(())
    };
    tokio::time::timeout(HEADER_TIMEOUT, read).await.map_err(|_| BodyError::Late)??;
    Ok(bytes)
}

async fn respond<A, F>(request: Request<Incoming>, peer: SocketAddr, answer: A) -> Response<String>
where
    A: Fn(Get) -> F,
    F: Future<Output = Page>,
{
    let page = match *request.method() {
        Method::GET => answer(Get { path: request.uri().path().to_owned(), peer }).await,
        _ => Page::status(StatusCode::METHOD_NOT_ALLOWED),
    };
    let mut response = Response::new(page.text);
    *response.status_mut() = page.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    response
}
