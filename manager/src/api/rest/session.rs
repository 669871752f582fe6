//! `/session`: create, look at, use and end sessions.

use std::time::Duration;

use backendai_rpc::agent_api::ExecuteMode;
use backendai_types::image::ServicePort;
use backendai_types::{ClusterMode, SessionType};
use serde_json::{Map, Value, json};
use warp::http::StatusCode;
use warp::reply::Response;

use super::super::call::{Call, json as json_response, no_content, ok};
use super::super::params::{Params, rules};
use super::super::problem::Problem;
use super::super::run::{self, PolledStep};
use crate::app::session::execute::{self as run_code, ExecuteRequest};
use crate::app::session::query::SessionInfo;
use crate::app::session::{self as app_session, CreateSession, CreatedSession};

/// How long the polling route gathers output before it answers `continued`.
const POLL_FLUSH: Duration = Duration::from_secs(2);
/// The architecture of images when a request names none.
const DEFAULT_ARCHITECTURE: &str = "x86_64";

/// `POST /session`
pub async fn create(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let request = read_create(&mut params);
    params.finish()?;
    let created = app_session::create::create(&call.app, &context, request).await?;
    Ok(json_response(StatusCode::CREATED, &created_view(created)))
}

/// Reads the body of a creation (`rest-routes.md` §1.1).
pub(super) fn read_create(params: &mut Params) -> CreateSession {
    use rules::{any_text, int_within, lenient_bool, list, member, null_or, text};
    let name =
        params.required(&["session_name", "name", "clientSessionToken"], rules::session_name);
    let image = params.required(&["image", "lang"], text);
    let architecture =
        params.optional(&["architecture", "arch"], DEFAULT_ARCHITECTURE.to_owned(), text);
    let session_type = params.optional(
        &["session_type", "type", "sessionType"],
        SessionType::Interactive,
        member("SessionTypes", SessionType::ALL, SessionType::as_rest_str),
    );
    let group = params.optional(&["group", "groupName", "group_name"], "default".to_owned(), text);
    let domain =
        params.optional(&["domain", "domainName", "domain_name"], "default".to_owned(), text);
    let cluster_size =
        params.optional(&["cluster_size", "clusterSize"], 1, int_within(1, i64::from(i32::MAX)));
    let cluster_mode = params.optional(
        &["cluster_mode", "clusterMode"],
        ClusterMode::SingleNode,
        member("ClusterMode", ClusterMode::ALL, ClusterMode::as_str),
    );
    let config = params.optional(&["config"], CreateConfig::default(), rules::nested(read_config));
    let tag = params.optional(&["tag"], None, null_or(text));
    let enqueue_only = params.optional(&["enqueue_only", "enqueueOnly"], false, lenient_bool);
    let max_wait = params.optional(
        &["max_wait_seconds", "maxWaitSeconds"],
        0,
        int_within(0, i64::from(u32::MAX)),
    );
    let starts_at = params.optional(&["starts_at", "startsAt"], None, null_or(text));
    let reuse_if_exists = params.optional(&["reuse", "reuseIfExists"], true, lenient_bool);
    let startup_command =
        params.optional(&["startup_command", "startupCommand"], None, null_or(any_text));
    let bootstrap_script =
        params.optional(&["bootstrap_script", "bootstrapScript"], None, null_or(any_text));
    let dependencies = params.optional(&["dependencies"], None, null_or(list(text)));
    let callback_url =
        params.optional(&["callback_url", "callbackUrl", "callbackURL"], None, null_or(rules::url));
    let owner_access_key = params.optional(&["owner_access_key"], None, null_or(text));
    CreateSession {
        name,
        image,
        architecture: backendai_types::image::normalize_architecture(&architecture),
        session_type,
        group,
        domain,
        cluster_size: cluster_size as u32,
        cluster_mode,
        resources: config.resources,
        resource_opts: config.resource_opts,
        environ: config.environ,
        mounts: config.mounts,
        mount_map: config.mount_map,
        scaling_group: config.scaling_group,
        preopen_ports: config.preopen_ports,
        agent_list: config.agent_list,
        tag,
        enqueue_only,
        max_wait: (max_wait > 0).then(|| Duration::from_secs(max_wait as u64)),
        starts_at,
        reuse_if_exists,
        startup_command: startup_command.filter(|command| !command.is_empty()),
        bootstrap_script: bootstrap_script.filter(|script| !script.is_empty()),
        dependencies: dependencies.unwrap_or_default(),
        callback_url,
        owner_access_key,
    }
}

/// The `config` object of a creation, as API versions 6 and 7 have it.
#[derive(Default)]
struct CreateConfig {
    mounts: Vec<String>,
    mount_map: std::collections::BTreeMap<String, String>,
    environ: std::collections::BTreeMap<String, String>,
    scaling_group: Option<String>,
    resources: Map<String, Value>,
    resource_opts: Map<String, Value>,
    preopen_ports: Vec<u16>,
    agent_list: Option<Vec<String>>,
}

fn read_config(params: &mut Params) -> CreateConfig {
    use rules::{int_within, list, map, null_or, object, text};
    let ports = params.optional(
        &["preopen_ports", "preopenPorts"],
        None,
        null_or(list(int_within(1024, 65535))),
    );
    CreateConfig {
        mounts: params.optional(&["mounts"], None, null_or(list(text))).unwrap_or_default(),
        mount_map: params
            .optional(&["mount_map", "mountMap"], None, null_or(map(text)))
            .unwrap_or_default(),
        environ: params.optional(&["environ"], None, null_or(map(text))).unwrap_or_default(),
        scaling_group: params.optional(&["scaling_group", "scalingGroup"], None, null_or(text)),
        resources: params.optional(&["resources"], None, null_or(object)).unwrap_or_default(),
        resource_opts: params
            .optional(&["resource_opts", "resourceOpts"], None, null_or(object))
            .unwrap_or_default(),
        preopen_ports: ports.unwrap_or_default().into_iter().map(|port| port as u16).collect(),
        agent_list: params.optional(&["agent_list", "agentList"], None, null_or(list(text))),
    }
}

pub(super) fn created_view(created: CreatedSession) -> Value {
    let mut view = json!({
        "sessionId": created.session_id,
        "sessionName": created.name,
        "status": created.status,
        "servicePorts": created.service_ports.iter().map(port_view).collect::<Vec<_>>(),
        "created": created.created,
    });
    if !created.created {
        // The product names them differently for a session that is reused; clients read either.
        view["service_ports"] = json!(created.service_ports);
    }
    view
}

/// A service as clients see it.
pub(super) fn port_view(port: &ServicePort) -> Value {
    let mut view =
        json!({ "name": port.name, "protocol": port.protocol, "ports": port.container_ports });
    if let Some(template) = &port.url_template {
        view["url_template"] = json!(template);
    }
    if let Some(arguments) = &port.allowed_arguments {
        view["allowed_arguments"] = json!(arguments);
    }
    if let Some(envs) = &port.allowed_envs {
        view["allowed_envs"] = json!(envs);
    }
    view
}

/// `GET /session/_/match`
pub async fn match_sessions(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let reference: String = params.required(&["id"], rules::text);
    params.finish()?;
    let db = call.app.datastore.autocommit().await?;
    let matches: Vec<Value> = db
        .session_find(&context.access_key, &reference, false)
        .await?
        .iter()
        .map(|s| json!({ "id": s.id, "name": s.name, "status": s.status.as_str() }))
        .collect();
    Ok(ok(&json!({ "matches": matches })))
}

/// `GET /session/{name}`
pub async fn info(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let info = app_session::query::info(&call.app, &context, call.segment(0)).await?;
    Ok(ok(&info_view(&info, chrono::Utc::now())))
}

fn info_view(info: &SessionInfo, now: chrono::DateTime<chrono::Utc>) -> Value {
    let session = &info.session;
    let kernel = &info.main_kernel;
    let time =
        |at: chrono::DateTime<chrono::Utc>| at.format("%Y-%m-%d %H:%M:%S%.6f%:z").to_string();
    let requested = python_text(&json!(session.requested_slots));
    let occupied = python_text(&json!(info.occupied_slots));
    let age = session.terminated_at.unwrap_or(now) - session.created_at;
    json!({
        "domainName": session.domain_name,
        "groupId": session.group_id,
        "userId": session.user_id,
        "lang": session.image,
        "image": session.image,
        "architecture": session.architecture,
        "registry": kernel.registry,
        "tag": session.tag,
        "containerId": kernel.container_id.as_deref().unwrap_or("None"),
        "occupiedSlots": occupied,
        "occupyingSlots": occupied,
        "requestedSlots": requested,
        "occupiedShares": "{}",
        "environ": python_text(&json!(session.environ)),
        "resourceOpts": python_text(&kernel.resource_opts),
        "status": session.status.as_str(),
        "statusInfo": session.status_info.as_deref().unwrap_or("None"),
        "statusData": session.status_data,
        "age": age.num_milliseconds(),
        "creationTime": time(session.created_at),
        "terminationTime": session.terminated_at.map(time),
        "numQueriesExecuted": session.num_queries,
        "lastStat": info.last_stat,
        "idleChecks": {},
    })
}

/// The text by which the product shows mappings here: that of its own language.
fn python_text(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(python_text).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let entries: Vec<_> = map
                .iter()
                .map(|(key, value)| {
                    format!("{}: {}", python_text(&Value::from(key.as_str())), python_text(value))
                })
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// `DELETE /session/{name}`
pub async fn destroy(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let forced = params.optional(&["forced"], false, rules::lenient_bool);
    let recursive = params.optional(&["recursive"], false, rules::lenient_bool);
    let owner = params.optional(&["owner_access_key"], None, rules::null_or(rules::text));
    params.finish()?;
    let name = call.segment(0);
    let stats = app_session::destroy::destroy(
        &call.app,
        &context,
        name,
        owner.as_deref(),
        forced,
        recursive,
    )
    .await?;
    Ok(if recursive {
        ok(&stats)
    } else {
        ok(&json!({ "stats": stats.into_iter().next().unwrap_or_else(|| json!({})) }))
    })
}

/// `POST /session/{name}`: one step of a run.
pub async fn execute(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let body = match call.json()? {
        Value::Object(body) => body,
        _ => return Err(Problem::invalid_fields(Value::from("value is not a dict"))),
    };
    let invalid = Problem::invalid_params;
    let run_id = match body.get("runId") {
        None => return Err(invalid("runId is missing!")),
        Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(invalid("runId has an invalid value.")),
    };
    let code = body.get("code").and_then(Value::as_str).unwrap_or_default();
    let no_options = Map::new();
    let options = body.get("options").and_then(Value::as_object).unwrap_or(&no_options);
    let mode = match body.get("mode").and_then(Value::as_str) {
        None | Some("") => return Err(invalid("mode is missing or empty!")),
        Some("continue" | "input") if run_id.is_none() => {
            return Err(invalid("continuation requires explicit run ID"));
        }
        Some("query") => ExecuteMode::Query { code: code.to_owned() },
        Some("batch") => run::batch_mode(options),
        Some("continue") => ExecuteMode::Continue,
        Some("input") => ExecuteMode::Input { text: code.to_owned() },
        Some("complete") => {
            let cursor = cursor(options);
            let name = call.segment(0);
            let matches = run_code::complete(&call.app, &context, name, code, cursor).await?;
            return Ok(ok(&completions_view(matches)));
        }
        Some(_) => return Err(invalid("mode has an invalid value.")),
    };
    let request = ExecuteRequest { run_id, mode, flush: POLL_FLUSH };
    let reply = run_code::execute(&call.app, &context, call.segment(0), request).await?;
    Ok(ok(&json!({ "result": PolledStep::new(&reply) })))
}

/// `POST /session/{name}/interrupt`
pub async fn interrupt(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    run_code::interrupt(&call.app, &context, call.segment(0)).await?;
    Ok(no_content())
}

/// `POST /session/{name}/complete`
pub async fn complete(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let body = call.json()?;
    let code = body.get("code").and_then(Value::as_str).unwrap_or_default();
    let cursor = body.get("options").and_then(Value::as_object).and_then(cursor);
    let matches = run_code::complete(&call.app, &context, call.segment(0), code, cursor).await?;
    Ok(ok(&completions_view(matches)))
}

fn completions_view(matches: Vec<String>) -> Value {
    json!({ "result": { "status": "finished", "completions": matches } })
}

/// Row and column of the cursor, if both are given.
fn cursor(options: &Map<String, Value>) -> Option<(u32, u32)> {
    let number = |name: &str| {
        options.get(name).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
    };
    number("row").zip(number("col"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<CreateSession, String> {
        let mut params = Params::new(body.as_object().unwrap().clone());
        let request = read_create(&mut params);
        params.finish().map(|()| request).map_err(|problem| {
            let body: Value = serde_json::from_slice(&problem.to_bytes()).unwrap();
            body["data"].to_string()
        })
    }

    /// The body of `backend.ai session create`, captured from the stock client.
    #[test]
    fn the_stock_clients_body_is_read() {
        let request = read(json!({
            "tag": null, "name": "capB",
            "config": {"mounts": [], "environ": {}, "resources": {"cpu": "1", "mem": "512m"},
                       "resource_opts": {}, "scalingGroup": null, "mount_map": {},
                       "preopen_ports": null},
            "dependencies": [], "callback_url": null, "architecture": "amd64",
            "clusterSize": 1, "clusterMode": "single-node", "starts_at": null,
            "bootstrap_script": null, "owner_access_key": null, "domain": "default",
            "group": "default", "type": "interactive", "enqueueOnly": false,
            "maxWaitSeconds": 0, "reuseIfExists": true, "startupCommand": null,
            "image": "python",
        }))
        .unwrap();
        assert_eq!(request.name, "capB");
        assert_eq!(request.architecture, "x86_64");
        assert_eq!(request.resources["mem"], "512m");
        assert_eq!(request.max_wait, None);
        assert!(request.reuse_if_exists);
    }

    #[test]
    fn wrong_bodies_are_answered_per_field() {
        assert_eq!(
            read(json!({})).unwrap_err(),
            r#"{"session_name":"is required","image":"is required"}"#
        );
        assert_eq!(
            read(json!({"name": "ab", "image": ""})).unwrap_err(),
            r#"{"name":"does not match pattern ^(?=.{4,64}$)\\w[\\w.-]*\\w$","image":"blank value is not allowed"}"#
        );
        assert_eq!(
            read(json!({"name": "abcd", "image": "x", "type": "x", "bogus": 1,
                        "config": {"environ": {"A": ""}, "preopen_ports": [1], "y": 1}}))
            .unwrap_err(),
            r#"{"type":"value is not a valid member of SessionTypes","config":{"preopen_ports":{"0":"value should be None","1":{"0":"value is less than 1024"}},"environ":{"0":"value should be None","1":{"A":{"value":"blank value is not allowed"}}},"y":"y is not allowed key"},"bogus":"bogus is not allowed key"}"#
        );
    }

    #[test]
    fn mappings_are_shown_as_the_product_shows_them() {
        assert_eq!(
            python_text(&json!({"cpu": "1", "x": [true, null, 2]})),
            "{'cpu': '1', 'x': [True, None, 2]}"
        );
    }
}
