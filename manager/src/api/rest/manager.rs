//! `/` and `/manager`: what this manager is, how it does, and what operators have it do.

use serde_json::json;
use warp::reply::Response;

use super::super::call::{Call, no_content, ok};
use super::super::openapi;
use super::super::params::{Checked, rules};
use super::super::problem::Problem;
use crate::app::manager_status::{self, SchedulerEvent};
use crate::app::scheduler_status;
use crate::shared_config::ManagerStatus;
use crate::{API_VERSION, PRODUCT_VERSION};

/// `GET /`
pub async fn version(_: Call) -> Result<Response, Problem> {
    let (major, date) = API_VERSION;
    Ok(ok(&json!({ "version": format!("v{major}.{date}"), "manager": PRODUCT_VERSION })))
}

/// `GET /spec`
pub async fn spec(_: Call) -> Result<Response, Problem> {
    Ok(ok(&openapi::document()))
}

/// `GET /manager/status`
pub async fn status(call: Call) -> Result<Response, Problem> {
    let report = manager_status::report(&call.app).await?;
    let status = report.status.as_str();
    Ok(ok(&json!({
        "nodes": [{
            "id": report.manager_id,
            "num_proc": 1,
            "service_addr": report.service_addr,
            "heartbeat_timeout": report.heartbeat_timeout_s,
            "ssl_enabled": false,
            "active_sessions": report.active_sessions,
            "status": status,
            "version": PRODUCT_VERSION,
            "api_version": API_VERSION,
        }],
        "status": status,
        "active_sessions": report.active_sessions,
    })))
}

/// `GET /manager/announcement`
pub async fn announcement(call: Call) -> Result<Response, Problem> {
    let message = call.app.shared.announcement().await.map_err(crate::app::Error::from)?;
    Ok(ok(&json!({ "enabled": message.is_some(), "message": message.unwrap_or_default() })))
}

/// `POST /manager/announcement`
pub async fn announce(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let enabled = params.optional(&["enabled"], false, rules::lenient_bool);
    let message: Option<String> =
        params.optional(&["message"], None, rules::null_or(rules::any_text));
    params.finish()?;
    manager_status::announce(&call.app, enabled, message.as_deref()).await?;
    Ok(no_content())
}

/// `PUT /manager/status`
pub async fn set_status(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let status = params.required(&["status"], |value| manager_status_of(&value).map(Some));
    let force_kill = params.optional(&["force_kill"], false, rules::lenient_bool);
    params.finish()?;
    let Some(status) = status else { return Err(Problem::bad_request()) };
    manager_status::set_status(&call.app, &context, status, force_kill).await?;
    Ok(no_content())
}

fn manager_status_of(value: &serde_json::Value) -> Checked<ManagerStatus> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| "value is not a valid member of ManagerStatus".into())
}

/// `POST /manager/scheduler/operation`
pub async fn scheduler_operation(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let op: String = params.required(&["op"], rules::choice(&["include-agents", "exclude-agents"]));
    let agents: Vec<String> = params.required(&["args"], rules::list(rules::text));
    params.finish()?;
    manager_status::set_schedulable(&call.app, &agents, op == "include-agents").await?;
    Ok(no_content())
}

/// `POST /manager/scheduler/trigger`
pub async fn scheduler_trigger(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let event = params.required(&["event"], |value| match value.as_str() {
        Some("schedule") => Ok(Some(SchedulerEvent::Schedule)),
        Some("prepare") => Ok(Some(SchedulerEvent::Prepare)),
        Some("scale_services") => Ok(Some(SchedulerEvent::ScaleServices)),
        _ => Err("value is not a valid member of SchedulerEvent".into()),
    });
    params.finish()?;
    let Some(event) = event else { return Err(Problem::bad_request()) };
    manager_status::trigger(&call.app, event);
    Ok(no_content())
}

/// `GET /manager/scheduler/status`
pub async fn scheduler_status(call: Call) -> Result<Response, Problem> {
    call.params()?.finish()?;
    Ok(ok(&scheduler_status::report(&call.app.redis).await))
}
