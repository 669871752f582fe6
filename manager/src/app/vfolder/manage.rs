//! Names, options and owners of folders; deletion and the way back.

use backendai_datastore::vfolder::{MountingSession, Vfolder};
use backendai_datastore::vfolder_access::{Relation, VfolderAccess};
use backendai_storage::Usage;
use backendai_types::{HostPermission, VfolderId, VfolderPermission, VfolderStatus};

use super::access::{self, State};
use super::{VfolderError, create, host};
use crate::app::{Error, Result, SharedApp};
use crate::context::{RequestContext, Role};
use crate::wake::Task;

/// A folder with what it holds.
///
/// # Errors
/// There is none of this name for the caller, or its volume fails.
pub async fn info(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
) -> Result<(VfolderAccess, Usage)> {
    let need = VfolderPermission::ReadOnly;
    let access = access::find(app, context, name, need, State::Readable).await?;
    let usage = match access.folder.status {
        // It is not there yet.
        VfolderStatus::Performing => Usage::default(),
        _ => measure(app, &access.folder).await?,
    };
    Ok((access, usage))
}

/// What a folder holds; noted for lists.
///
/// # Errors
/// Its volume fails.
pub async fn measure(app: &SharedApp, folder: &Vfolder) -> Result<Usage> {
    let usage = host::volume(app, &folder.host).await?.usage(folder.id.0).await?;
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let tx = app.datastore.autocommit().await?;
    tx.vfolder_set_usage(folder.id, count(usage.files), count(usage.bytes)).await?;
    Ok(usage)
}

/// Gives a folder another name. Sessions that have it mounted keep seeing it where it is.
///
/// # Errors
/// There is none for the caller, it is another's, or the name is taken or reserved.
pub async fn rename(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    new_name: &str,
) -> Result<()> {
    let access = own(app, context, name, "rename").await?;
    create::check_name(new_name)?;
    if access.relation == Relation::Group && new_name.starts_with('.') && new_name != ".local" {
        return Err(Error::invalid("dot-prefixed vfolders cannot be a group folder."));
    }
    if new_name == name {
        return Ok(());
    }
    if !access::named(app, context, new_name).await?.is_empty() {
        return Err(Error::invalid(
            "One of your accessible vfolders already has the name you requested.",
        ));
    }
    let tx = app.datastore.autocommit().await?;
    let renamed = tx.vfolder_rename(access.folder.id, new_name).await;
    renamed.map_err(|error| create::name_taken(error, new_name))
}

/// Changes what others may do with a folder.
///
/// # Errors
/// There is none for the caller, or it is another's.
pub async fn update_options(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    cloneable: Option<bool>,
    permission: Option<VfolderPermission>,
) -> Result<()> {
    let access = own(app, context, name, "change").await?;
    let tx = app.datastore.autocommit().await?;
    Ok(tx.vfolder_set_options(access.folder.id, cloneable, permission).await?)
}

async fn own(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    verb: &str,
) -> Result<VfolderAccess> {
    let need = VfolderPermission::Delete;
    let access = access::find(app, context, name, need, State::Updatable).await?;
    access::check_host(app, context, &access.folder.host, HostPermission::Modify).await?;
    if !access::is_owner(context, &access) {
        return Err(Error::invalid(format!(
            "Cannot {verb} the vfolder that is not owned by myself."
        )));
    }
    Ok(access)
}

/// Deletes the folder of a name: it can be had back for a while.
///
/// # Errors
/// There is none for the caller or more than one, it is another's, its state does not admit
/// it, or sessions have it mounted.
pub async fn delete(app: &SharedApp, context: &RequestContext, name: &str) -> Result<()> {
    let mut found = access::named(app, context, name).await?;
    let access = match (found.pop(), found.is_empty()) {
        (None, _) => return Err(VfolderError::NotFound(name.to_owned()).into()),
        (Some(_), false) => return Err(VfolderError::Several.into()),
        (Some(access), true) => access,
    };
    access::check_state(&access, State::Updatable)?;
    access::check_host(app, context, &access.folder.host, HostPermission::Delete).await?;
    if !access::is_owner(context, &access) && access.permission != VfolderPermission::Delete {
        return Err(Error::invalid("Cannot delete the vfolder that is not owned by myself."));
    }
    trash(app, context, &access.folder).await
}

/// Deletes a folder of anybody's by its id; for superadmins.
///
/// # Errors
/// As [`delete`].
pub async fn delete_by_id(app: &SharedApp, context: &RequestContext, id: VfolderId) -> Result<()> {
    let need = VfolderPermission::Delete;
    let access = access::find_by_id(app, context, id, need, State::Updatable).await?;
    access::check_host(app, context, &access.folder.host, HostPermission::Delete).await?;
    trash(app, context, &access.folder).await
}

async fn trash(app: &SharedApp, context: &RequestContext, folder: &Vfolder) -> Result<()> {
    let id = folder.id;
    app.datastore
        .run_tx("vfolder_delete", |tx| async move {
            let sessions = tx.vfolder_mounted_by_lock(id).await?;
            if !sessions.is_empty() {
                return Err(mounted(context, &folder.name, &sessions));
            }
            match tx.vfolder_trash(id).await? {
                true => Ok(()),
                false => Err(VfolderError::Status(format!(
                    "The folder {} is in use or deleted already.",
                    folder.name
                ))
                .into()),
            }
        })
        .await?;
    tracing::info!(vfolder.id = %id, request.id = context.request_id, "folder deleted");
    app.wake.task(Task::RemoveVfolders);
    Ok(())
}

/// Names the sessions in the way: those the caller may know of.
fn mounted(context: &RequestContext, name: &str, sessions: &[MountingSession]) -> Error {
    let may_see = |session: &&MountingSession| {
        session.user_id == context.user_id || access::administers(context)
    };
    let known: Vec<String> =
        sessions.iter().filter(may_see).map(|s| format!("{} ({})", s.name, s.id)).collect();
    let others = sessions.len() - known.len();
    let mut by = known.join(", ");
    if others > 0 {
        let and = if by.is_empty() { "" } else { " and " };
        by.push_str(&format!("{and}{others} of other users"));
    }
    VfolderError::OperationFailed(format!(
        "The folder {name} is mounted by the sessions {by}: end them first."
    ))
    .into()
}

/// The caller's folders that are deleted and can be had back; everybody's for superadmins.
///
/// # Errors
/// PostgreSQL failed.
pub async fn trashed(app: &SharedApp, context: &RequestContext) -> Result<Vec<Vfolder>> {
    let tx = app.datastore.autocommit().await?;
    let all = tx.vfolders_trashed().await?;
    Ok(all.into_iter().filter(|folder| rules_over(context, folder)).collect())
}

/// Takes a folder out of the trash.
///
/// # Errors
/// It is not there for the caller, or its name is taken by now.
pub async fn restore(app: &SharedApp, context: &RequestContext, id: VfolderId) -> Result<()> {
    let folder = in_trash(app, context, id).await?;
    let tx = app.datastore.autocommit().await?;
    let restored = tx.vfolder_restore(id).await;
    match restored.map_err(|error| create::name_taken(error, &folder.name))? {
        true => Ok(()),
        false => Err(VfolderError::NotFound(id.to_string()).into()),
    }
}

/// Removes a folder in the trash for good.
///
/// # Errors
/// It is not there for the caller.
pub async fn purge(app: &SharedApp, context: &RequestContext, id: VfolderId) -> Result<()> {
    in_trash(app, context, id).await?;
    let tx = app.datastore.autocommit().await?;
    tx.vfolder_purge(id).await?;
    app.wake.task(Task::RemoveVfolders);
    Ok(())
}

async fn in_trash(app: &SharedApp, context: &RequestContext, id: VfolderId) -> Result<Vfolder> {
    let tx = app.datastore.autocommit().await?;
    let folder = tx
        .vfolder(id)
        .await?
        .filter(|folder| folder.status == VfolderStatus::Trashed && rules_over(context, folder));
    folder.ok_or_else(|| VfolderError::NotFound(id.to_string()).into())
}

/// Whether a folder is the caller's: its own, or any for superadmins.
fn rules_over(context: &RequestContext, folder: &Vfolder) -> bool {
    context.role == Role::Superadmin || folder.owner.user() == Some(context.user_id)
}
