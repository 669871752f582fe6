//! `/auth`: who am I, and logging in with a password.

use backendai_types::GroupId;
use serde_json::{Value, json};
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use crate::app::Error;
use crate::app::login::{self, Refusal};
use crate::context::Role;

/// `GET /auth`, `POST /auth` and the same at `/auth/test`
pub async fn test(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let echo: String = params.required(&["echo"], rules::text);
    params.finish()?;
    Ok(ok(&json!({ "authorized": "yes", "echo": echo })))
}

/// `POST /auth/authorize`: keys for a password.
pub async fn authorize(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let kind: String = params.required(&["type"], rules::choice(&["keypair", "jwt"]));
    let domain: String = params.required(&["domain"], rules::text);
    let username: String = params.required(&["username"], rules::text);
    let password: String = params.required(&["password"], rules::text);
    let code: Option<String> = params.optional(&["otp"], None, rules::null_or(rules::any_text));
    params.finish_ignoring_others()?;
    if kind != "keypair" {
        return Err(Problem::invalid_params("Unsupported authorization type"));
    }
    let login =
        login::with_password(&call.app, &domain, &username, password, code.as_deref()).await?;
    let login = login.map_err(|refusal| match refusal {
        Refusal::Expired => Problem::password_expired(),
        refusal => Problem::auth_failed(refusal.to_string()),
    })?;
    Ok(ok(&json!({
        "data": {
            "access_key": login.access_key,
            "secret_key": login.secret_key,
            "role": login.role,
            "status": login.status,
        },
    })))
}

/// `GET /auth/role`
pub async fn role(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let group = params.optional(&["group"], None, rules::null_or(rules::uuid));
    params.finish()?;
    let group_role = match group {
        None => Value::Null,
        Some(group) => {
            let db = call.app.datastore.autocommit().await?;
            if !db.is_group_member(context.user_id, GroupId(group)).await? {
                let object = "project (user group)";
                return Err(Error::NotFound { object, message: None }.into());
            }
            Value::from("user")
        }
    };
    let above_user = matches!(context.role, Role::Superadmin | Role::Admin);
    Ok(ok(&json!({
        "global_role": if context.is_superadmin() { "superadmin" } else { "user" },
        "domain_role": if above_user { "admin" } else { "user" },
        "group_role": group_role,
    })))
}
