//! The kernels an agent has.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use backendai_rpc::agent_api::{KernelSpec, SessionSpec};
use backendai_rpc::call::{ErrorKind, RemoteError};
use backendai_rpc::manager_api::{KernelEvent, KernelPhase, KernelReport};
use backendai_types::{KernelId, SessionId};

use super::record::{KernelRecord, KernelState, RecordStore};
use super::runs::Runner;
use crate::backend::ExitStatus;
use crate::runner_link::Outbox;

/// One kernel as other parts see it. Its task alone changes its state; others say what
/// they want or have seen.
pub struct Kernel {
    /// The kernel.
    pub id: KernelId,
    /// Its session.
    pub session_id: SessionId,
    /// The way to its runner.
    pub runner: Arc<Runner>,
    record: Mutex<KernelRecord>,
    /// Held while the record's file is written, so that an older state never overwrites a
    /// newer one. Taken in blocking threads only.
    writing: Mutex<()>,
    /// Why it is to be removed.
    destroy: watch::Sender<Option<String>>,
    /// True when it is to be restarted, as its record says.
    restart: watch::Sender<bool>,
    /// The engine's id of its container, once there is one.
    container_id: Mutex<Option<String>>,
    /// How its container ended.
    ended: watch::Sender<Option<ExitStatus>>,
}

impl Kernel {
    /// A kernel with this record, and what its runner's link is to send.
    pub fn new(record: KernelRecord) -> (Arc<Self>, Outbox) {
        let (runner, outbox) = Runner::new(record.kernel_id.to_string());
        let container_id = match &record.state {
            KernelState::Running(running) => Some(running.container.id.clone()),
            KernelState::Creating { .. } | KernelState::Gone { .. } => None,
        };
        let kernel = Self {
            id: record.kernel_id,
            session_id: record.session_id,
            runner,
            destroy: watch::Sender::new(record.destroy_reason.clone()),
            record: Mutex::new(record),
            writing: Mutex::new(()),
            restart: watch::Sender::new(false),
            container_id: Mutex::new(container_id),
            ended: watch::Sender::new(None),
        };
        (Arc::new(kernel), outbox)
    }

    /// What is known of it.
    pub fn record(&self) -> KernelRecord {
        self.record.lock().clone()
    }

    /// How far it is.
    pub fn phase(&self) -> KernelPhase {
        self.record.lock().phase()
    }

    /// The network it shares with the other kernels of its session.
    pub fn network(&self) -> Option<String> {
        self.record.lock().network.clone()
    }

    /// The events that tell its present state.
    pub fn last_events(&self) -> Vec<KernelEvent> {
        self.record.lock().last_events()
    }

    /// Changes the record in memory. [`Kernel::save`] or [`Kernel::write`] write it down.
    pub fn change(&self, change: impl FnOnce(&mut KernelRecord)) {
        change(&mut self.record.lock());
    }

    /// Writes the record as it is then, and returns when it is on disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn save(self: &Arc<Self>, store: &RecordStore) -> io::Result<()> {
        let (kernel, store) = (Arc::clone(self), store.clone());
        blocking(move || {
            let _turn = kernel.writing.lock();
            store.save(&kernel.record())
        })
        .await
    }

    /// Writes the record as it is then, without waiting for the disk: it survives this
    /// process. After a power cut there are no containers it could be wrong about.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn write(self: &Arc<Self>, store: &RecordStore) -> io::Result<()> {
        let (kernel, store) = (Arc::clone(self), store.clone());
        blocking(move || {
            let _turn = kernel.writing.lock();
            store.write(&kernel.record())
        })
        .await
    }

    /// Says that the kernel is to be removed, and returns when that is on disk. The first
    /// reason stands.
    ///
    /// # Errors
    /// It cannot be written; the kernel is removed all the same.
    pub async fn request_destroy(
        self: &Arc<Self>,
        store: &RecordStore,
        reason: &str,
    ) -> io::Result<()> {
        {
            let mut record = self.record.lock();
            if record.destroy_reason.is_some() || record.phase() == KernelPhase::Gone {
                return Ok(());
            }
            record.destroy_reason = Some(reason.to_owned());
        }
        let saved = self.save(store).await;
        self.destroy.send_replace(Some(reason.to_owned()));
        saved
    }

    /// Says that the running kernel is to be made anew, and returns when that is on disk.
    /// False if it does not run.
    ///
    /// # Errors
    /// It cannot be written; the kernel is not restarted then.
    pub async fn request_restart(
        self: &Arc<Self>,
        store: &RecordStore,
        restart: i64,
        session: SessionSpec,
        spec: KernelSpec,
    ) -> io::Result<bool> {
        let before = {
            let mut record = self.record.lock();
            if record.phase() != KernelPhase::Running {
                return Ok(false);
            }
            let before = record.clone();
            record.restart = Some(restart);
            record.state =
                KernelState::Creating { session: Box::new(session), spec: Box::new(spec) };
            before
        };
        if let Err(error) = self.save(store).await {
            let destroy_reason = self.destroy_reason();
            self.change(|record| *record = KernelRecord { destroy_reason, ..before });
            return Err(error);
        }
        self.restart.send_replace(true);
        Ok(true)
    }

    /// Resolves when the kernel is to be made anew. Cancel-safe.
    pub async fn restart_requested(&self) {
        // The sender is borrowed, so the wait cannot fail.
        let _ = self.restart.subscribe().wait_for(|wanted| *wanted).await;
    }

    /// Resolves with the reason when the kernel is to be removed. Cancel-safe.
    pub async fn destroy_requested(&self) -> String {
        until_known(&self.destroy).await
    }

    /// The reason, if the kernel is to be removed.
    pub fn destroy_reason(&self) -> Option<String> {
        self.destroy.borrow().clone()
    }

    /// Says which container is the kernel's, before it is started.
    pub fn holds_container(&self, id: &str) {
        *self.container_id.lock() = Some(id.to_owned());
    }

    /// The engine's id of its container, if there is one.
    pub fn container_id(&self) -> Option<String> {
        self.container_id.lock().clone()
    }

    /// Says that a container of this kernel has ended. One that is not its container (any
    /// more), such as that of an attempt which an earlier process did not finish, means
    /// nothing.
    pub fn container_with_id_ended(&self, id: &str, status: ExitStatus) {
        if self.container_id.lock().as_deref() == Some(id) {
            self.container_ended(status);
        }
    }

    /// Says that the container has ended.
    pub fn container_ended(&self, status: ExitStatus) {
        self.ended.send_if_modified(|ended| {
            let is_better = ended.is_none_or(|known| known.code.is_none() && status.code.is_some());
            if is_better {
                *ended = Some(status);
            }
            is_better
        });
    }

    /// Resolves when the container has ended. Cancel-safe.
    pub async fn container_end(&self) -> ExitStatus {
        until_known(&self.ended).await
    }

    /// How the container ended, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.ended.borrow()
    }

    /// Checks that code can be run in it.
    ///
    /// # Errors
    /// It does not run yet, or is being removed.
    pub fn check_running(&self) -> Result<(), RemoteError> {
        let why = match self.phase() {
            KernelPhase::Running => return Ok(()),
            KernelPhase::Creating => "has not started yet",
            KernelPhase::Destroying => "is being removed",
            KernelPhase::Gone => return Err(not_found(self.id)),
        };
        Err(RemoteError::new(ErrorKind::KernelNotReady, format!("kernel {} {why}", self.id)))
    }
}

/// Resolves when there is a value. Cancel-safe.
pub(super) async fn until_known<T: Clone>(value: &watch::Sender<Option<T>>) -> T {
    let mut receiver = value.subscribe();
    let known = receiver.wait_for(Option::is_some).await.ok().and_then(|value| (*value).clone());
    match known {
        Some(value) => value,
        // The sender is borrowed, so the wait cannot fail.
        None => std::future::pending().await,
    }
}

/// There is no such kernel here.
pub fn not_found(kernel_id: KernelId) -> RemoteError {
    RemoteError::new(ErrorKind::KernelNotFound, format!("there is no kernel {kernel_id} here"))
}

/// The kernels an agent has a record of.
#[derive(Default)]
pub struct Registry {
    kernels: Mutex<HashMap<KernelId, Arc<Kernel>>>,
}

impl Registry {
    /// One kernel.
    pub fn get(&self, id: KernelId) -> Option<Arc<Kernel>> {
        self.kernels.lock().get(&id).cloned()
    }

    /// Adds a kernel unless there is one of its id, which then is the error.
    ///
    /// # Errors
    /// The kernel that is there already.
    pub fn insert(&self, kernel: &Arc<Kernel>) -> Result<(), Arc<Kernel>> {
        let mut kernels = self.kernels.lock();
        match kernels.get(&kernel.id) {
            Some(known) => Err(Arc::clone(known)),
            None => {
                kernels.insert(kernel.id, Arc::clone(kernel));
                Ok(())
            }
        }
    }

    /// Puts a kernel in the place of the one with its id.
    pub fn replace(&self, kernel: &Arc<Kernel>) {
        self.kernels.lock().insert(kernel.id, Arc::clone(kernel));
    }

    /// Forgets a kernel.
    pub fn remove(&self, id: KernelId) {
        self.kernels.lock().remove(&id);
    }

    /// All kernels.
    pub fn all(&self) -> Vec<Arc<Kernel>> {
        self.kernels.lock().values().cloned().collect()
    }

    /// All kernels as a heartbeat lists them.
    pub fn reports(&self) -> Vec<KernelReport> {
        self.kernels.lock().values().map(|kernel| kernel.record.lock().report()).collect()
    }
}

/// Runs something that blocks on the disk.
///
/// # Errors
/// Its own, or it panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}
