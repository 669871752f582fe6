//! Work that outlives the request that began it.
//!
//! ```text
//! let begin = Begin::new("rescan_images");
//! let task = background_task::start(app, context.user_id, begin, |reporter| async move {
//!     reporter.report(1, 3, "Updated python:3.12");
//!     End::Done("3 images".into())
//! })
//! .await?;
//! ```
//!
//! Its row in PostgreSQL says how far it is and what came of it; clients watch it through
//! [`watch`]. The process that runs it renews a lease on it. When that process dies, the
//! leader notes the task as failed and says so, or has it carried on where its work allows
//! that: see [`carry_on`].

pub mod watch;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backendai_datastore::DatastoreError;
use backendai_datastore::background_task::{
    BackgroundTaskRow, NewBackgroundTask, ONE_AT_A_TIME, Progress, TaskRunner, TaskStatus,
};
use backendai_service::Lifecycle;
use backendai_service::telemetry::chain;
use backendai_types::{BackgroundTaskId, UserId};
use futures::FutureExt;
use serde_json::{Value, json};
use tokio::sync::watch as latest;
use uuid::Uuid;

use super::session::commit;
use super::vfolder::clone;
use super::{Result, SharedApp};

/// Progress is written no more often: what lies between two writes nobody needs to see.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// Pause before a write that failed is repeated.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Names of the tasks whose work another process can carry on.
const CARRIED_ON: &[&str] = &[commit::TASK, clone::TASK];
/// How often a task whose subject comes and goes is tried to begin.
const ATTEMPTS: u32 = 3;

/// What this process needs to run tasks.
pub struct BackgroundTasks {
    incarnation: Uuid,
    running: Arc<AtomicUsize>,
    lifecycle: Lifecycle,
}

impl BackgroundTasks {
    /// A runner whose tasks belong to the lifecycle.
    pub fn new(lifecycle: Lifecycle) -> Self {
        Self { incarnation: Uuid::new_v4(), running: Arc::default(), lifecycle }
    }
}

/// A task that is wanted.
#[derive(Clone, Debug)]
pub struct Begin {
    name: &'static str,
    subject: Option<String>,
    arguments: Value,
}

impl Begin {
    /// A task of which any number may run at once.
    pub fn new(name: &'static str) -> Self {
        Self { name, subject: None, arguments: json!({}) }
    }

    /// Lets only one task of this name run with this subject at a time.
    pub fn only_one_for(mut self, subject: impl ToString) -> Self {
        self.subject = Some(subject.to_string());
        self
    }

    /// Keeps what another process needs to carry the task on.
    pub fn with_arguments(mut self, arguments: Value) -> Self {
        self.arguments = arguments;
        self
    }
}

/// What came of wanting a task.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It runs.
    New(BackgroundTaskId),
    /// One with this subject runs already; this is it.
    UnderWay(Box<BackgroundTaskRow>),
}

impl Begun {
    /// The task that runs, new or not.
    pub fn id(&self) -> BackgroundTaskId {
        match self {
            Self::New(id) => *id,
            Self::UnderWay(task) => task.id,
        }
    }
}

/// How a task ended, with what its watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It did what it was to do.
    Done(String),
    /// It was given up for a good reason.
    Cancelled(String),
    /// It could not do what it was to do.
    Failed(String),
}

impl End {
    /// The end of a task that failed, with all its causes.
    pub fn failed(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Failed(chain(error).to_string())
    }

    fn parts(self) -> (TaskStatus, String) {
        match self {
            Self::Done(message) => (TaskStatus::Done, message),
            Self::Cancelled(message) => (TaskStatus::Cancelled, message),
            Self::Failed(message) => (TaskStatus::Failed, message),
        }
    }
}

/// With this a task says how far it is. Cheap to clone; saying so never waits.
#[derive(Clone)]
pub struct Reporter(Arc<latest::Sender<Progress>>);

impl Reporter {
    /// `current` of `total` is done, the last of it being `message`.
    pub fn report(&self, current: u64, total: u64, message: impl Into<String>) {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.0.send_replace(Progress {
            current: count(current),
            total: count(total),
            message: message.into(),
        });
    }
}

/// Begins a task.
///
/// # Errors
/// PostgreSQL failed; then nothing runs.
pub async fn start<W: Future<Output = End> + Send + 'static>(
    app: &SharedApp,
    user_id: UserId,
    begin: Begin,
    work: impl FnOnce(BackgroundTaskId, Reporter) -> W,
) -> Result<Begun> {
    let id = BackgroundTaskId::random();
    let Begin { name, subject, arguments } = begin;
    let new = NewBackgroundTask { id, name, subject, user_id, arguments };
    for attempt in 1.. {
        let tx = app.datastore.autocommit().await?;
        match tx.background_task_insert(&new, runner(app, &app.config.manager_id())).await {
            Ok(()) => break,
            Err(DatastoreError::Conflict { constraint, source }) if constraint == ONE_AT_A_TIME => {
                let subject = new.subject.as_deref().unwrap_or_default();
                match tx.background_task_under_way(name, subject).await? {
                    Some(task) => return Ok(Begun::UnderWay(Box::new(task))),
                    // It has ended meanwhile.
                    None if attempt < ATTEMPTS => {}
                    None => return Err(DatastoreError::Conflict { constraint, source }.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    run(app, name, id, work);
    Ok(Begun::New(id))
}

/// Goes on with a task that another process began: its row must be this process's.
pub fn run<W: Future<Output = End> + Send + 'static>(
    app: &SharedApp,
    name: &'static str,
    id: BackgroundTaskId,
    work: impl FnOnce(BackgroundTaskId, Reporter) -> W,
) {
    let (sender, progress) = latest::channel(Progress::default());
    let work = work(id, Reporter(Arc::new(sender)));
    let tasks = &app.background_tasks;
    let count = Count::new(&tasks.running);
    let running = Running { app: app.clone(), name, id, progress };
    tasks.lifecycle.spawn(name, async move {
        running.run(Box::pin(work)).await;
        drop(count);
    });
}

fn runner<'a>(app: &SharedApp, manager: &'a str) -> TaskRunner<'a> {
    TaskRunner {
        manager,
        incarnation: app.background_tasks.incarnation,
        lease: Duration::from_secs_f64(app.config.tunables.background_task_lease_s),
    }
}

/// One task that runs here.
struct Running {
    app: SharedApp,
    name: &'static str,
    id: BackgroundTaskId,
    progress: latest::Receiver<Progress>,
}

impl Running {
    async fn run(mut self, work: impl Future<Output = End> + Unpin) {
        let lifecycle = self.app.background_tasks.lifecycle.clone();
        let mut progress = self.progress.clone();
        let end = tokio::select! {
            end = AssertUnwindSafe(work).catch_unwind() => end.unwrap_or_else(|_| {
                End::Failed("It panicked; the manager's log has the reason.".into())
            }),
            () = self.report(&mut progress) => {
                tracing::warn!(task.id = %self.id, task.name = self.name, "another process has this task now");
                return;
            }
            () = lifecycle.stopping() => {
                self.release().await;
                return;
            }
        };
        if let End::Failed(why) = &end {
            tracing::warn!(task.id = %self.id, task.name = self.name, "a background task failed: {why}");
        }
        let (status, message) = end.parts();
        let last = Progress { message, ..self.progress.borrow_and_update().clone() };
        while self.write(status, &last).await.is_none() {
            if !lifecycle.sleep(RETRY_PAUSE).await {
                return;
            }
        }
    }

    /// Writes progress; returns only when the task is not this process's any more.
    async fn report(&self, progress: &mut latest::Receiver<Progress>) {
        loop {
            if progress.changed().await.is_err() {
                // The work says no more; it will end.
                std::future::pending::<()>().await;
            }
            let now = progress.borrow_and_update().clone();
            if self.write(TaskStatus::Started, &now).await == Some(false) {
                return;
            }
            tokio::time::sleep(REPORT_INTERVAL).await;
        }
    }

    /// Whether the row was this process's to write; `None` if PostgreSQL failed.
    async fn write(&self, status: TaskStatus, progress: &Progress) -> Option<bool> {
        let incarnation = self.app.background_tasks.incarnation;
        let written = async {
            let tx = self.app.datastore.autocommit().await?;
            tx.background_task_update(self.id, incarnation, status, progress).await
        };
        match written.await {
            Ok(written) => {
                self.app.wake.background_task(self.id);
                Some(written)
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(task.id = %self.id, error, "the state of a task is written later");
                None
            }
        }
    }

    async fn release(&self) {
        let incarnation = self.app.background_tasks.incarnation;
        let released = async {
            let tx = self.app.datastore.autocommit().await?;
            tx.background_task_release(self.id, incarnation).await
        };
        if let Err(error) = released.await {
            let error = chain(&error);
            tracing::debug!(task.id = %self.id, error, "the task's lease will pass by itself");
        }
    }
}

/// Keeps this process's tasks its own, until the process stops.
pub async fn keep_leases(app: SharedApp, lifecycle: Lifecycle) {
    let manager = app.config.manager_id();
    let runner = runner(&app, &manager);
    while lifecycle.sleep(runner.lease / 3).await {
        if app.background_tasks.running.load(Ordering::Relaxed) == 0 {
            continue;
        }
        let renewed = async {
            let tx = app.datastore.autocommit().await?;
            tx.background_tasks_renew(runner).await
        };
        if let Err(error) = renewed.await {
            let error = chain(&error);
            tracing::warn!(error, "leases of background tasks are not renewed; trying again");
        }
    }
}

/// Gives every task that nobody runs a truthful end, or somebody to run it.
///
/// # Errors
/// PostgreSQL failed.
pub async fn carry_on(app: &SharedApp) -> Result<()> {
    let tx = app.datastore.autocommit().await?;
    for id in tx.background_tasks_fail_abandoned(CARRIED_ON).await? {
        tracing::warn!(task.id = %id, "a background task ended with its manager");
        app.wake.background_task(id);
    }
    let manager = app.config.manager_id();
    for task in tx.background_tasks_take_over(CARRIED_ON, runner(app, &manager)).await? {
        tracing::info!(task.id = %task.id, task.name, "carrying on a background task");
        match task.name.as_str() {
            commit::TASK => commit::carry_on(app, &task)?,
            clone::TASK => clone::carry_on(app, &task).await?,
            other => tracing::error!(task.id = %task.id, "nothing carries on {other}"),
        }
    }
    tx.background_tasks_purge().await?;
    Ok(())
}

/// Counts one for as long as it lives.
struct Count(Arc<AtomicUsize>);

impl Count {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
