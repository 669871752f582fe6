//! Containers that exist in memory alone and behave as they are told.
//!
//! What a container does is scripted per image or per kernel: how long things take, what
//! fails, when it ends. A container that has the agent's socket mounted runs a fake kernel
//! runner ([`runner`]) which speaks the real protocol, so that the agent above cannot tell
//! the difference. There is no thread per backend: a thousand fit a process.

mod figures;
mod program;
mod runner;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use rand::RngExt;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use self::program::{Order, Program};
use super::{
    BackendError, ContainerBackend, ContainerChange, ContainerEvent, ContainerHandle,
    ContainerPlace, ContainerSpec, ContainerState, ExitStatus, Fingerprint, LocalImage,
    NetworkReach, NetworkSpec, OwnedContainer, Progress, PullImage, labels,
};
use crate::resources::DeviceKind;
use crate::statistics::{ContainerMeter, NodeSample};

/// Events that a slow reader may lag behind: more than a burst of starts on one agent.
const EVENT_BACKLOG: usize = 1024;
/// The host and the images of a dummy engine.
#[derive(Clone, Debug)]
pub struct DummySettings {
    /// Number of cores.
    pub cores: u32,
    /// Memory in bytes.
    pub mem_bytes: u64,
    /// `x86_64`…
    pub architecture: String,
    /// Devices besides.
    pub accelerators: Vec<DeviceKind>,
    /// True if every image name can be run.
    pub any_image: bool,
    /// True if it can make networks of several hosts.
    pub swarm: bool,
    /// What containers do unless scripted otherwise.
    pub script: Script,
}

impl Default for DummySettings {
    fn default() -> Self {
        Self {
            cores: 4,
            mem_bytes: 16 << 30,
            architecture: std::env::consts::ARCH.to_owned(),
            accelerators: Vec::new(),
            any_image: true,
            swarm: true,
            script: Script::default(),
        }
    }
}

/// What a container does.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// How long pulling the image takes.
    pub pull_delay: Duration,
    /// Why pulling the image fails.
    pub pull_error: Option<String>,
    /// How long creating takes.
    pub create_delay: Duration,
    /// Why creating fails.
    pub create_error: Option<String>,
    /// How long starting takes.
    pub start_delay: Duration,
    /// Why starting fails.
    pub start_error: Option<String>,
    /// How long the container runs; `None` until it is stopped.
    pub run_for: Option<Duration>,
    /// Exit code when it ends by itself.
    pub exit_code: i32,
    /// What it has written to its log.
    pub log: Vec<u8>,
    /// True for a runner that never calls.
    pub mute: bool,
    /// True for a program that SIGTERM and the runner's shutdown do not end.
    pub stubborn: bool,
}

/// An engine in memory. Cheap to clone; clones are the same engine.
#[derive(Clone)]
pub struct DummyBackend {
    inner: Arc<Inner>,
}

struct Inner {
    settings: DummySettings,
    begin: Instant,
    state: Mutex<State>,
    events: broadcast::Sender<Signal>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct State {
    down: bool,
    /// Name → id.
    images: BTreeMap<String, String>,
    pullable: BTreeMap<String, String>,
    by_image: HashMap<String, Script>,
    by_kernel: HashMap<String, Script>,
    containers: BTreeMap<String, Container>,
    networks: BTreeMap<String, NetworkSpec>,
    created: usize,
    /// Images made of containers, by name.
    snapshots: BTreeMap<String, Snapshot>,
}

/// An image made of a container.
struct Snapshot {
    owner: Option<String>,
    files: Bytes,
}

struct Container {
    spec: ContainerSpec,
    script: Script,
    state: ContainerState,
    orders: watch::Sender<Order>,
    ended: watch::Sender<Option<ExitStatus>>,
}

#[derive(Clone, Debug)]
enum Signal {
    Event(String, ContainerEvent),
    Down,
}

impl DummyBackend {
    /// An engine without containers.
    pub fn new(settings: DummySettings) -> Self {
        let inner = Inner {
            settings,
            begin: Instant::now(),
            state: Mutex::default(),
            events: broadcast::Sender::new(EVENT_BACKLOG),
            tasks: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Adds an image to the engine.
    pub fn add_image(&self, name: &str, id: &str) {
        self.inner.state.lock().images.insert(name.to_owned(), id.to_owned());
    }

    /// Adds an image to the registry: it can be pulled.
    pub fn add_pullable_image(&self, name: &str, id: &str) {
        self.inner.state.lock().pullable.insert(name.to_owned(), id.to_owned());
    }

    /// Says what containers of an image do.
    pub fn script_image(&self, image: &str, script: Script) {
        self.inner.state.lock().by_image.insert(image.to_owned(), script);
    }

    /// Says what the container of a kernel does.
    pub fn script_kernel(&self, kernel_id: &str, script: Script) {
        self.inner.state.lock().by_kernel.insert(kernel_id.to_owned(), script);
    }

    /// Takes the engine down or up: while it is down every call fails. Containers live on.
    pub fn set_available(&self, available: bool) {
        self.inner.state.lock().down = !available;
        if !available {
            // Nobody may be listening.
            let _ = self.inner.events.send(Signal::Down);
        }
    }

    /// Kills a container as somebody else would, whether the engine answers or not, and
    /// waits until it has ended.
    pub async fn kill(&self, id: &str) {
        let mut ended = {
            let state = self.inner.state.lock();
            let Some(container) = state.containers.get(id) else { return };
            container.orders.send_replace(Order::Kill);
            container.ended.subscribe()
        };
        // An error means that the container is gone, which is what is wanted.
        let _ = ended.wait_for(Option::is_some).await;
    }

    /// Names of all containers, whatever their state.
    pub fn container_names(&self) -> Vec<String> {
        self.inner.state.lock().containers.values().map(|c| c.spec.name.clone()).collect()
    }

    /// Names of all networks.
    pub fn network_names(&self) -> Vec<String> {
        self.inner.state.lock().networks.keys().cloned().collect()
    }

    /// How many containers were ever made.
    pub fn created_count(&self) -> usize {
        self.inner.state.lock().created
    }

    /// The definition a container was made with, by id.
    pub fn spec(&self, id: &str) -> Option<ContainerSpec> {
        self.inner.state.lock().containers.get(id).map(|container| container.spec.clone())
    }

    fn check(&self) -> Result<(), BackendError> {
        if self.inner.state.lock().down {
            return Err(BackendError::Unavailable("the dummy engine is switched off".into()));
        }
        Ok(())
    }

    fn script(&self, image: &str, kernel: Option<&String>) -> Script {
        let state = self.inner.state.lock();
        kernel
            .and_then(|kernel| state.by_kernel.get(kernel))
            .or_else(|| state.by_image.get(image))
            .unwrap_or(&self.inner.settings.script)
            .clone()
    }

    fn find(state: &State, id: &str) -> Option<String> {
        if state.containers.contains_key(id) {
            return Some(id.to_owned());
        }
        state.containers.iter().find(|(_, c)| c.spec.name == id).map(|(id, _)| id.clone())
    }
}

#[async_trait]
impl ContainerBackend for DummyBackend {
    async fn fingerprint(&self) -> Result<Fingerprint, BackendError> {
        self.check()?;
        let settings = &self.inner.settings;
        Ok(Fingerprint {
            engine: "dummy".to_owned(),
            architecture: settings.architecture.clone(),
            cgroup_version: None,
            image_id_is_config_digest: !settings.any_image,
            cores: (0..settings.cores).map(|core| (core, None)).collect(),
            mem_bytes: settings.mem_bytes,
            accelerators: settings.accelerators.clone(),
            facts: BTreeMap::from([("engine_version".to_owned(), "dummy".to_owned())]),
        })
    }

    fn node_sample(&self) -> NodeSample {
        figures::node(&self.inner.settings, self.inner.begin.elapsed())
    }

    async fn images(&self) -> Result<Vec<LocalImage>, BackendError> {
        self.check()?;
        let state = self.inner.state.lock();
        let image =
            |(name, id): (&String, &String)| LocalImage { name: name.clone(), id: id.clone() };
        Ok(state.images.iter().map(image).collect())
    }

    async fn image(&self, name: &str) -> Result<Option<LocalImage>, BackendError> {
        self.check()?;
        let known = self.inner.state.lock().images.get(name).cloned();
        let id = known.or_else(|| self.inner.settings.any_image.then(|| "any".to_owned()));
        Ok(id.map(|id| LocalImage { name: name.to_owned(), id }))
    }

    async fn pull_image(&self, pull: &PullImage, progress: &Progress) -> Result<(), BackendError> {
        self.check()?;
        let script = self.script(&pull.name, None);
        progress("Pulling");
        pause(script.pull_delay).await;
        let unavailable = |why: &str| BackendError::ImageNotAvailable {
            name: pull.name.clone(),
            source: why.to_owned().into(),
        };
        if let Some(error) = script.pull_error {
            return Err(unavailable(&error));
        }
        let mut state = self.inner.state.lock();
        let id = match state.pullable.get(&pull.name) {
            Some(id) => id.clone(),
            None if self.inner.settings.any_image => "any".to_owned(),
            None => return Err(unavailable("the registry does not have it")),
        };
        state.images.insert(pull.name.clone(), id);
        Ok(())
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerHandle, BackendError> {
        self.check()?;
        let script = self.script(&spec.image, spec.labels.get(labels::KERNEL_ID));
        pause(script.create_delay).await;
        if let Some(error) = script.create_error {
            return Err(BackendError::Failed { action: "create container", source: error.into() });
        }
        let mut state = self.inner.state.lock();
        if !self.inner.settings.any_image && !state.images.contains_key(&spec.image) {
            return Err(BackendError::ImageNotAvailable {
                name: spec.image.clone(),
                source: "the engine does not have it".into(),
            });
        }
        if Self::find(&state, &spec.name).is_some() {
            return Err(BackendError::NameTaken(spec.name.clone()));
        }
        for mount in &spec.mounts {
            if !mount.source.exists() {
                let source = format!("mount source {} does not exist", mount.source.display());
                let source = source.into();
                return Err(BackendError::Failed { action: "create container", source });
            }
        }
        let id = hex::encode(rand::rng().random::<[u8; 32]>());
        state.created += 1;
        state.containers.insert(
            id.clone(),
            Container {
                spec: spec.clone(),
                script,
                state: ContainerState::Created,
                orders: watch::Sender::new(Order::None),
                ended: watch::Sender::new(None),
            },
        );
        Ok(ContainerHandle { id, name: spec.name.clone() })
    }

    async fn start(&self, container: &ContainerHandle) -> Result<(), BackendError> {
        self.check()?;
        let missing = || BackendError::NoSuchContainer(container.id.clone());
        let script = {
            let state = self.inner.state.lock();
            state.containers.get(&container.id).ok_or_else(missing)?.script.clone()
        };
        pause(script.start_delay).await;
        if let Some(error) = script.start_error {
            return Err(BackendError::Failed { action: "start container", source: error.into() });
        }
        let program = {
            let mut state = self.inner.state.lock();
            let found = state.containers.get_mut(&container.id).ok_or_else(missing)?;
            if found.state != ContainerState::Created {
                return Ok(());
            }
            found.state = ContainerState::Running;
            Program::of(&found.spec, found.script.clone(), found.orders.subscribe())
        };
        self.inner.announce(&container.id, ContainerChange::Started);
        let inner = Arc::downgrade(&self.inner);
        let id = container.id.clone();
        let mut tasks = self.inner.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let status = program.run().await;
            if let Some(inner) = inner.upgrade() {
                inner.end(&id, status);
            }
        });
        Ok(())
    }

    async fn inspect(&self, id: &str) -> Result<Option<ContainerState>, BackendError> {
        self.check()?;
        let state = self.inner.state.lock();
        Ok(Self::find(&state, id).map(|id| state.containers[&id].state))
    }

    async fn locate(&self, id: &str) -> Result<Option<ContainerPlace>, BackendError> {
        self.check()?;
        let state = self.inner.state.lock();
        let Some(id) = Self::find(&state, id) else { return Ok(None) };
        let is_running = state.containers[&id].state == ContainerState::Running;
        // Nobody looks behind these: there is no process and no network.
        let place = ContainerPlace { id, pid: 1, addresses: vec![Ipv4Addr::LOCALHOST] };
        Ok(is_running.then_some(place))
    }

    fn meter(&self, place: &ContainerPlace) -> io::Result<Box<dyn ContainerMeter>> {
        let state = self.inner.state.lock();
        let gone = || io::Error::new(io::ErrorKind::NotFound, "no such container");
        let container = state.containers.get(&place.id).ok_or_else(gone)?;
        let ended = container.ended.subscribe();
        Ok(Box::new(figures::Container::new(self.inner.settings.mem_bytes, ended)))
    }

    async fn list(&self, owner: &str) -> Result<Vec<OwnedContainer>, BackendError> {
        self.check()?;
        let state = self.inner.state.lock();
        let owned = state
            .containers
            .iter()
            .filter(|(_, c)| c.spec.labels.get(labels::OWNER).is_some_and(|o| o == owner))
            .map(|(id, c)| OwnedContainer {
                handle: ContainerHandle { id: id.clone(), name: c.spec.name.clone() },
                labels: c.spec.labels.clone(),
                state: c.state,
            })
            .collect();
        Ok(owned)
    }

    async fn wait(&self, id: &str) -> Result<ExitStatus, BackendError> {
        self.check()?;
        let mut ended = {
            let state = self.inner.state.lock();
            let missing = || BackendError::NoSuchContainer(id.to_owned());
            let id = Self::find(&state, id).ok_or_else(missing)?;
            state.containers[&id].ended.subscribe()
        };
        match ended.wait_for(Option::is_some).await.map(|status| *status) {
            Ok(Some(status)) => Ok(status),
            _ => Err(BackendError::NoSuchContainer(id.to_owned())),
        }
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), BackendError> {
        self.check()?;
        let (orders, mut ended) = {
            let state = self.inner.state.lock();
            let Some(id) = Self::find(&state, id) else { return Ok(()) };
            let container = &state.containers[&id];
            if container.state != ContainerState::Running {
                return Ok(());
            }
            (container.orders.clone(), container.ended.subscribe())
        };
        if !grace.is_zero() {
            orders.send_replace(Order::Term);
            if tokio::time::timeout(grace, ended.wait_for(Option::is_some)).await.is_ok() {
                return Ok(());
            }
        }
        orders.send_replace(Order::Kill);
        // An error means that the container is gone, which is what is wanted.
        let _ = ended.wait_for(Option::is_some).await;
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<(), BackendError> {
        self.stop(id, Duration::ZERO).await?;
        let mut state = self.inner.state.lock();
        if let Some(id) = Self::find(&state, id) {
            state.containers.remove(&id);
        }
        Ok(())
    }

    async fn logs(&self, id: &str, max_bytes: usize) -> Result<Vec<u8>, BackendError> {
        self.check()?;
        let state = self.inner.state.lock();
        let missing = || BackendError::NoSuchContainer(id.to_owned());
        let id = Self::find(&state, id).ok_or_else(missing)?;
        let log = &state.containers[&id].script.log;
        Ok(log[log.len().saturating_sub(max_bytes)..].to_vec())
    }

    async fn snapshot(&self, id: &str, image: &str) -> Result<(), BackendError> {
        self.check()?;
        let mut state = self.inner.state.lock();
        let missing = || BackendError::NoSuchContainer(id.to_owned());
        let id = Self::find(&state, id).ok_or_else(missing)?;
        let container = &state.containers[&id];
        let snapshot = Snapshot {
            owner: container.spec.labels.get(labels::OWNER).cloned(),
            files: format!("files of {}", container.spec.name).into(),
        };
        state.snapshots.insert(image.to_owned(), snapshot);
        Ok(())
    }

    fn export_image(&self, image: &str) -> BoxStream<'static, Result<Bytes, BackendError>> {
        let files = self.inner.state.lock().snapshots.get(image).map(|found| found.files.clone());
        let pieces = match (self.check(), files) {
            (Err(error), _) => vec![Err(error)],
            (Ok(()), Some(files)) => {
                files.chunks(8).map(|b| Ok(Bytes::copy_from_slice(b))).collect()
            }
            (Ok(()), None) => vec![Err(BackendError::ImageNotAvailable {
                name: image.to_owned(),
                source: "the engine does not have it".into(),
            })],
        };
        futures::stream::iter(pieces).boxed()
    }

    async fn remove_image(&self, image: &str) -> Result<(), BackendError> {
        self.check()?;
        self.inner.state.lock().snapshots.remove(image);
        Ok(())
    }

    async fn snapshots(&self, repository: &str, owner: &str) -> Result<Vec<String>, BackendError> {
        self.check()?;
        let prefix = format!("{repository}:");
        let state = self.inner.state.lock();
        let owned = state.snapshots.iter().filter(|(name, snapshot)| {
            name.starts_with(&prefix) && snapshot.owner.as_deref() == Some(owner)
        });
        Ok(owned.map(|(name, _)| name.clone()).collect())
    }

    async fn create_network(&self, network: &NetworkSpec) -> Result<(), BackendError> {
        self.check()?;
        let spans_hosts = matches!(network.reach, NetworkReach::Swarm { .. });
        if spans_hosts && !self.inner.settings.swarm {
            return Err(BackendError::NoSwarm("the dummy engine is in no swarm".to_owned()));
        }
        let mut state = self.inner.state.lock();
        state.networks.entry(network.name.clone()).or_insert_with(|| network.clone());
        Ok(())
    }

    async fn remove_network(&self, name: &str) -> Result<(), BackendError> {
        self.check()?;
        let mut state = self.inner.state.lock();
        if state.containers.values().any(|c| c.spec.network.as_deref() == Some(name)) {
            let source = format!("network {name} has active endpoints").into();
            return Err(BackendError::Failed { action: "remove network", source });
        }
        state.networks.remove(name);
        Ok(())
    }

    async fn networks(&self, owner: &str) -> Result<Vec<String>, BackendError> {
        self.check()?;
        let state = self.inner.state.lock();
        let is_owned = |network: &&NetworkSpec| {
            network.labels.get(labels::OWNER).is_some_and(|label| label == owner)
        };
        Ok(state.networks.values().filter(is_owned).map(|network| network.name.clone()).collect())
    }

    fn events(
        &self,
        owner: &str,
        _since: DateTime<Utc>,
    ) -> BoxStream<'static, Result<ContainerEvent, BackendError>> {
        let owner = owner.to_owned();
        let down = || BackendError::Unavailable("the dummy engine is switched off".into());
        if let Err(error) = self.check() {
            return futures::stream::iter([Err(error)]).boxed();
        }
        // Subscribed before this returns, so nothing after `since` is missed.
        let signals = self.inner.events.subscribe();
        futures::stream::unfold(Some(signals), move |signals| {
            let owner = owner.clone();
            async move {
                let mut signals = signals?;
                loop {
                    match signals.recv().await {
                        Ok(Signal::Event(whose, event)) if whose == owner => {
                            return Some((Ok(event), Some(signals)));
                        }
                        Ok(Signal::Event(..)) => {}
                        Ok(Signal::Down) | Err(_) => return Some((Err(down()), None)),
                    }
                }
            }
        })
        .boxed()
    }
}

impl Inner {
    fn announce(&self, id: &str, what: ContainerChange) {
        let labels = match self.state.lock().containers.get(id) {
            Some(container) => container.spec.labels.clone(),
            None => return,
        };
        let kernel_id = labels.get(labels::KERNEL_ID).cloned();
        let owner = labels.get(labels::OWNER).cloned().unwrap_or_default();
        let event = ContainerEvent { id: id.to_owned(), kernel_id, what };
        // Nobody may be listening.
        let _ = self.events.send(Signal::Event(owner, event));
    }

    fn end(&self, id: &str, status: ExitStatus) {
        if let Some(container) = self.state.lock().containers.get_mut(id) {
            container.state = ContainerState::Exited(status);
        }
        self.announce(id, ContainerChange::Died(status));
        if let Some(container) = self.state.lock().containers.get(id) {
            container.ended.send_replace(Some(status));
        }
    }
}

async fn pause(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}
