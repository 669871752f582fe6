//! Folders that more than one person uses: invitations to users' folders, rights of members
//! on groups' folders.

use backendai_datastore::vfolder::Vfolder;
use backendai_datastore::vfolder_access::{Relation, VfolderAccess};
use backendai_datastore::vfolder_sharing::{
    Addressee, Invitations, VfolderInvitation, VfolderShare,
};
use backendai_types::vfolder::InvitationState;
use backendai_types::{HostPermission, UserId, VfolderId, VfolderPermission};
use uuid::Uuid;

use super::VfolderError;
use super::access::{self, State};
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// Offers an own folder to others, and says to whom of them anew.
///
/// # Errors
/// The caller has no such folder, none of them is a user, or one has a folder of that name.
pub async fn invite(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    permission: VfolderPermission,
    emails: &[String],
) -> Result<Vec<String>> {
    if name.starts_with('.') {
        return Err(Error::Forbidden("Cannot share private dot-prefixed vfolders.".into()));
    }
    let found = access::named(app, context, name).await?;
    let access = found.into_iter().find(|access| access.relation == Relation::Own);
    let access = access.ok_or_else(|| VfolderError::NotFound(name.to_owned()))?;
    access::check_state(&access, State::Updatable)?;
    let folder = &access.folder;
    access::check_host(app, context, &folder.host, HostPermission::Invite).await?;
    let tx = app.datastore.autocommit().await?;
    let mut invitees = tx.users_addressed(emails, None).await?;
    invitees.retain(|invitee| invitee.user != context.user_id);
    if invitees.is_empty() {
        return Err(no_invitation());
    }
    drop(tx);
    let (invitees, context) = (&invitees, &context);
    app.datastore
        .run_tx("vfolder_invite", |tx| async move {
            let users: Vec<UserId> = invitees.iter().map(|invitee| invitee.user).collect();
            if tx.vfolder_name_is_taken(&users, name).await? {
                return Err(VfolderError::Exists(name.to_owned()).into());
            }
            let mut invited = Vec::new();
            for Addressee { email, .. } in invitees {
                if tx.vfolder_invite(folder.id, &context.email, email, permission).await? {
                    invited.push(email.clone());
                }
            }
            Ok(invited)
        })
        .await
}

fn no_invitation() -> Error {
    Error::NotFound { object: "vfolder invitation", message: None }
}

/// Invitations that the caller got and has not answered.
///
/// # Errors
/// PostgreSQL failed.
pub async fn received(app: &SharedApp, context: &RequestContext) -> Result<Vec<VfolderInvitation>> {
    let tx = app.datastore.autocommit().await?;
    Ok(tx.vfolder_invitations(Invitations::To(&context.email)).await?)
}

/// Invitations that the caller made and nobody has answered.
///
/// # Errors
/// PostgreSQL failed.
pub async fn sent(app: &SharedApp, context: &RequestContext) -> Result<Vec<VfolderInvitation>> {
    let tx = app.datastore.autocommit().await?;
    Ok(tx.vfolder_invitations(Invitations::From(&context.email)).await?)
}

/// Changes what an invitation of the caller's offers.
///
/// # Errors
/// PostgreSQL failed. An invitation that is not the caller's, or is answered, stays as it is.
pub async fn change_invitation(
    app: &SharedApp,
    context: &RequestContext,
    id: Uuid,
    permission: VfolderPermission,
) -> Result<()> {
    let tx = app.datastore.autocommit().await?;
    Ok(tx.vfolder_invitation_change(id, &context.email, permission).await?)
}

/// Takes up an invitation.
///
/// # Errors
/// The caller got no such invitation, or has a folder of that name.
pub async fn accept(app: &SharedApp, context: &RequestContext, id: Uuid) -> Result<()> {
    app.datastore
        .run_tx("vfolder_accept", |tx| async move {
            let invitation = tx.vfolder_invitation_lock(id).await?;
            let invitation = invitation.filter(|invitation| invitation.invitee == context.email);
            let invitation = invitation.ok_or_else(no_invitation)?;
            tx.vfolder_owner_lock(context.user_id).await?;
            let name = &invitation.vfolder_name;
            if tx.vfolder_name_is_taken(&[context.user_id], name).await? {
                return Err(VfolderError::Exists(name.clone()).into());
            }
            let (folder, permission) = (invitation.vfolder, invitation.permission);
            tx.vfolder_permission_set(folder, context.user_id, permission).await?;
            Ok(tx.vfolder_invitation_end(id, InvitationState::Accepted).await?)
        })
        .await
}

/// Turns down an invitation, or takes back one's own.
///
/// # Errors
/// There is none that the caller got or made.
pub async fn decline(app: &SharedApp, context: &RequestContext, id: Uuid) -> Result<()> {
    app.datastore
        .run_tx("vfolder_decline", |tx| async move {
            let invitation = tx.vfolder_invitation_lock(id).await?.ok_or_else(no_invitation)?;
            let state = match &context.email {
                email if *email == invitation.invitee => InvitationState::Rejected,
                email if *email == invitation.inviter => InvitationState::Canceled,
                _ => return Err(no_invitation()),
            };
            Ok(tx.vfolder_invitation_end(id, state).await?)
        })
        .await
}

/// Gives up a folder that another shares with the caller, or with `user` for superadmins.
///
/// # Errors
/// It is the caller's own or a group's, or is not shared.
pub async fn leave(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    user: Option<UserId>,
) -> Result<()> {
    let need = VfolderPermission::ReadOnly;
    let user = user.unwrap_or(context.user_id);
    if user != context.user_id && !context.is_superadmin() {
        return Err(Error::InsufficientPrivilege(
            "Only superadmins make others leave a folder.".into(),
        ));
    }
    let access = access::find(app, context, name, need, State::Updatable).await?;
    if access.relation == Relation::Group {
        return Err(Error::invalid("Cannot leave a group vfolder."));
    }
    if access.folder.owner.user() == Some(user) {
        return Err(Error::invalid("Cannot leave a vfolder owned by the requesting user."));
    }
    let tx = app.datastore.autocommit().await?;
    match tx.vfolder_permission_remove(access.folder.id, user).await? {
        true => Ok(()),
        false => Err(VfolderError::NotFound(name.to_owned()).into()),
    }
}

/// Says what members may do with a folder of their group.
///
/// # Errors
/// There is none for the caller, or not all of them are members.
pub async fn share(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    permission: VfolderPermission,
    emails: &[String],
) -> Result<Vec<String>> {
    let (folder, members) = group_folder(app, context, name, emails).await?;
    let known: Vec<String> = members.iter().map(|member| member.email.clone()).collect();
    let unknown = emails.iter().any(|email| !known.contains(email));
    if members.is_empty() || unknown {
        return Err(Error::NotFound { object: "user", message: None });
    }
    let (folder, members) = (&folder, &members);
    app.datastore
        .run_tx("vfolder_share", |tx| async move {
            for member in members {
                tx.vfolder_permission_set(folder.id, member.user, permission).await?;
            }
            Ok::<_, Error>(())
        })
        .await?;
    Ok(known)
}

/// Takes back what [`share`] said.
///
/// # Errors
/// There is no such folder for the caller, or no such user.
pub async fn unshare(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    emails: &[String],
) -> Result<Vec<String>> {
    let (folder, members) = group_folder(app, context, name, emails).await?;
    if members.is_empty() {
        return Err(Error::NotFound { object: "user(s).", message: None });
    }
    let tx = app.datastore.autocommit().await?;
    for member in &members {
        tx.vfolder_permission_remove(folder.id, member.user).await?;
    }
    Ok(members.into_iter().map(|member| member.email).collect())
}

async fn group_folder(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    emails: &[String],
) -> Result<(Vfolder, Vec<Addressee>)> {
    let found = access::named(app, context, name).await?;
    let access = found.into_iter().find(|access| access.relation == Relation::Group);
    let access: VfolderAccess = access.ok_or_else(|| Error::NotFound {
        object: "virtual folder",
        message: Some("Only project folders are directly sharable.".into()),
    })?;
    access::check_state(&access, State::Updatable)?;
    let folder = access.folder;
    access::check_host(app, context, &folder.host, HostPermission::SetUserPermission).await?;
    let tx = app.datastore.autocommit().await?;
    let members = tx.users_addressed(emails, folder.owner.group()).await?;
    Ok((folder, members))
}

/// Who uses the caller's folders besides; everybody's for superadmins.
///
/// # Errors
/// PostgreSQL failed.
pub async fn shares(
    app: &SharedApp,
    context: &RequestContext,
    folder: Option<VfolderId>,
) -> Result<Vec<VfolderShare>> {
    let owner = (!context.is_superadmin()).then_some(context.user_id);
    let tx = app.datastore.autocommit().await?;
    Ok(tx.vfolder_shares(owner, folder).await?)
}

/// Changes what somebody may do with a folder that is shared already; `None` takes it back.
///
/// # Errors
/// The folder is not the caller's, or not shared with that user.
pub async fn change_share(
    app: &SharedApp,
    context: &RequestContext,
    folder: VfolderId,
    user: UserId,
    permission: Option<VfolderPermission>,
) -> Result<()> {
    let absent = || Error::from(VfolderError::NotFound(folder.to_string()));
    let tx = app.datastore.autocommit().await?;
    let found = tx
        .vfolder(folder)
        .await?
        .filter(|found| context.is_superadmin() || found.owner.user() == Some(context.user_id));
    let found = found.ok_or_else(absent)?;
    access::check_host(app, context, &found.host, HostPermission::Invite).await?;
    let changed = match permission {
        Some(permission) => tx.vfolder_permission_change(folder, user, permission).await?,
        None => tx.vfolder_permission_remove(folder, user).await?,
    };
    if changed { Ok(()) } else { Err(absent()) }
}

/// Gives a folder to another user; for superadmins.
///
/// # Errors
/// There is no such folder or user, the user may not use the folder's host, or has a folder
/// of that name.
pub async fn change_owner(app: &SharedApp, folder: VfolderId, email: &str) -> Result<()> {
    let tx = app.datastore.autocommit().await?;
    let absent = || VfolderError::NotFound(folder.to_string());
    let found = tx.vfolder(folder).await?.ok_or_else(absent)?;
    let user = tx.users_addressed(&[email.to_owned()], None).await?.pop();
    let user = user.ok_or(Error::NotFound { object: "user", message: None })?;
    let hosts = tx.vfolder_hosts_of_user(user.user).await?;
    if !hosts.contains_key(&found.host) {
        return Err(VfolderError::OperationFailed(format!(
            "{email} may not use the vfolder host {}.",
            found.host
        ))
        .into());
    }
    let changed = tx.vfolder_set_user(folder, user.user).await;
    changed.map_err(|error| super::create::name_taken(error, &found.name))
}
