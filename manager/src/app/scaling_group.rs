//! Scaling groups: as users see them, and as superadmins make, change and remove them.

use std::time::Duration;

use backendai_datastore::scaling_group::{ScalingGroup, ScalingGroupChange, ScalingGroupUser};
use backendai_datastore::site_view::{ScalingGroupScope, ScalingGroupView};
use serde_json::Value;

use super::{Error, Result, SharedApp};
use crate::context::{RequestContext, Role};

/// How long an app proxy may take to say which it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// The schedulers there are.
const SCHEDULERS: [&str; 4] = ["fifo", "lifo", "drf", "mof"];

/// Scaling groups in which the caller may have sessions of a group, by name.
///
/// # Errors
/// There is no such group, or the caller is no member.
pub async fn list(
    app: &SharedApp,
    context: &RequestContext,
    group: &str,
) -> Result<Vec<ScalingGroup>> {
    let is_admin = matches!(context.role, Role::Superadmin | Role::Admin);
    let tx = app.datastore.autocommit().await?;
    let member = (!is_admin).then_some(context.user_id);
    let group = tx
        .group_active(&context.domain_name, group, member)
        .await?
        .ok_or(Error::NotFound { object: "user group (or project)", message: None })?;
    let mut allowed =
        tx.scaling_groups_allowed(&context.domain_name, group, &context.access_key).await?;
    if !is_admin {
        allowed.retain(|scaling_group| scaling_group.is_public);
    }
    Ok(allowed)
}

/// The version of a scaling group's app proxy; `v1` if it has none.
///
/// # Errors
/// There is no such scaling group for the caller, or its proxy does not answer.
pub async fn proxy_version(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    group: Option<&str>,
) -> Result<String> {
    let unknown = || Error::NotFound { object: "scaling group", message: None };
    if let Some(group) = group {
        let allowed = list(app, context, group).await?;
        allowed.iter().find(|allowed| allowed.name == name).ok_or_else(unknown)?;
    }
    let tx = app.datastore.autocommit().await?;
    let proxy = tx.scaling_group_proxy(name).await?.ok_or_else(unknown)?;
    drop(tx);
    match proxy.filter(|address| !address.is_empty()) {
        None => Ok("v1".to_owned()),
        Some(address) => ask(&address)
            .await
            .map_err(|error| Error::ProxyMisconfigured { address: address.clone(), source: error }),
    }
}

async fn ask(address: &str) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let url = format!("{}/status", address.trim_end_matches('/'));
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let reply = client.get(url).header("accept", "application/json").send().await?;
    let status: Value = reply.error_for_status()?.json().await?;
    match status.get("api_version").and_then(Value::as_str) {
        Some(version) => Ok(version.to_owned()),
        None => Err("its status has no api_version".into()),
    }
}

/// Makes a scaling group. Nobody may use it yet.
///
/// # Errors
/// The name is empty or taken, or a value makes no sense.
pub async fn create(
    app: &SharedApp,
    name: &str,
    new: ScalingGroupChange,
) -> Result<ScalingGroupView> {
    if name.trim().is_empty() {
        return Err(Error::BadRequest("the name must not be empty".into()));
    }
    check(&new)?;
    let db = app.datastore.autocommit().await?;
    db.scaling_group_insert(name, &new).await?;
    let scope = ScalingGroupScope { name: Some(name.to_owned()), ..ScalingGroupScope::default() };
    db.scaling_group_views(&scope).await?.pop().ok_or_else(missing)
}

/// Changes a scaling group.
///
/// # Errors
/// There is none, or a value makes no sense.
pub async fn modify(app: &SharedApp, name: &str, change: ScalingGroupChange) -> Result<()> {
    check(&change)?;
    found(app.datastore.autocommit().await?.scaling_group_update(name, &change).await?)
}

/// Removes a scaling group that has neither agents nor sessions.
///
/// # Errors
/// There is none, or it is in use.
pub async fn delete(app: &SharedApp, name: &str) -> Result<()> {
    found(app.datastore.autocommit().await?.scaling_group_delete(name).await?)
}

/// Lets somebody use a scaling group.
///
/// # Errors
/// They may already, or one of the two does not exist.
pub async fn associate(app: &SharedApp, name: &str, user: &ScalingGroupUser) -> Result<()> {
    Ok(app.datastore.autocommit().await?.scaling_group_associate(name, user).await?)
}

/// Lets somebody use a scaling group (or, without a name, any) no more.
///
/// # Errors
/// They could not before.
pub async fn disassociate(
    app: &SharedApp,
    name: Option<&str>,
    user: &ScalingGroupUser,
) -> Result<()> {
    let ended = app.datastore.autocommit().await?.scaling_group_disassociate(name, user).await?;
    found(ended > 0)
}

fn check(columns: &ScalingGroupChange) -> Result<()> {
    if let Some(scheduler) = &columns.scheduler
        && !SCHEDULERS.contains(&scheduler.as_str())
    {
        return Err(Error::invalid(format!(
            "scheduler: {scheduler:?} is none of {}",
            SCHEDULERS.join(", ")
        )));
    }
    let options =
        [("driver_opts", &columns.driver_opts), ("scheduler_opts", &columns.scheduler_opts)];
    for (name, value) in options {
        if value.as_ref().is_some_and(|value| !value.is_object()) {
            return Err(Error::invalid(format!("{name}: must be an object")));
        }
    }
    let types = columns.scheduler_opts.as_ref().and_then(|opts| opts.get("allowed_session_types"));
    let types_are_texts = types
        .is_none_or(|types| types.as_array().is_some_and(|list| list.iter().all(Value::is_string)));
    match types_are_texts {
        true => Ok(()),
        false => {
            Err(Error::invalid("scheduler_opts.allowed_session_types: must be a list of texts"))
        }
    }
}

fn found(is_found: bool) -> Result<()> {
    if is_found { Ok(()) } else { Err(missing()) }
}

fn missing() -> Error {
    Error::NotFound { object: "scaling group", message: None }
}
