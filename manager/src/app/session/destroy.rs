//! Ending sessions: what is wanted is written down, and the tasks carry it out.

use std::collections::HashMap;

use backendai_datastore::kernel::LocatedKernel;
use backendai_datastore::session::Session;
use backendai_datastore::transition::{Change, Changed};
use backendai_datastore::{DatastoreError, Transaction};
use backendai_rpc::statistics::Metrics;
use backendai_types::{KernelId, KernelStatus, SessionId, SessionStatus};
use serde_json::{Value, json};

use super::lookup;
use crate::app::statistics;
use crate::app::{Error, Result, SharedApp};
use crate::context::{RequestContext, Role};

/// Why sessions end that somebody asked to end.
const USER_REQUESTED: &str = "user-requested";
/// Why sessions end that somebody forced to end.
const FORCE_TERMINATED: &str = "force-terminated";

/// Ends a session, with everything that depends on it if `recursive`. Returns one object of
/// statistics for each; does not wait for the containers to be gone.
///
/// # Errors
/// No such session, or its status does not allow it without `forced`.
pub async fn destroy(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
    owner_access_key: Option<&str>,
    forced: bool,
    recursive: bool,
) -> Result<Vec<Value>> {
    let foreign = owner_access_key.is_some_and(|key| key != context.access_key.as_str());
    if foreign && !matches!(context.role, Role::Superadmin | Role::Admin) {
        return Err(Error::InsufficientPrivilege(
            "You are not allowed to force-terminate others's sessions".into(),
        ));
    }
    let owner = lookup::resolve_owner(app, context, owner_access_key).await?;
    let session = lookup::find_live(app, &owner, reference).await?;
    let actor = context.access_key.as_str();
    if !recursive {
        return Ok(vec![end(app, session.id, forced, actor).await?]);
    }
    let dependents = {
        let tx = app.datastore.autocommit().await?;
        tx.session_dependents(session.id).await?
    };
    let mut stats = Vec::new();
    for id in std::iter::once(session.id).chain(dependents) {
        match end(app, id, forced, actor).await {
            Ok(stat) => stats.push(stat),
            // Ended meanwhile, or may not end now: the others still do.
            Err(Error::NotFound { .. } | Error::Forbidden(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(stats)
}

/// Ends one session, whoever asks. Returns the statistics of its main kernel.
///
/// # Errors
/// It has ended already, or its status does not allow it without `forced`.
pub async fn end(app: &SharedApp, id: SessionId, forced: bool, actor: &str) -> Result<Value> {
    end_if(app, id, forced, actor, |status| check_status(status, forced)).await
}

/// Ends one session by force, whatever it is doing.
///
/// # Errors
/// It has ended already.
pub async fn kill(app: &SharedApp, id: SessionId, actor: &str) -> Result<Value> {
    end_if(app, id, true, actor, |_| Ok(())).await
}

async fn end_if(
    app: &SharedApp,
    id: SessionId,
    forced: bool,
    actor: &str,
    check: impl Fn(SessionStatus) -> Result<()> + Sync,
) -> Result<Value> {
    let (metrics, lost) = figures(app, id, forced).await?;
    let check = &check;
    let (lost, metrics) = (&lost, metrics.as_ref());
    let (changed, stats) = app
        .datastore
        .run_tx("session_destroy", |tx| async move {
            let gone = || Error::session_not_found(&id.to_string());
            let session = tx.session_lock(id).await?.ok_or_else(gone)?;
            if session.status.is_terminal() {
                return Err(gone());
            }
            check(session.status)?;
            let changes = changes(&tx, &session, forced, lost).await?;
            let changed = tx.transition(&changes, app.by(actor)).await?;
            Ok((changed, stats(session.status, metrics)))
        })
        .await?;
    report(app, id, &changed);
    Ok(stats)
}

/// What is known of the main kernel now, and, if its kernels are to end by force, of those
/// whose agent cannot tell any more.
async fn figures(
    app: &SharedApp,
    id: SessionId,
    forced: bool,
) -> Result<(Option<Metrics>, HashMap<KernelId, Metrics>)> {
    let kernels = {
        let tx = app.datastore.autocommit().await?;
        tx.session_kernels_located(id).await?
    };
    let now = match kernels.first().filter(|main| main.status == KernelStatus::Running) {
        Some(main) => statistics::kernel_now(app, main).await,
        None => None,
    };
    let lost: Vec<KernelId> = match forced {
        true => kernels.iter().filter(|kernel| !kernel.agent_alive).map(|k| k.id).collect(),
        false => Vec::new(),
    };
    Ok((now, statistics::kernels(&app.redis, &lost).await))
}

fn report(app: &SharedApp, id: SessionId, changed: &Changed) {
    tracing::info!(session.id = %id, "session is to end");
    app.wake_after(changed);
    // Even if nothing changed: the agents may need to hear it again.
    app.wake.task(crate::wake::Task::ReapSessions);
}

fn check_status(status: SessionStatus, forced: bool) -> Result<()> {
    match status {
        SessionStatus::Pulling => {
            Err(Error::Forbidden("Cannot destroy sessions in pulling status".into()))
        }
        SessionStatus::Scheduled
        | SessionStatus::Preparing
        | SessionStatus::Terminating
        | SessionStatus::Error
            if !forced =>
        {
            Err(Error::Forbidden(
                "Cannot destroy sessions in scheduled/preparing/terminating/error status".into(),
            ))
        }
        SessionStatus::Scheduled
        | SessionStatus::Preparing
        | SessionStatus::Terminating
        | SessionStatus::Error
        | SessionStatus::Pending
        | SessionStatus::Running
        | SessionStatus::Restarting
        | SessionStatus::RunningDegraded
        | SessionStatus::Terminated
        | SessionStatus::Cancelled => Ok(()),
    }
}

/// What the kernels shall become. By force, those whose agent does not answer end at once;
/// should the agent come back, it is told that they are not wanted.
async fn changes(
    tx: &Transaction,
    session: &Session,
    forced: bool,
    figures: &HashMap<KernelId, Metrics>,
) -> Result<Vec<Change>, DatastoreError> {
    if session.status == SessionStatus::Pending {
        return Ok(vec![Change::session(session.id, KernelStatus::Cancelled, USER_REQUESTED)]);
    }
    let reason = if forced { FORCE_TERMINATED } else { USER_REQUESTED };
    let terminating = Change::session(session.id, KernelStatus::Terminating, reason)
        .with_data("session", json!({"status": "terminating"}));
    let mut changes = vec![terminating];
    if forced {
        let unreachable =
            |kernel: &LocatedKernel| !kernel.agent_alive && !kernel.status.is_terminal();
        let kernels = tx.session_kernels_located(session.id).await?;
        changes.extend(kernels.iter().filter(|kernel| unreachable(kernel)).map(|kernel| Change {
            last_stat: figures.get(&kernel.id).map(statistics::kernel_view),
            ..Change::kernel(session.id, kernel.id, KernelStatus::Terminated, reason)
        }));
    }
    Ok(changes)
}

/// What clients print after a removal. They insist on a status.
fn stats(was: SessionStatus, metrics: Option<&Metrics>) -> Value {
    if was == SessionStatus::Pending {
        return json!({"status": "cancelled"});
    }
    let mut stats = metrics.map_or_else(|| json!({}), statistics::kernel_view);
    stats["status"] = "terminated".into();
    stats["version"] = 2.into();
    stats
}
