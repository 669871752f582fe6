//! Users: made, changed and removed by superadmins.

use std::sync::Arc;

use backendai_datastore::identity_view::{UserScope, UserView};
use backendai_datastore::keypair::NewKeypair;
use backendai_datastore::list_view::Slice;
use backendai_datastore::user::{NewUser, UserChange, UserIdentity};
use backendai_datastore::{Datastore, Transaction};
use backendai_types::{AccessKey, GroupId, UserId};

use super::network::parse_network;
use super::{Error, Result, SharedApp, keypair, password};
use crate::context::{RequestContext, Role};
use crate::wake::Task;

/// Calls in 900 s that the keypair of a new user may make.
pub const RATE_LIMIT: i32 = 10_000;
/// Why a status is what it is, when an administrator set it.
pub const BY_ADMIN: &str = "admin-requested";

/// The statuses an account may have.
const STATUSES: [&str; 4] = ["active", "inactive", "deleted", "before-verification"];

/// A user to be made.
#[derive(Clone, Debug)]
pub struct UserWish {
    /// Its columns; the hash of its password is put in here.
    pub row: NewUser,
    /// Its password.
    pub password: String,
    /// Groups to join; those of other domains and those that do not exist are left out.
    pub groups: Vec<GroupId>,
    /// Calls in 900 s that its keypair may make.
    pub rate_limit: i32,
}

/// What is to become of a user.
#[derive(Clone, Debug, Default)]
pub struct UserEdit {
    /// Its columns; the hash of its password is put in here.
    pub change: UserChange,
    /// Its new password.
    pub password: Option<String>,
    /// Its groups from now on.
    pub groups: Option<Vec<GroupId>>,
}

/// A role by its name.
///
/// # Errors
/// There is none of this name.
pub fn parse_role(text: &str) -> Result<Role> {
    text.parse().map_err(|_| {
        Error::invalid(format!("{text:?} is not a role: superadmin, admin, user or monitor"))
    })
}

/// A status by its name.
///
/// # Errors
/// There is none of this name.
pub fn parse_status(text: &str) -> Result<String> {
    match STATUSES.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(Error::invalid(format!("{text:?} is not a status: {}", STATUSES.join(", ")))),
    }
}

/// Makes a user with a keypair, which becomes its main one.
///
/// # Errors
/// The name or address is taken or makes no sense, or the domain or a policy does not exist.
pub async fn create(app: &SharedApp, wish: UserWish) -> Result<(UserView, NewKeypair)> {
    let UserWish { mut row, password, groups, rate_limit } = wish;
    for (what, text) in [("username", &row.username), ("email", &row.email)] {
        if text.trim().is_empty() {
            return Err(Error::invalid(format!("{what} must not be empty")));
        }
    }
    row.allowed_client_ip = row.allowed_client_ip.map(networks).transpose()?;
    row.allowed_client_ip = row.allowed_client_ip.filter(|list| !list.is_empty());
    row.password_hash = Some(password::hash(password).await?);
    let (row, groups) = (Arc::new(row), Arc::new(groups));
    let (id, keypair) = app
        .datastore
        .run_tx("user_create", |tx| {
            let (row, groups) = (Arc::clone(&row), Arc::clone(&groups));
            async move {
                let id = tx.user_insert(&row).await?;
                let is_admin = is_administrator(&row.role);
                let keypair = keypair::draft(id, &row.email, is_admin, rate_limit);
                tx.keypair_insert(&keypair).await?;
                tx.user_set_main_keypair(id, &keypair.access_key).await?;
                tx.user_set_groups(id, &groups).await?;
                Ok::<_, Error>((id, keypair))
            }
        })
        .await?;
    Ok((show(&app.datastore, id).await?, keypair))
}

/// Changes a user. A change of role makes its keypairs an administrator's or takes that away;
/// a change of domain ends all memberships that are not given anew.
///
/// # Errors
/// There is none, or a value makes no sense.
pub async fn modify(app: &SharedApp, email: &str, edit: UserEdit) -> Result<UserView> {
    let UserEdit { mut change, password, groups } = edit;
    change.allowed_client_ip = change.allowed_client_ip.map(networks).transpose()?;
    if change.username.as_ref().is_some_and(|name| name.trim().is_empty()) {
        return Err(Error::invalid("username must not be empty"));
    }
    if let Some(password) = password.filter(|text| !text.is_empty()) {
        change.password_hash = Some(password::hash(password).await?);
    }
    // Only the user can begin to use a second factor: it takes a secret of its own.
    change.totp_activated = change.totp_activated.filter(|wanted| !wanted);
    change.status_info = change.status.as_ref().map(|_| BY_ADMIN.to_owned());
    let parts = Arc::new((email.to_owned(), change, groups));
    let id = app
        .datastore
        .run_tx("user_modify", |tx| {
            let parts = Arc::clone(&parts);
            async move {
                let (email, change, groups) = &*parts;
                let user = tx.user_locked(email).await?.ok_or_else(missing)?;
                apply(&tx, &user, change, groups.as_deref()).await?;
                Ok::<_, Error>(user.id)
            }
        })
        .await?;
    show(&app.datastore, id).await
}

async fn apply(
    tx: &Transaction,
    user: &UserIdentity,
    change: &UserChange,
    groups: Option<&[GroupId]>,
) -> Result<()> {
    if let Some(key) = &change.main_access_key
        && !tx.user_owns_keypair(user.id, &AccessKey(key.clone())).await?
    {
        return Err(Error::BadRequest(
            "Cannot set another user's access key as the main access key.".into(),
        ));
    }
    tx.user_update(user.id, change).await?;
    if let Some(role) = change.role.as_ref().filter(|role| **role != user.role) {
        tx.user_keypairs_set(user.id, None, Some(is_administrator(role))).await?;
    }
    let moves = change.domain_name.as_ref().is_some_and(|to| Some(to) != user.domain_name.as_ref());
    match groups {
        Some(groups) => tx.user_set_groups(user.id, groups).await?,
        None if moves => tx.user_set_groups(user.id, &[]).await?,
        None => {}
    }
    Ok(())
}

/// Takes a user's access away. Nothing of it is removed.
///
/// # Errors
/// There is none.
pub async fn deactivate(app: &SharedApp, email: &str) -> Result<()> {
    set_status(app, email, "deleted", BY_ADMIN).await
}

/// Gives an account a status in which it cannot be used, and makes its keypairs inactive.
///
/// # Errors
/// There is none.
pub async fn set_status(app: &SharedApp, email: &str, status: &str, why: &str) -> Result<()> {
    let parts = Arc::new((email.to_owned(), status.to_owned(), why.to_owned()));
    app.datastore
        .run_tx("user_set_status", |tx| {
            let parts = Arc::clone(&parts);
            async move {
                let (email, status, why) = &*parts;
                let user = tx.user_locked(email).await?.ok_or_else(missing)?;
                let change = UserChange {
                    status: Some(status.clone()),
                    status_info: Some(why.clone()),
                    ..UserChange::default()
                };
                tx.user_update(user.id, &change).await?;
                tx.user_keypairs_set(user.id, Some(false), None).await?;
                Ok(())
            }
        })
        .await
}

/// Removes a user with its keypairs and the records of its ended sessions. Folders it shares
/// become the caller's, unless they are to go, too.
///
/// # Errors
/// There is none, it is the caller, or it has live sessions.
pub async fn purge(
    app: &SharedApp,
    context: &RequestContext,
    email: &str,
    purge_shared_folders: bool,
) -> Result<()> {
    if email == context.email {
        return Err(Error::BadRequest("You cannot purge your own account.".into()));
    }
    let email = Arc::new(email.to_owned());
    let heir = (!purge_shared_folders).then_some(context.user_id);
    app.datastore
        .run_tx("user_purge", |tx| {
            let email = Arc::clone(&email);
            async move {
                let user = tx.user_locked(&email).await?.ok_or_else(missing)?;
                if tx.user_belongings(user.id).await?.live_sessions > 0 {
                    return Err(Error::BadRequest(
                        "User has some active kernels. Terminate them first.".into(),
                    ));
                }
                if let Some(heir) = heir {
                    tx.user_hand_over_shared_folders(user.id, heir).await?;
                }
                if tx.user_folders_mounted_by(user.id).await? > 0 {
                    return Err(Error::BadRequest(
                        "Some sessions have virtual folders of the user mounted. Terminate them \
                         first."
                            .into(),
                    ));
                }
                Ok(tx.user_delete(user.id).await?)
            }
        })
        .await?;
    app.wake.task(Task::RemoveVfolders);
    Ok(())
}

fn is_administrator(role: &str) -> bool {
    role == Role::Admin.as_str() || role == Role::Superadmin.as_str()
}

/// Networks as they are stored: `192.10.*.*` as `192.10.0.0/16`.
fn networks(list: Vec<String>) -> Result<Vec<String>> {
    list.iter()
        .map(|text| text.trim())
        .filter(|text| !text.is_empty())
        .map(|text| {
            let network = parse_network(text);
            network
                .map(|network| network.to_string())
                .ok_or_else(|| Error::invalid(format!("{text} is invalid IP address value")))
        })
        .collect()
}

async fn show(datastore: &Datastore, id: UserId) -> Result<UserView> {
    let scope = UserScope { id: Some(id), ..UserScope::default() };
    let page = datastore.autocommit().await?.user_page(&scope, &Slice::first(1)).await?;
    page.items.into_iter().next().ok_or_else(missing)
}

fn missing() -> Error {
    Error::NotFound { object: "user", message: None }
}
