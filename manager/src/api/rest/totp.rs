//! `/totp`: one's second factor.

use serde_json::json;
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use crate::app::totp;

/// `GET /totp`: that there are second factors.
pub async fn version(_: Call) -> Result<Response, Problem> {
    Ok(ok(&json!({ "version": env!("CARGO_PKG_VERSION") })))
}

/// `POST /totp`: a key for an authenticator.
pub async fn begin(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    call.params()?.finish()?;
    let enrolment = totp::begin(&call.app, &context).await?;
    Ok(ok(&json!({ "totp_key": enrolment.key, "totp_uri": enrolment.uri })))
}

/// `POST /totp/verify`: from now on logins ask for a code.
pub async fn activate(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let code: String = params.required(&["otp"], rules::text);
    params.finish()?;
    totp::activate(&call.app, &context, &code).await?;
    Ok(ok(&json!({ "success": true })))
}

/// `DELETE /totp`: logins ask for no code any more.
pub async fn remove(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let email: Option<String> = params.optional(&["email"], None, rules::null_or(rules::text));
    params.finish()?;
    totp::remove(&call.app, &context, email.as_deref()).await?;
    Ok(ok(&json!({ "success": true })))
}
