//! Which keys belong to agents.
//!
//! Every agent writes its public key to etcd, which only the cluster's hosts can write; a
//! caller whose key is not there is refused before it can say anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use backendai_rpc::transport::PeerDirectory;
use backendai_service::Lifecycle;
use backendai_service::etcd::{Change, Etcd, EtcdError};
use backendai_service::telemetry::chain;

/// Prefix of what agents say of themselves.
const PREFIX: &str = "nodes/agents/";
/// Pause before a broken watch is taken up again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Agents by public key, as etcd has them. The last known ones stay while etcd is away.
#[derive(Clone, Default)]
pub struct AgentKeys {
    by_agent: Arc<RwLock<HashMap<String, String>>>,
    by_key: Arc<RwLock<HashMap<String, String>>>,
}

impl AgentKeys {
    /// Follows etcd until the lifecycle stops.
    pub fn follow(etcd: Etcd, lifecycle: &Lifecycle) -> Self {
        let keys = Self::default();
        let follower = keys.clone();
        let stopping = lifecycle.clone();
        lifecycle.spawn("agent_keys", async move {
            while !stopping.is_stopping() {
                tokio::select! {
                    result = follower.follow_once(&etcd) => if let Err(error) = result {
                        tracing::debug!("the watch of agents' keys broke: {}", chain(&error));
                    },
                    () = stopping.stopping() => return,
                }
                stopping.sleep(RETRY_PAUSE).await;
            }
        });
        keys
    }

    async fn follow_once(&self, etcd: &Etcd) -> Result<(), EtcdError> {
        let (pairs, revision) = etcd.get_prefix_at(PREFIX).await?;
        let known = pairs.into_iter().map(|(key, value)| Change { key, value: Some(value) });
        self.by_agent.write().clear();
        self.by_key.write().clear();
        known.for_each(|change| self.apply(change));
        let keys = self.clone();
        etcd.watch_prefix(PREFIX, revision, move |change| keys.apply(change)).await?;
        Ok(())
    }

    fn apply(&self, change: Change) {
        let Some(agent) =
            change.key.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix("/public_key"))
        else {
            return;
        };
        let mut by_agent = self.by_agent.write();
        let mut by_key = self.by_key.write();
        let old = match change.value {
            Some(key) => {
                by_key.insert(key.clone(), agent.to_owned());
                by_agent.insert(agent.to_owned(), key.clone()).filter(|old| *old != key)
            }
            None => by_agent.remove(agent),
        };
        if let Some(old) = old {
            by_key.remove(&old);
        }
    }
}

impl PeerDirectory for AgentKeys {
    fn peer_of(&self, public_key: &str) -> Option<String> {
        self.by_key.read().get(public_key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_key_replaces_the_old_one() {
        let keys = AgentKeys::default();
        let put = |agent: &str, key: Option<&str>| {
            keys.apply(Change {
                key: format!("nodes/agents/{agent}/public_key"),
                value: key.map(str::to_owned),
            });
        };
        put("a", Some("one"));
        put("a", Some("two"));
        put("b", Some("three"));
        assert_eq!(keys.peer_of("one"), None);
        assert_eq!(keys.peer_of("two").as_deref(), Some("a"));
        put("b", None);
        assert_eq!(keys.peer_of("three"), None);
    }
}
