//! `/session/{name}/commit`: archives of sessions.

use serde_json::json;
use warp::http::StatusCode;
use warp::reply::Response;

use super::super::call::{Call, json as json_response, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use crate::app::session::commit as app_commit;

/// `POST /session/{name}/commit`. A file name may be given and is not used, as ever.
pub async fn commit(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    params.optional(&["login_session_token"], None, rules::null_or(rules::text));
    params.optional(&["filename", "fname"], None, rules::null_or(rules::text));
    params.finish()?;
    let commit = app_commit::commit(&call.app, &context, call.segment(0)).await?;
    let view = json!({ "bgtask_id": commit.task, "kernel": commit.kernel, "path": commit.path });
    Ok(json_response(StatusCode::CREATED, &view))
}

/// `GET /session/{name}/commit`
pub async fn status(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    params.optional(&["login_session_token"], None, rules::null_or(rules::text));
    params.finish()?;
    let (kernel, is_ongoing) = app_commit::status(&call.app, &context, call.segment(0)).await?;
    let status = if is_ongoing { "ongoing" } else { "ready" };
    Ok(ok(&json!({ "status": status, "kernel": kernel })))
}
