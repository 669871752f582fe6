//! Which manager leads, and the connection to it.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use backendai_rpc::call::{Client, Connection};
use backendai_rpc::manager_api::ManagerClient;
use backendai_rpc::transport::RpcConnector;

/// The manager that leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The manager.
    pub manager_id: String,
    /// Grows with every change of leader.
    pub epoch: u64,
    /// Where it hears agents: `tcp://host:5002`.
    pub event_addr: String,
    /// Its CURVE public key; `None` without encryption.
    pub public_key: Option<String>,
}

/// Knows who leads.
pub trait LeaderDirectory: Send + Sync + 'static {
    /// The leader now and from now on; `None` while nobody leads.
    fn watch(&self) -> watch::Receiver<Option<Leader>>;
}

/// A directory whose owner says who leads: for tests and simulations.
impl LeaderDirectory for watch::Sender<Option<Leader>> {
    fn watch(&self) -> watch::Receiver<Option<Leader>> {
        self.subscribe()
    }
}

/// Makes connections to managers.
pub trait ManagerConnector: Send + Sync + 'static {
    /// A connection to this leader. Returns at once; connecting goes on behind it.
    fn connect(&self, leader: &Leader) -> Arc<dyn Connection>;
}

impl ManagerConnector for RpcConnector {
    fn connect(&self, leader: &Leader) -> Arc<dyn Connection> {
        RpcConnector::connect(self, &leader.event_addr, leader.public_key.as_deref())
    }
}

/// The connection to whoever leads. Cheap to clone.
#[derive(Clone)]
pub struct ManagerLink {
    leader: watch::Receiver<Option<Leader>>,
    connector: Arc<dyn ManagerConnector>,
    made: Arc<Mutex<Option<(Leader, ManagerClient)>>>,
}

impl ManagerLink {
    /// A link that follows `directory`.
    pub fn new(directory: &dyn LeaderDirectory, connector: Arc<dyn ManagerConnector>) -> Self {
        Self { leader: directory.watch(), connector, made: Arc::default() }
    }

    /// A client of the present leader; `None` while nobody leads.
    pub fn client(&self) -> Option<ManagerClient> {
        let leader = self.leader.borrow().clone()?;
        let mut made = self.made.lock();
        match &*made {
            Some((known, client)) if *known == leader => Some(client.clone()),
            _ => {
                tracing::info!(
                    manager_id = leader.manager_id,
                    addr = leader.event_addr,
                    epoch = leader.epoch,
                    "following the leading manager",
                );
                let client = ManagerClient(Client::new(self.connector.connect(&leader)));
                *made = Some((leader, client.clone()));
                Some(client)
            }
        }
    }

    /// The present leader.
    pub fn leader(&self) -> Option<Leader> {
        self.leader.borrow().clone()
    }

    /// Resolves when the leader has changed since this clone of the link last waited.
    /// Cancel-safe.
    pub async fn changed(&mut self) {
        if self.leader.changed().await.is_err() {
            // Nobody will ever say who leads again.
            std::future::pending().await
        }
    }
}
