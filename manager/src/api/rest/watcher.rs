//! `/resource/watcher`: what the watcher beside an agent is asked for, and its answers.

use std::time::Duration;

use backendai_types::AgentId;
use serde_json::{Value, json};
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::http::{Method, StatusCode};
use warp::reply::Response;

use super::super::call::Call;
use super::super::params::rules;
use super::super::problem::Problem;
use crate::app::watcher::{self, WatcherReply};

/// How long a watcher may take to say how its agent is.
const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to start or stop it.
const OPERATION_LIMIT: Duration = Duration::from_secs(20);

/// `GET /resource/watcher`
pub async fn status(call: Call) -> Result<Response, Problem> {
    let agent = agent(&call)?;
    let reply = watcher::call(&call.app, &agent, Method::GET, "/", None, STATUS_LIMIT).await?;
    Ok(relay(reply))
}

/// `POST /resource/watcher/agent/start`
pub async fn start(call: Call) -> Result<Response, Problem> {
    operate(call, "/agent/start").await
}

/// `POST /resource/watcher/agent/stop`
pub async fn stop(call: Call) -> Result<Response, Problem> {
    operate(call, "/agent/stop").await
}

/// `POST /resource/watcher/agent/restart`
pub async fn restart(call: Call) -> Result<Response, Problem> {
    operate(call, "/agent/restart").await
}

async fn operate(call: Call, path: &str) -> Result<Response, Problem> {
    let agent = agent(&call)?;
    let body = json!({});
    let reply =
        watcher::call(&call.app, &agent, Method::POST, path, Some(&body), OPERATION_LIMIT).await?;
    Ok(relay(reply))
}

fn agent(call: &Call) -> Result<AgentId, Problem> {
    let mut params = call.params()?;
    let agent: String = params.required(&["agent_id", "agent"], rules::text);
    params.finish()?;
    Ok(AgentId(agent))
}

/// The watcher's answer: JSON if it did what was asked, else its text under its status.
fn relay(reply: WatcherReply) -> Response {
    let is_json =
        reply.status == StatusCode::OK && serde_json::from_slice::<Value>(&reply.body).is_ok();
    let content_type = match is_json {
        true => "application/json; charset=utf-8",
        false => "text/plain; charset=utf-8",
    };
    let mut response = Response::new(reply.body.into());
    *response.status_mut() = reply.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
