//! `/logs/error`: errors that clients report.

use backendai_datastore::error_log::ErrorLog;
use chrono::Utc;
use serde_json::{Value, json};
use uuid::Uuid;
use warp::reply::Response;

use super::super::call::{Call, has_nul, ok};
use super::super::params::{Checked, rules};
use super::super::problem::Problem;
use crate::app::error_log;
use crate::context::Role;

const SEVERITIES: &[&str] = &["critical", "error", "warning", "info", "debug"];

/// `POST /logs/error`
pub async fn report(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let status: Option<i64> = params.optional(
        &["request_status"],
        None,
        rules::null_or(rules::int_within(i64::from(i32::MIN), i64::from(i32::MAX))),
    );
    let log = ErrorLog {
        id: Uuid::new_v4(),
        created_at: Utc::now(),
        severity: params.required(&["severity"], severity),
        source: params.required(&["source"], rules::text),
        user_id: Some(context.user_id),
        is_read: false,
        is_cleared: false,
        message: params.required(&["message"], rules::text),
        context_lang: params.required(&["context_lang"], rules::text),
        context_env: params.required(&["context_env"], json_text),
        request_url: params.optional(&["request_url"], None, rules::null_or(rules::any_text)),
        request_status: status.and_then(|status| i32::try_from(status).ok()),
        traceback: params.optional(&["traceback"], None, rules::null_or(rules::any_text)),
    };
    params.finish()?;
    error_log::report(&call.app, &log).await?;
    Ok(ok(&json!({ "success": true })))
}

fn severity(value: Value) -> Checked<String> {
    rules::choice(SEVERITIES)(value)
        .map_err(|_| Value::from("value is not a valid member of LogSeverity"))
}

/// A text of JSON.
fn json_text(value: Value) -> Checked<Value> {
    let text = rules::text(value)?;
    let parsed = serde_json::from_str(&text).ok().filter(|value| !has_nul(value));
    parsed.ok_or_else(|| Value::from("value is not a valid JSON string"))
}

/// `GET /logs/error`
pub async fn list(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let mark_read = params.optional(&["mark_read"], false, rules::lenient_bool);
    let page_size = params.optional(&["page_size"], 20, rules::int_within(1, 100));
    let page_no = params.optional(&["page_no"], 1, rules::int_within(1, i64::from(i32::MAX)));
    params.finish()?;
    let (logs, count) = error_log::list(&call.app, &context, mark_read, page_size, page_no).await?;
    let shows_cleared = matches!(context.role, Role::Superadmin | Role::Admin);
    let views: Vec<Value> = logs.iter().map(|log| view(log, shows_cleared)).collect();
    Ok(ok(&json!({ "logs": views, "count": count })))
}

fn view(log: &ErrorLog, shows_cleared: bool) -> Value {
    let mut view = json!({
        "log_id": log.id,
        "created_at": log.created_at.timestamp_micros() as f64 / 1e6,
        "severity": log.severity,
        "source": log.source,
        "user": log.user_id,
        "is_read": log.is_read,
        "message": log.message,
        "context_lang": log.context_lang,
        "context_env": log.context_env,
        "request_url": log.request_url,
        "request_status": log.request_status,
        "traceback": log.traceback,
    });
    if shows_cleared {
        view["is_cleared"] = log.is_cleared.into();
    }
    view
}

/// `POST /logs/error/{log_id}/clear`
pub async fn clear(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let id = Uuid::parse_str(call.segment(0))
        .map_err(|_| Problem::invalid_params("The id of an error log is a UUID."))?;
    error_log::clear(&call.app, &context, id).await?;
    Ok(ok(&json!({ "success": true })))
}
