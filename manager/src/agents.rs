//! Clients of the agents, one connection for each.
//!
//! Whoever calls an agent has just read the row that says where it is, so the pool keeps no
//! addresses of its own to go stale: it hands out the connection that fits, and replaces it
//! when address or key have changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;

pub use backendai_datastore::kernel::AgentAddr;
use backendai_rpc::agent_api::AgentClient;
use backendai_rpc::call::{CallContext, CallError, Client, Connection};
use backendai_rpc::transport::RpcConnector;
use backendai_types::AgentId;
use parking_lot::Mutex;

use crate::metrics;

/// Makes connections to agents: over ZeroMQ, or within the process for tests.
pub trait AgentTransport: Send + Sync + 'static {
    /// A connection to the agent. Returns at once; connecting goes on in the background.
    fn connect(&self, agent: &AgentAddr) -> Arc<dyn Connection>;
}

impl AgentTransport for RpcConnector {
    fn connect(&self, agent: &AgentAddr) -> Arc<dyn Connection> {
        RpcConnector::connect(self, &agent.addr, agent.public_key.as_deref())
    }
}

/// Counts the calls over a connection.
struct Counted(Arc<dyn Connection>);

#[async_trait]
impl Connection for Counted {
    async fn call(
        &self,
        context: &CallContext,
        method: &'static str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let begun = Instant::now();
        let result = self.0.call(context, method, body, timeout).await;
        metrics::agent_call(method, &result, begun.elapsed());
        result
    }
}

/// Clients of the agents. Cheap to clone.
#[derive(Clone)]
pub struct AgentPool {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Box<dyn AgentTransport>,
    /// Each with the address it was made for.
    connections: Mutex<HashMap<AgentId, Line>>,
    epoch: AtomicU64,
}

type Line = (AgentAddr, Arc<dyn Connection>);

impl AgentPool {
    /// A pool without connections.
    pub fn new(transport: impl AgentTransport) -> Self {
        Self {
            inner: Arc::new(Inner {
                transport: Box::new(transport),
                connections: Mutex::default(),
                epoch: AtomicU64::new(0),
            }),
        }
    }

    /// The epoch that calls carry from now on.
    pub fn set_epoch(&self, epoch: u64) {
        self.inner.epoch.store(epoch, Ordering::Relaxed);
    }

    /// A client of one agent, for calls that serve the API request `request_id`, if any.
    pub fn client(&self, agent: &AgentAddr, request_id: Option<&str>) -> AgentClient {
        let connection = {
            let mut connections = self.inner.connections.lock();
            match connections.get(&agent.id) {
                Some((addr, connection)) if addr == agent => Arc::clone(connection),
                _ => {
                    let connection = self.inner.transport.connect(agent);
                    let connection: Arc<dyn Connection> = Arc::new(Counted(connection));
                    let entry = (agent.clone(), Arc::clone(&connection));
                    connections.insert(agent.id.clone(), entry);
                    connection
                }
            }
        };
        AgentClient(Client::new(connection)).with_context(CallContext {
            epoch: self.inner.epoch.load(Ordering::Relaxed),
            request_id: request_id.map(str::to_owned),
            peer: None,
        })
    }

    /// Closes the connection to an agent that is gone for good.
    pub fn forget(&self, agent: &AgentId) {
        self.inner.connections.lock().remove(agent);
    }
}
