//! `/` and `/manager`: what this manager is and how it does.

use serde_json::json;
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::problem::Problem;
use crate::app::manager_status;
use crate::{API_VERSION, PRODUCT_VERSION};

/// `GET /`
pub async fn version(_: Call) -> Result<Response, Problem> {
    let (major, date) = API_VERSION;
    Ok(ok(&json!({ "version": format!("v{major}.{date}"), "manager": PRODUCT_VERSION })))
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
