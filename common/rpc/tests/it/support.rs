//! A service to call, and the ways to reach it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backendai_rpc::call::{
    CallContext, Client, Connection, ErrorKind, RemoteError, Service, decode, encode,
};
use backendai_rpc::transport::{
    CurveKeypair, MAX_BODY, MemoryConnection, PeerDirectory, RpcConnector, RpcServer,
    RpcServerOptions,
};
use tokio::sync::{Semaphore, watch};

/// Long enough for a loaded machine: no test waits for it when things are right.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A service whose calls tests can hold and watch.
pub struct Probe {
    /// Calls begun, of any method.
    pub started: watch::Sender<usize>,
    /// Calls of `hold` that ended in any way.
    pub ended: watch::Sender<usize>,
    /// Calls of `hold` that were dropped before their end.
    pub aborted: watch::Sender<usize>,
    /// Lets calls of `hold` finish, one per permit.
    pub release: Semaphore,
    /// Who may finish next in `countdown`.
    pub next: watch::Sender<u64>,
    /// Contexts of the calls of `context`.
    pub contexts: parking_lot::Mutex<Vec<CallContext>>,
    /// Bodies seen by `echo`.
    pub echoed: AtomicUsize,
}

impl Probe {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            started: watch::Sender::new(0),
            ended: watch::Sender::new(0),
            aborted: watch::Sender::new(0),
            release: Semaphore::new(0),
            next: watch::Sender::new(0),
            contexts: parking_lot::Mutex::default(),
            echoed: AtomicUsize::new(0),
        })
    }
}

struct Hold<'a>(&'a Probe, bool);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.aborted.send_modify(|count| *count += 1);
        }
        self.0.ended.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Service for Probe {
    async fn serve(
        &self,
        context: CallContext,
        method: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, RemoteError> {
        self.started.send_modify(|count| *count += 1);
        match method {
            "echo" => {
                self.echoed.fetch_add(1, Ordering::SeqCst);
                Ok(body.to_vec())
            }
            "context" => {
                self.contexts.lock().push(context.clone());
                Ok(encode(&context.peer))
            }
            "hold" => {
                let mut hold = Hold(self, false);
                self.release.acquire().await.expect("it is never closed").forget();
                hold.1 = true;
                Ok(encode(&()))
            }
            "countdown" => {
                let mine: u64 = decode(body).expect("tests send numbers");
                let mut next = self.next.subscribe();
                next.wait_for(|next| *next == mine).await.expect("the probe lives");
                self.next.send_modify(|next| *next = next.wrapping_sub(1));
                Ok(encode(&mine))
            }
            "huge" => Ok(vec![0; MAX_BODY + 1]),
            "panic" => panic!("as asked"),
            other => Err(RemoteError::new(ErrorKind::UnknownMethod, other)),
        }
    }
}

/// Waits until a counter has reached a value.
pub async fn reached(counter: &watch::Sender<usize>, value: usize) {
    let mut counter = counter.subscribe();
    tokio::time::timeout(PATIENCE, counter.wait_for(|count| *count >= value))
        .await
        .expect("the counter should get there")
        .expect("the probe lives");
}

/// A way to reach a service, with what must be kept alive for it.
pub struct Reach {
    pub name: &'static str,
    pub client: Client,
    pub server: Option<RpcServer>,
    _connector: Option<RpcConnector>,
}

/// The name that clients with keys have in these tests.
pub const PEER: &str = "manager-1";

/// A service over every carrier.
pub fn every_carrier(service: &Arc<dyn Service>) -> Vec<Reach> {
    let memory = MemoryConnection::new(Arc::clone(service), Some(PEER.into()));
    let memory =
        Reach { name: "memory", client: Client::new(memory), server: None, _connector: None };
    vec![memory, over_plain(service, "tcp://127.0.0.1:*"), over_curve(service)]
}

/// A service over ZeroMQ without keys.
pub fn over_plain(service: &Arc<dyn Service>, bind: &str) -> Reach {
    let server = plain_server(service, bind);
    let connector = RpcConnector::new(None).expect("a client starts");
    let client = Client::new(connector.connect(&server.endpoint(), None));
    Reach { name: "plain", client, server: Some(server), _connector: Some(connector) }
}

/// A service over ZeroMQ with CURVE.
pub fn over_curve(service: &Arc<dyn Service>) -> Reach {
    let (server_keys, client_keys) = (CurveKeypair::generate(), CurveKeypair::generate());
    let public_key = server_keys.public_key.clone();
    let directory = HashMap::from([(client_keys.public_key.clone(), PEER.to_owned())]);
    let server = curve_server(service, server_keys, Arc::new(directory));
    let connector = RpcConnector::new(Some(client_keys)).expect("a client starts");
    let client = Client::new(connector.connect(&server.endpoint(), Some(&public_key)));
    Reach { name: "curve", client, server: Some(server), _connector: Some(connector) }
}

pub fn plain_server(service: &Arc<dyn Service>, bind: &str) -> RpcServer {
    let options = RpcServerOptions { bind: bind.into(), ..RpcServerOptions::default() };
    RpcServer::bind(options, Arc::clone(service)).expect("a server starts")
}

pub fn curve_server(
    service: &Arc<dyn Service>,
    keys: CurveKeypair,
    directory: Arc<dyn PeerDirectory>,
) -> RpcServer {
    let options =
        RpcServerOptions { security: Some((keys, directory)), ..RpcServerOptions::default() };
    RpcServer::bind(options, Arc::clone(service)).expect("a server starts")
}

pub fn connect(server: &RpcServer) -> (Client, RpcConnector) {
    let connector = RpcConnector::new(None).expect("a client starts");
    let connection: Arc<dyn Connection> = connector.connect(&server.endpoint(), None);
    (Client::new(connection), connector)
}

/// A task of its own, ended by the test's runtime at the latest.
#[expect(clippy::disallowed_methods, reason = "tests abort or await every task")]
pub fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}
