//! How much a folder may hold: what its owner says, within what policies let it.

use backendai_datastore::vfolder::Vfolder;
use backendai_datastore::vfolder_access::VfolderAccess;
use backendai_storage::Usage;
use backendai_types::{HostPermission, VfolderId, VfolderPermission, VfolderStatus};

use super::access::{self, State};
use super::{VfolderError, manage};
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// The limit of a folder in bytes, if it has one, and what it holds.
///
/// # Errors
/// There is none of this id on the host for the caller, or its volume fails.
pub async fn show(
    app: &SharedApp,
    context: &RequestContext,
    host: &str,
    id: VfolderId,
) -> Result<(Option<i64>, Usage)> {
    let need = VfolderPermission::ReadOnly;
    let access = find(app, context, host, id, need, State::Readable).await?;
    Ok((access.folder.max_size, usage_of(app, &access.folder).await?))
}

/// What a folder of anybody's holds; for superadmins.
///
/// # Errors
/// There is none of this id on the host, or its volume fails.
pub async fn usage(
    app: &SharedApp,
    context: &RequestContext,
    host: &str,
    id: VfolderId,
) -> Result<Usage> {
    Ok(show(app, context, host, id).await?.1)
}

async fn usage_of(app: &SharedApp, folder: &Vfolder) -> Result<Usage> {
    match folder.status {
        // It is not there yet.
        VfolderStatus::Performing => Ok(Usage::default()),
        _ => manage::measure(app, folder).await,
    }
}

/// Sets the limit of a folder, and says what it is then: no more than the caller's policy
/// lets a folder hold. Zero is as much as that, or no limit.
///
/// # Errors
/// There is none of this id on the host for the caller, or it is another's.
pub async fn set(
    app: &SharedApp,
    context: &RequestContext,
    host: &str,
    id: VfolderId,
    bytes: u64,
) -> Result<i64> {
    let need = VfolderPermission::ReadWrite;
    let access = find(app, context, host, id, need, State::Updatable).await?;
    if !context.is_superadmin() {
        access::check_host(app, context, host, HostPermission::Modify).await?;
        if !access::is_owner(context, &access) {
            let why = "Cannot change the quota of the vfolder that is not owned by myself.";
            return Err(Error::invalid(why));
        }
    }
    let wanted = (bytes > 0).then_some(bytes);
    let limit = bounded(app, context, wanted).await?;
    let tx = app.datastore.autocommit().await?;
    tx.vfolder_set_max_size(id, limit).await?;
    tracing::info!(vfolder.id = %id, request.id = context.request_id, limit, "folder limited");
    Ok(limit.unwrap_or(0))
}

/// The limit that a folder of the caller's making gets: what is wanted, and no more than the
/// caller's policy admits.
///
/// # Errors
/// PostgreSQL failed.
pub async fn bounded(
    app: &SharedApp,
    context: &RequestContext,
    wanted: Option<u64>,
) -> Result<Option<i64>> {
    let wanted = wanted.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let tx = app.datastore.autocommit().await?;
    let most = match context.is_superadmin() {
        true => None,
        false => tx.vfolder_max_size(&context.access_key).await?,
    };
    Ok(match (wanted, most) {
        (Some(wanted), Some(most)) => Some(wanted.min(most)),
        (wanted, most) => wanted.or(most),
    })
}

async fn find(
    app: &SharedApp,
    context: &RequestContext,
    host: &str,
    id: VfolderId,
    need: VfolderPermission,
    state: State,
) -> Result<VfolderAccess> {
    let access = access::find_by_id(app, context, id, need, state).await?;
    match access.folder.host == host {
        true => Ok(access),
        false => Err(VfolderError::NotFound(id.to_string()).into()),
    }
}
