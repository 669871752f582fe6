//! PENDING → SCHEDULED: has the scheduler decide, and reserves what it decided.
//!
//! One transaction per scaling group reads, decides and writes. It holds the admission lock,
//! so that what it has summed up can only shrink until it commits: two leaders at once (one
//! of them about to notice that it is none) cannot give away the same room twice.

mod notes;
mod policy;
mod snapshot;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backendai_datastore::Transaction;
use backendai_datastore::pending::{Page, PendingSession};
use backendai_datastore::scaling_group::ScalingGroup;
use backendai_datastore::transition::{Change, Changed};
use backendai_scheduler::{Decision, Order, Outcome, Scheduler};
use backendai_types::{AgentId, KernelId, KernelStatus, SessionId};
use chrono::{DateTime, Utc};

use super::{Task, TaskError};
use crate::app::{App, SharedApp};
use crate::wake;

const NAME: &str = "schedule_sessions";
/// Waiting sessions read at once.
const PAGE: i64 = 1000;
/// Waiting sessions read at once where the order depends on all of them.
const WHOLE_QUEUE: i64 = 50_000;
/// Sessions placed in one transaction; bounds how long the others wait for their commit.
const MAX_PLACED: usize = 1000;
/// A pass longer than this is followed by a pause as long as itself, so that a long queue
/// does not keep the database busy with nothing but looking at it.
const LONG_PASS: Duration = Duration::from_millis(100);

/// The task.
pub struct ScheduleSessions {
    app: SharedApp,
    interval: Duration,
    pause: Duration,
}

impl ScheduleSessions {
    /// A task that remembers nothing.
    pub fn new(app: SharedApp) -> Self {
        let interval = Duration::from_secs_f64(app.config.tunables.task_interval_s);
        Self { app, interval, pause: Duration::ZERO }
    }
}

#[async_trait]
impl Task for ScheduleSessions {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn pass(&mut self) -> Result<(), TaskError> {
        let begin = Instant::now();
        let tx = self.app.datastore.autocommit().await?;
        let groups = tx.scaling_groups_waiting().await?;
        drop(tx);
        for group in &groups {
            loop {
                let (changed, more) = schedule_group(&self.app, group).await?;
                self.app.wake_after(&changed);
                if !more {
                    break;
                }
            }
        }
        let took = begin.elapsed();
        self.pause = if took > LONG_PASS { took } else { Duration::ZERO };
        Ok(())
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.pause).await;
        tokio::select! {
            () = self.app.wake.woken(wake::Task::ScheduleSessions) => {}
            () = tokio::time::sleep(self.interval) => {}
        }
    }
}

/// One transaction for a scaling group. Returns what changed, and whether there is more to
/// be decided at once.
async fn schedule_group(app: &App, group: &ScalingGroup) -> Result<(Changed, bool), TaskError> {
    let policy = &policy::read(app, group).await?;
    app.datastore
        .run_tx(NAME, |tx| async move {
            tx.admission_lock().await?;
            let mut pass = Pass::begin(&tx, group, policy.clone()).await?;
            let more = pass.run(&tx).await?;
            let changed = pass.write(&tx, app).await?;
            Ok((changed, more))
        })
        .await
}

struct Pass<'a> {
    group: &'a ScalingGroup,
    now: DateTime<Utc>,
    order: Order,
    scheduler: Scheduler,
    decided: Vec<(PendingSession, Outcome)>,
    placed: usize,
}

impl<'a> Pass<'a> {
    async fn begin(
        tx: &Transaction,
        group: &'a ScalingGroup,
        policy: backendai_scheduler::Policy,
    ) -> Result<Self, TaskError> {
        let now = Utc::now();
        let agents = snapshot::agents(tx, &group.name).await?;
        let order = policy.order;
        let scheduler = Scheduler::new(now, policy, agents);
        Ok(Self { group, now, order, scheduler, decided: Vec::new(), placed: 0 })
    }

    /// Decides page by page. True if it stopped before the end of the queue.
    async fn run(&mut self, tx: &Transaction) -> Result<bool, TaskError> {
        let mut page = Page {
            after: None,
            limit: if self.order == Order::Drf { WHOLE_QUEUE } else { PAGE },
            newest_first: self.order == Order::Lifo,
            without_architectures: Vec::new(),
        };
        loop {
            let pending = tx.sessions_pending(&self.group.name, &page).await?;
            let Some(last) = pending.last() else { return Ok(false) };
            page.after = Some((last.created_at, last.id));
            let is_last = i64::try_from(pending.len()).is_ok_and(|count| count < page.limit);
            self.scheduler.learn(snapshot::quotas(tx, &pending).await?);
            let sessions: Vec<_> = pending.iter().map(snapshot::session).collect();
            let decisions = self.scheduler.schedule(&sessions);
            self.keep(pending, decisions);
            if is_last {
                return Ok(false);
            }
            page.without_architectures = self.scheduler.blocked();
            if self.placed >= MAX_PLACED {
                return Ok(true);
            }
        }
    }

    fn keep(&mut self, pending: Vec<PendingSession>, decisions: Vec<Decision>) {
        let mut by_id: HashMap<SessionId, PendingSession> =
            pending.into_iter().map(|session| (session.id, session)).collect();
        for Decision { session, outcome } in decisions {
            self.placed += usize::from(matches!(outcome, Outcome::Placed(_)));
            if let Some(session) = by_id.remove(&session) {
                self.decided.push((session, outcome));
            }
        }
    }

    async fn write(self, tx: &Transaction, app: &App) -> Result<Changed, TaskError> {
        let mut changes = Vec::new();
        let mut notes = Vec::new();
        for (session, outcome) in &self.decided {
            match outcome {
                Outcome::Placed(placement) => {
                    let change = Change::session(session.id, KernelStatus::Scheduled, "scheduled");
                    changes.push(Change { placement: placement.clone(), ..change });
                }
                Outcome::Cancelled { reason, failed } => {
                    let change = Change::session(session.id, KernelStatus::Cancelled, *reason);
                    let details = notes::waits(session, failed, &[], self.now);
                    changes.push(change.with_data("scheduler", details));
                }
                Outcome::Waits { failed, passed } => notes.extend(notes::if_new(
                    session,
                    "predicate-checks-failed",
                    notes::waits(session, failed, passed, self.now),
                    self.order,
                )),
                Outcome::NoAgent { message } => notes.extend(notes::if_new(
                    session,
                    "no-available-instances",
                    notes::no_agent(session, message, self.now),
                    self.order,
                )),
            }
        }
        let changed = tx.transition(&changes, app.by(NAME)).await?;
        // Those that were cancelled meanwhile did not change, and get nothing.
        let placements: Vec<(KernelId, &AgentId)> = changed
            .kernels
            .iter()
            .filter(|kernel| kernel.to == KernelStatus::Scheduled)
            .filter_map(|kernel| Some((kernel.id, kernel.agent.as_ref()?)))
            .collect();
        if !placements.is_empty() {
            tx.allocations_insert(&placements).await?;
            tracing::debug!(
                scaling_group = self.group.name,
                kernels = placements.len(),
                "kernels scheduled"
            );
        }
        tx.sessions_note_scheduling(&notes).await?;
        Ok(changed)
    }
}
