//! `/template/session` and `/template/cluster`, and sessions made from them.

use backendai_datastore::template::{Template, TemplateKind};
use serde_json::{Map, Value, json};
use uuid::Uuid;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::reply::Response;

use super::super::call::{Call, json as json_response, ok};
use super::super::params::{Params, rules};
use super::super::problem::Problem;
use super::session::{created_view, port_view, read_create};
use super::template_payload;
use crate::app::session as app_session;
use crate::app::template::{self, Draft, Place};

/// `POST /template/session`
pub async fn create_task(call: Call) -> Result<Response, Problem> {
    let created = create(call, TemplateKind::Task).await?;
    Ok(ok(&created))
}

/// `POST /template/cluster`
pub async fn create_cluster_template(call: Call) -> Result<Response, Problem> {
    let created = create(call, TemplateKind::Cluster).await?;
    Ok(ok(&created.first()))
}

async fn create(call: Call, kind: TemplateKind) -> Result<Vec<Value>, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let place = Place {
        group: params.optional(
            &["group", "groupName", "group_name"],
            "default".to_owned(),
            rules::text,
        ),
        domain: params.optional(
            &["domain", "domainName", "domain_name"],
            "default".to_owned(),
            rules::text,
        ),
        owner_access_key: params.optional(&["owner_access_key"], None, rules::null_or(rules::text)),
    };
    let payload: String = params.required(&["payload"], rules::text);
    params.finish()?;
    let drafts = template_payload::read(kind, &payload)?;
    if kind == TemplateKind::Cluster && drafts.len() != 1 {
        return Err(Problem::invalid_params("A cluster template is one object."));
    }
    let created = template::create(&call.app, &context, kind, &place, drafts).await?;
    Ok(created
        .iter()
        .map(|new| json!({ "id": hex_of(new.id), "user": hex_of(new.user_id.0) }))
        .collect())
}

fn hex_of(id: Uuid) -> String {
    id.simple().to_string()
}

/// `GET /template/session`
pub async fn list_tasks(call: Call) -> Result<Response, Problem> {
    let view = |template: &Template, _: bool| {
        json!({
            "domain_name": template.domain_name,
            "type": "task",
            "template": template.template,
        })
    };
    list(call, TemplateKind::Task, view).await
}

/// `GET /template/cluster`
pub async fn list_clusters(call: Call) -> Result<Response, Problem> {
    let view =
        |_: &Template, is_own: bool| json!({ "type": if is_own { "user" } else { "group" } });
    list(call, TemplateKind::Cluster, view).await
}

async fn list(
    call: Call,
    kind: TemplateKind,
    more: impl Fn(&Template, bool) -> Value,
) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    // What the caller may see is listed in any case.
    let _all = params.optional(&["all"], false, rules::lenient_bool);
    let group = params.optional(&["group_id", "groupId"], None, rules::null_or(rules::uuid));
    params.finish()?;
    let views: Vec<Value> = template::list(&call.app, &context, kind, group)
        .await?
        .iter()
        .map(|(template, is_own)| {
            let mut view = json!({
                "name": template.name,
                "id": hex_of(template.id),
                "created_at": template.created_at.format("%Y-%m-%d %H:%M:%S%.6f%:z").to_string(),
                "is_owner": is_own,
                "user": template.user_id,
                "group": template.group_id,
                "user_email": template.user_email,
                "group_name": template.group_name,
            });
            if let (Value::Object(view), Value::Object(more)) = (&mut view, more(template, *is_own))
            {
                view.extend(more);
            }
            view
        })
        .collect();
    Ok(ok(&views))
}

/// `GET /template/session/{id}`
pub async fn show_task(call: Call) -> Result<Response, Problem> {
    let (found, _) = find(&call, TemplateKind::Task).await?;
    Ok(ok(&found.map_or_else(
        || json!({}),
        |template| {
            json!({
                "template": template.template,
                "name": template.name,
                "user_uuid": template.user_id,
                "group_id": template.group_id,
                "domain_name": template.domain_name,
            })
        },
    )))
}

/// `GET /template/cluster/{id}`
pub async fn show_cluster(call: Call) -> Result<Response, Problem> {
    let (found, format) = find(&call, TemplateKind::Cluster).await?;
    let body = found.map_or_else(|| json!({}), |template| template.template);
    if format == "json" {
        return Ok(ok(&body));
    }
    let text = serde_saphyr::to_string(&body)
        .map_err(|error| crate::app::Error::internal("write a template as YAML", error))?;
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/yaml"));
    Ok(response)
}

/// The template of the path, if the caller may see it, and the wanted format.
async fn find(call: &Call, kind: TemplateKind) -> Result<(Option<Template>, String), Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let default = match kind {
        TemplateKind::Task => "json",
        TemplateKind::Cluster => "yaml",
    };
    let format = params.optional(&["format"], default.to_owned(), rules::choice(&["yaml", "json"]));
    let owner: Option<String> =
        params.optional(&["owner_access_key"], None, rules::null_or(rules::text));
    params.finish()?;
    let Ok(id) = Uuid::parse_str(call.segment(0)) else { return Ok((None, format)) };
    let found = template::get(&call.app, &context, kind, id, owner.as_deref()).await?;
    Ok((found, format))
}

/// `PUT /template/session/{id}`
pub async fn update_task(call: Call) -> Result<Response, Problem> {
    update(call, TemplateKind::Task).await
}

/// `PUT /template/cluster/{id}`
pub async fn update_cluster(call: Call) -> Result<Response, Problem> {
    update(call, TemplateKind::Cluster).await
}

async fn update(call: Call, kind: TemplateKind) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    // A template stays where it is.
    for names in [["group", "groupName", "group_name"], ["domain", "domainName", "domain_name"]] {
        params.optional(&names, None, rules::null_or(rules::text));
    }
    let owner: Option<String> =
        params.optional(&["owner_access_key"], None, rules::null_or(rules::text));
    let payload: String = params.required(&["payload"], rules::text);
    params.finish()?;
    let drafts = template_payload::read(kind, &payload)?;
    let [draft]: [Draft; 1] = drafts
        .try_into()
        .map_err(|_| Problem::invalid_params("Exactly one template must be given."))?;
    let id = template_id(&call)?;
    template::update(&call.app, &context, kind, id, owner.as_deref(), &draft).await?;
    Ok(ok(&json!({ "success": true })))
}

/// `DELETE /template/session/{id}`
pub async fn delete_task(call: Call) -> Result<Response, Problem> {
    delete(call, TemplateKind::Task).await
}

/// `DELETE /template/cluster/{id}`
pub async fn delete_cluster(call: Call) -> Result<Response, Problem> {
    delete(call, TemplateKind::Cluster).await
}

async fn delete(call: Call, kind: TemplateKind) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let owner: Option<String> =
        params.optional(&["owner_access_key"], None, rules::null_or(rules::text));
    params.finish()?;
    let id = template_id(&call)?;
    template::delete(&call.app, &context, kind, id, owner.as_deref()).await?;
    Ok(ok(&json!({ "success": true })))
}

fn template_id(call: &Call) -> Result<Uuid, Problem> {
    Uuid::parse_str(call.segment(0)).map_err(|_| template::not_found().into())
}

/// Names of a creation's fields, the canonical one first, that a template may fill.
const FIELDS: &[&[&str]] = &[
    &["image", "lang"],
    &["architecture", "arch"],
    &["session_type", "type", "sessionType"],
    &["group", "groupName", "group_name"],
    &["domain", "domainName", "domain_name"],
    &["startup_command", "startupCommand"],
    &["bootstrap_script", "bootstrapScript"],
    &["cluster_size", "clusterSize"],
    &["cluster_mode", "clusterMode"],
    &["scaling_group", "scalingGroup"],
    &["mount_map", "mountMap"],
    &["agent_list", "agentList"],
];

/// Lays a request over what a template says: whole fields, whatever name they go by.
fn lay_over(base: &mut Map<String, Value>, request: Map<String, Value>) {
    for (name, value) in request {
        let names = FIELDS.iter().find(|names| names.contains(&name.as_str()));
        let canonical = names.map_or(name.as_str(), |names| names[0]);
        base.insert(canonical.to_owned(), value);
    }
}

/// `POST /session/_/create-from-template`
pub async fn create_from_template(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let Value::Object(mut body) = call.json()? else {
        return Err(Problem::invalid_fields(Value::from("value is not a dict")));
    };
    let id = ["template_id", "templateId"].iter().find_map(|name| body.shift_remove(*name));
    let id = match id {
        None => return Err(Problem::invalid_fields(json!({ "template_id": "is required" }))),
        Some(Value::Null) => None,
        Some(value) => Some(
            rules::uuid(value)
                .map_err(|error| Problem::invalid_fields(json!({ "template_id": error })))?,
        ),
    };
    let id = id.ok_or_else(template::not_found)?;
    let found = template::find(&call.app, &context, TemplateKind::Task, id).await?;
    let mut merged = template::task_base(&found);
    let config = match body.shift_remove("config") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(config)) => config,
        Some(_) => return Err(Problem::invalid_fields(json!({ "config": "value is not a dict" }))),
    };
    if let Some(Value::Object(base)) = merged.get_mut("config") {
        lay_over(base, config);
    }
    lay_over(&mut merged, body);
    let mut params = Params::new(merged);
    let request = read_create(&mut params);
    params.finish()?;
    let created = app_session::create::create(&call.app, &context, request).await?;
    Ok(json_response(StatusCode::CREATED, &created_view(created)))
}

/// `POST /session/_/create-cluster`
pub async fn create_cluster(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let Value::Object(mut body) = call.json()? else {
        return Err(Problem::invalid_fields(Value::from("value is not a dict")));
    };
    let id = ["template_id", "templateId"].iter().find_map(|name| body.shift_remove(*name));
    let id = id.unwrap_or_default().as_str().and_then(|id| Uuid::parse_str(id).ok());
    let id = id.ok_or_else(template::not_found)?;
    let (cluster, nodes) = template::find_cluster(&call.app, &context, id).await?;
    let mut merged = template::cluster_base(&cluster, &nodes).ok_or_else(|| {
        Problem::invalid_params("All nodes of a cluster must have the image of its main node.")
    })?;
    let scaling_group =
        ["scaling_group", "scalingGroup"].iter().find_map(|name| body.shift_remove(*name));
    if let (Some(group), Some(Value::Object(config))) = (scaling_group, merged.get_mut("config")) {
        config.insert("scaling_group".into(), group);
    }
    lay_over(&mut merged, body);
    // A cluster is always a new one.
    merged.insert("reuseIfExists".into(), false.into());
    let mut params = Params::new(merged);
    let request = read_create(&mut params);
    params.finish()?;
    let created = app_session::create::create(&call.app, &context, request).await?;
    let kernel = app_session::query::main_kernel(&call.app, created.session_id).await?;
    Ok(json_response(
        StatusCode::CREATED,
        &json!({
            "kernelId": kernel,
            "sessionId": created.session_id,
            "status": created.status,
            "servicePorts": created.service_ports.iter().map(port_view).collect::<Vec<_>>(),
            "created": true,
        }),
    ))
}
