//! Docker, through its API (1.41 and later; cgroup v1 and v2).

mod image;
mod isolation;
mod limits;
mod network;
mod snapshot;
mod spec;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::{
    ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum, EndpointSettings,
    EventMessage,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use backendai_types::image::normalize_architecture;

use super::{
    BackendError, BoxError, ContainerBackend, ContainerChange, ContainerEvent, ContainerHandle,
    ContainerPlace, ContainerSpec, ContainerState, ExitStatus, Fingerprint, LocalImage,
    NetworkSpec, OwnedContainer, Progress, PullImage, labels,
};
use crate::resources::{cpu, mem};
use crate::statistics::{ContainerMeter, HostMeter, NodeSample, host};

/// Longer than any single call takes on a busy host; streams are not bound by it.
const CALL_TIMEOUT_S: u64 = 120;

/// A Docker engine.
pub struct DockerBackend {
    address: DockerAddress,
    /// Made at the first call, when the engine's API version is known.
    engine: OnceCell<Engine>,
}

/// Where Docker listens.
#[derive(Clone, Debug, Default)]
pub enum DockerAddress {
    /// `$DOCKER_HOST`, else the usual socket.
    #[default]
    Environment,
    /// A unix socket.
    Socket(String),
}

struct Engine {
    docker: Docker,
    facts: spec::EngineFacts,
    fingerprint: Fingerprint,
    isolation: isolation::Isolation,
}

impl DockerBackend {
    /// A backend that connects at its first call.
    pub fn new(address: DockerAddress) -> Self {
        Self { address, engine: OnceCell::new() }
    }

    async fn engine(&self) -> Result<&Engine, BackendError> {
        self.engine.get_or_try_init(|| self.connect()).await
    }

    async fn docker(&self) -> Result<&Docker, BackendError> {
        self.engine().await.map(|engine| &engine.docker)
    }

    fn client(&self) -> Result<Docker, DockerError> {
        match &self.address {
            DockerAddress::Environment => Docker::connect_with_defaults(),
            DockerAddress::Socket(path) => {
                Docker::connect_with_unix(path, CALL_TIMEOUT_S, bollard::API_DEFAULT_VERSION)
            }
        }
    }

    async fn connect(&self) -> Result<Engine, BackendError> {
        let unavailable = |error: DockerError| BackendError::Unavailable(error.into());
        let docker = self.client().map_err(unavailable)?;
        let docker = docker.negotiate_version().await.map_err(unavailable)?;
        let info = docker.info().await.map_err(unavailable)?;
        let version = info.server_version.clone().unwrap_or_default();
        let cgroup_version = info.cgroup_version.map(|v| v.to_string()).filter(|v| !v.is_empty());
        let has_containerd_store = info
            .driver_status
            .iter()
            .flatten()
            .flatten()
            .any(|text| text.contains("io.containerd.snapshotter"));
        let facts = spec::EngineFacts {
            has_local_log: info
                .plugins
                .as_ref()
                .and_then(|plugins| plugins.log.as_ref())
                .is_some_and(|drivers| drivers.iter().any(|driver| driver == "local")),
            rlimits: limits::engine_rlimits(self.socket_path().as_deref()),
            agent_is_root: rustix::process::geteuid().is_root(),
        };
        let mut about = BTreeMap::new();
        about.insert("engine_version".to_owned(), version.clone());
        about.insert("cgroup_version".to_owned(), cgroup_version.clone().unwrap_or_default());
        about.insert("os".to_owned(), info.operating_system.clone().unwrap_or_default());
        about.insert("kernel_version".to_owned(), info.kernel_version.clone().unwrap_or_default());
        let fingerprint = Fingerprint {
            engine: format!("docker {version}"),
            architecture: normalize_architecture(info.architecture.as_deref().unwrap_or_default()),
            cgroup_version,
            image_id_is_config_digest: !has_containerd_store,
            cores: cpu::usable_cores()
                .into_iter()
                .map(|core| (core, cpu::numa_node(core)))
                .collect(),
            mem_bytes: info
                .mem_total
                .and_then(|b| u64::try_from(b).ok())
                .unwrap_or_else(mem::total_bytes),
            accelerators: Vec::new(),
            facts: about,
        };
        let isolation = isolation::Isolation::choose(&docker, facts.agent_is_root).await?;
        Ok(Engine { docker, facts, fingerprint, isolation })
    }

    /// All the engine knows of a container; `None` if there is none.
    async fn details(&self, id: &str) -> Result<Option<ContainerInspectResponse>, BackendError> {
        match self.docker().await?.inspect_container(id, None).await {
            Ok(container) => Ok(Some(container)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(failed("inspect container", error)),
        }
    }

    /// The unix socket in use, to find the engine's process behind it.
    fn socket_path(&self) -> Option<String> {
        match &self.address {
            DockerAddress::Socket(path) => Some(path.clone()),
            DockerAddress::Environment => match std::env::var("DOCKER_HOST") {
                Ok(host) => host.strip_prefix("unix://").map(str::to_owned),
                Err(_) => Some("/var/run/docker.sock".to_owned()),
            },
        }
    }
}

#[async_trait]
impl ContainerBackend for DockerBackend {
    async fn fingerprint(&self) -> Result<Fingerprint, BackendError> {
        let engine = self.engine().await?;
        engine.docker.ping().await.map_err(|error| failed("reach Docker", error))?;
        Ok(engine.fingerprint.clone())
    }

    fn node_sample(&self) -> NodeSample {
        host::sample()
    }

    async fn images(&self) -> Result<Vec<LocalImage>, BackendError> {
        image::list(self.docker().await?).await
    }

    async fn image(&self, name: &str) -> Result<Option<LocalImage>, BackendError> {
        image::find(self.docker().await?, name).await
    }

    async fn pull_image(&self, pull: &PullImage, progress: &Progress) -> Result<(), BackendError> {
        image::pull(self.docker().await?, pull, progress).await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerHandle, BackendError> {
        let engine = self.engine().await?;
        let options = CreateContainerOptionsBuilder::new().name(&spec.name).build();
        let mut body = spec::body(spec, &engine.facts);
        if spec.network.is_none() {
            engine.isolation.apply_to(&mut body);
        }
        let made = engine.docker.create_container(Some(options), body).await;
        match made {
            Ok(made) => {
                for warning in made.warnings {
                    tracing::debug!(container = spec.name, "Docker warns: {warning}");
                }
                Ok(ContainerHandle { id: made.id, name: spec.name.clone() })
            }
            Err(DockerError::DockerResponseServerError { status_code: 409, .. }) => {
                Err(BackendError::NameTaken(spec.name.clone()))
            }
            Err(error @ DockerError::DockerResponseServerError { status_code: 404, .. }) => {
                let name = spec.image.clone();
                Err(BackendError::ImageNotAvailable { name, source: error.into() })
            }
            Err(error) => Err(failed("create container", error)),
        }
    }

    async fn start(&self, container: &ContainerHandle) -> Result<(), BackendError> {
        let engine = self.engine().await?;
        engine
            .docker
            .start_container(&container.id, None)
            .await
            .map_err(|error| about(&container.id, "start container", error))?;
        engine.isolation.isolate(&engine.docker, &container.id).await
    }

    async fn inspect(&self, id: &str) -> Result<Option<ContainerState>, BackendError> {
        let Some(container) = self.details(id).await? else { return Ok(None) };
        let state = container.state.unwrap_or_default();
        Ok(Some(if state.running == Some(true) {
            ContainerState::Running
        } else if state.status == Some(bollard::models::ContainerStateStatusEnum::CREATED) {
            ContainerState::Created
        } else {
            ContainerState::Exited(ExitStatus { code: state.exit_code.map(|code| code as i32) })
        }))
    }

    async fn locate(&self, id: &str) -> Result<Option<ContainerPlace>, BackendError> {
        let Some(container) = self.details(id).await? else { return Ok(None) };
        let pid = container.state.and_then(|state| state.pid).and_then(|p| u32::try_from(p).ok());
        let Some(pid) = pid.filter(|pid| *pid > 0) else { return Ok(None) };
        let networks = container.network_settings.and_then(|settings| settings.networks);
        let address = |network: EndpointSettings| network.ip_address?.parse::<Ipv4Addr>().ok();
        let addresses = networks.into_iter().flatten().filter_map(|(_, n)| address(n)).collect();
        Ok(Some(ContainerPlace { id: id.to_owned(), pid, addresses }))
    }

    fn meter(&self, place: &ContainerPlace) -> io::Result<Box<dyn ContainerMeter>> {
        Ok(Box::new(HostMeter::open(place.pid)?))
    }

    async fn list(&self, owner: &str) -> Result<Vec<OwnedContainer>, BackendError> {
        let filters = HashMap::from([("label", vec![format!("{}={owner}", labels::OWNER)])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let docker = self.docker().await?;
        let found = docker
            .list_containers(Some(options))
            .await
            .map_err(|error| failed("list containers", error))?;
        Ok(found.into_iter().filter_map(owned_container).collect())
    }

    async fn wait(&self, id: &str) -> Result<ExitStatus, BackendError> {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        let mut replies = self.docker().await?.wait_container(id, Some(options));
        match replies.next().await {
            Some(Ok(reply)) => Ok(ExitStatus { code: Some(reply.status_code as i32) }),
            // bollard makes an error of every exit code but zero.
            Some(Err(DockerError::DockerContainerWaitError { code, .. })) => {
                Ok(ExitStatus { code: Some(code as i32) })
            }
            Some(Err(error)) => Err(about(id, "wait for container", error)),
            None => Err(BackendError::Unavailable("the connection ended".into())),
        }
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), BackendError> {
        let docker = self.docker().await?;
        let result = if grace.is_zero() {
            let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
            docker.kill_container(id, Some(options)).await
        } else {
            // Docker counts in seconds and takes zero for "at once".
            let seconds = i32::try_from(grace.as_secs_f64().ceil() as u64).unwrap_or(i32::MAX);
            let options = StopContainerOptionsBuilder::new().t(seconds).build();
            docker.stop_container(id, Some(options)).await
        };
        match result {
            Ok(()) => Ok(()),
            // 304 and 409: it does not run; 404: it is gone.
            Err(error) if matches!(status(&error), Some(304 | 404 | 409)) => Ok(()),
            Err(error) => Err(failed("stop container", error)),
        }
    }

    async fn remove(&self, id: &str) -> Result<(), BackendError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let docker = self.docker().await?;
        match docker.remove_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            // Somebody else is removing it: done when it cannot be found any more.
            Err(error) if status(&error) == Some(409) => {
                let options = WaitContainerOptionsBuilder::new().condition("removed").build();
                let mut replies = docker.wait_container(id, Some(options));
                while let Some(Ok(_)) = replies.next().await {}
                match self.inspect(id).await? {
                    None => Ok(()),
                    Some(_) => Err(failed("remove container", error)),
                }
            }
            Err(error) => Err(failed("remove container", error)),
        }
    }

    async fn logs(&self, id: &str, max_bytes: usize) -> Result<Vec<u8>, BackendError> {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail("all").build();
        let mut pieces = self.docker().await?.logs(id, Some(options));
        let mut tail = Tail::new(max_bytes);
        while let Some(piece) =
            pieces.try_next().await.map_err(|error| about(id, "read container log", error))?
        {
            tail.push(&piece.into_bytes());
        }
        Ok(tail.into_bytes())
    }

    async fn snapshot(&self, id: &str, image: &str) -> Result<(), BackendError> {
        snapshot::make(self.docker().await?, id, image).await
    }

    fn export_image(&self, image: &str) -> BoxStream<'static, Result<Bytes, BackendError>> {
        let Some(engine) = self.engine.get() else {
            let error = BackendError::Unavailable("never reached so far".into());
            return futures::stream::iter([Err(error)]).boxed();
        };
        snapshot::export(&engine.docker, image)
    }

    async fn remove_image(&self, image: &str) -> Result<(), BackendError> {
        snapshot::remove(self.docker().await?, image).await
    }

    async fn snapshots(&self, repository: &str, owner: &str) -> Result<Vec<String>, BackendError> {
        snapshot::list(self.docker().await?, repository, owner).await
    }

    async fn create_network(&self, network: &NetworkSpec) -> Result<(), BackendError> {
        network::create(self.docker().await?, network).await
    }

    async fn remove_network(&self, name: &str) -> Result<(), BackendError> {
        network::remove(self.docker().await?, name).await
    }

    async fn networks(&self, owner: &str) -> Result<Vec<String>, BackendError> {
        network::list(self.docker().await?, owner).await
    }

    fn events(
        &self,
        owner: &str,
        since: DateTime<Utc>,
    ) -> BoxStream<'static, Result<ContainerEvent, BackendError>> {
        let Some(engine) = self.engine.get() else {
            let error = BackendError::Unavailable("never reached so far".into());
            return futures::stream::iter([Err(error)]).boxed();
        };
        let filters = HashMap::from([
            ("type", vec!["container".to_owned()]),
            ("label", vec![format!("{}={owner}", labels::OWNER)]),
            ("event", ["start", "die", "oom"].map(str::to_owned).to_vec()),
        ]);
        let since = format!("{}.{:09}", since.timestamp(), since.timestamp_subsec_nanos());
        let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
        engine
            .docker
            .events(Some(options))
            .map_err(|error| failed("read events", error))
            .try_filter_map(|message| async move { Ok(container_event(message)) })
            .boxed()
    }
}

fn owned_container(found: ContainerSummary) -> Option<OwnedContainer> {
    let state = match found.state? {
        ContainerSummaryStateEnum::CREATED => ContainerState::Created,
        ContainerSummaryStateEnum::RUNNING
        | ContainerSummaryStateEnum::PAUSED
        | ContainerSummaryStateEnum::RESTARTING
        | ContainerSummaryStateEnum::STOPPING => ContainerState::Running,
        // The exit code is in the text alone: `Exited (137) 3 minutes ago`.
        _ => ContainerState::Exited(ExitStatus {
            code: found.status.as_deref().and_then(exit_code_of_status),
        }),
    };
    let name = found.names?.into_iter().next()?.trim_start_matches('/').to_owned();
    Some(OwnedContainer {
        handle: ContainerHandle { id: found.id?, name },
        labels: found.labels.unwrap_or_default().into_iter().collect(),
        state,
    })
}

fn exit_code_of_status(text: &str) -> Option<i32> {
    text.strip_prefix("Exited (")?.split(')').next()?.parse().ok()
}

fn container_event(message: EventMessage) -> Option<ContainerEvent> {
    let actor = message.actor?;
    let attributes = actor.attributes.unwrap_or_default();
    let what = match message.action?.as_str() {
        "start" => ContainerChange::Started,
        "die" => ContainerChange::Died(ExitStatus {
            code: attributes.get("exitCode").and_then(|code| code.parse().ok()),
        }),
        "oom" => ContainerChange::OutOfMemory,
        _ => return None,
    };
    let kernel_id = attributes.get(labels::KERNEL_ID).cloned();
    Some(ContainerEvent { id: actor.id?, kernel_id, what })
}

fn status(error: &DockerError) -> Option<u16> {
    match error {
        DockerError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// An answer of the engine that says no is its verdict; no answer is its absence.
fn failed(action: &'static str, error: DockerError) -> BackendError {
    match error {
        DockerError::DockerResponseServerError { message, .. } => {
            BackendError::Failed { action, source: BoxError::from(message) }
        }
        DockerError::DockerStreamError { error } => {
            BackendError::Failed { action, source: error.into() }
        }
        error => BackendError::Unavailable(error.into()),
    }
}

fn about(id: &str, action: &'static str, error: DockerError) -> BackendError {
    match status(&error) {
        Some(404) if error.to_string().contains("No such container") => {
            BackendError::NoSuchContainer(id.to_owned())
        }
        _ => failed(action, error),
    }
}

/// Keeps the last bytes of a stream in memory that does not grow beyond twice of them.
struct Tail {
    bytes: Vec<u8>,
    max: usize,
}

impl Tail {
    fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max }
    }

    fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        if self.bytes.len() > self.max.saturating_mul(2) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let surplus = self.bytes.len().saturating_sub(self.max);
        self.bytes.drain(..surplus);
    }

    fn into_bytes(mut self) -> Vec<u8> {
        self.cut();
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_read_from_the_status_text() {
        assert_eq!(exit_code_of_status("Exited (137) 3 minutes ago"), Some(137));
        assert_eq!(exit_code_of_status("Up 2 hours"), None);
    }

    #[test]
    fn a_tail_keeps_the_last_bytes() {
        let mut tail = Tail::new(4);
        for piece in ["ab", "cdefghijk", "l", "mn"] {
            tail.push(piece.as_bytes());
        }
        assert_eq!(tail.into_bytes(), b"klmn");
    }
}
