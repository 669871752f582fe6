//! Calls inside one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::header::{Header, Kind, decode_error, encode_answer};
use super::{MAX_BODY, reply_too_large, request_too_large};
use crate::call::{CallContext, CallError, Connection, ErrorKind, RemoteError, Service};

/// Calls a service in the same process. Headers and bodies are encoded and decoded as on
/// the wire, and each call runs in a task of its own, which ends with its caller's interest.
pub struct MemoryConnection {
    service: Arc<dyn Service>,
    peer: Option<String>,
    next_id: AtomicU64,
}

impl MemoryConnection {
    /// Calls `service` as `peer`, which is what the service sees in
    /// [`CallContext::peer`]; `None` stands for a caller without a key.
    #[expect(clippy::new_ret_no_self, reason = "every carrier is used as a `dyn Connection`")]
    pub fn new(service: Arc<dyn Service>, peer: Option<String>) -> Arc<dyn Connection> {
        Arc::new(Self { service, peer, next_id: AtomicU64::new(1) })
    }
}

#[async_trait]
impl Connection for MemoryConnection {
    async fn call(
        &self,
        context: &CallContext,
        method: &'static str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        if body.len() > MAX_BODY {
            return Err(request_too_large(method, body.len()).into());
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let header = Header::request(id, context, method, timeout).encode();

        let service = Arc::clone(&self.service);
        let peer = self.peer.clone();
        // A set of one: dropping it aborts the task, which is what cancelling means.
        let mut work: JoinSet<Result<_, CallError>> = JoinSet::new();
        work.spawn(async move {
            let header = Header::decode(&header).map_err(CallError::Malformed)?;
            let result = service.serve(header.context(peer), &header.method, &body).await;
            let result = result.and_then(|reply| match reply.len() {
                bytes if bytes > MAX_BODY => Err(reply_too_large(&header.method, bytes)),
                _ => Ok(reply),
            });
            Ok(encode_answer(header.id, result))
        });
        let (header, body) = match tokio::time::timeout(timeout, work.join_next()).await {
            Err(_) => return Err(CallError::Timeout { method, after: timeout }),
            Ok(None) => return Err(CallError::Closed),
            Ok(Some(Ok(answer))) => answer?,
            Ok(Some(Err(_panicked))) => {
                return Err(RemoteError::new(
                    ErrorKind::Internal,
                    format!("{method} panicked; see the server's log"),
                )
                .into());
            }
        };
        match Header::decode(&header).map_err(CallError::Malformed)?.kind {
            Kind::Reply => Ok(body),
            _ => Err(decode_error(&body)),
        }
    }
}
