//! The serving side.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::inbox::{Inbox, Mailroom};
use super::server_loop::{ServerLoop, ToServer};
use super::{Address, context, set_common_options};
use crate::call::Service;
use crate::transport::{CurveKeypair, PeerDirectory, TransportError, has_curve};

/// Requests and replies queued in libzmq per client. Replies beyond are dropped: such a
/// client has stopped reading long ago.
const QUEUE_LEN: i32 = 4096;
/// How often binding is tried while the address is in use, and how long in between: a
/// socket closed a moment ago, here or in a process just ended, still holds its port.
const BIND_ATTEMPTS: u32 = 20;
const BIND_PAUSE: Duration = Duration::from_millis(25);

/// How a server listens.
#[derive(Clone)]
pub struct RpcServerOptions {
    /// `tcp://HOST:PORT` with a numeric host, a port of 0 or `*` meaning any free one;
    /// `ipc://PATH`; `inproc://NAME`.
    pub bind: String,
    /// The server's own keys and who may call. Without, anybody may, so that only loopback
    /// addresses, `ipc` and `inproc` are accepted.
    pub security: Option<(CurveKeypair, Arc<dyn PeerDirectory>)>,
    /// Calls carried out at once; more are refused with an error that invites to try again.
    pub max_in_flight: usize,
}

impl Default for RpcServerOptions {
    /// Any free port of the loopback interface, unencrypted, 4096 calls.
    fn default() -> Self {
        Self { bind: "tcp://127.0.0.1:*".into(), security: None, max_in_flight: 4096 }
    }
}

/// A server that answers calls until it is shut down or dropped. Dropping aborts the calls
/// in flight and does not wait.
pub struct RpcServer {
    endpoint: String,
    inbox: Arc<Inbox<ToServer>>,
    tasks: TaskTracker,
    ended: oneshot::Receiver<()>,
}

impl RpcServer {
    /// Starts to listen, and to answer calls in tasks of the current tokio runtime.
    ///
    /// Waits up to half a second while the address is in use.
    ///
    /// # Errors
    /// See [`TransportError`].
    pub fn bind(
        options: RpcServerOptions,
        service: Arc<dyn Service>,
    ) -> Result<Self, TransportError> {
        let runtime =
            tokio::runtime::Handle::try_current().map_err(|_| TransportError::NoRuntime)?;
        let address = Address::parse(&options.bind)?;
        if options.security.is_none() && !address.is_local {
            return Err(TransportError::PlainNotLoopback { address: options.bind });
        }
        if options.security.is_some() && !has_curve() {
            return Err(TransportError::NoCurve);
        }
        let system = |source| TransportError::System { doing: "start an RPC server", source };

        let (context, socket) = context::socket(zmq::ROUTER)?;
        set_server_options(&socket, &address, options.security.as_ref().map(|(keys, _)| keys))
            .map_err(|source| TransportError::Zmq { doing: "configure an RPC server", source })?;
        let directory = options.security.map(|(_, directory)| directory);
        let domain = match &directory {
            Some(directory) => Some(context.add_directory(Arc::clone(directory))?),
            None => None,
        };
        if let Some(domain) = &domain {
            socket.set_zap_domain(&domain.domain).map_err(|source| TransportError::Zmq {
                doing: "configure an RPC server",
                source,
            })?;
        }
        let mailroom = Mailroom::new().map_err(system)?;
        mailroom.watch(&socket, 0).map_err(system)?;
        bind_socket(&socket, &address, &options.bind)?;
        let endpoint = match socket.get_last_endpoint() {
            Ok(Ok(endpoint)) => endpoint,
            Ok(Err(_)) | Err(_) => address.text,
        };

        let inbox = mailroom.inbox();
        let tasks = TaskTracker::new();
        let (end, ended) = oneshot::channel();
        let server = ServerLoop::new(
            socket,
            endpoint.clone(),
            directory,
            service,
            options.max_in_flight,
            runtime,
            tasks.clone(),
            mailroom.inbox(),
        );
        std::thread::Builder::new()
            .name("rpc-server".into())
            .spawn(move || {
                server.run(mailroom);
                // In this order: no new handshakes, then the context, which may be the
                // last reference and then flushes what was sent.
                drop(domain);
                drop(context);
                // Nobody waits after a mere drop of the server.
                let _nobody_waits = end.send(());
            })
            .map_err(system)?;
        tracing::info!(%endpoint, "RPC server listens");
        Ok(Self { endpoint, inbox, tasks, ended })
    }

    /// Where the server listens, with the real port.
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// Refuses new calls, lets those in flight finish for at most `grace`, aborts the rest,
    /// sends what is to be sent, and stops to listen.
    pub async fn shutdown(mut self, grace: Duration) {
        // An error means that the thread has ended: then there is nothing to wait for.
        let _ended = self.inbox.push(ToServer::Drain);
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(calls = self.tasks.len(), "RPC calls are aborted by the shutdown");
        }
        let _ended = self.inbox.push(ToServer::Stop { flush: true });
        // The sender only goes away with the thread.
        let _ended = (&mut self.ended).await;
    }
}

impl Drop for RpcServer {
    fn drop(&mut self) {
        // An error means that the thread has ended, which is what is wanted.
        let _ended = self.inbox.push(ToServer::Stop { flush: false });
    }
}

fn set_server_options(
    socket: &zmq::Socket,
    address: &Address,
    keys: Option<&CurveKeypair>,
) -> zmq::Result<()> {
    set_common_options(socket, address)?;
    socket.set_sndhwm(QUEUE_LEN)?;
    socket.set_rcvhwm(QUEUE_LEN)?;
    // Says when a reply cannot be delivered, instead of dropping it silently.
    socket.set_router_mandatory(true)?;
    if let Some(keys) = keys {
        socket.set_curve_server(true)?;
        socket.set_curve_secretkey(keys.secret_key().as_bytes())?;
    }
    Ok(())
}

fn bind_socket(socket: &zmq::Socket, address: &Address, given: &str) -> Result<(), TransportError> {
    let mut attempt = 1;
    loop {
        match socket.bind(&address.text) {
            Ok(()) => return Ok(()),
            Err(zmq::Error::EADDRINUSE) if attempt < BIND_ATTEMPTS => {}
            Err(source) => return Err(TransportError::Bind { address: given.into(), source }),
        }
        attempt += 1;
        #[expect(clippy::disallowed_methods, reason = "a short wait, at start alone")]
        std::thread::sleep(BIND_PAUSE);
    }
}
