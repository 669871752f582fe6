//! Making folders.

use backendai_datastore::DatastoreError;
use backendai_datastore::vfolder::{
    NAME_OF_GROUP, NAME_OF_USER, NewVfolder, Vfolder, VfolderOwner,
};
use backendai_service::telemetry::chain;
use backendai_types::{GroupId, UsageMode, VfolderId, VfolderPermission, vfolder};

use super::{VfolderError, access, host, limit};
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// A folder that is wanted.
#[derive(Clone, Debug)]
pub struct CreateVfolder {
    /// Its name.
    pub name: String,
    /// Where it shall lie.
    pub host: Option<String>,
    /// What it is for.
    pub usage_mode: UsageMode,
    /// What its members may do.
    pub permission: VfolderPermission,
    /// A directory of the hosts' that is not ours.
    pub unmanaged_path: Option<String>,
    /// Name or id of the group whose it shall be; the caller's own without one.
    pub group: Option<String>,
    /// Bytes it may hold.
    pub quota: Option<u64>,
    /// Whether others may copy it.
    pub cloneable: bool,
}

/// Makes a folder.
///
/// # Errors
/// See `rest-routes.md` §4.1.
pub async fn create(
    app: &SharedApp,
    context: &RequestContext,
    wanted: CreateVfolder,
) -> Result<Vfolder> {
    if wanted.unmanaged_path.is_some() {
        if !access::administers(context) {
            return Err(Error::Forbidden("Insufficient permission".into()));
        }
        return Err(Error::invalid(
            "Folders outside of the vfolder hosts are not supported: put the directory beneath \
             volumes/_mount as a host of its own.",
        ));
    }
    let host = host::choose(app, wanted.host.clone()).await?;
    check_name(&wanted.name)?;
    let owner = match &wanted.group {
        None => VfolderOwner::User(context.user_id),
        Some(group) => VfolderOwner::Group(group_for(app, context, &wanted.name, group).await?),
    };
    let types = host::allowed_types(app).await?;
    let kind = if owner.user().is_some() { "user" } else { "group" };
    if !types.contains(&kind) {
        return Err(Error::invalid(format!("{kind}-owned vfolder is not allowed in this cluster")));
    }
    host::check_create(app, context, &host).await?;
    let new = NewVfolder {
        id: VfolderId::random(),
        host,
        name: wanted.name,
        owner,
        creator: context.email.clone(),
        usage_mode: wanted.usage_mode,
        permission: wanted.permission,
        cloneable: wanted.cloneable,
        max_size: limit::bounded(app, context, wanted.quota).await?,
        clone_source: None,
    };
    check_free(app, context, &new.name).await?;
    // The directory first: a row without one would be a folder that cannot be used, while a
    // directory without a row is found by the audit.
    let volume = host::volume(app, &new.host).await?;
    volume
        .create_folder(new.id.0)
        .await
        .map_err(|error| VfolderError::CreationFailed(chain(&error)))?;
    let inserted = insert(app, context, &new).await;
    if inserted.is_err()
        && let Err(error) = volume.remove_folder(new.id.0).await
    {
        tracing::warn!(error = chain(&error), "a directory of no folder is left to the audit");
    }
    inserted?;
    tracing::info!(
        vfolder.id = %new.id, request.id = context.request_id, name = new.name, "folder created"
    );
    let tx = app.datastore.autocommit().await?;
    tx.vfolder(new.id).await?.ok_or_else(|| VfolderError::NotFound(new.name).into())
}

/// Inserts a folder within the limit on their number.
///
/// # Errors
/// The limit is reached, or the owner has one of this name.
pub async fn insert(app: &SharedApp, context: &RequestContext, new: &NewVfolder) -> Result<()> {
    app.datastore
        .run_tx("vfolder_create", |tx| async move {
            if let Some(user) = new.owner.user() {
                tx.vfolder_owner_lock(user).await?;
                if let Some(most) = tx.vfolder_max_count(&context.access_key).await?
                    && tx.vfolder_count(user).await? >= most
                {
                    return Err(Error::invalid("You cannot create more vfolders."));
                }
            }
            tx.vfolder_insert(new).await.map_err(|error| name_taken(error, &new.name))
        })
        .await
}

/// The error of a folder that cannot have a name.
pub fn name_taken(error: DatastoreError, name: &str) -> Error {
    match error {
        DatastoreError::Conflict { constraint, .. }
            if constraint == NAME_OF_USER || constraint == NAME_OF_GROUP =>
        {
            VfolderError::Exists(name.to_owned()).into()
        }
        error => error.into(),
    }
}

/// Refuses a name that a folder of the caller's, or one shared with it, has.
///
/// # Errors
/// So it is.
pub async fn check_free(app: &SharedApp, context: &RequestContext, name: &str) -> Result<()> {
    match access::named(app, context, name).await?.is_empty() {
        true => Ok(()),
        false => Err(VfolderError::Exists(name.to_owned()).into()),
    }
}

/// Refuses names that the platform uses itself.
///
/// # Errors
/// So it is.
pub fn check_name(name: &str) -> Result<()> {
    if vfolder::is_reserved(name) {
        return Err(Error::invalid(format!("{name} is reserved for internal operations.")));
    }
    Ok(())
}

async fn group_for(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    group: &str,
) -> Result<GroupId> {
    if name.starts_with('.') && name != ".local" {
        return Err(Error::invalid("dot-prefixed vfolders cannot be a group folder."));
    }
    let group = access::group(app, context, group).await?;
    if !context.is_admin_key {
        return Err(Error::Forbidden("no permission".into()));
    }
    Ok(group)
}
