//! The loops of the leading manager.
//!
//! A task takes no input. It compares what is wanted with what is, moves one towards the
//! other, and is run again when it is woken and every few seconds besides, so that a lost
//! wake-up costs time and nothing else. A pass that fails is logged once and repeated with
//! growing pauses until it succeeds again: a database that was away needs nobody's help.
//!
//! ```text
//! PENDING ──schedule_sessions──► SCHEDULED ──start_sessions──► PREPARING ──(agents report)──►
//! RUNNING ──(user, agents, rules)──► TERMINATING ──reap_sessions──► (agents report) TERMINATED
//! RUNNING ──(user)──► RESTARTING ──restart_sessions──► (agents report) RUNNING
//! any in-between status past its deadline ──deadlines──► an end, with a reason
//! ```

mod agent_liveness;
mod background_tasks;
mod calls;
mod deadlines;
mod reap_sessions;
mod remove_vfolders;
mod restart_sessions;
mod schedule_sessions;
mod session_callbacks;
mod start_sessions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backendai_datastore::DatastoreError;
use backendai_service::Lifecycle;
use backendai_service::etcd::EtcdError;
use backendai_service::telemetry::chain;
use chrono::Utc;

use crate::app::{App, SharedApp, background_task, scheduler_status};
use crate::events::AgentEvents;
use crate::feed;
use crate::leader::Leadership;
use crate::metrics;

pub use schedule_sessions::ScheduleSessions;

/// How often counts of executed code are written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(2);
/// Passes are noted for operators no more often.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after the first pass that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause after passes that fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why a pass could not be carried out.
#[derive(Debug, thiserror::Error)]
enum TaskError {
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    #[error(transparent)]
    App(#[from] crate::app::Error),
}

impl backendai_datastore::AsDatastoreError for TaskError {
    fn as_datastore_error(&self) -> Option<&DatastoreError> {
        match self {
            Self::Datastore(error) => Some(error),
            Self::Etcd(_) => None,
            Self::App(error) => error.as_datastore_error(),
        }
    }
}

/// A loop of the leader. Made anew for each term of leadership, so that nothing it
/// remembers is older than that.
#[async_trait]
trait Task: Send {
    /// Its name in logs, and the actor of what it changes.
    fn name(&self) -> &'static str;

    /// Compares and acts. May be dropped at any await.
    async fn pass(&mut self) -> Result<(), TaskError>;

    /// Waits until there may be something to do. Cancel-safe.
    async fn wait(&mut self);
}

/// Spawns all loops. They run while this manager leads.
pub fn start(
    app: &SharedApp,
    leadership: &Leadership,
    events: &Arc<AgentEvents>,
    lifecycle: &Lifecycle,
) {
    let spawn = |name, make: Box<dyn Fn() -> Box<dyn Task> + Send + Sync>| {
        let work = lead(app.clone(), make, leadership.clone(), lifecycle.clone());
        lifecycle.spawn_vital(name, work);
    };
    let (a, e) = (app.clone(), events.clone());
    spawn("schedule_sessions", Box::new(move || Box::new(ScheduleSessions::new(a.clone()))));
    let a = app.clone();
    spawn(
        "start_sessions",
        Box::new(move || Box::new(start_sessions::StartSessions::new(a.clone(), e.clone()))),
    );
    let (a, e) = (app.clone(), events.clone());
    spawn(
        "reap_sessions",
        Box::new(move || Box::new(reap_sessions::ReapSessions::new(a.clone(), e.clone()))),
    );
    let (a, e) = (app.clone(), events.clone());
    spawn(
        "restart_sessions",
        Box::new(move || Box::new(restart_sessions::RestartSessions::new(a.clone(), e.clone()))),
    );
    let a = app.clone();
    spawn("deadlines", Box::new(move || Box::new(deadlines::Deadlines::new(a.clone()))));
    let (a, e) = (app.clone(), events.clone());
    spawn(
        "agent_liveness",
        Box::new(move || Box::new(agent_liveness::AgentLiveness::new(&a, e.clone()))),
    );
    let a = app.clone();
    spawn(
        "session_callbacks",
        Box::new(move || Box::new(session_callbacks::SessionCallbacks::new(a.clone()))),
    );
    let a = app.clone();
    spawn(
        "background_tasks",
        Box::new(move || Box::new(background_tasks::AbandonedTasks::new(a.clone()))),
    );
    let a = app.clone();
    spawn(
        "remove_vfolders",
        Box::new(move || Box::new(remove_vfolders::RemoveVfolders::new(a.clone()))),
    );
    lifecycle.spawn(
        "background_task_leases",
        background_task::keep_leases(app.clone(), lifecycle.clone()),
    );
    lifecycle
        .spawn("leader_epoch", follow_epoch(app.clone(), leadership.clone(), lifecycle.clone()));
    lifecycle.spawn_vital("feed", feed::follow(app.clone(), lifecycle.clone()));
    lifecycle.spawn("executions", flush_executions(app.clone(), lifecycle.clone()));
}

/// Runs a task whenever this manager leads.
async fn lead(
    app: SharedApp,
    make: Box<dyn Fn() -> Box<dyn Task> + Send + Sync>,
    leadership: Leadership,
    lifecycle: Lifecycle,
) -> Result<(), String> {
    loop {
        let epoch = tokio::select! {
            epoch = leadership.acquired() => epoch,
            () = lifecycle.stopping() => return Ok(()),
        };
        let task = make();
        tokio::select! {
            () = run(&app, task) => {}
            // What is under way is dropped: transactions roll back, calls are repeated by
            // the next leader.
            () = leadership.lost(epoch) => {}
            () = lifecycle.stopping() => return Ok(()),
        }
    }
}

async fn run(app: &App, mut task: Box<dyn Task>) {
    let mut failures = 0u32;
    let mut next_note = Instant::now();
    loop {
        let (begun, begun_at) = (Instant::now(), Utc::now());
        let passed = task.pass().await;
        metrics::pass(task.name(), passed.is_ok(), begun.elapsed());
        if begun >= next_note && scheduler_status::is_step(task.name()) {
            next_note = begun + NOTE_INTERVAL;
            scheduler_status::note(&app.redis, task.name(), begun_at).await;
        }
        match passed {
            Ok(()) => {
                if failures > 0 {
                    tracing::info!(task = task.name(), failures, "the task works again");
                }
                failures = 0;
                task.wait().await;
            }
            Err(error) => {
                if failures == 0 {
                    let error = chain(&error);
                    tracing::warn!(task = task.name(), error, "the task failed and is repeated");
                }
                let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE);
                failures = failures.saturating_add(1);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Calls to agents carry the newest epoch this manager has led in.
async fn follow_epoch(app: SharedApp, leadership: Leadership, lifecycle: Lifecycle) {
    loop {
        let epoch = tokio::select! {
            epoch = leadership.acquired() => epoch,
            () = lifecycle.stopping() => return,
        };
        app.agents.set_epoch(epoch);
        tokio::select! {
            () = leadership.lost(epoch) => {}
            () = lifecycle.stopping() => return,
        }
    }
}

/// Every manager counts what was executed through it, leader or not.
async fn flush_executions(app: SharedApp, lifecycle: Lifecycle) {
    loop {
        let stopping = !lifecycle.sleep(FLUSH_INTERVAL).await;
        if let Err(error) = app.executions.flush(&app.datastore).await {
            tracing::debug!(error = chain(&error), "counts of executions are written later");
        }
        if stopping {
            return;
        }
    }
}
