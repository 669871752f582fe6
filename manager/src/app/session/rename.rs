//! Giving a session another name.

use backendai_datastore::DatastoreError;
use backendai_datastore::session::LIVE_NAME_INDEX;
use backendai_types::SessionStatus;

use super::{lookup, reserved_name};
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// Renames a session of the caller. What runs in it keeps the name it was told.
///
/// # Errors
/// No such session, it does not run, or another live session has the name.
pub async fn rename(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
    name: &str,
) -> Result<()> {
    reserved_name(name)?;
    let session = lookup::find_any(app, &context.access_key, reference).await?;
    let not_running = || Error::invalid("Can't change name of not running session");
    if !SessionStatus::LIVE.contains(&session.status) {
        return Err(not_running());
    }
    let tx = app.datastore.autocommit().await?;
    match tx.session_rename(session.id, name).await {
        Ok(true) => {
            tracing::info!(session.id = %session.id, from = session.name, to = name, "session renamed");
            Ok(())
        }
        Ok(false) => Err(not_running()),
        Err(DatastoreError::Conflict { constraint, .. }) if constraint == LIVE_NAME_INDEX => {
            Err(Error::invalid(format!("Another session has the name {name}.")))
        }
        Err(error) => Err(error.into()),
    }
}
