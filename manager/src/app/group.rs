//! Groups: made, changed and removed by superadmins, and by the administrators of their domain.

use std::sync::Arc;

use backendai_datastore::group::{GroupChange, NewGroup};
use backendai_datastore::identity_view::{GroupScope, GroupView};
use backendai_types::{GroupId, UserId};

use super::domain::is_slug;
use super::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// What is to become of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupEdit {
    /// Its columns.
    pub change: GroupChange,
    /// Users who join or leave.
    pub members: Option<(Membership, Vec<UserId>)>,
}

/// What becomes of users of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// They join.
    Add,
    /// They leave.
    Remove,
}

/// Makes a group.
///
/// # Errors
/// The name is none or taken in the domain; or the domain is another administrator's.
pub async fn create(app: &SharedApp, context: &RequestContext, new: NewGroup) -> Result<GroupView> {
    check_domain(context, &new.domain_name)?;
    check_name(&new.name)?;
    let id = app.datastore.autocommit().await?.group_insert(&new).await?;
    show(app, id).await
}

/// Changes a group and its members.
///
/// # Errors
/// There is none, nothing is to be changed, or it is (or would be) in another
/// administrator's domain.
pub async fn modify(
    app: &SharedApp,
    context: &RequestContext,
    id: GroupId,
    edit: GroupEdit,
) -> Result<GroupView> {
    check_group(app, context, id).await?;
    if let Some(name) = &edit.change.name {
        check_name(name)?;
    }
    if let Some(domain) = &edit.change.domain_name {
        check_domain(context, domain)?;
    }
    let edit = Arc::new(edit);
    app.datastore
        .run_tx("group_modify", |tx| {
            let edit = Arc::clone(&edit);
            async move {
                if !tx.group_update(id, &edit.change).await? {
                    return Err(missing());
                }
                match &edit.members {
                    Some((Membership::Add, users)) => tx.group_add_users(id, users).await?,
                    Some((Membership::Remove, users)) => tx.group_remove_users(id, users).await?,
                    None => 0,
                };
                Ok(())
            }
        })
        .await?;
    show(app, id).await
}

/// Makes a group unusable. Nothing of it is removed.
///
/// # Errors
/// There is none, or it is another administrator's.
pub async fn deactivate(app: &SharedApp, context: &RequestContext, id: GroupId) -> Result<()> {
    check_group(app, context, id).await?;
    match app.datastore.autocommit().await?.group_deactivate(id).await? {
        true => Ok(()),
        false => Err(missing()),
    }
}

/// Removes a group and the records of its ended sessions.
///
/// # Errors
/// There is none, it is another administrator's, or it has live sessions.
pub async fn purge(app: &SharedApp, context: &RequestContext, id: GroupId) -> Result<()> {
    check_group(app, context, id).await?;
    app.datastore
        .run_tx("group_purge", |tx| async move {
            if tx.group_belongings(id).await?.live_sessions > 0 {
                return Err(Error::BadRequest(
                    "error on deleting project that has active kernels".into(),
                ));
            }
            match tx.group_delete(id).await? {
                true => Ok(()),
                false => Err(missing()),
            }
        })
        .await
}

/// Administrators of a domain see no difference between groups of others and none.
async fn check_group(app: &SharedApp, context: &RequestContext, id: GroupId) -> Result<()> {
    let domain = app.datastore.autocommit().await?.group_domain(id).await?;
    match domain {
        Some(domain) => check_domain(context, &domain),
        None if context.is_superadmin() => Err(missing()),
        None => Err(forbidden()),
    }
}

fn check_domain(context: &RequestContext, domain: &str) -> Result<()> {
    match context.is_superadmin() || context.domain_name == domain {
        true => Ok(()),
        false => Err(forbidden()),
    }
}

fn check_name(name: &str) -> Result<()> {
    match is_slug(name) && name.len() <= 64 {
        true => Ok(()),
        false => Err(Error::invalid("invalid name format. slug format required.")),
    }
}

async fn show(app: &SharedApp, id: GroupId) -> Result<GroupView> {
    let scope = GroupScope { id: Some(id), ..GroupScope::default() };
    let found = app.datastore.autocommit().await?.group_views(&scope).await?.pop();
    found.ok_or_else(missing)
}

fn forbidden() -> Error {
    Error::Forbidden("the group is not of your domain".into())
}

fn missing() -> Error {
    Error::NotFound { object: "group", message: None }
}
