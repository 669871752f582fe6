//! The cluster's shared configuration in etcd, below `/sorna/{namespace}/`.
//!
//! Keys are the product's own (`config/redis/addr`, …). A key may hold a value and have
//! children at once; a prefix is read into a nested map in which a key's own value sits
//! under the empty name.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp,
    WatchOptions,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::Lifecycle;
use crate::telemetry::chain;

/// Characters that need no quoting in a key component, as in the product's own keys.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'-').remove(b'~');

/// Between attempts when etcd does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// A namespace of an etcd cluster. Cheap to clone; reconnects by itself.
#[derive(Clone)]
pub struct Etcd {
    client: Client,
    root: String,
}

/// How to reach etcd.
#[derive(Clone, Debug)]
pub struct EtcdAddress {
    /// `host:port`.
    pub addr: String,
    /// Key namespace, so that clusters can share one etcd.
    pub namespace: String,
    /// User and password; `None` without authentication.
    pub credentials: Option<(String, crate::config::Secret)>,
}

/// etcd did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{action} in etcd")]
pub struct EtcdError {
    action: String,
    #[source]
    source: Option<Box<etcd_client::Error>>,
}

impl EtcdError {
    /// Nothing came of `action` in time.
    pub fn timeout(action: &str) -> Self {
        Self { action: action.to_owned(), source: None }
    }
}

/// A change of a watched key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key without the namespace.
    pub key: String,
    /// The new value; `None` if it was deleted.
    pub value: Option<String>,
}

/// Values below a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Tree {
    /// Nothing is there.
    #[default]
    Empty,
    /// A value.
    Leaf(String),
    /// Children; the node's own value is under the empty name.
    Node(BTreeMap<String, Tree>),
}

/// Percent-encodes one component of a key.
pub fn quote(component: &str) -> String {
    utf8_percent_encode(component, QUOTED).to_string()
}

/// The reverse of [`quote`].
pub fn unquote(component: &str) -> String {
    percent_decode_str(component).decode_utf8_lossy().into_owned()
}

/// Says once that etcd is waited for.
pub fn note_waiting(is_waiting: &mut bool, error: &EtcdError) {
    if !std::mem::replace(is_waiting, true) {
        tracing::warn!("waiting for etcd: {}", chain(error));
    }
}

impl Etcd {
    /// Connects.
    ///
    /// # Errors
    /// The address is malformed, etcd is not there, or it refuses the credentials.
    pub async fn connect(address: &EtcdAddress) -> Result<Self, EtcdError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(3))
            .with_timeout(Duration::from_secs(5))
            .with_keep_alive(Duration::from_secs(5), Duration::from_secs(3));
        if let Some((user, password)) = &address.credentials {
            options = options.with_user(user, password.expose());
        }
        let client = Client::connect([format!("http://{}", address.addr)], Some(options))
            .await
            .map_err(|source| failed(format!("connect to {}", address.addr), source))?;
        Ok(Self { client, root: format!("/sorna/{}/", address.namespace) })
    }

    /// Connects, and goes on trying while etcd does not answer. `None` if the shutdown began.
    pub async fn connect_patiently(address: &EtcdAddress, lifecycle: &Lifecycle) -> Option<Self> {
        let mut is_waiting = false;
        while !lifecycle.is_stopping() {
            match Self::connect(address).await {
                // Connecting is lazy: only a question shows that somebody is there.
                Ok(etcd) => match etcd.get("config").await {
                    Ok(_) => return Some(etcd),
                    Err(error) => note_waiting(&mut is_waiting, &error),
                },
                Err(error) => note_waiting(&mut is_waiting, &error),
            }
            lifecycle.sleep(RETRY).await;
        }
        None
    }

    /// The client itself, for leases and elections.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A key's full name.
    pub fn full_key(&self, key: &str) -> String {
        format!("{}{}", self.root, key.trim_start_matches('/'))
    }

    /// One value.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub async fn get(&self, key: &str) -> Result<Option<String>, EtcdError> {
        let mut client = self.client.kv_client();
        let reply = client
            .get(self.full_key(key), None)
            .await
            .map_err(|source| failed(format!("get {key}"), source))?;
        Ok(reply.kvs().first().map(|kv| String::from_utf8_lossy(kv.value()).into_owned()))
    }

    /// Keys (without the namespace) and values that begin with a prefix, in order.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub async fn get_prefix(&self, prefix: &str) -> Result<Vec<(String, String)>, EtcdError> {
        Ok(self.get_prefix_at(prefix).await?.0)
    }

    /// As [`Etcd::get_prefix`], with the store's revision, to watch from.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub async fn get_prefix_at(
        &self,
        prefix: &str,
    ) -> Result<(Vec<(String, String)>, i64), EtcdError> {
        let mut client = self.client.kv_client();
        let reply = client
            .get(self.full_key(prefix), Some(GetOptions::new().with_prefix()))
            .await
            .map_err(|source| failed(format!("get prefix {prefix}"), source))?;
        let revision = reply.header().map_or(0, etcd_client::ResponseHeader::revision);
        let pairs = reply
            .kvs()
            .iter()
            .map(|kv| (self.short_key(kv.key()), String::from_utf8_lossy(kv.value()).into_owned()))
            .collect();
        Ok((pairs, revision))
    }

    /// Values below a key as a tree. Unlike [`Etcd::get_prefix`] this ends at key
    /// boundaries: `volumes` does not match `volumesX`.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub async fn get_tree(&self, key: &str) -> Result<Tree, EtcdError> {
        let key = key.trim_matches('/');
        let mut tree = Tree::Empty;
        for (name, value) in self.get_prefix(key).await? {
            if let Some(rest) = name.strip_prefix(key)
                && (rest.is_empty() || rest.starts_with('/') || key.is_empty())
            {
                tree.insert(rest.trim_start_matches('/'), value);
            }
        }
        Ok(tree)
    }

    /// Writes one value.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub async fn put(&self, key: &str, value: &str) -> Result<(), EtcdError> {
        self.put_with_lease(key, value, 0).await
    }

    /// Writes one value that vanishes with a lease (0 is none).
    ///
    /// # Errors
    /// etcd cannot be reached, or the lease is gone.
    pub async fn put_with_lease(
        &self,
        key: &str,
        value: &str,
        lease: i64,
    ) -> Result<(), EtcdError> {
        let mut client = self.client.kv_client();
        let options = (lease != 0).then(|| PutOptions::new().with_lease(lease));
        client
            .put(self.full_key(key), value, options)
            .await
            .map_err(|source| failed(format!("put {key}"), source))?;
        Ok(())
    }

    /// Writes several values at once, all or none.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub async fn put_all(&self, pairs: &[(String, String)]) -> Result<(), EtcdError> {
        let operations: Vec<TxnOp> = pairs
            .iter()
            .map(|(key, value)| TxnOp::put(self.full_key(key), value.as_str(), None))
            .collect();
        self.transact(Txn::new().and_then(operations)).await.map(|_| ())
    }

    /// Creates a key if it does not exist. True if it was created.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub async fn create(&self, key: &str, value: &str, lease: i64) -> Result<bool, EtcdError> {
        let full = self.full_key(key);
        let options = (lease != 0).then(|| PutOptions::new().with_lease(lease));
        let txn = Txn::new()
            .when([Compare::create_revision(full.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(full, value, options)]);
        self.transact(txn).await
    }

    /// Carries out a transaction on full keys; true if its conditions held.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub async fn transact(&self, txn: Txn) -> Result<bool, EtcdError> {
        let mut client = self.client.kv_client();
        let reply = client.txn(txn).await.map_err(|source| failed("write".into(), source))?;
        Ok(reply.succeeded())
    }

    /// Deletes a key; true if it was there.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub async fn delete(&self, key: &str) -> Result<bool, EtcdError> {
        let mut client = self.client.kv_client();
        let reply = client
            .delete(self.full_key(key), None)
            .await
            .map_err(|source| failed(format!("delete {key}"), source))?;
        Ok(reply.deleted() > 0)
    }

    /// Deletes all keys that begin with a prefix; the number of keys deleted.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<i64, EtcdError> {
        let mut client = self.client.kv_client();
        let reply = client
            .delete(self.full_key(prefix), Some(DeleteOptions::new().with_prefix()))
            .await
            .map_err(|source| failed(format!("delete prefix {prefix}"), source))?;
        Ok(reply.deleted())
    }

    /// Calls `on_change` for every change below a prefix after `revision`, until etcd ends
    /// the watch; the caller then reads anew and watches again. Returns the last revision seen.
    ///
    /// # Errors
    /// etcd cannot be reached, or has forgotten the revision.
    pub async fn watch_prefix(
        &self,
        prefix: &str,
        revision: i64,
        mut on_change: impl FnMut(Change) + Send,
    ) -> Result<i64, EtcdError> {
        let watching = |source| failed(format!("watch {prefix}"), source);
        let options = WatchOptions::new().with_prefix().with_start_revision(revision + 1);
        let mut client = self.client.watch_client();
        let mut stream =
            client.watch(self.full_key(prefix), Some(options)).await.map_err(watching)?;
        let mut last = revision;
        while let Some(message) = stream.message().await.map_err(watching)? {
            if message.canceled() {
                break;
            }
            for event in message.events() {
                let Some(kv) = event.kv() else { continue };
                last = last.max(kv.mod_revision());
                let deleted = event.event_type() == etcd_client::EventType::Delete;
                let value = String::from_utf8_lossy(kv.value()).into_owned();
                on_change(Change {
                    key: self.short_key(kv.key()),
                    value: (!deleted).then_some(value),
                });
            }
        }
        Ok(last)
    }

    /// Waits until a key is deleted after `revision`.
    ///
    /// # Errors
    /// etcd cannot be reached, or has forgotten the revision.
    pub async fn wait_for_delete(&self, key: &str, revision: i64) -> Result<(), EtcdError> {
        let watching = |source| failed(format!("watch {key}"), source);
        let options = WatchOptions::new().with_start_revision(revision + 1);
        let mut client = self.client.watch_client();
        let mut stream = client.watch(self.full_key(key), Some(options)).await.map_err(watching)?;
        while let Some(message) = stream.message().await.map_err(watching)? {
            let deleted = message
                .events()
                .iter()
                .any(|event| event.event_type() == etcd_client::EventType::Delete);
            if deleted {
                return Ok(());
            }
        }
        Err(EtcdError::timeout(&format!("watch {key}")))
    }

    /// The revision at which a key was created; 0 if it is not there.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub async fn create_revision(&self, key: &str) -> Result<i64, EtcdError> {
        let mut client = self.client.kv_client();
        let reply = client
            .get(self.full_key(key), None)
            .await
            .map_err(|source| failed(format!("get {key}"), source))?;
        Ok(reply.kvs().first().map_or(0, etcd_client::KeyValue::create_revision))
    }

    /// A new lease; keys written with it vanish when it is not kept alive.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub async fn grant_lease(&self, life: Duration) -> Result<i64, EtcdError> {
        let mut client = self.client.lease_client();
        let seconds = i64::try_from(life.as_secs().max(1)).unwrap_or(i64::MAX);
        let reply = client
            .grant(seconds, None)
            .await
            .map_err(|source| failed("grant a lease".into(), source))?;
        Ok(reply.id())
    }

    /// Renews a lease once.
    ///
    /// # Errors
    /// etcd cannot be reached, or the lease has expired.
    pub async fn keep_lease(&self, lease: i64) -> Result<(), EtcdError> {
        let renewing = |source| failed("renew a lease".into(), source);
        let mut client = self.client.lease_client();
        let (mut keeper, mut replies) = client.keep_alive(lease).await.map_err(renewing)?;
        keeper.keep_alive().await.map_err(renewing)?;
        match replies.message().await.map_err(renewing)? {
            Some(reply) if reply.ttl() > 0 => Ok(()),
            _ => Err(EtcdError::timeout("renew a lease that has expired")),
        }
    }

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// etcd cannot be reached.
    pub async fn revoke_lease(&self, lease: i64) -> Result<(), EtcdError> {
        let mut client = self.client.lease_client();
        client.revoke(lease).await.map_err(|source| failed("revoke a lease".into(), source))?;
        Ok(())
    }

    fn short_key(&self, full: &[u8]) -> String {
        let full = String::from_utf8_lossy(full);
        full.strip_prefix(&self.root).unwrap_or(&full).to_owned()
    }
}

impl Tree {
    /// Sets the value at a path of quoted components.
    pub fn insert(&mut self, path: &str, value: String) {
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        if first.is_empty() {
            match self {
                Self::Node(children) => {
                    children.insert(String::new(), Self::Leaf(value));
                }
                _ => *self = Self::Leaf(value),
            }
            return;
        }
        let mut children = match std::mem::take(self) {
            Self::Node(children) => children,
            Self::Leaf(own) => BTreeMap::from([(String::new(), Self::Leaf(own))]),
            Self::Empty => BTreeMap::new(),
        };
        children.entry(first.to_owned()).or_default().insert(rest, value);
        *self = Self::Node(children);
    }

    /// The value at a path of quoted components, a node's own value included.
    pub fn value(&self, path: &str) -> Option<&str> {
        let mut node = self;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let Self::Node(children) = node else { return None };
            node = children.get(part)?;
        }
        match node {
            Self::Leaf(value) => Some(value),
            Self::Node(children) => match children.get("") {
                Some(Self::Leaf(value)) => Some(value),
                _ => None,
            },
            Self::Empty => None,
        }
    }

    /// Names and subtrees of the children, without the node's own value.
    pub fn children(&self) -> impl Iterator<Item = (&str, &Tree)> {
        let children = match self {
            Self::Node(children) => Some(children),
            _ => None,
        };
        children.into_iter().flatten().filter(|(k, _)| !k.is_empty()).map(|(k, v)| (k.as_str(), v))
    }
}

fn failed(action: String, source: etcd_client::Error) -> EtcdError {
    EtcdError { action, source: Some(Box::new(source)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_quoted_as_the_product_does() {
        assert_eq!(quote("registry.example.com:5000/proj"), "registry.example.com%3A5000%2Fproj");
        assert_eq!(unquote("registry.example.com%3A5000%2Fproj"), "registry.example.com:5000/proj");
    }

    #[test]
    fn a_key_may_have_a_value_and_children() {
        let mut tree = Tree::default();
        for (path, value) in [("a", "1"), ("a/b", "2"), ("c/d/e", "3")] {
            tree.insert(path, value.into());
        }
        assert_eq!(tree.value("a"), Some("1"));
        assert_eq!(tree.value("a/b"), Some("2"));
        assert_eq!(tree.value("c/d/e"), Some("3"));
        assert_eq!(tree.value("c"), None);
        let json = serde_json::to_value(&tree).unwrap();
        assert_eq!(json, serde_json::json!({"a": {"": "1", "b": "2"}, "c": {"d": {"e": "3"}}}));
    }
}
