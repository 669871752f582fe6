//! `/user-config`, `/group-config` and `/domain-config`: what goes into all sessions of a
//! user, a group or a domain.

use backendai_datastore::dotfile::Dotfile;
use serde_json::{Value, json};
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::params::{Params, rules};
use super::super::problem::Problem;
use crate::app::dotfile::{self, Scope};

/// How a route's parameters say whose dotfiles it is about.
type ReadScope = fn(&mut Params) -> Scope;

fn user(params: &mut Params) -> Scope {
    Scope::Keypair(params.optional(&["owner_access_key"], None, rules::null_or(rules::text)))
}

fn group(params: &mut Params) -> Scope {
    Scope::Group {
        group: params.required(&["group", "groupId", "group_id"], rules::text),
        domain: params.optional(&["domain"], None, rules::null_or(rules::text)),
    }
}

fn domain(params: &mut Params) -> Scope {
    Scope::Domain(params.required(&["domain"], rules::text))
}

/// `POST /user-config/dotfiles`
pub async fn create_for_user(call: Call) -> Result<Response, Problem> {
    create(call, user).await
}

/// `POST /group-config/dotfiles`
pub async fn create_for_group(call: Call) -> Result<Response, Problem> {
    create(call, group).await
}

/// `POST /domain-config/dotfiles`
pub async fn create_for_domain(call: Call) -> Result<Response, Problem> {
    create(call, domain).await
}

/// `GET /user-config/dotfiles`
pub async fn show_of_user(call: Call) -> Result<Response, Problem> {
    show(call, user).await
}

/// `GET /group-config/dotfiles`
pub async fn show_of_group(call: Call) -> Result<Response, Problem> {
    show(call, group).await
}

/// `GET /domain-config/dotfiles`
pub async fn show_of_domain(call: Call) -> Result<Response, Problem> {
    show(call, domain).await
}

/// `PATCH /user-config/dotfiles`
pub async fn update_of_user(call: Call) -> Result<Response, Problem> {
    update(call, user).await
}

/// `PATCH /group-config/dotfiles`
pub async fn update_of_group(call: Call) -> Result<Response, Problem> {
    update(call, group).await
}

/// `PATCH /domain-config/dotfiles`
pub async fn update_of_domain(call: Call) -> Result<Response, Problem> {
    update(call, domain).await
}

/// `DELETE /user-config/dotfiles`
pub async fn delete_of_user(call: Call) -> Result<Response, Problem> {
    delete(call, user).await
}

/// `DELETE /group-config/dotfiles`
pub async fn delete_of_group(call: Call) -> Result<Response, Problem> {
    delete(call, group).await
}

/// `DELETE /domain-config/dotfiles`
pub async fn delete_of_domain(call: Call) -> Result<Response, Problem> {
    delete(call, domain).await
}

async fn create(call: Call, scope: ReadScope) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let (new, scope) = (read_dotfile(&mut params), scope(&mut params));
    params.finish()?;
    dotfile::create(&call.app, &context, &scope, new).await?;
    Ok(ok(&json!({})))
}

/// One dotfile if the request names its path, else all.
async fn show(call: Call, scope: ReadScope) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let path: Option<String> = params.optional(&["path"], None, rules::null_or(rules::text));
    let scope = scope(&mut params);
    params.finish()?;
    if let Some(path) = path {
        let Dotfile { path, perm, data } = dotfile::get(&call.app, &context, &scope, &path).await?;
        return Ok(ok(&json!({ "path": path, "perm": perm, "data": data })));
    }
    let all: Vec<Value> = dotfile::list(&call.app, &context, &scope)
        .await?
        .into_iter()
        .map(|Dotfile { path, perm, data }| json!({ "path": path, "permission": perm, "data": data }))
        .collect();
    Ok(ok(&all))
}

async fn update(call: Call, scope: ReadScope) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let (new, scope) = (read_dotfile(&mut params), scope(&mut params));
    params.finish()?;
    dotfile::update(&call.app, &context, &scope, new).await?;
    Ok(ok(&json!({})))
}

async fn delete(call: Call, scope: ReadScope) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let path: String = params.required(&["path"], rules::text);
    let scope = scope(&mut params);
    params.finish()?;
    dotfile::delete(&call.app, &context, &scope, &path).await?;
    Ok(ok(&json!({ "success": true })))
}

fn read_dotfile(params: &mut Params) -> Dotfile {
    Dotfile {
        data: params.required(&["data"], rules::text),
        path: params.required(&["path"], rules::text),
        perm: params.required(&["permission"], permission),
    }
}

/// Three octal digits.
fn permission(value: Value) -> super::super::params::Checked<String> {
    let text = rules::text(value)?;
    if text.len() == 3 && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) {
        return Ok(text);
    }
    Err(Value::from("does not match pattern ^[0-7]{3}$"))
}

/// `GET /user-config/bootstrap-script`
pub async fn bootstrap_script(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    Ok(ok(&dotfile::bootstrap_script(&call.app, &context).await?))
}

/// `POST /user-config/bootstrap-script`
pub async fn set_bootstrap_script(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let script: String = params.required(&["script"], rules::any_text);
    params.finish()?;
    dotfile::set_bootstrap_script(&call.app, &context, &script).await?;
    Ok(ok(&json!({})))
}
