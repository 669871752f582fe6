//! Waiting until a session runs, or will not.

use std::time::Duration;

use backendai_datastore::transition::FAILED_TO_START;
use backendai_types::{KernelStatus, SessionId, SessionStatus};

use super::super::{CreateSession, CreatedSession};
use super::{ON_ITS_WAY, pending};
use crate::app::{Error, Result, SharedApp};
use crate::wake::Watch;

/// How long a lost wake-up may delay an answer.
const SAFETY_POLL: Duration = Duration::from_secs(1);

/// Answers as the request asks: at once, when the session is on its way no more, or when
/// the time is up. The session goes on whatever is answered.
pub(super) async fn until_started(
    app: &SharedApp,
    request: &CreateSession,
    id: SessionId,
    mut watch: Watch,
) -> Result<CreatedSession> {
    if request.enqueue_only {
        return Ok(pending(request, id, "PENDING"));
    }
    let waiting = async {
        loop {
            if let Some(answer) = started(app, request, id).await? {
                return Ok(answer);
            }
            // Either way the truth is read anew.
            let _lost_wake_up = tokio::time::timeout(SAFETY_POLL, watch.changed()).await;
        }
    };
    match request.max_wait {
        None => waiting.await,
        Some(limit) => match tokio::time::timeout(limit, waiting).await {
            Ok(answer) => answer,
            Err(_) => Ok(pending(request, id, "TIMEOUT")),
        },
    }
}

/// The answer, unless the session is still on its way. While the database is away, it is.
async fn started(
    app: &SharedApp,
    request: &CreateSession,
    id: SessionId,
) -> Result<Option<CreatedSession>> {
    let read = async {
        let tx = app.datastore.autocommit().await?;
        tx.session_progress(id).await
    };
    let progress = match read.await {
        Err(error) if error.is_unavailable() => return Ok(None),
        result => result?,
    };
    let Some((status, kernel)) = progress else {
        return Err(Error::session_not_found(&id.to_string()));
    };
    let has_failed = kernel.as_ref().is_some_and(|kernel| {
        status == SessionStatus::Terminating
            && kernel.status_info.as_deref() == Some(FAILED_TO_START)
    });
    if ON_ITS_WAY.contains(&status) || has_failed {
        return Ok(None);
    }
    let mut answer = pending(request, id, status.as_str());
    if let Some(kernel) = kernel
        && status != SessionStatus::Cancelled
    {
        if kernel.status == KernelStatus::Running {
            answer.service_ports = kernel.service_ports;
        }
        // Clients look for the main kernel's status.
        answer.status = kernel.status.to_string();
    }
    Ok(Some(answer))
}
