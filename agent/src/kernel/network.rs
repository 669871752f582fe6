//! Networks that the kernels of a session share.
//!
//! That of a single-node cluster is made by the agent with its first kernel and removed
//! with its last. That of a multi-node cluster is made and removed when the manager says
//! so, since no agent knows when the last kernel elsewhere ends; kernels only join it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use backendai_rpc::agent_api::{SessionNetwork, SessionSpec};
use backendai_types::{ClusterMode, KernelId, SessionId};

use crate::backend::{BackendError, NetworkReach, NetworkSpec, labels};
use crate::core::{Core, chain};

/// Begins the names of networks that live and die with kernels of one agent.
const SINGLE_NODE: &str = "bai-singlenode-";
/// Begins the names of networks that managers order.
const MULTI_NODE: &str = "bai-multinode-";

/// The network of a session's kernels; `None` for a kernel alone.
pub fn name(session: &SessionSpec) -> Option<String> {
    let prefix = match session.cluster_mode {
        _ if session.hosts.len() < 2 => return None,
        ClusterMode::SingleNode => SINGLE_NODE,
        ClusterMode::MultiNode => MULTI_NODE,
    };
    Some(format!("{prefix}{}", session.session_id))
}

/// The networks of single-node clusters with the kernels that need them, and the networks
/// that managers ordered.
#[derive(Default)]
pub struct ClusterNetworks {
    by_name: Mutex<HashMap<String, Arc<Members>>>,
    ordered: Mutex<BTreeSet<SessionId>>,
}

/// Locked while the engine makes or removes the network.
type Members = tokio::sync::Mutex<HashSet<KernelId>>;

impl ClusterNetworks {
    /// Notes that a kernel which is there already needs its network.
    pub async fn take_up(&self, name: &str, kernel: KernelId) {
        if name.starts_with(SINGLE_NODE) {
            self.members(name).lock().await.insert(kernel);
        }
    }

    /// Makes the network if no kernel has needed it yet.
    ///
    /// # Errors
    /// The engine cannot make it.
    pub async fn join(
        &self,
        core: &Core,
        name: &str,
        session: SessionId,
        kernel: KernelId,
    ) -> Result<(), BackendError> {
        if !name.starts_with(SINGLE_NODE) {
            return Ok(());
        }
        let members = self.members(name);
        let mut members = members.lock().await;
        members.insert(kernel);
        core.backend.create_network(&definition(core, name, session, NetworkReach::Host)).await
    }

    /// Removes the network if no kernel needs it any more. Should that fail, it is a stray,
    /// which is removed when networks are looked at the next time.
    pub async fn leave(&self, core: &Core, name: &str, kernel: KernelId) {
        if !name.starts_with(SINGLE_NODE) {
            return;
        }
        let members = self.members(name);
        {
            let mut members = members.lock().await;
            members.remove(&kernel);
            if members.is_empty() {
                let removed = core.backend.remove_network(name).await;
                core.note_engine(&removed);
                if let Err(error) = removed {
                    tracing::warn!(network = name, "remove a network: {}", chain(&error));
                }
            }
        }
        self.forget_unused(name, members);
    }

    /// Compares the networks of this agent that the engine has with what is known: those
    /// that managers ordered are remembered, others that no kernel needs are removed.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn compare(&self, core: &Core, names: &[String]) -> Result<(), BackendError> {
        let ordered = names
            .iter()
            .filter_map(|name| name.strip_prefix(MULTI_NODE)?.parse::<SessionId>().ok());
        self.ordered.lock().extend(ordered);
        for name in names.iter().filter(|name| name.starts_with(SINGLE_NODE)) {
            let members = self.members(name);
            {
                let members = members.lock().await;
                if members.is_empty() {
                    tracing::warn!(network = name, "removing a network that no kernel needs");
                    core.backend.remove_network(name).await?;
                }
            }
            self.forget_unused(name, members);
        }
        Ok(())
    }

    /// Makes the network of a multi-node session.
    ///
    /// # Errors
    /// The engine cannot make it, or is no manager of a swarm.
    pub async fn order(&self, core: &Core, network: SessionNetwork) -> Result<(), BackendError> {
        let SessionNetwork { session_id, mtu } = network;
        let name = format!("{MULTI_NODE}{session_id}");
        let reach = NetworkReach::Swarm { mtu };
        core.backend.create_network(&definition(core, &name, session_id, reach)).await?;
        self.ordered.lock().insert(session_id);
        Ok(())
    }

    /// Removes the network of a multi-node session, if this agent made one.
    ///
    /// # Errors
    /// The engine cannot remove it, for instance while a kernel is in it.
    pub async fn cancel(&self, core: &Core, session: SessionId) -> Result<(), BackendError> {
        core.backend.remove_network(&format!("{MULTI_NODE}{session}")).await?;
        self.ordered.lock().remove(&session);
        Ok(())
    }

    /// Sessions for which this agent has made a network of several hosts.
    pub fn ordered(&self) -> Vec<SessionId> {
        self.ordered.lock().iter().copied().collect()
    }

    fn members(&self, name: &str) -> Arc<Members> {
        Arc::clone(self.by_name.lock().entry(name.to_owned()).or_default())
    }

    /// Forgets a network that nobody else is about. Whoever waits for the lock holds a
    /// reference, and references are given out under the lock that is held here.
    fn forget_unused(&self, name: &str, members: Arc<Members>) {
        let mut by_name = self.by_name.lock();
        let is_empty = members.try_lock().is_ok_and(|members| members.is_empty());
        if is_empty && Arc::strong_count(&members) == 2 {
            by_name.remove(name);
        }
    }
}

/// What the engine is told of a network.
fn definition(core: &Core, name: &str, session: SessionId, reach: NetworkReach) -> NetworkSpec {
    let labels = BTreeMap::from([
        (labels::CLUSTER_NETWORK.to_owned(), "1".to_owned()),
        (labels::OWNER.to_owned(), core.agent_id.to_string()),
        (labels::SESSION_ID.to_owned(), session.to_string()),
    ]);
    NetworkSpec { name: name.to_owned(), labels, reach }
}
