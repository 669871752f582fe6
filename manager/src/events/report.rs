//! Turns what happened to kernels into changes of status.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chrono::DateTime;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};

use backendai_datastore::transition::{BatchEnd, Change, Changed, FAILED_TO_START, Started};
use backendai_rpc::agent_api::CreationInfo;
use backendai_rpc::call::{ErrorKind, RemoteError};
use backendai_rpc::manager_api::{KernelChange, KernelEvent, Report};
use backendai_rpc::statistics::Packed;
use backendai_types::{AgentId, KernelStatus, SessionId};

use super::unavailable;
use crate::app::statistics::kernel_view;
use crate::app::{Result, SharedApp};

/// Statuses of a kernel that is being made.
const BEING_MADE: &[KernelStatus] =
    &[KernelStatus::Scheduled, KernelStatus::Preparing, KernelStatus::Pulling];
/// Statuses of a kernel that its agent holds or held.
const HELD: &[KernelStatus] = &[
    KernelStatus::Preparing,
    KernelStatus::Pulling,
    KernelStatus::Running,
    KernelStatus::Restarting,
    KernelStatus::Terminating,
    KernelStatus::Error,
];

/// The reason of sessions whose containers could not be made anew: nothing is left of them.
const FAILED_TO_RESTART: &str = "failed-to-restart";

/// Reports committed in one transaction at most.
const MAX_BATCH: usize = 256;
/// Transactions at once: while one commits, the next gathers what has arrived.
const TURNS: usize = 2;

/// Takes in reports. Those that arrive while others are being committed are committed
/// together: a transaction costs much the same for one as for many.
pub(super) struct Intake {
    waiting: Mutex<VecDeque<Waiting>>,
    turns: Semaphore,
}

struct Waiting {
    report: Report,
    answer: oneshot::Sender<Result<(), RemoteError>>,
}

impl Intake {
    pub fn new() -> Self {
        Self { waiting: Mutex::default(), turns: Semaphore::new(TURNS) }
    }

    /// Commits the events of a report, all or none.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn receive(&self, app: &SharedApp, report: Report) -> Result<(), RemoteError> {
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().push_back(Waiting { report, answer });
        if let Ok(_turn) = self.turns.acquire().await {
            // Empty if another's turn has taken ours along.
            let batch: Vec<Waiting> = {
                let mut waiting = self.waiting.lock();
                let count = waiting.len().min(MAX_BATCH);
                waiting.drain(..count).collect()
            };
            commit(app, batch).await;
        }
        answered.await.unwrap_or_else(|_| {
            // Whoever had taken it along was dropped; nothing was committed.
            Err(RemoteError::new(ErrorKind::EngineUnavailable, "note events: interrupted"))
        })
    }
}

async fn commit(app: &SharedApp, batch: Vec<Waiting>) {
    if batch.is_empty() {
        return;
    }
    let reports: Vec<&Report> = batch.iter().map(|waiting| &waiting.report).collect();
    let result = commit_reports(app, &reports).await;
    if result.is_err() && batch.len() > 1 {
        // One that cannot be committed must not hold up the others.
        for waiting in batch {
            let alone = commit_reports(app, &[&waiting.report]).await;
            answer(waiting, alone);
        }
        return;
    }
    let result = result.map_err(|error| unavailable("note events", &error));
    for waiting in batch {
        // Whoever does not wait any more reports again.
        let _gone = waiting.answer.send(result.clone());
    }
}

fn answer(waiting: Waiting, result: Result<()>) {
    let result = result.map_err(|error| unavailable("note events", &error));
    let _gone = waiting.answer.send(result);
}

async fn commit_reports(app: &SharedApp, reports: &[&Report]) -> Result<()> {
    let mut changes = Vec::new();
    let mut results = BTreeMap::new();
    for report in reports {
        let actor: Arc<str> = format!("agent:{}", report.agent_id).into();
        for event in &report.events {
            crate::metrics::event(&event.change);
            translate(&report.agent_id, &actor, event, &mut changes, &mut results);
        }
    }
    let (changes, results) = (&changes, &results);
    let changed = app
        .datastore
        .run_tx("agent_report", |tx| async move {
            let by = app.by("agents");
            // First: a batch session that ends without a result counts as failed.
            let ended = tx.session_results(results).await?;
            let mut changed = tx.transition(changes, by).await?;
            let finish: Vec<Change> = ended
                .into_iter()
                .map(|session| Change {
                    actor: results.get(&session).map(|end| Arc::clone(&end.actor)),
                    ..Change::session(session, KernelStatus::Terminating, "task-finished")
                })
                .collect();
            merge(&mut changed, tx.transition(&finish, by).await?);
            Ok::<_, crate::app::Error>(changed)
        })
        .await?;
    for kernel in &changed.kernels {
        tracing::info!(
            session.id = %kernel.session,
            kernel.id = %kernel.id,
            agent.id = kernel.agent.as_ref().map(tracing::field::display),
            from = %kernel.from,
            to = %kernel.to,
            "the kernel changed"
        );
    }
    app.wake_after(&changed);
    Ok(())
}

fn merge(into: &mut Changed, other: Changed) {
    into.sessions.extend(other.sessions);
    into.kernels.extend(other.kernels);
    into.outcomes.extend(other.outcomes);
}

fn translate(
    agent: &AgentId,
    actor: &Arc<str>,
    event: &KernelEvent,
    changes: &mut Vec<Change>,
    results: &mut BTreeMap<SessionId, BatchEnd>,
) {
    let change = |to, reason: &str| Change {
        actor: Some(Arc::clone(actor)),
        ..Change::kernel(event.session_id, event.kernel_id, to, reason)
    };
    match &event.change {
        KernelChange::Pulling { image } => {
            changes.push(change(KernelStatus::Pulling, image).only_from(BEING_MADE));
        }
        KernelChange::Creating => {
            changes.push(change(KernelStatus::Preparing, "creating").only_from(BEING_MADE));
        }
        KernelChange::Started(info) => changes.push(Change {
            started: Some(started(info)),
            ..change(KernelStatus::Running, "new-container-started").only_from(BEING_MADE)
        }),
        KernelChange::Restarted { restart, info } => changes.push(Change {
            started: Some(started(info)),
            // A restart that another has followed since means nothing any more.
            only_since: Some(DateTime::from_timestamp_micros(*restart).unwrap_or_default()),
            ..change(KernelStatus::Running, "restarted").only_from(&[KernelStatus::Restarting])
        }),
        KernelChange::Failed(error) => {
            tracing::warn!(
                session.id = %event.session_id,
                kernel.id = %event.kernel_id,
                agent.id = %agent,
                %error,
                "the kernel could not be made"
            );
            changes.push(Change {
                with_siblings: true,
                ..change(KernelStatus::Cancelled, FAILED_TO_START)
                    .only_from(BEING_MADE)
                    .with_data("error", error_data(agent, error))
            });
            changes.push(Change {
                with_siblings: true,
                ..change(KernelStatus::Terminated, FAILED_TO_RESTART)
                    .only_from(&[KernelStatus::Restarting])
                    .with_data("error", error_data(agent, error))
            });
            // It was to be destroyed meanwhile.
            changes.push(
                change(KernelStatus::Terminated, FAILED_TO_START)
                    .only_from(&[KernelStatus::Terminating]),
            );
        }
        KernelChange::BatchFinished { exit_code } => {
            let end = BatchEnd { exit_code: *exit_code, actor: Arc::clone(actor) };
            results.insert(event.session_id, end);
        }
        KernelChange::Terminated { reason, exit_code, metrics } => changes.push(Change {
            exit_code: *exit_code,
            last_stat: metrics.as_ref().and_then(Packed::unpack).as_ref().map(kernel_view),
            // A cluster without one of its kernels is none.
            with_siblings: true,
            ..change(KernelStatus::Terminated, reason).only_from(HELD)
        }),
    }
}

fn started(info: &CreationInfo) -> Started {
    Started {
        container_id: info.container_id.clone(),
        kernel_host: info.kernel_host.clone(),
        service_ports: info.service_ports.clone(),
        attached_devices: json!(info.allocations),
    }
}

/// The shape in which clients show an agent's error.
fn error_data(agent: &AgentId, error: &RemoteError) -> Value {
    json!({
        "src": "agent",
        "agent_id": agent.as_str(),
        "name": error.kind.to_string(),
        "repr": error.message,
    })
}
