//! What the agent reads from etcd and writes there.
//!
//! Reads: `leader` (who leads), `nodes/manager/{id}/public_key` (who may call). Writes:
//! `nodes/agents/{id}` (`starting`, `running`) with its address and public key.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;

use backendai_rpc::transport::PeerDirectory;
use backendai_service::Lifecycle;
use backendai_service::etcd::{Change, Etcd, EtcdError, Tree, note_waiting as note};
use backendai_types::AgentId;

use crate::config::AgentConfig;
use crate::leader::{Leader, LeaderDirectory};

/// Holds the leader, as JSON of [`Leader`].
const LEADER_KEY: &str = "leader";
const MANAGERS: &str = "nodes/manager/";
const PUBLIC_KEY: &str = "/public_key";
/// Between attempts when etcd does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Follows the leader key.
pub struct EtcdLeader {
    current: watch::Sender<Option<Leader>>,
}

impl EtcdLeader {
    /// A directory that follows etcd in a task of its own.
    pub fn follow(etcd: Etcd, lifecycle: &Lifecycle) -> Self {
        let current = watch::Sender::new(None);
        let (sender, stop) = (current.clone(), lifecycle.clone());
        lifecycle.spawn("leader", async move {
            follow(&etcd, LEADER_KEY, &stop, |changes| {
                for change in changes.iter().filter(|change| change.key == LEADER_KEY) {
                    let leader = change.value.as_deref().and_then(parse_leader);
                    sender.send_if_modified(|known| {
                        let is_new = *known != leader;
                        *known = leader;
                        is_new
                    });
                }
            })
            .await;
        });
        Self { current }
    }
}

impl LeaderDirectory for EtcdLeader {
    fn watch(&self) -> watch::Receiver<Option<Leader>> {
        self.current.subscribe()
    }
}

fn parse_leader(text: &str) -> Option<Leader> {
    match serde_json::from_str(text) {
        Ok(leader) => Some(leader),
        Err(error) => {
            tracing::error!(%error, "the leader key in etcd cannot be read");
            None
        }
    }
}

/// Public keys of the managers that are registered in etcd.
#[derive(Clone, Default)]
pub struct ManagerKeys {
    /// Manager by public key.
    by_key: Arc<RwLock<HashMap<String, String>>>,
    /// A key that may call whatever etcd says.
    fixed: Option<String>,
}

impl ManagerKeys {
    /// A directory that follows etcd in a task of its own. `fixed` is a key that may call
    /// besides.
    pub fn follow(etcd: Etcd, fixed: Option<String>, lifecycle: &Lifecycle) -> Self {
        let keys = Self { by_key: Arc::default(), fixed };
        let (known, stop) = (Arc::clone(&keys.by_key), lifecycle.clone());
        lifecycle.spawn("manager keys", async move {
            follow(&etcd, MANAGERS, &stop, |changes| {
                let mut known = known.write();
                for change in changes {
                    let Some(manager) = manager_of(&change.key) else { continue };
                    known.retain(|_, owner| *owner != manager);
                    if let Some(key) = change.value {
                        known.insert(key, manager);
                    }
                }
            })
            .await;
        });
        keys
    }
}

impl PeerDirectory for ManagerKeys {
    fn peer_of(&self, public_key: &str) -> Option<String> {
        if self.fixed.as_deref() == Some(public_key) {
            return Some("manager".to_owned());
        }
        self.by_key.read().get(public_key).cloned()
    }
}

fn manager_of(key: &str) -> Option<String> {
    let id = key.strip_prefix(MANAGERS)?.strip_suffix(PUBLIC_KEY)?;
    (!id.is_empty() && !id.contains('/')).then(|| id.to_owned())
}

/// Hands on all values below a prefix, then their changes, until the shutdown. After a
/// broken watch everything is read anew; keys that vanished meanwhile come as deleted.
async fn follow(
    etcd: &Etcd,
    prefix: &str,
    lifecycle: &Lifecycle,
    mut on_changes: impl FnMut(Vec<Change>) + Send,
) {
    let mut known: Vec<String> = Vec::new();
    let mut is_waiting = false;
    while !lifecycle.is_stopping() {
        let attempt = async {
            let (pairs, revision) = etcd.get_prefix_at(prefix).await?;
            let mut changes: Vec<Change> = known
                .drain(..)
                .filter(|key| !pairs.iter().any(|(k, _)| k == key))
                .map(|key| Change { key, value: None })
                .collect();
            known.extend(pairs.iter().map(|(key, _)| key.clone()));
            changes.extend(pairs.into_iter().map(|(key, v)| Change { key, value: Some(v) }));
            on_changes(changes);
            is_waiting = false;
            etcd.watch_prefix(prefix, revision, |change| {
                if !known.contains(&change.key) {
                    known.push(change.key.clone());
                }
                on_changes(vec![change]);
            })
            .await
        };
        let result = tokio::select! {
            result = attempt => result,
            () = lifecycle.stopping() => return,
        };
        if let Err(error) = result {
            note(&mut is_waiting, &error);
        }
        lifecycle.sleep(RETRY).await;
    }
}

/// Lays the cluster's shared settings over the file's: the size of kept logs and the
/// kernels' user, for this agent, its scaling group or all.
///
/// # Errors
/// etcd cannot be reached.
pub async fn apply_shared_settings(
    etcd: &Etcd,
    agent_id: &AgentId,
    config: &mut AgentConfig,
) -> Result<(), EtcdError> {
    let scopes = [
        format!("nodes/agents/{agent_id}/"),
        format!("sgroup/{}/", config.agent.scaling_group),
        String::new(),
    ];
    let container = &mut config.container;
    for scope in scopes.iter().rev() {
        let agent = etcd.get_tree(&format!("{scope}config/agent/container-logs")).await?;
        let kernels = etcd.get_tree(&format!("{scope}config/container")).await?;
        set(&mut container.log_max_length, &agent, "max-length");
        set(&mut container.kernel_uid, &kernels, "kernel-uid");
        set(&mut container.kernel_gid, &kernels, "kernel-gid");
    }
    if config.agent.mount_path.is_none() {
        let mount = etcd.get("volumes/_mount").await?;
        config.agent.mount_path = mount.filter(|path| !path.is_empty()).map(PathBuf::from);
    }
    Ok(())
}

fn set<T: FromStr>(value: &mut T, tree: &Tree, name: &str) {
    if let Some(text) = tree.value(name) {
        match text.parse() {
            Ok(parsed) => *value = parsed,
            Err(_) => tracing::error!(name, text, "a shared setting in etcd cannot be read"),
        }
    }
}

/// What an agent says of itself in etcd.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// The agent.
    pub agent_id: AgentId,
    /// Host of its RPC address.
    pub ip: String,
    /// CURVE public key, if its RPC is encrypted.
    pub public_key: Option<String>,
    /// Where the watcher of this host answers.
    pub watcher_port: u16,
}

/// Writes the agent's node entry, and goes on trying while etcd does not answer.
pub async fn announce(etcd: &Etcd, node: &Announcement, status: &str, lifecycle: &Lifecycle) {
    let key = format!("nodes/agents/{}", node.agent_id);
    let mut pairs = vec![
        (key.clone(), status.to_owned()),
        (format!("{key}/ip"), node.ip.clone()),
        (format!("{key}/watcher_port"), node.watcher_port.to_string()),
    ];
    if let Some(public_key) = &node.public_key {
        pairs.push((format!("{key}{PUBLIC_KEY}"), public_key.clone()));
    }
    let mut is_waiting = false;
    loop {
        match etcd.put_all(&pairs).await {
            Ok(()) => return,
            Err(error) => note(&mut is_waiting, &error),
        }
        if !lifecycle.sleep(RETRY).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_key_entries_name_managers() {
        assert_eq!(manager_of("nodes/manager/i-a/public_key"), Some("i-a".into()));
        assert_eq!(manager_of("nodes/manager/i-a"), None);
        assert_eq!(manager_of("nodes/manager/public_key"), None);
        assert_eq!(manager_of("nodes/agents/i-a/public_key"), None);
    }

    #[test]
    fn the_leader_key_is_json() {
        let text =
            r#"{"manager_id":"m","epoch":3,"event_addr":"tcp://127.0.0.1:5002","public_key":null}"#;
        assert_eq!(parse_leader(text).unwrap().epoch, 3);
        assert_eq!(parse_leader("m"), None);
    }
}
