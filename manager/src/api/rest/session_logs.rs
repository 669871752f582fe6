//! `/session/…/logs`: what sessions have written.

use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::Response;

use serde_json::json;
use uuid::Uuid;

use super::super::call::{Call, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use crate::app::session::logs as session_logs;

/// `GET /session/{name}/logs`
pub async fn logs(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let owner = params.optional(&["owner_access_key"], None, rules::null_or(rules::text));
    params.finish()?;
    let logs = session_logs::logs(&call.app, &context, call.segment(0), owner.as_deref()).await?;
    Ok(ok(&json!({ "result": { "logs": logs } })))
}

/// `GET /session/_/logs`: the output of a kernel's task, as plain text.
pub async fn task_logs(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let names = ["session_name", "sessionName", "task_id", "taskId"];
    let kernel: Uuid = params.required(&names, rules::uuid);
    params.finish()?;
    let bytes = session_logs::task_log(&call.app, &context, kernel).await?;
    let mut response = Response::new(bytes.into());
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    Ok(response)
}
