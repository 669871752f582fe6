//! Services of a session: `/stream/session/{name}/apps` and its neighbours.

use serde_json::Value;
use warp::reply::Response;

use super::super::call::{Call, no_content, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use super::super::stream::proxy::read_service;
use super::session::port_view;
use crate::app::session::service;

/// `GET /stream/session/{name}/apps`
pub async fn list(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let ports = service::list(&call.app, &context, call.segment(0)).await?;
    Ok(ok(&ports.iter().map(port_view).collect::<Vec<Value>>()))
}

/// `POST /session/{name}/start-service`: for clients of an app proxy beside the manager.
pub async fn start(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let _login_session: Option<String> =
        params.optional(&["login_session_token"], None, rules::null_or(rules::text));
    let request = read_service(&mut params);
    params.finish()?;
    match service::start_by_coordinator(&call.app, &context, call.segment(0), &request).await? {}
}

/// `POST /session/{name}/shutdown-service`
pub async fn stop(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let name: String = params.required(&["service_name"], rules::text);
    params.finish()?;
    service::stop(&call.app, &context, call.segment(0), &name).await?;
    Ok(no_content())
}
