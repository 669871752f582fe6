//! Errors that clients report: users see their own, administrators those of their users.

use backendai_datastore::error_log::{ErrorLog, ErrorLogScope};
use uuid::Uuid;

use crate::app::{Error, Result, SharedApp};
use crate::context::{RequestContext, Role};

/// Keeps a report of the caller.
///
/// # Errors
/// PostgreSQL failed.
pub async fn report(app: &SharedApp, log: &ErrorLog) -> Result<()> {
    let tx = app.datastore.autocommit().await?;
    Ok(tx.error_log_insert(log).await?)
}

/// A page of reports, the newest first, and how many there are in all. With `mark_read` the
/// caller's own among them count as read from now on.
///
/// # Errors
/// PostgreSQL failed.
pub async fn list(
    app: &SharedApp,
    context: &RequestContext,
    mark_read: bool,
    page_size: i64,
    page_no: i64,
) -> Result<(Vec<ErrorLog>, i64)> {
    let tx = app.datastore.autocommit().await?;
    let offset = page_no.saturating_sub(1).saturating_mul(page_size);
    let (logs, count) = tx.error_logs(&scope(context), page_size, offset).await?;
    if mark_read {
        let ids: Vec<Uuid> = logs.iter().map(|log| log.id).collect();
        tx.error_logs_mark_read(context.user_id, &ids).await?;
    }
    Ok((logs, count))
}

/// Clears a report the caller may see.
///
/// # Errors
/// There is none of this id.
pub async fn clear(app: &SharedApp, context: &RequestContext, id: Uuid) -> Result<()> {
    let tx = app.datastore.autocommit().await?;
    match tx.error_log_clear(&scope(context), id).await? {
        true => Ok(()),
        false => Err(Error::NotFound { object: "error log", message: None }),
    }
}

fn scope(context: &RequestContext) -> ErrorLogScope {
    match context.role {
        Role::Superadmin => ErrorLogScope::Everything,
        Role::Admin => ErrorLogScope::Domain(context.domain_name.clone()),
        Role::User | Role::Monitor => ErrorLogScope::User(context.user_id),
    }
}
