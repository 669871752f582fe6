//! `/scaling-groups`.

use serde_json::{Value, json};
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use crate::app::scaling_group;

/// Spellings of the parameter that names a group.
const GROUP: &[&str] = &["group", "group_id", "group_name"];

/// `GET /scaling-groups`
pub async fn list(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let group: String = params.required(GROUP, rules::text);
    params.finish()?;
    let allowed = scaling_group::list(&call.app, &context, &group).await?;
    let view: Vec<Value> = allowed.iter().map(|group| json!({ "name": group.name })).collect();
    Ok(ok(&json!({ "scaling_groups": view })))
}

/// `GET /scaling-groups/{name}/wsproxy-version`
pub async fn proxy_version(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let group: Option<String> = params.optional(GROUP, None, rules::null_or(rules::text));
    params.finish()?;
    let name = call.segment(0);
    let version = scaling_group::proxy_version(&call.app, &context, name, group.as_deref()).await?;
    Ok(ok(&json!({ "wsproxy_version": version })))
}
