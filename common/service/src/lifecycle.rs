//! Tasks with names and owners, and a shutdown in two stages.
//!
//! The first signal (or [`Lifecycle::stop`]) ends the soft stage: stop accepting, finish
//! what is under way. When the grace is over, or at a second signal, the hard stage drops
//! what is left. A task that ends by itself in error stops the whole process with a
//! failing exit code, so that the supervisor starts it anew in a known state.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Owns the tasks of a process or of one server in a test. Cheap to clone.
#[derive(Clone, Default)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    soft: CancellationToken,
    hard: CancellationToken,
    tracker: TaskTracker,
    failure: Mutex<Option<String>>,
}

impl Lifecycle {
    /// A lifecycle without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task until it ends or the hard stage drops it. Tasks that serve for ever
    /// watch [`Lifecycle::stopping`] and return when it is their turn.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let hard = self.inner.hard.clone();
        let span = tracing::info_span!("task", name);
        self.inner.tracker.spawn(
            async move {
                tokio::select! {
                    () = task => {}
                    () = hard.cancelled() => tracing::debug!("task dropped at shutdown"),
                }
            }
            .instrument(span),
        );
    }

    /// As [`Lifecycle::spawn`], for tasks that must not end before the shutdown: returning
    /// early, or panicking, stops the process with a failure.
    pub fn spawn_vital(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        let lifecycle = self.clone();
        let guard = VitalGuard { lifecycle: self.clone(), name, done: false };
        self.spawn(name, async move {
            let mut guard = guard;
            let result = task.await;
            guard.done = true;
            if !lifecycle.is_stopping() {
                let why = result.err().unwrap_or_else(|| "ended unexpectedly".to_owned());
                lifecycle.fail(format!("task {name}: {why}"));
            }
        });
    }

    /// Stops the process with a failing exit code.
    pub fn fail(&self, why: String) {
        tracing::error!("stopping the process: {why}");
        self.inner.failure.lock().get_or_insert(why);
        self.stop();
    }

    /// Begins the soft stage.
    pub fn stop(&self) {
        self.inner.soft.cancel();
    }

    /// True once the soft stage began.
    pub fn is_stopping(&self) -> bool {
        self.inner.soft.is_cancelled()
    }

    /// Resolves when the soft stage begins. Cancel-safe.
    pub async fn stopping(&self) {
        self.inner.soft.cancelled().await;
    }

    /// A token that is cancelled when the soft stage begins.
    pub fn stop_token(&self) -> CancellationToken {
        self.inner.soft.clone()
    }

    /// Waits `duration` unless the soft stage begins first; true if time passed.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(duration) => true,
            () = self.stopping() => false,
        }
    }

    /// Begins the soft stage if it has not begun, waits for all tasks, drops those that are
    /// left after `grace`.
    ///
    /// # Errors
    /// Why the process failed, if it did.
    pub async fn shut_down(&self, grace: Duration) -> Result<(), String> {
        self.stop();
        self.inner.tracker.close();
        if tokio::time::timeout(grace, self.inner.tracker.wait()).await.is_err() {
            tracing::warn!(
                left = self.inner.tracker.len(),
                "dropping tasks that did not end in time"
            );
            self.inner.hard.cancel();
            self.inner.tracker.wait().await;
        }
        match self.inner.failure.lock().take() {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    /// Drops every task at once, as a killed process would. For tests of recovery.
    pub async fn kill(&self) {
        self.inner.hard.cancel();
        self.inner.soft.cancel();
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
    }

    /// Waits for SIGTERM, SIGINT or a failure, then shuts down; a second signal ends the grace.
    ///
    /// # Errors
    /// Why the process failed, if it did.
    pub async fn run_until_signal(&self, grace: Duration) -> Result<(), String> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(|e| format!("listen for signals: {e}"));
        let mut term = listen(SignalKind::terminate())?;
        let mut int = listen(SignalKind::interrupt())?;
        tokio::select! {
            _ = term.recv() => tracing::info!("SIGTERM: shutting down"),
            _ = int.recv() => tracing::info!("SIGINT: shutting down"),
            () = self.stopping() => {}
        }
        notify(sd_notify::NotifyState::Stopping);
        tokio::select! {
            result = self.shut_down(grace) => result,
            _ = term.recv() => self.shut_down(Duration::ZERO).await,
            _ = int.recv() => self.shut_down(Duration::ZERO).await,
        }
    }
}

/// Tells systemd that the service is ready, and keeps its watchdog fed if it has one.
pub fn ready(lifecycle: &Lifecycle) {
    notify(sd_notify::NotifyState::Ready);
    if let Some(period) = sd_notify::watchdog_enabled() {
        let stopping = lifecycle.clone();
        lifecycle.spawn("watchdog", async move {
            while stopping.sleep(period / 2).await {
                notify(sd_notify::NotifyState::Watchdog);
            }
        });
    }
}

fn notify(state: sd_notify::NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd was not notified");
    }
}

/// Turns a panic of a vital task into a failure of the process.
struct VitalGuard {
    lifecycle: Lifecycle,
    name: &'static str,
    done: bool,
}

impl Drop for VitalGuard {
    fn drop(&mut self) {
        if !self.done && !self.lifecycle.is_stopping() {
            self.lifecycle.fail(format!("task {}: panicked", self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_ends_or_panics_fails_the_process() {
        for panics in [false, true] {
            let lifecycle = Lifecycle::new();
            lifecycle.spawn_vital("brittle", async move {
                assert!(!panics, "by request");
                Err("broke".into())
            });
            lifecycle.stopping().await;
            let failure = lifecycle.shut_down(Duration::from_secs(5)).await.unwrap_err();
            assert!(failure.contains("brittle"), "{failure}");
        }
    }

    #[tokio::test]
    async fn tasks_that_do_not_stop_are_dropped_after_the_grace() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn("stubborn", std::future::pending());
        assert_eq!(lifecycle.shut_down(Duration::from_millis(1)).await, Ok(()));
    }
}
