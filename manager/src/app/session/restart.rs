//! Restarting a session: the same kernels with their folders, in containers made anew.

use std::time::Duration;

use backendai_datastore::transition::Change;
use backendai_rpc::call::{CallError, ErrorKind, RemoteError};
use backendai_types::{KernelStatus, SessionId, SessionStatus};
use serde_json::Value;

use super::lookup;
use crate::app::error::AgentOperation;
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// Why sessions restart that somebody asked to restart.
const USER_REQUESTED: &str = "user-requested";
/// How long a lost wake-up may delay an answer.
const SAFETY_POLL: Duration = Duration::from_secs(1);

/// Restarts a running session and waits until it runs again. Whatever ran in it is over; a
/// batch command begins anew.
///
/// # Errors
/// No such session, it does not run, or it could not be restarted.
pub async fn restart(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
    owner_access_key: Option<&str>,
) -> Result<()> {
    let owner = lookup::resolve_owner(app, context, owner_access_key).await?;
    let session = lookup::find_live(app, &owner, reference).await?;
    let not_running = |status: SessionStatus| {
        Error::invalid(format!(
            "Only running sessions can be restarted: the status of {} is {status}.",
            session.name
        ))
    };
    if session.status != SessionStatus::Running {
        return Err(not_running(session.status));
    }
    // Subscribed before it changes, so that nothing about it can be missed.
    let mut watch = app.wake.watch_session(session.id);
    let actor = context.access_key.as_str();
    let change = &Change::session(session.id, KernelStatus::Restarting, USER_REQUESTED);
    let changed = app
        .datastore
        .run_tx("session_restart", |tx| async move {
            let now = tx.session_lock(session.id).await?.map(|session| session.status);
            if now != Some(SessionStatus::Running) {
                return Err(not_running(now.unwrap_or(SessionStatus::Terminated)));
            }
            Ok(tx.transition(std::slice::from_ref(change), app.by(actor)).await?)
        })
        .await?;
    tracing::info!(session.id = %session.id, request.id = context.request_id, "session restarts");
    app.wake_after(&changed);
    loop {
        if let Some(outcome) = outcome(app, session.id).await? {
            return outcome;
        }
        // Either way the truth is read anew.
        let _lost_wake_up = tokio::time::timeout(SAFETY_POLL, watch.changed()).await;
    }
}

/// How the restart ended, once it has. While the database is away, it has not.
async fn outcome(app: &SharedApp, id: SessionId) -> Result<Option<Result<()>>> {
    let read = async {
        let tx = app.datastore.autocommit().await?;
        tx.session_get(id).await
    };
    let session = match read.await {
        Err(error) if error.is_unavailable() => return Ok(None),
        session => session?,
    };
    let Some(session) = session else { return Err(Error::session_not_found(&id.to_string())) };
    Ok(match session.status {
        SessionStatus::Restarting => None,
        SessionStatus::Running | SessionStatus::RunningDegraded => Some(Ok(())),
        status => {
            let why = session.status_data.pointer("/error/repr").and_then(Value::as_str);
            let message = why.map_or_else(|| format!("it is {status} now"), str::to_owned);
            Some(Err(Error::Agent {
                operation: AgentOperation::Restart,
                source: CallError::Remote(RemoteError::new(ErrorKind::Internal, message)),
            }))
        }
    })
}
