//! The cluster's shared configuration, as far as requests and tasks need it.
//!
//! One snapshot of the keys below `config/` and `manager/` serves all readers and is at most
//! two seconds old. While etcd is away the last snapshot stays in use: losing etcd must not
//! stop a cluster that runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use backendai_service::Lifecycle;
use backendai_service::config::{HostPort, Secret};
use backendai_service::etcd::{Etcd, EtcdError, Tree, unquote};
use backendai_service::redis::RedisAddress;
use backendai_types::{SlotName, SlotType};

/// How old a snapshot may become. Long enough to cost nothing, short enough that an
/// operator who changes a key does not wonder.
const MAX_AGE: Duration = Duration::from_secs(2);
/// How long a reader waits for etcd when it could go on with what is known.
const PATIENCE: Duration = Duration::from_secs(1);

/// Prefix of the keys that name container registries.
pub const REGISTRY_PREFIX: &str = "config/docker/registry";
/// Prefix of the keys that steer the managers.
const MANAGER_PREFIX: &str = "manager/";
/// Key of what the manager may do.
pub const STATUS_KEY: &str = "manager/status";
/// Key of the announcement.
pub const ANNOUNCEMENT_KEY: &str = "manager/announcement";
/// Prefix of the keys that give each slot its type.
pub const SLOT_TYPES_PREFIX: &str = "config/resource_slots";

/// What the managers may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagerStatus {
    /// No manager runs.
    Terminated,
    /// Managers start.
    Preparing,
    /// Everything works.
    Running,
    /// No changes are accepted.
    Frozen,
}

impl ManagerStatus {
    /// The spelling on the wire and in etcd.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminated => "terminated",
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Frozen => "frozen",
        }
    }
}

impl std::str::FromStr for ManagerStatus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "terminated" => Ok(Self::Terminated),
            "preparing" => Ok(Self::Preparing),
            "running" => Ok(Self::Running),
            "frozen" => Ok(Self::Frozen),
            other => Err(format!("{other:?} is none of terminated, preparing, running, frozen")),
        }
    }
}

/// When agents pull an image they have already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoPull {
    /// When the digest differs from the registry's.
    #[default]
    Digest,
    /// When they have no image of that tag.
    Tag,
    /// Never: an image that is missing is an error.
    None,
}

impl std::str::FromStr for AutoPull {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "digest" => Ok(Self::Digest),
            "tag" => Ok(Self::Tag),
            "none" => Ok(Self::None),
            other => Err(format!("{other:?} is none of digest, tag, none")),
        }
    }
}

/// The protocol of a container registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegistryKind {
    /// Docker registry v2.
    #[default]
    Docker,
    /// Harbor 1.
    Harbor,
    /// Harbor 2.
    Harbor2,
    /// The agents' own images.
    Local,
}

impl RegistryKind {
    /// The spelling in etcd and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Harbor => "harbor",
            Self::Harbor2 => "harbor2",
            Self::Local => "local",
        }
    }
}

impl std::str::FromStr for RegistryKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "docker" => Ok(Self::Docker),
            "harbor" => Ok(Self::Harbor),
            "harbor2" => Ok(Self::Harbor2),
            "local" => Ok(Self::Local),
            other => Err(format!("{other:?} is none of docker, harbor, harbor2, local")),
        }
    }
}

/// A container registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// Its name in image names: `registry.example.com:5000`.
    pub name: String,
    /// Base URL, without a slash at the end.
    pub url: String,
    /// Its protocol.
    pub kind: RegistryKind,
    /// Account, if it needs one.
    pub username: Option<String>,
    /// The account's password.
    pub password: Option<Secret>,
    /// Projects to scan (Harbor).
    pub projects: Vec<String>,
    /// False accepts any certificate.
    pub ssl_verify: bool,
}

/// Where folders lie and which there may be: the keys below `volumes/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeConfig {
    /// The directory that holds the hosts, one directory each, on managers and agents alike.
    pub mount: Option<PathBuf>,
    /// The host of folders that name none.
    pub default_host: Option<String>,
    /// Whether users may have folders.
    pub user_folders: bool,
    /// Whether groups may have folders.
    pub group_folders: bool,
    /// What of a host's capacity users are told: `percentage`, `used_bytes`,
    /// `capacity_bytes`.
    pub exposed: Vec<String>,
}

impl VolumeConfig {
    fn of(volumes: &Tree) -> Self {
        let text = |key: &str| volumes.value(key).filter(|text| !text.is_empty());
        let types = folder_types(volumes);
        let has = |name: &str| types.iter().any(|known| known == name);
        let exposed = text("exposed_volume_info").unwrap_or("percentage");
        Self {
            mount: text("_mount").map(PathBuf::from),
            default_host: text("default_host").or_else(|| text("_default_host")).map(str::to_owned),
            user_folders: has("user"),
            group_folders: has("group"),
            exposed: exposed.split(',').map(|name| name.trim().to_owned()).collect(),
        }
    }
}

/// Who may own folders; users unless keys say otherwise.
fn folder_types(volumes: &Tree) -> Vec<String> {
    let tree = subtree(volumes, "_types");
    let types: Vec<String> =
        tree.into_iter().flat_map(Tree::children).map(|(name, _)| name.to_owned()).collect();
    if types.is_empty() { vec!["user".to_owned()] } else { types }
}

/// What the keys say.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    config: Tree,
    manager: Tree,
    volumes: Tree,
    redis: Option<RedisAddress>,
    registries: BTreeMap<String, Registry>,
    auto_pull: AutoPull,
    overlay_mtu: Option<u32>,
    slot_types: BTreeMap<SlotName, SlotType>,
    status: Option<ManagerStatus>,
}

struct Cached {
    snapshot: Arc<Snapshot>,
    /// When the next look at etcd is due.
    due: Instant,
}

/// Reads the shared configuration. Cheap to clone.
#[derive(Clone)]
pub struct SharedConfig {
    inner: Arc<Inner>,
}

struct Inner {
    etcd: Etcd,
    cached: ArcSwapOption<Cached>,
    refreshing: tokio::sync::Mutex<()>,
    /// So that losing etcd is logged once.
    is_away: AtomicBool,
}

/// No usable `config/redis/addr`.
#[derive(Debug, thiserror::Error)]
#[error(
    "the shared configuration has no usable config/redis/addr: \
     run `backendai-manager etcd put config/redis/addr HOST:PORT`"
)]
pub struct NoRedisAddress;

impl SharedConfig {
    /// A reader that has read nothing yet.
    pub fn new(etcd: Etcd) -> Self {
        let inner = Inner {
            etcd,
            cached: ArcSwapOption::empty(),
            refreshing: Default::default(),
            is_away: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Where Redis is; `None` if no key says it.
    ///
    /// # Errors
    /// etcd cannot be reached and was never read.
    pub async fn redis_address(&self) -> Result<Option<RedisAddress>, EtcdError> {
        Ok(self.snapshot().await?.redis.clone())
    }

    /// The container registries by name.
    ///
    /// # Errors
    /// etcd cannot be reached and was never read.
    pub async fn registries(&self) -> Result<BTreeMap<String, Registry>, EtcdError> {
        Ok(self.snapshot().await?.registries.clone())
    }

    /// Names of the container registries, for parsing image names.
    ///
    /// # Errors
    /// etcd cannot be reached and was never read.
    pub async fn registry_names(&self) -> Result<Vec<String>, EtcdError> {
        Ok(self.snapshot().await?.registries.keys().cloned().collect())
    }

    /// When agents pull an image they have already.
    ///
    /// # Errors
    /// etcd cannot be reached and was never read.
    pub async fn auto_pull(&self) -> Result<AutoPull, EtcdError> {
        Ok(self.snapshot().await?.auto_pull)
    }

    /// Largest packet of networks over several hosts, in bytes; `None` leaves it to the engine.
    ///
    /// # Errors
    /// etcd cannot be reached and was never read.
    pub async fn overlay_mtu(&self) -> Result<Option<u32>, EtcdError> {
        Ok(self.snapshot().await?.overlay_mtu)
    }

    /// The slots the cluster knows and their types; `cpu` and `mem` always.
    ///
    /// # Errors
    /// etcd cannot be reached and was never read.
    pub async fn slot_types(&self) -> Result<BTreeMap<SlotName, SlotType>, EtcdError> {
        Ok(self.snapshot().await?.slot_types.clone())
    }

    /// Who may own folders, `user` and `group`; users unless keys say otherwise.
    ///
    /// # Errors
    /// etcd cannot be reached and was never read.
    pub async fn vfolder_types(&self) -> Result<Vec<String>, EtcdError> {
        let snapshot = self.snapshot().await?;
        Ok(folder_types(&snapshot.volumes))
    }

    /// What the managers may do; running unless a key says otherwise.
    ///
    /// # Errors
    /// etcd cannot be reached and was never read.
    pub async fn manager_status(&self) -> Result<ManagerStatus, EtcdError> {
        Ok(self.snapshot().await?.status.unwrap_or(ManagerStatus::Running))
    }

    /// The announcement to users, if there is one.
    ///
    /// # Errors
    /// etcd cannot be reached and was never read.
    pub async fn announcement(&self) -> Result<Option<String>, EtcdError> {
        let snapshot = self.snapshot().await?;
        let text = snapshot.manager.value("announcement").filter(|text| !text.is_empty());
        Ok(text.map(str::to_owned))
    }

    /// Where folders lie and which there may be.
    ///
    /// # Errors
    /// etcd cannot be reached and was never read.
    pub async fn volumes(&self) -> Result<VolumeConfig, EtcdError> {
        Ok(VolumeConfig::of(&self.snapshot().await?.volumes))
    }

    /// A value below `config/`, such as `api/allow-origins`; components are quoted.
    ///
    /// # Errors
    /// etcd cannot be reached and was never read.
    pub async fn config_value(&self, path: &str) -> Result<Option<String>, EtcdError> {
        Ok(self.snapshot().await?.config.value(path).map(str::to_owned))
    }

    /// Looks at etcd at once when somebody changes what the managers may do, until the
    /// lifecycle ends: a freeze must hold for all managers as soon as it is made.
    pub async fn follow_status(self, lifecycle: Lifecycle) {
        while !lifecycle.is_stopping() {
            let watching = async {
                let (_, revision) = self.inner.etcd.get_prefix_at(MANAGER_PREFIX).await?;
                self.invalidate();
                self.inner.etcd.watch_prefix(MANAGER_PREFIX, revision, |_| self.invalidate()).await
            };
            tokio::select! {
                // While etcd is away the periodic look says so.
                _ = watching => {}
                () = lifecycle.stopping() => return,
            }
            lifecycle.sleep(MAX_AGE).await;
        }
    }

    /// Makes the next reader look at etcd: for whoever has just written a key.
    pub fn invalidate(&self) {
        if let Some(cached) = self.inner.cached.load_full() {
            let stale = Cached { snapshot: Arc::clone(&cached.snapshot), due: Instant::now() };
            self.inner.cached.store(Some(Arc::new(stale)));
        }
    }

    async fn snapshot(&self) -> Result<Arc<Snapshot>, EtcdError> {
        let cached = self.inner.cached.load_full();
        if let Some(cached) = &cached
            && Instant::now() < cached.due
        {
            return Ok(Arc::clone(&cached.snapshot));
        }
        // One reader looks; the others use what there is, or wait if there is nothing.
        let _refreshing = match (self.inner.refreshing.try_lock(), &cached) {
            (Ok(guard), _) => guard,
            (Err(_), Some(cached)) => return Ok(Arc::clone(&cached.snapshot)),
            (Err(_), None) => self.inner.refreshing.lock().await,
        };
        if let Some(fresh) = self.inner.cached.load_full()
            && Instant::now() < fresh.due
        {
            return Ok(Arc::clone(&fresh.snapshot));
        }
        let snapshot = match cached.map(|cached| Arc::clone(&cached.snapshot)) {
            Some(old) => self.refresh(old).await,
            None => Arc::new(self.read(None).await?.unwrap_or_default()),
        };
        let cached = Cached { snapshot: Arc::clone(&snapshot), due: Instant::now() + MAX_AGE };
        self.inner.cached.store(Some(Arc::new(cached)));
        Ok(snapshot)
    }

    /// What etcd says now, or `old` while it does not answer.
    async fn refresh(&self, old: Arc<Snapshot>) -> Arc<Snapshot> {
        let away = match tokio::time::timeout(PATIENCE, self.read(Some(&old))).await {
            Ok(Ok(fresh)) => {
                if self.inner.is_away.swap(false, Ordering::Relaxed) {
                    tracing::info!("etcd is back");
                }
                return fresh.map_or(old, Arc::new);
            }
            Ok(Err(error)) => backendai_service::telemetry::chain(&error),
            Err(_) => "no answer".to_owned(),
        };
        if !self.inner.is_away.swap(true, Ordering::Relaxed) {
            tracing::warn!("etcd is away, the shared configuration stays as it was: {away}");
        }
        old
    }

    /// What etcd says now; `None` if nothing has changed.
    async fn read(&self, old: Option<&Snapshot>) -> Result<Option<Snapshot>, EtcdError> {
        let config = self.inner.etcd.get_tree("config").await?;
        let manager = self.inner.etcd.get_tree("manager").await?;
        let volumes = self.inner.etcd.get_tree("volumes").await?;
        if old.is_some_and(|old| {
            old.config == config && old.manager == manager && old.volumes == volumes
        }) {
            return Ok(None);
        }
        Ok(Some(Snapshot { volumes, ..Snapshot::parse(config, manager) }))
    }
}

impl Snapshot {
    /// Values that cannot be used are logged and count as absent: a typo in one key must
    /// not take down what does not need it.
    fn parse(config: Tree, manager: Tree) -> Self {
        let mut snapshot = Self {
            redis: redis_address(&config),
            registries: registries(&config),
            auto_pull: usable(&config, "docker/image/auto_pull").unwrap_or_default(),
            overlay_mtu: usable(&config, "network/overlay/mtu"),
            status: usable(&manager, "status"),
            slot_types: BTreeMap::from([
                (SlotName::cpu(), SlotType::Count),
                (SlotName::mem(), SlotType::Bytes),
            ]),
            config: Tree::Empty,
            volumes: Tree::Empty,
            manager,
        };
        for (name, _) in subtree(&config, "resource_slots").into_iter().flat_map(Tree::children) {
            let slot_type = match config.value(&format!("resource_slots/{name}")) {
                Some("count") => SlotType::Count,
                Some("bytes") => SlotType::Bytes,
                Some("unique") => SlotType::Unique,
                other => {
                    tracing::warn!(slot = name, value = other, "unknown type of a resource slot");
                    continue;
                }
            };
            snapshot.slot_types.insert(SlotName(unquote(name)), slot_type);
        }
        snapshot.config = config;
        snapshot
    }
}

fn usable<T: std::str::FromStr<Err: std::fmt::Display>>(tree: &Tree, path: &str) -> Option<T> {
    let text = tree.value(path)?;
    text.parse()
        .inspect_err(|error| tracing::warn!("the shared configuration {path}: {error}"))
        .ok()
}

fn subtree<'a>(tree: &'a Tree, path: &str) -> Option<&'a Tree> {
    path.split('/').try_fold(tree, |node, part| {
        node.children().find(|(name, _)| *name == part).map(|(_, child)| child)
    })
}

fn redis_address(config: &Tree) -> Option<RedisAddress> {
    let addr: HostPort = usable(config, "redis/addr")?;
    let password = config.value("redis/password").filter(|text| !text.is_empty());
    Some(RedisAddress { host: addr.host, port: addr.port, password: password.map(Secret::new) })
}

fn registries(config: &Tree) -> BTreeMap<String, Registry> {
    let Some(tree) = subtree(config, "docker/registry") else { return BTreeMap::new() };
    tree.children()
        .filter_map(|(quoted, node)| {
            let text = |key: &str| node.value(key).filter(|text| !text.is_empty());
            let name = unquote(quoted);
            let Some(url) = text("") else {
                tracing::warn!(registry = name, "a container registry has no URL");
                return None;
            };
            let ssl_verify = text("ssl_verify").or_else(|| text("ssl-verify"));
            let registry = Registry {
                url: url.trim_end_matches('/').to_owned(),
                kind: usable(node, "type").unwrap_or_default(),
                username: text("username").map(str::to_owned),
                password: text("password").map(Secret::new),
                projects: text("project")
                    .unwrap_or("")
                    .split(',')
                    .map(|project| project.trim().to_owned())
                    .filter(|project| !project.is_empty())
                    .collect(),
                ssl_verify: !ssl_verify.is_some_and(|text| {
                    matches!(text.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off")
                }),
                name: name.clone(),
            };
            Some((name, registry))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_where_the_keys_say() {
        let mut volumes = Tree::Empty;
        assert!(VolumeConfig::of(&volumes).user_folders);
        for (key, value) in [("_mount", "/mnt"), ("_default_host", "local"), ("_types/group", "")] {
            volumes.insert(key, value.to_owned());
        }
        let config = VolumeConfig::of(&volumes);
        assert_eq!(config.mount.as_deref(), Some(std::path::Path::new("/mnt")));
        assert_eq!(config.default_host.as_deref(), Some("local"));
        assert!(config.group_folders && !config.user_folders);
    }

    fn snapshot(pairs: &[(&str, &str)]) -> Snapshot {
        let mut config = Tree::Empty;
        let mut manager = Tree::Empty;
        for (key, value) in pairs {
            match key.split_once('/') {
                Some(("config", path)) => config.insert(path, (*value).to_owned()),
                Some(("manager", path)) => manager.insert(path, (*value).to_owned()),
                _ => panic!("{key}"),
            }
        }
        Snapshot::parse(config, manager)
    }

    #[test]
    fn keys_become_values() {
        let snapshot = snapshot(&[
            ("config/redis/addr", "127.0.0.1:6380"),
            ("config/redis/password", "p"),
            ("config/docker/image/auto_pull", "tag"),
            ("config/network/overlay/mtu", "1400"),
            ("config/docker/registry/127.0.0.1%3A5000", "http://127.0.0.1:5000/"),
            ("config/docker/registry/127.0.0.1%3A5000/username", "u"),
            ("config/docker/registry/hub.example", "https://hub.example"),
            ("config/docker/registry/hub.example/type", "harbor2"),
            ("config/docker/registry/hub.example/project", "a, b"),
            ("config/docker/registry/hub.example/ssl-verify", "0"),
            ("config/resource_slots/cuda.shares", "count"),
            ("manager/status", "frozen"),
        ]);
        let redis = snapshot.redis.unwrap();
        assert_eq!((redis.host.as_str(), redis.port), ("127.0.0.1", 6380));
        assert_eq!(snapshot.auto_pull, AutoPull::Tag);
        assert_eq!(snapshot.overlay_mtu, Some(1400));
        assert_eq!(snapshot.status, Some(ManagerStatus::Frozen));
        assert_eq!(snapshot.slot_types.len(), 3);
        let local = &snapshot.registries["127.0.0.1:5000"];
        assert_eq!((local.url.as_str(), local.ssl_verify), ("http://127.0.0.1:5000", true));
        let hub = &snapshot.registries["hub.example"];
        assert_eq!(
            (hub.kind, hub.projects.len(), hub.ssl_verify),
            (RegistryKind::Harbor2, 2, false)
        );
    }

    #[test]
    fn what_cannot_be_used_counts_as_absent() {
        let snapshot = snapshot(&[
            ("config/redis/addr", "nowhere"),
            ("config/docker/image/auto_pull", "sometimes"),
            ("config/docker/registry/no-url/type", "docker"),
            ("config/resource_slots/x", "furlongs"),
        ]);
        assert!(snapshot.redis.is_none());
        assert_eq!(snapshot.auto_pull, AutoPull::Digest);
        assert!(snapshot.registries.is_empty());
        assert_eq!(snapshot.slot_types.len(), 2);
    }
}
