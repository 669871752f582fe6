//! `GET /session/{name}/status-history`: when a session came to each of its statuses.

use serde_json::{Map, Value, json};
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use crate::app::session::query;

/// `GET /session/{name}/status-history`: lower-case names of statuses with times.
pub async fn status_history(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let owner = params.optional(&["owner_access_key"], None, rules::null_or(rules::text));
    params.finish()?;
    let history =
        query::status_history(&call.app, &context, call.segment(0), owner.as_deref()).await?;
    let times: Map<String, Value> = history
        .into_iter()
        .map(|(status, at)| (status.to_lowercase(), Value::from(at.to_rfc3339())))
        .collect();
    Ok(ok(&json!({ "result": times })))
}
