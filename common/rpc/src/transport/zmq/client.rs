//! The calling side, as tokio sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::inbox::{Inbox, Mailroom};
use super::link::{LinkLoop, ToLinks, Waiting};
use super::{Address, TransportError};
use crate::call::{CallContext, CallError, Connection};
use crate::transport::header::Header;
use crate::transport::{CurveKeypair, MAX_BODY, has_curve, request_too_large};

/// Makes connections to servers and moves their frames, all in one thread. The thread lives
/// as long as the connector or one of its connections; dropping the last does not wait.
pub struct RpcConnector {
    shared: Arc<Shared>,
}

/// Ends the thread with its last owner.
struct Shared {
    inbox: Arc<Inbox<ToLinks>>,
    next_link: AtomicUsize,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // An error means that the thread has ended already.
        let _ended = self.inbox.push(ToLinks::Stop);
    }
}

impl RpcConnector {
    /// A connector that shows `keypair` to servers which check keys. Without one, a new pair
    /// is made for each such server to refuse.
    ///
    /// # Errors
    /// The system refuses a thread or descriptors; libzmq cannot encrypt although keys
    /// are given.
    pub fn new(keypair: Option<CurveKeypair>) -> Result<Self, TransportError> {
        if keypair.is_some() && !has_curve() {
            return Err(TransportError::NoCurve);
        }
        let system = |source| TransportError::System { doing: "start the RPC client", source };
        let mailroom = Mailroom::new().map_err(system)?;
        let inbox = mailroom.inbox();
        std::thread::Builder::new()
            .name("rpc-client".into())
            .spawn(move || LinkLoop::new(keypair, mailroom).run())
            .map_err(system)?;
        Ok(Self { shared: Arc::new(Shared { inbox, next_link: AtomicUsize::new(0) }) })
    }

    /// A connection to the server at `addr` (`tcp://HOST:PORT`, the scheme may be left out),
    /// encrypted when the server's public key is given and refused if it has another one.
    /// Returns at once; the connection is made, and made again, in the background.
    ///
    /// Where there can be no connection at all (a malformed address, or no key for a server
    /// on another host), the reason is logged and every call fails with
    /// [`CallError::Closed`].
    pub fn connect(&self, addr: &str, server_public_key: Option<&str>) -> Arc<dyn Connection> {
        let link = self.shared.next_link.fetch_add(1, Ordering::Relaxed);
        let connection =
            ZmqConnection { shared: Arc::clone(&self.shared), link, next_id: AtomicU64::new(1) };
        match Address::parse(addr) {
            Err(error) => tracing::error!(%error, "cannot connect"),
            Ok(address) if !address.is_local && server_public_key.is_none() => tracing::error!(
                addr,
                "cannot connect: the server is on another host, where RPC must be encrypted, \
                 and its public key is not known"
            ),
            Ok(address) => {
                let server_key = server_public_key.map(str::to_owned);
                // An error means that the thread has failed, which the calls will tell.
                let _ended = self.shared.inbox.push(ToLinks::Open { link, address, server_key });
            }
        }
        Arc::new(connection)
    }
}

/// A connection to one server.
struct ZmqConnection {
    shared: Arc<Shared>,
    link: usize,
    next_id: AtomicU64,
}

impl Drop for ZmqConnection {
    fn drop(&mut self) {
        let _ended = self.shared.inbox.push(ToLinks::Close { link: self.link });
    }
}

#[async_trait]
impl Connection for ZmqConnection {
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
        let (answer, answered) = oneshot::channel();
        let call = ToLinks::Call { link: self.link, call: Waiting { id, header, body, answer } };
        if self.shared.inbox.push(call).is_err() {
            return Err(CallError::Closed);
        }
        let mut interest = Interest { shared: &self.shared, link: self.link, call: Some(id) };
        match tokio::time::timeout(timeout, answered).await {
            Ok(result) => {
                interest.call = None;
                result.unwrap_or(Err(CallError::Closed))
            }
            Err(_) => Err(CallError::Timeout { method, after: timeout }),
        }
    }
}

/// Cancels a call when its caller goes away or runs out of time.
struct Interest<'a> {
    shared: &'a Shared,
    link: usize,
    call: Option<u64>,
}

impl Drop for Interest<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.call {
            let _ended = self.shared.inbox.push(ToLinks::Cancel { link: self.link, id });
        }
    }
}
