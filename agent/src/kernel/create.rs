//! Making a kernel: image, resources, folders, container, runner.
//!
//! ```text
//! step                      undone by (kernel::destroy::tear_down)
//! have the image            stays: it is the engine's cache
//! take resources            giving them back
//! make folders and socket   removing them
//! make the cluster's network removing it, with the last of its kernels
//! make the container        removing it, by its name
//! start it                  the same
//! wait for the runner       the same
//! ```
//! Every undo is harmless where its step did not happen, so a failure anywhere, and a
//! crash anywhere, is mended by the same function that ends a running kernel.

use std::io;
use std::sync::Arc;

use tokio::net::UnixListener;

use backendai_rpc::agent_api::{AutoPull, CreationInfo, KernelSpec, SessionSpec};
use backendai_rpc::call::{ErrorKind, RemoteError};
use backendai_rpc::manager_api::KernelChange;
use backendai_types::KernelId;
use backendai_types::image::normalize_architecture;

use super::definition;
use super::mounts::{self, Folders, MountError};
use super::record::{KernelState, RunningKernel};
use super::registry::{Kernel, blocking};
use super::summary::{KernelSummary, describe};
use crate::backend::{BackendError, ContainerHandle, ExitStatus, PullImage};
use crate::core::{Core, Host, chain};
use crate::resources::{Allocation, AllocationError};
use crate::runner_link;

/// Bytes of a failed container's output that go into the error.
const ERROR_LOG_BYTES: usize = 2048;

/// Why a kernel was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// It is not wanted any more.
    #[error("removed while it was being made")]
    Unwanted,
    /// Its image is of another architecture.
    #[error("image {image} is made for {image_arch}, this agent runs {agent_arch}")]
    Architecture {
        /// The image.
        image: String,
        /// The image's architecture.
        image_arch: String,
        /// The agent's.
        agent_arch: String,
    },
    /// The engine does not have the image and may not or cannot pull it.
    #[error("image {0} is not on this agent and is not to be pulled")]
    NoImage(String),
    /// Not enough resources, or none such.
    #[error(transparent)]
    Allocation(#[from] AllocationError),
    /// Its folders or socket could not be made.
    #[error("prepare the kernel's folders")]
    Scratch(#[source] io::Error),
    /// A folder cannot be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The engine refused.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The container ended before its runner answered.
    #[error("the container ended{} before its runner answered{}", exit_text(.0), output_text(.1))]
    Ended(ExitStatus, Vec<u8>),
    /// The runner is not ours.
    #[error("{0}")]
    WrongRunner(String),
    /// The runner did not answer in time.
    #[error("the kernel runner did not answer within {after_s} s{}", output_text(.output))]
    Timeout {
        /// How long the agent waited, in seconds.
        after_s: u64,
        /// The end of what the container wrote.
        output: Vec<u8>,
    },
}

fn exit_text(status: &ExitStatus) -> String {
    status.code.map_or_else(String::new, |code| format!(" with exit code {code}"))
}

fn output_text(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    match text.trim() {
        "" => String::new(),
        text => format!("; it wrote: {text}"),
    }
}

impl From<&CreateError> for RemoteError {
    fn from(error: &CreateError) -> Self {
        let kind = match error {
            CreateError::Architecture { .. } | CreateError::NoImage(_) => {
                ErrorKind::ImageNotAvailable
            }
            CreateError::Backend(BackendError::ImageNotAvailable { .. }) => {
                ErrorKind::ImageNotAvailable
            }
            CreateError::Backend(BackendError::Unavailable(_)) => ErrorKind::EngineUnavailable,
            CreateError::Allocation(AllocationError::Insufficient { .. }) => {
                ErrorKind::InsufficientResource
            }
            CreateError::Allocation(_) => ErrorKind::InvalidInput,
            CreateError::Backend(BackendError::NoSwarm(_)) => ErrorKind::InvalidInput,
            CreateError::Mount(_) => ErrorKind::InvalidInput,
            CreateError::Unwanted
            | CreateError::Scratch(_)
            | CreateError::Backend(_)
            | CreateError::Ended(..)
            | CreateError::WrongRunner(_)
            | CreateError::Timeout { .. } => ErrorKind::Internal,
        };
        Self::new(kind, chain(error))
    }
}

/// A kernel whose container exists.
pub struct Started {
    /// The container.
    pub container: ContainerHandle,
    /// What it holds.
    pub allocation: Allocation,
}

/// Makes and starts the container of a kernel, its runner's socket listening in
/// `serve_runner`'s hands before the container starts.
///
/// # Errors
/// See [`CreateError`]; what was done stays to be undone.
pub async fn start_container(
    core: &Core,
    kernel: &Kernel,
    session: &SessionSpec,
    spec: &KernelSpec,
    serve_runner: impl FnOnce(UnixListener),
) -> Result<Started, CreateError> {
    let host = core.host.get().ok_or_else(|| not_reached("make a kernel"))?;
    check_architecture(spec, host)?;
    let restart = kernel.record().restart;
    let allocation = host.pool.lock().allocate(spec.kernel_id, &spec.slots)?;
    let (image, listener) = tokio::join!(
        unless_unwanted(kernel, ensure_image(core, kernel, spec, host)),
        prepare_folders(core, session, spec, &allocation, restart.is_some()),
    );
    image?;
    serve_runner(listener?);
    core.events.push(kernel.record().event(core.now(), KernelChange::Creating));
    if let Some(network) = kernel.network() {
        core.networks.join(core, &network, kernel.session_id, kernel.id).await?;
    }

    let folders = mount_folders(core, spec).await?;
    let mounts = folders.mounts.clone();
    let definition = definition::container_spec(core, session, spec, &allocation, restart, mounts);
    let container = {
        let _turn = core.creations.acquire().await;
        check_wanted(kernel)?;
        let container = core.backend.create(&definition).await?;
        kernel.holds_container(&container.id);
        check_wanted(kernel)?;
        core.backend.start(&container).await?;
        container
    };
    release(folders).await;
    Ok(Started { container, allocation })
}

async fn mount_folders(core: &Core, spec: &KernelSpec) -> Result<Folders, CreateError> {
    let (root, scratch) = (core.settings.mount_root.clone(), core.scratch.clone());
    let (kernel_id, wanted) = (spec.kernel_id, spec.mounts.clone());
    let mounted = tokio::task::spawn_blocking(move || {
        mounts::resolve(root.as_deref(), scratch.root(), kernel_id, &wanted)
    });
    Ok(mounted.await.map_err(|error| CreateError::Scratch(io::Error::other(error)))??)
}

/// Takes the folders' own mounts down: the container has its own.
async fn release(folders: Folders) {
    let released = tokio::task::spawn_blocking(move || drop(folders)).await;
    if let Err(error) = released {
        tracing::warn!(%error, "take down the mounts of a kernel that is made");
    }
}

/// Waits until the runner of a started container is ready.
///
/// # Errors
/// It ends, does not answer in time, or is not wanted any more.
pub async fn wait_ready(
    core: &Core,
    kernel: &Kernel,
    container: &ContainerHandle,
) -> Result<(), CreateError> {
    let timeout = core.settings.ready_timeout;
    tokio::select! {
        ready = kernel.runner.ready() => ready.map_err(CreateError::WrongRunner),
        ended = kernel.container_end() => {
            Err(CreateError::Ended(ended, last_output(core, container).await))
        }
        _ = kernel.destroy_requested() => Err(CreateError::Unwanted),
        () = tokio::time::sleep(timeout) => Err(CreateError::Timeout {
            after_s: timeout.as_secs(),
            output: last_output(core, container).await,
        }),
    }
}

/// Notes that a kernel runs and tells the manager.
pub async fn finish(core: &Core, kernel: &Arc<Kernel>, started: Started, summary: &KernelSummary) {
    let mut service_ports = summary.service_ports.clone();
    describe(&mut service_ports, kernel.runner.apps());
    let running = RunningKernel {
        info: CreationInfo {
            container_id: started.container.id.clone(),
            kernel_host: core.settings.kernel_host.clone(),
            service_ports,
            slots: started.allocation.slots(),
            allocations: started.allocation.as_text(),
        },
        container: started.container,
        allocation: started.allocation,
        at: core.now(),
        batch_end: None,
    };
    let event = kernel.record().started(running.at, running.info.clone());
    kernel.change(|record| record.state = KernelState::Running(Box::new(running)));
    if let Err(error) = kernel.write(&core.store).await {
        tracing::error!(kernel.id = %kernel.id, %error, "write the record of a running kernel");
    }
    core.events.push(event);
    let (store, id) = (core.store.clone(), kernel.id);
    if let Err(error) = blocking(move || store.sync(id)).await {
        tracing::error!(kernel.id = %kernel.id, %error, "sync the record of a running kernel");
    }
}

fn check_architecture(spec: &KernelSpec, host: &Host) -> Result<(), CreateError> {
    let agent_arch = &host.fingerprint.architecture;
    let image_arch = normalize_architecture(&spec.image.architecture);
    if image_arch.is_empty() || image_arch == *agent_arch {
        return Ok(());
    }
    Err(CreateError::Architecture {
        image: spec.image.canonical.clone(),
        image_arch,
        agent_arch: agent_arch.clone(),
    })
}

fn check_wanted(kernel: &Kernel) -> Result<(), CreateError> {
    match kernel.destroy_reason() {
        Some(_) => Err(CreateError::Unwanted),
        None => Ok(()),
    }
}

async fn unless_unwanted(
    kernel: &Kernel,
    work: impl Future<Output = Result<(), CreateError>>,
) -> Result<(), CreateError> {
    tokio::select! {
        done = work => done,
        _ = kernel.destroy_requested() => Err(CreateError::Unwanted),
    }
}

async fn ensure_image(
    core: &Core,
    kernel: &Kernel,
    spec: &KernelSpec,
    host: &Host,
) -> Result<(), CreateError> {
    let image = &spec.image;
    let found = core.backend.image(&image.canonical).await?;
    let is_current = match (&found, spec.auto_pull) {
        (None, _) => false,
        (Some(_), AutoPull::Tag | AutoPull::None) => true,
        (Some(_), AutoPull::Digest) if image.config_digest.is_empty() => true,
        (Some(found), AutoPull::Digest) if host.fingerprint.image_id_is_config_digest => {
            found.id == image.config_digest
        }
        // The engine's ids tell nothing about digests; what was pulled for one has it.
        (Some(_), AutoPull::Digest) => {
            core.pulled.lock().get(&image.canonical) == Some(&image.config_digest)
        }
    };
    if is_current {
        return Ok(());
    }
    let Some(registry_url) = &image.registry_url else {
        // An image that is nowhere else is current whatever its digest.
        return match found {
            Some(_) => Ok(()),
            None => Err(CreateError::NoImage(image.canonical.clone())),
        };
    };
    if spec.auto_pull == AutoPull::None {
        return Err(CreateError::NoImage(image.canonical.clone()));
    }
    let pulling = KernelChange::Pulling { image: image.canonical.clone() };
    core.events.push(kernel.record().event(core.now(), pulling));
    tracing::info!(kernel.id = %kernel.id, image = image.canonical, "pulling an image");
    let pull = PullImage {
        name: image.canonical.clone(),
        architecture: image.architecture.clone(),
        registry_url: Some(registry_url.clone()),
        credentials: image.registry_username.clone().zip(image.registry_password.clone()),
    };
    let canonical = image.canonical.clone();
    let progress = move |text: &str| tracing::debug!(image = canonical, "pull: {text}");
    core.backend.pull_image(&pull, &progress).await?;
    tracing::info!(kernel.id = %kernel.id, image = image.canonical, "pulled an image");
    core.pulled.lock().insert(image.canonical.clone(), image.config_digest.clone());
    Ok(())
}

async fn prepare_folders(
    core: &Core,
    session: &SessionSpec,
    spec: &KernelSpec,
    allocation: &Allocation,
    is_restart: bool,
) -> Result<UnixListener, CreateError> {
    let runner = definition::runner_config(core, session, spec, allocation);
    let scratch = core.scratch.clone();
    let (session, spec, allocation) = (session.clone(), spec.clone(), allocation.clone());
    let kernel_id = spec.kernel_id;
    blocking(move || scratch.prepare(&session, &spec, &allocation, &runner, is_restart))
        .await
        .map_err(CreateError::Scratch)?;
    listen(core, kernel_id)
}

/// Listens for the runner of a kernel.
///
/// # Errors
/// The socket cannot be made.
pub fn listen(core: &Core, kernel_id: KernelId) -> Result<UnixListener, CreateError> {
    let dir = core.scratch.make_ipc_dir(kernel_id).map_err(CreateError::Scratch)?;
    runner_link::bind(&dir).map_err(CreateError::Scratch)
}

async fn last_output(core: &Core, container: &ContainerHandle) -> Vec<u8> {
    match core.backend.logs(&container.id, ERROR_LOG_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::warn!(container = container.name, "read its log: {}", chain(&error));
            Vec::new()
        }
    }
}

fn not_reached(action: &'static str) -> BackendError {
    BackendError::Failed { action, source: "the engine has not been reached yet".into() }
}
