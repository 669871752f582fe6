//! The task that owns one kernel: makes it, watches it, ends it, and stays until the
//! manager knows.
//!
//! ```text
//!            create ───────────┐ failed, unwanted
//!              │               ▼
//!   adopt ─▶ watch ────────▶ remove ──▶ report the end ──▶ forget
//!              (until it ends or is to be removed)
//! ```
//! A kernel that is to be restarted leaves `watch` too: its container is removed, and a new
//! task creates it from its folders.
//! The task is dropped at shutdown wherever it is; the record, the container's name and
//! its labels tell the next process where to go on.

use std::sync::Arc;
use std::time::Instant;

use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tracing::Instrument;

use backendai_rpc::agent_api::{KernelSpec, SessionSpec};
use backendai_rpc::call::RemoteError;
use backendai_rpc::manager_api::KernelChange;
use backendai_rpc::statistics::Packed;
use backendai_types::SessionType;

use super::create::{self, CreateError, Started};
use super::definition;
use super::destroy;
use super::place;
use super::record::{KernelEnd, KernelRecord, KernelState};
use super::registry::{Kernel, blocking};
use super::summary::KernelSummary;
use crate::backend::ContainerHandle;
use crate::core::Core;
use crate::metrics;
use crate::runner_link::{self, Outbox};

/// Why a kernel ended that nobody wanted to end.
const SELF_TERMINATED: &str = "self-terminated";

/// Where the task of a kernel begins.
pub enum Begin {
    /// With nothing but its record.
    Create {
        /// The session.
        session: Box<SessionSpec>,
        /// The kernel, with the registry's password if it has one.
        spec: Box<KernelSpec>,
    },
    /// With its container running, but its start not reported.
    Finish {
        /// The container.
        container: ContainerHandle,
        /// What the container's labels say.
        summary: KernelSummary,
    },
    /// With its container running, or having ended meanwhile.
    Adopt,
    /// With nothing left but to tell the manager.
    Report,
}

/// Starts the task of a kernel.
pub fn spawn(core: &Arc<Core>, kernel: Arc<Kernel>, outbox: Outbox, begin: Begin) {
    let span =
        tracing::info_span!("kernel", kernel.id = %kernel.id, session.id = %kernel.session_id);
    let core = Arc::clone(core);
    let lifecycle = core.lifecycle.clone();
    lifecycle.clone().spawn(
        "kernel",
        async move {
            tokio::select! {
                () = run(&core, &kernel, outbox, begin) => {}
                () = lifecycle.stopping() => {}
            }
        }
        .instrument(span),
    );
}

async fn run(core: &Arc<Core>, kernel: &Arc<Kernel>, outbox: Outbox, begin: Begin) {
    let mut link = RunnerTask::new(kernel, outbox);
    let watched = match begin {
        Begin::Report => None,
        Begin::Adopt => match create::listen(core, kernel.id) {
            Ok(listener) => {
                link.serve(listener);
                Some(watch_and_end(core, kernel).await)
            }
            Err(error) => Some(Watched::Ended(give_up(core, kernel, &error).await)),
        },
        Begin::Create { session, spec } => {
            // Something may be left of an attempt that was cut short.
            match make(core, kernel, &session, &spec, &mut link).await {
                Ok(()) => Some(watch_and_end(core, kernel).await),
                Err(error) => {
                    destroy::tear_down(core, kernel, &definition::container_name(&spec)).await;
                    Some(Watched::Ended(failure(kernel, &error)))
                }
            }
        }
        Begin::Finish { container, summary } => {
            match take_up(core, kernel, &container, &summary, &mut link).await {
                Ok(()) => Some(watch_and_end(core, kernel).await),
                Err(error) => {
                    destroy::tear_down(core, kernel, &container.name).await;
                    Some(Watched::Ended(failure(kernel, &error)))
                }
            }
        }
    };
    drop(link);
    if let Some(Watched::Restarts(record)) = watched {
        begin_again(core, kernel, *record).await;
        return;
    }
    if let Some(Watched::Ended(end)) = watched {
        let at = core.now();
        kernel.change(|record| record.state = KernelState::Gone { change: end, at });
        if let Err(error) = kernel.write(&core.store).await {
            tracing::error!(%error, "write the record of a kernel that is gone");
        }
    }
    report_end(core, kernel).await;
}

/// How the watch over a running kernel came to its end.
enum Watched {
    /// Nothing is left of it.
    Ended(KernelEnd),
    /// Its container is gone; its record says how to go on.
    Restarts(Box<KernelRecord>),
}

/// Hands a kernel whose container was removed over to a new task, which makes it anew. The
/// kernel is a new one to all others as well: whatever hung on the old runner has ended.
async fn begin_again(core: &Arc<Core>, kernel: &Arc<Kernel>, record: KernelRecord) {
    let KernelState::Creating { session, spec } = record.state.clone() else { return };
    let (fresh, outbox) = Kernel::new(record);
    core.registry.replace(&fresh);
    // Asked for of the old one, just before it was replaced.
    if let Some(reason) = kernel.destroy_reason()
        && let Err(error) = fresh.request_destroy(&core.store, &reason).await
    {
        tracing::error!(%error, "note on disk that a kernel is to be removed");
    }
    spawn(core, fresh, outbox, Begin::Create { session, spec });
}

async fn make(
    core: &Arc<Core>,
    kernel: &Arc<Kernel>,
    session: &SessionSpec,
    spec: &KernelSpec,
    link: &mut RunnerTask,
) -> Result<(), CreateError> {
    let begun = Instant::now();
    let serve = |listener| link.serve(listener);
    let started = create::start_container(core, kernel, session, spec, serve).await?;
    create::wait_ready(core, kernel, &started.container).await?;
    let summary = KernelSummary::of(session, spec, &started.allocation, kernel.record().restart);
    create::finish(core, kernel, started, &summary).await;
    metrics::created(begun.elapsed());
    tracing::info!("kernel runs");
    Ok(())
}

async fn take_up(
    core: &Arc<Core>,
    kernel: &Arc<Kernel>,
    container: &ContainerHandle,
    summary: &KernelSummary,
    link: &mut RunnerTask,
) -> Result<(), CreateError> {
    link.serve(create::listen(core, kernel.id)?);
    create::wait_ready(core, kernel, container).await?;
    let allocation = summary.allocation.clone();
    create::finish(core, kernel, Started { container: container.clone(), allocation }, summary)
        .await;
    tracing::info!("kernel runs, begun by an earlier process of the agent");
    Ok(())
}

/// A kernel that could not be made ends as failed, unless that was wanted.
fn failure(kernel: &Kernel, error: &CreateError) -> KernelEnd {
    match kernel.destroy_reason() {
        Some(reason) => KernelEnd::Terminated { reason, exit_code: None, metrics: None },
        None => {
            metrics::failed();
            let error = RemoteError::from(error);
            tracing::warn!("kernel could not be made: {}", error.message);
            KernelEnd::Failed(error)
        }
    }
}

/// Watches a running kernel until it ends or is to be removed, and removes it.
async fn watch_and_end(core: &Arc<Core>, kernel: &Arc<Kernel>) -> Watched {
    // Not that of its state: a restart may have been asked for already.
    let Some(container) = kernel.container_id() else {
        // Only kernels that run are watched.
        let reason = SELF_TERMINATED.to_owned();
        return Watched::Ended(KernelEnd::Terminated { reason, exit_code: None, metrics: None });
    };
    let record = kernel.record();
    let is_batch = record.session_type == SessionType::Batch;
    let mut is_batch_over = matches!(
        &record.state,
        KernelState::Running(running) if running.batch_end.is_some()
    );
    let mut is_found = false;
    let finding = place::find(core, kernel.id, &container);
    tokio::pin!(finding);
    let reason = loop {
        tokio::select! {
            // A batch command's result is told before the end that follows it.
            biased;
            exit_code = kernel.runner.startup_exit_code(), if is_batch && !is_batch_over => {
                is_batch_over = true;
                // Its container is about to end, and its counters with it.
                core.statistics.kernel(kernel.id);
                note_batch_end(core, kernel, exit_code).await;
            }
            reason = kernel.destroy_requested() => break reason,
            () = kernel.restart_requested() => {
                tracing::info!("restarting kernel");
                // The next container has another place, and its counters begin from nothing.
                core.addresses.forget(kernel.id);
                core.statistics.finish(kernel.id);
                destroy::stop_container(core, kernel, &container).await;
                destroy::remove_container(core, kernel, &container).await;
                return Watched::Restarts(Box::new(kernel.record()));
            }
            _ = kernel.container_end() => break SELF_TERMINATED.to_owned(),
            () = &mut finding, if !is_found => is_found = true,
        }
    };
    core.addresses.forget(kernel.id);
    let metrics = core.statistics.finish(kernel.id).map(|metrics| Packed::pack(&metrics));
    tracing::info!(reason, "ending kernel");
    let ended = destroy::stop_container(core, kernel, &container).await;
    destroy::keep_log(core, kernel, &container).await;
    destroy::tear_down(core, kernel, &container).await;
    tracing::info!(reason, exit_code = ended.code, "kernel is gone");
    Watched::Ended(KernelEnd::Terminated { reason, exit_code: ended.code, metrics })
}

async fn note_batch_end(core: &Core, kernel: &Arc<Kernel>, exit_code: i32) {
    let at = core.now();
    kernel.change(|record| {
        if let KernelState::Running(running) = &mut record.state {
            running.batch_end = Some((exit_code, at));
        }
    });
    core.events.push(kernel.record().event(at, KernelChange::BatchFinished { exit_code }));
    if let Err(error) = kernel.write(&core.store).await {
        tracing::error!(%error, "write down the end of a batch command");
    }
}

/// A kernel that runs but cannot be reached any more is of no use.
async fn give_up(core: &Arc<Core>, kernel: &Arc<Kernel>, error: &CreateError) -> KernelEnd {
    if let KernelState::Running(running) = kernel.record().state {
        destroy::keep_log(core, kernel, &running.container.id).await;
        destroy::tear_down(core, kernel, &running.container.id).await;
    }
    failure(kernel, error)
}

/// Tells the manager how a kernel ended and forgets the kernel when the manager knows.
async fn report_end(core: &Arc<Core>, kernel: &Arc<Kernel>) {
    for event in kernel.last_events() {
        if core.events.push_awaited(event).await.is_err() {
            return;
        }
    }
    let (store, id) = (core.store.clone(), kernel.id);
    if let Err(error) = blocking(move || store.delete(id)).await {
        tracing::error!(%error, "remove the record of a kernel that is gone");
    }
    core.registry.remove(kernel.id);
}

/// Serves a kernel's runner while it lives.
struct RunnerTask {
    kernel: Arc<Kernel>,
    outbox: Option<Outbox>,
    /// Ends with its owner.
    task: JoinSet<()>,
}

impl RunnerTask {
    fn new(kernel: &Arc<Kernel>, outbox: Outbox) -> Self {
        Self { kernel: Arc::clone(kernel), outbox: Some(outbox), task: JoinSet::new() }
    }

    fn serve(&mut self, listener: UnixListener) {
        if let Some(outbox) = self.outbox.take() {
            let kernel = Arc::clone(&self.kernel);
            self.task.spawn(async move {
                let id = kernel.id.to_string();
                runner_link::serve(listener, &id, outbox, &*kernel.runner).await;
            });
        }
    }
}
