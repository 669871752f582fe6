//! Resource policies of keypairs, users and projects: made, changed and removed by superadmins.

use backendai_datastore::resource_policy::{
    FolderPolicyView, KeypairPolicyChange, UserPolicyChange,
};
use backendai_datastore::site_view::KeypairPolicyView;

use super::{Error, Result, SharedApp};

/// Makes a policy of keypairs.
///
/// # Errors
/// The name is empty or taken, or a value makes no sense.
pub async fn create_for_keypairs(
    app: &SharedApp,
    name: &str,
    new: KeypairPolicyChange,
) -> Result<KeypairPolicyView> {
    check_name(name)?;
    check_unspecified(&new)?;
    let db = app.datastore.autocommit().await?;
    db.keypair_policy_insert(name, &new).await?;
    db.keypair_policy_views(Some(name), None).await?.pop().ok_or_else(missing)
}

/// Changes a policy of keypairs.
///
/// # Errors
/// There is none, or a value makes no sense.
pub async fn modify_for_keypairs(
    app: &SharedApp,
    name: &str,
    change: KeypairPolicyChange,
) -> Result<()> {
    check_unspecified(&change)?;
    found(app.datastore.autocommit().await?.keypair_policy_update(name, &change).await?)
}

/// Removes a policy of keypairs that none has.
///
/// # Errors
/// There is none, or keypairs have it.
pub async fn delete_for_keypairs(app: &SharedApp, name: &str) -> Result<()> {
    found(app.datastore.autocommit().await?.keypair_policy_delete(name).await?)
}

/// Makes a policy of users.
///
/// # Errors
/// The name is empty or taken.
pub async fn create_for_users(
    app: &SharedApp,
    name: &str,
    new: UserPolicyChange,
) -> Result<FolderPolicyView> {
    check_name(name)?;
    let db = app.datastore.autocommit().await?;
    db.user_policy_insert(name, &new).await?;
    db.user_policy_views(Some(name), None).await?.pop().ok_or_else(missing)
}

/// Changes a policy of users.
///
/// # Errors
/// There is none.
pub async fn modify_for_users(app: &SharedApp, name: &str, change: UserPolicyChange) -> Result<()> {
    found(app.datastore.autocommit().await?.user_policy_update(name, &change).await?)
}

/// Removes a policy of users that none has.
///
/// # Errors
/// There is none, or users have it.
pub async fn delete_for_users(app: &SharedApp, name: &str) -> Result<()> {
    found(app.datastore.autocommit().await?.user_policy_delete(name).await?)
}

/// Makes a policy of projects; `max_size` is in bytes.
///
/// # Errors
/// The name is empty or taken.
pub async fn create_for_projects(
    app: &SharedApp,
    name: &str,
    max_size: Option<i64>,
) -> Result<FolderPolicyView> {
    check_name(name)?;
    let db = app.datastore.autocommit().await?;
    db.project_policy_insert(name, max_size).await?;
    db.project_policy_views(Some(name)).await?.pop().ok_or_else(missing)
}

/// Changes a policy of projects; `max_size` is in bytes.
///
/// # Errors
/// There is none.
pub async fn modify_for_projects(app: &SharedApp, name: &str, max_size: Option<i64>) -> Result<()> {
    found(app.datastore.autocommit().await?.project_policy_update(name, max_size).await?)
}

/// Removes a policy of projects that none has.
///
/// # Errors
/// There is none, or groups have it.
pub async fn delete_for_projects(app: &SharedApp, name: &str) -> Result<()> {
    found(app.datastore.autocommit().await?.project_policy_delete(name).await?)
}

fn check_name(name: &str) -> Result<()> {
    match name.trim().is_empty() {
        true => Err(Error::BadRequest("the name must not be empty".into())),
        false => Ok(()),
    }
}

fn check_unspecified(columns: &KeypairPolicyChange) -> Result<()> {
    match columns.default_for_unspecified.as_deref() {
        None | Some("LIMITED" | "UNLIMITED") => Ok(()),
        Some(other) => Err(Error::invalid(format!(
            "default_for_unspecified: {other:?} is neither LIMITED nor UNLIMITED"
        ))),
    }
}

fn found(is_found: bool) -> Result<()> {
    if is_found { Ok(()) } else { Err(missing()) }
}

fn missing() -> Error {
    Error::NotFound { object: "resource policy", message: None }
}
