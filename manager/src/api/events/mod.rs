//! `/events`: streams of server-sent events.
//!
//! A stream is fed by a task of its own through a short channel: the client's pace is the
//! task's pace. It ends when the client leaves, when the manager stops, or when the
//! task has nothing more to say.

pub mod background_task;
pub mod session;

use std::convert::Infallible;
use std::future::Future;

use futures::StreamExt;
use tokio::sync::mpsc;
use warp::Reply;
use warp::http::header::{CONNECTION, HeaderName, HeaderValue};
use warp::reply::Response;
use warp::sse::Event;

use super::call::Call;
use crate::app::session::events::KEEP_ALIVE;

/// Events that wait for the client: enough to fill a packet.
const QUEUE: usize = 16;

/// Where a stream's task puts its events.
pub struct Sink(mpsc::Sender<Event>);

/// The client has left.
pub struct Gone;

impl Sink {
    /// Sends one event as soon as the client has taken enough of those before.
    pub async fn send(&self, event: Event) -> Result<(), Gone> {
        self.0.send(event).await.map_err(|_| Gone)
    }
}

/// Answers with a stream that `task` feeds.
fn stream<F: Future<Output = Result<(), Gone>> + Send + 'static>(
    call: &Call,
    task: impl FnOnce(Sink) -> F,
) -> Response {
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let stopping = call.state.stopping.clone();
    let left = sender.clone();
    let feeding = task(Sink(sender));
    call.state.sockets.spawn(async move {
        tokio::select! {
            // Gone or done: either way the stream is over.
            _ = feeding => {}
            () = left.closed() => {}
            () = stopping.cancelled() => {}
        }
    });
    let events = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
    let events = events.map(Ok::<_, Infallible>);
    let keep_alive = warp::sse::keep_alive().interval(KEEP_ALIVE).text("ping");
    let mut response = warp::sse::reply(keep_alive.stream(events)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    // Proxies shall hand events on at once.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}
