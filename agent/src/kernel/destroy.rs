//! Ending a kernel and removing all that is left of it.

use std::time::Duration;

use super::registry::{Kernel, blocking};
use crate::backend::{BackendError, ContainerState, ExitStatus};
use crate::core::{Core, chain};

/// Beyond the grace that the runner gives its processes, for itself to end.
const RUNNER_SLACK: Duration = Duration::from_millis(500);
/// How long the engine may take to report the end of a container it was told to kill.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends a running container: asks the runner, and kills when it does not end in time. The
/// exit code, if it becomes known.
pub async fn stop_container(core: &Core, kernel: &Kernel, container_id: &str) -> ExitStatus {
    if let Some(ended) = kernel.exit_status() {
        return ended;
    }
    let grace = core.settings.stop_grace;
    if kernel.runner.shut_down(grace) {
        tokio::select! {
            ended = kernel.container_end() => return ended,
            () = tokio::time::sleep(grace + RUNNER_SLACK) => {
                tracing::info!(kernel.id = %kernel.id, "the runner did not end; killing it");
            }
        }
    }
    core.insist("stop a container", || core.backend.stop(container_id, Duration::ZERO)).await;
    tokio::select! {
        ended = kernel.container_end() => ended,
        ended = exit_status(core, container_id) => ended,
    }
}

/// Asks the engine how a container ended, which its events may have failed to tell.
async fn exit_status(core: &Core, container_id: &str) -> ExitStatus {
    let wait = core.backend.wait(container_id);
    match tokio::time::timeout(KILL_TIMEOUT, wait).await {
        Ok(Ok(status)) => status,
        _ => ExitStatus { code: None },
    }
}

/// Saves a container's log for the manager.
pub async fn keep_log(core: &Core, kernel: &Kernel, container_id: &str) {
    let max_bytes = usize::try_from(core.settings.log_bytes).unwrap_or(usize::MAX);
    let bytes = match core.backend.logs(container_id, max_bytes).await {
        Ok(bytes) => bytes,
        Err(BackendError::NoSuchContainer(_)) => return,
        Err(error) => {
            tracing::warn!(kernel.id = %kernel.id, "its log is lost: {}", chain(&error));
            return;
        }
    };
    let (logs, id) = (core.logs.clone(), kernel.id);
    if let Err(error) = blocking(move || logs.keep(id, &bytes)).await {
        tracing::warn!(kernel.id = %kernel.id, %error, "its log is lost: write it");
    }
}

/// Removes a kernel's container alone, with all that hangs on its runner. Goes on until it
/// succeeds.
pub async fn remove_container(core: &Core, kernel: &Kernel, container: &str) {
    core.insist("remove a container", || core.backend.remove(container)).await;
    kernel.runner.close();
}

/// Removes all that a kernel may have left: container, network, folders, socket, resources. Each
/// part may be missing. Goes on until it succeeds.
pub async fn tear_down(core: &Core, kernel: &Kernel, container: &str) {
    remove_container(core, kernel, container).await;
    if let Some(network) = kernel.network() {
        core.networks.leave(core, &network, kernel.id).await;
    }
    let (scratch, id) = (core.scratch.clone(), kernel.id);
    if let Err(error) = blocking(move || scratch.remove(id)).await {
        // Tried again when the agent starts the next time.
        tracing::error!(kernel.id = %kernel.id, %error, "remove the kernel's folders");
    }
    core.release(kernel.id);
}

/// True if the container is there and runs.
pub async fn is_running(core: &Core, container: &str) -> bool {
    let state = core.insist("inspect a container", || core.backend.inspect(container)).await;
    state == Some(ContainerState::Running)
}
