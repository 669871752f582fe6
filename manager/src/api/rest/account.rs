//! `/auth`: what people do to their own account.

use serde_json::json;
use warp::http::StatusCode;
use warp::reply::Response;

use super::super::call::{Call, json, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use crate::app::account::{self, Applicant, Refusal};

/// `POST /auth/signup`
pub async fn sign_up(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let mut text = |name: &'static str| params.required(&[name], rules::text);
    let (domain_name, email, password) = (text("domain"), text("email"), text("password"));
    let mut optional =
        |name: &'static str| params.optional(&[name], None, rules::null_or(rules::text));
    let who = Applicant {
        domain_name,
        email,
        password,
        username: optional("username"),
        full_name: optional("full_name"),
        description: optional("description"),
    };
    params.finish_ignoring_others()?;
    let (access_key, secret_key) = account::sign_up(&call.app, who).await?;
    let keys = json!({ "access_key": access_key, "secret_key": secret_key });
    Ok(json(StatusCode::CREATED, &keys))
}

/// `POST /auth/signout`
pub async fn sign_out(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let email: String = params.required(&["email", "username"], rules::text);
    let password: String = params.required(&["password"], rules::text);
    params.finish()?;
    account::sign_out(&call.app, &context, &email, password).await?;
    Ok(ok(&json!({})))
}

/// `POST /auth/update-password`
pub async fn update_password(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let old = params.required(&["old_password"], rules::text);
    let new = params.required(&["new_password"], rules::text);
    let repeated: String = params.required(&["new_password2"], rules::text);
    params.finish()?;
    match account::change_password(&call.app, &context, old, new, &repeated).await? {
        Ok(()) => Ok(ok(&json!({}))),
        // The contract answers this one in a form of its own.
        Err(refusal @ Refusal::Repetition) => {
            let body = json!({ "error_msg": refusal.to_string() });
            Ok(json(StatusCode::BAD_REQUEST, &body))
        }
        Err(refusal) => Err(Problem::auth_failed(refusal.to_string())),
    }
}

/// `POST /auth/update-password-no-auth`: for people whose password has expired.
pub async fn update_expired_password(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let domain: String = params.required(&["domain"], rules::text);
    let email: String = params.required(&["username"], rules::text);
    let current = params.required(&["current_password"], rules::text);
    let new = params.required(&["new_password"], rules::text);
    params.finish()?;
    let changed =
        account::change_expired_password(&call.app, &domain, &email, current, new).await?;
    let at = changed.map_err(|refusal| Problem::auth_failed(refusal.to_string()))?;
    Ok(json(StatusCode::CREATED, &json!({ "password_changed_at": at.to_rfc3339() })))
}

/// `POST /auth/update-full-name`: the address is not looked at, only one's own name changes.
pub async fn update_full_name(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let _: String = params.required(&["email"], rules::text);
    let full_name = params.required(&["full_name"], rules::any_text);
    params.finish()?;
    account::rename(&call.app, &context, full_name).await?;
    Ok(ok(&json!({})))
}
