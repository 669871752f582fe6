//! What happened to kernels, on its way to the manager.
//!
//! One queue for the agent, in order, held until the manager has committed what it was
//! told. The queue lives in memory: what must survive a crash is in the kernels' records,
//! from which their last events are queued again at start.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use backendai_rpc::manager_api::{KernelEvent, Report};
use backendai_service::Lifecycle;
use backendai_types::AgentId;

use crate::leader::ManagerLink;

/// Events told in one call: one transaction of the manager.
const MAX_BATCH: usize = 200;
/// Between attempts while the manager does not answer; then doubling.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// The queue. Cheap to clone.
#[derive(Clone, Default)]
pub struct EventQueue {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    pending: Mutex<VecDeque<Pending>>,
    added: Notify,
}

struct Pending {
    event: KernelEvent,
    /// Told when the manager knows.
    done: Option<oneshot::Sender<()>>,
}

impl EventQueue {
    /// Adds an event.
    pub fn push(&self, event: KernelEvent) {
        self.add(event, None);
    }

    /// Adds an event, unless the same one waits already.
    pub fn push_again(&self, event: KernelEvent) {
        let waits = self.inner.pending.lock().iter().any(|pending| pending.event == event);
        if !waits {
            self.push(event);
        }
    }

    /// Adds an event; the result resolves when the manager has it.
    pub fn push_awaited(&self, event: KernelEvent) -> oneshot::Receiver<()> {
        let (done, acknowledged) = oneshot::channel();
        self.add(event, Some(done));
        acknowledged
    }

    /// Number of events that wait.
    pub fn len(&self) -> usize {
        self.inner.pending.lock().len()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn add(&self, event: KernelEvent, done: Option<oneshot::Sender<()>>) {
        tracing::debug!(kernel.id = %event.kernel_id, change = ?event.change, "kernel event");
        self.inner.pending.lock().push_back(Pending { event, done });
        self.inner.added.notify_one();
    }

    /// Tells the manager, until the shutdown.
    pub async fn deliver(self, agent_id: AgentId, mut link: ManagerLink, lifecycle: Lifecycle) {
        let mut retry = FIRST_RETRY;
        let mut is_failing = false;
        while !lifecycle.is_stopping() {
            let batch = self.batch();
            if batch.is_empty() {
                tokio::select! {
                    () = self.inner.added.notified() => {}
                    () = lifecycle.stopping() => return,
                }
                continue;
            }
            let count = batch.len();
            let Some(manager) = link.client() else {
                tokio::select! {
                    () = link.changed() => {}
                    () = lifecycle.stopping() => return,
                }
                continue;
            };
            let report = Report { agent_id: agent_id.clone(), events: batch };
            let told = tokio::select! {
                told = manager.report(&report) => told,
                // Another manager leads now; the same events go to it.
                () = link.changed() => continue,
                () = lifecycle.stopping() => return,
            };
            match told {
                Ok(()) => {
                    self.acknowledge(count);
                    retry = FIRST_RETRY;
                    if std::mem::take(&mut is_failing) {
                        tracing::info!("the manager takes events again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(waiting = self.len(), "report events: {error}; trying on");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(retry) => {}
                        () = link.changed() => {}
                        () = lifecycle.stopping() => return,
                    }
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    }

    fn batch(&self) -> Vec<KernelEvent> {
        let pending = self.inner.pending.lock();
        pending.iter().take(MAX_BATCH).map(|pending| pending.event.clone()).collect()
    }

    fn acknowledge(&self, count: usize) {
        let told: Vec<Pending> = self.inner.pending.lock().drain(..count).collect();
        for done in told.into_iter().filter_map(|pending| pending.done) {
            // Whoever waited may have been stopped.
            let _ = done.send(());
        }
    }
}
