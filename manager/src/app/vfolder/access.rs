//! Who may do what with which folder.

use std::collections::{BTreeMap, BTreeSet};

use backendai_datastore::vfolder_access::{
    Relation, VfolderAccess, VfolderGroups, VfolderUser, Wanted,
};
use backendai_types::{GroupId, HostPermission, VfolderId, VfolderPermission, VfolderStatus};

use super::VfolderError;
use crate::app::{Error, Result, SharedApp};
use crate::context::{RequestContext, Role};

/// What folders allow, by host.
pub type Hosts = BTreeMap<String, BTreeSet<HostPermission>>;

/// The state a folder must be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Any.
    Readable,
    /// Its content is complete and nobody copies it.
    Updatable,
}

/// The caller as somebody who looks for folders.
pub fn user(context: &RequestContext) -> VfolderUser {
    let groups = match context.role {
        Role::Superadmin => VfolderGroups::All,
        Role::Admin => VfolderGroups::Domain(context.domain_name.clone()),
        Role::User | Role::Monitor => VfolderGroups::Own,
    };
    VfolderUser { id: context.user_id, groups }
}

/// True for the roles that administer groups.
pub fn administers(context: &RequestContext) -> bool {
    matches!(context.role, Role::Superadmin | Role::Admin)
}

/// True if the folder is the caller's to rule over.
pub fn is_owner(context: &RequestContext, access: &VfolderAccess) -> bool {
    match access.relation {
        Relation::Own => true,
        Relation::Shared => false,
        Relation::Group => administers(context),
    }
}

/// All folders the caller may use.
///
/// # Errors
/// PostgreSQL failed.
pub async fn all(app: &SharedApp, context: &RequestContext) -> Result<Vec<VfolderAccess>> {
    let tx = app.datastore.autocommit().await?;
    Ok(tx.vfolders_accessible(&user(context), Wanted::default()).await?)
}

/// All folders that the user of an e-mail address may use; for superadmins.
///
/// # Errors
/// The caller is none and this is not its own address, or there is no such user.
pub async fn all_of(
    app: &SharedApp,
    context: &RequestContext,
    email: &str,
) -> Result<Vec<VfolderAccess>> {
    if !context.is_superadmin() && context.email != email {
        return Err(Error::Forbidden("You may not list the folders of others.".into()));
    }
    let tx = app.datastore.autocommit().await?;
    let found = tx.users_addressed(&[email.to_owned()], None).await?.pop();
    let found = found.ok_or(Error::NotFound { object: "user", message: None })?;
    let user = VfolderUser { id: found.user, groups: VfolderGroups::Own };
    Ok(tx.vfolders_accessible(&user, Wanted::default()).await?)
}

/// A group by name or id that the caller belongs to or administers.
///
/// # Errors
/// There is none.
pub async fn group(app: &SharedApp, context: &RequestContext, reference: &str) -> Result<GroupId> {
    let tx = app.datastore.autocommit().await?;
    let domain = Some(context.domain_name.as_str());
    let found = tx.group_membership(reference, domain, context.user_id).await?;
    let found = match found {
        None if context.is_superadmin() => {
            tx.group_membership(reference, None, context.user_id).await?
        }
        found => found,
    };
    let found = found.filter(|group| {
        group.is_member
            || context.is_superadmin()
            || context.role == Role::Admin && group.domain_name == context.domain_name
    });
    let absent = Error::NotFound { object: "user group (or project)", message: None };
    found.map(|group| group.id).ok_or(absent)
}

/// The folder of a name with which the caller may do at least `need`.
///
/// # Errors
/// There is none, or its state does not admit it.
pub async fn find(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    need: VfolderPermission,
    state: State,
) -> Result<VfolderAccess> {
    let user = user(context);
    let found = named(app, context, name).await?;
    let access = found.into_iter().find(|access| access.allows(&user, need));
    let access = access.ok_or_else(|| VfolderError::NotFound(name.to_owned()))?;
    check_state(&access, state)?;
    Ok(access)
}

/// The folders of a name that the caller may use in some way.
///
/// # Errors
/// PostgreSQL failed.
pub async fn named(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
) -> Result<Vec<VfolderAccess>> {
    let tx = app.datastore.autocommit().await?;
    let wanted = Wanted { name: Some(name), id: None };
    Ok(tx.vfolders_accessible(&user(context), wanted).await?)
}

/// A folder by its id, if the caller may do at least `need` with it.
///
/// # Errors
/// PostgreSQL failed, or there is none.
pub async fn find_by_id(
    app: &SharedApp,
    context: &RequestContext,
    id: VfolderId,
    need: VfolderPermission,
    state: State,
) -> Result<VfolderAccess> {
    let absent = || VfolderError::NotFound(id.to_string());
    let tx = app.datastore.autocommit().await?;
    let wanted = Wanted { name: None, id: Some(id) };
    let found = tx.vfolders_accessible(&user(context), wanted).await?.into_iter().next();
    let access = match found {
        Some(access) => access,
        None if context.is_superadmin() => {
            let folder = tx.vfolder(id).await?.ok_or_else(absent)?;
            let permission = folder.permission;
            VfolderAccess { folder, relation: Relation::Group, permission }
        }
        None => return Err(absent().into()),
    };
    if !access.allows(&user(context), need) {
        return Err(absent().into());
    }
    check_state(&access, state)?;
    Ok(access)
}

/// Refuses a folder that is in no state for something.
///
/// # Errors
/// So it is.
pub fn check_state(access: &VfolderAccess, state: State) -> Result<()> {
    let status = access.folder.status;
    if state == State::Updatable && status != VfolderStatus::Ready {
        return Err(VfolderError::Status(format!(
            "The folder {} is {status}; try again when it is ready.",
            access.folder.name
        ))
        .into());
    }
    Ok(())
}

/// What the caller's policies allow, by host.
///
/// # Errors
/// PostgreSQL failed.
pub async fn hosts(app: &SharedApp, context: &RequestContext) -> Result<Hosts> {
    let tx = app.datastore.autocommit().await?;
    let (domain, key) = (&context.domain_name, &context.access_key);
    Ok(tx.vfolder_hosts(domain, context.user_id, key, None).await?)
}

/// Refuses what the caller's policies do not allow on a host.
///
/// # Errors
/// They do not.
pub async fn check_host(
    app: &SharedApp,
    context: &RequestContext,
    host: &str,
    permission: HostPermission,
) -> Result<()> {
    check_allowed(&hosts(app, context).await?, host, permission)
}

/// Refuses what some policies do not allow on a host.
///
/// # Errors
/// They do not.
pub fn check_allowed(hosts: &Hosts, host: &str, permission: HostPermission) -> Result<()> {
    if hosts.get(host).is_some_and(|allowed| allowed.contains(&permission)) {
        return Ok(());
    }
    let name = match permission {
        HostPermission::Create => "CREATE",
        HostPermission::Modify => "MODIFY",
        HostPermission::Delete => "DELETE",
        HostPermission::Mount => "MOUNT_IN_SESSION",
        HostPermission::Upload => "UPLOAD_FILE",
        HostPermission::Download => "DOWNLOAD_FILE",
        HostPermission::Invite => "INVITE_OTHERS",
        HostPermission::SetUserPermission => "SET_USER_PERM",
    };
    Err(Error::invalid(format!(
        "`VFolderHostPermission.{name}` Not allowed in vfolder host(`{host}`)"
    )))
}
