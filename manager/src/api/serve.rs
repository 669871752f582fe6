//! The accept loop: connections in, requests to the router.
//!
//! `warp::serve` has neither deadlines nor limits, so this is our own: a deadline for
//! request headers, a limit on connections, and an end to waiting at shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use backendai_service::Lifecycle;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::{ApiState, dispatch};
use crate::app::SharedApp;

/// How long a client may take to send the head of a request, and so also how long an idle
/// connection is kept. Longer than the client's own keep-alive (15 s).
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once; below the file descriptor limit the unit sets, with room for
/// everything else. More wait in the listener's queue.
const MAX_CONNECTIONS: usize = 10_000;
/// How long requests under way may take to finish at shutdown; below the process's grace.
const DRAIN: Duration = Duration::from_secs(3);
/// Pause after an accept error that is not the connection's (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The other end of a connection, as an extension of each of its requests.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Serves the API until the lifecycle's soft stage begins, then lets requests under way
/// finish. A vital task: its error stops the process.
///
/// # Errors
/// None today: errors of single connections end those.
pub async fn serve(
    app: SharedApp,
    listener: TcpListener,
    lifecycle: Lifecycle,
) -> Result<(), String> {
    let state = Arc::new(ApiState::new(app, lifecycle.stop_token()));
    let service = warp::service(dispatch::filter(Arc::clone(&state)));
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    while let Some((stream, peer, slot)) = accept(&listener, &slots, &lifecycle).await {
        while connections.try_join_next().is_some() {}
        let inner = TowerToHyperService::new(service.clone());
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            hyper::service::Service::call(&inner, request)
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .pipeline_flush(true);
        let watcher = graceful.watcher();
        connections.spawn(async move {
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%peer, %error, "a connection ended early");
            }
            drop(slot);
        });
    }
    drop(listener);
    state.sockets.close();
    let drained = async {
        graceful.shutdown().await;
        state.sockets.wait().await;
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::info!("closing connections that are still in use");
    }
    connections.shutdown().await;
    Ok(())
}

/// The next connection; `None` once the soft stage begins.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    lifecycle: &Lifecycle,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let next = async {
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%peer, %error, "a connection was gone before it was served");
                        continue;
                    }
                    return Some((stream, peer, slot));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        next = next => next,
        () = lifecycle.stopping() => None,
    }
}
