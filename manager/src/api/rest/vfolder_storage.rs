//! `/folders/_`: what folders hold and may hold, and the file systems they lie on.

use backendai_types::VfolderId;
use serde_json::{Map, Value, json};
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::params::{Params, rules};
use super::super::problem::Problem;
use crate::app::vfolder::file_system::{self, Answers, Mount, Table};
use crate::app::vfolder::{host, limit};

/// What is said where others would have mounted something themselves.
const MANAGER: &str =
    "The manager mounts nothing itself: it uses what lies beneath volumes/_mount.";

/// A folder as these routes name it.
struct Named {
    host: String,
    id: VfolderId,
}

impl Named {
    fn read(params: &mut Params) -> Self {
        Self {
            host: params.required(&["folder_host", "folderHost"], rules::text),
            id: VfolderId(params.required(&["id"], rules::uuid)),
        }
    }
}

/// `GET /folders/_/quota`
pub async fn quota(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let Named { host, id } = Named::read(&mut params);
    params.finish()?;
    let (limit, usage) = limit::show(&call.app, &context, &host, id).await?;
    Ok(ok(&json!({ "size_bytes": limit.unwrap_or(0), "used_bytes": usage.bytes })))
}

/// `POST /folders/_/quota`
pub async fn set_quota(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let Named { host, id } = Named::read(&mut params);
    let input = params.required(&["input"], rules::object);
    params.finish()?;
    let mut input = Params::new(input);
    let bytes = input.required(&["size_bytes"], rules::size);
    input.finish_ignoring_others()?;
    let limit = limit::set(&call.app, &context, &host, id, bytes).await?;
    Ok(ok(&json!({ "size_bytes": limit })))
}

/// `GET /folders/_/usage`
pub async fn usage(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let Named { host, id } = Named::read(&mut params);
    params.finish()?;
    let usage = limit::usage(&call.app, &context, &host, id).await?;
    Ok(ok(&json!({ "file_count": usage.files, "used_bytes": usage.bytes })))
}

/// `GET /folders/_/used-bytes`
pub async fn used_bytes(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let Named { host, id } = Named::read(&mut params);
    params.finish()?;
    let usage = limit::usage(&call.app, &context, &host, id).await?;
    Ok(ok(&json!({ "used_bytes": usage.bytes })))
}

/// `GET /folders/_/perf-metric`
pub async fn performance(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let host: String = params.required(&["folder_host", "folderHost"], rules::text);
    params.finish()?;
    let counts = host::performance(&call.app, &host).await?;
    Ok(ok(&json!({ "metric": {
        "iops_read": counts.reads,
        "iops_write": counts.writes,
        "io_bytes_read": counts.bytes_read,
        "io_bytes_write": counts.bytes_written,
    } })))
}

/// `GET /folders/_/fstab`
pub async fn fstab(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let path: Option<String> = params.optional(&["fstab_path"], None, rules::null_or(rules::text));
    let agent: Option<String> = params.optional(&["agent_id"], None, rules::null_or(rules::text));
    params.finish()?;
    let (content, node, id) = match agent {
        Some(agent) => {
            (file_system::table(&call.app, &agent, path.as_deref()).await?, "agent", agent)
        }
        None => (format!("# {MANAGER}"), "manager", "manager".to_owned()),
    };
    Ok(ok(&json!({ "content": content, "node": node, "node_id": id })))
}

/// `GET /folders/_/mounts`
pub async fn mounts(call: Call) -> Result<Response, Problem> {
    let volumes = host::locations(&call.app).await?;
    let answers = file_system::mounts(&call.app).await?;
    let agents: Map<String, Value> = answers
        .into_iter()
        .map(|(agent, answer)| {
            let mounts = answer.and_then(|text| {
                let list: Result<Vec<String>, _> = serde_json::from_str(&text);
                list.map_err(|error| format!("the watcher's answer is no list: {error}"))
            });
            (agent, done("mounts", mounts))
        })
        .collect();
    let paths: Vec<&String> = volumes.iter().map(|(_, path)| path).collect();
    Ok(ok(&json!({
        "manager": { "success": true, "mounts": paths, "message": "" },
        "storage-proxy": { "success": true, "mounts": volumes, "message": "" },
        "agents": agents,
    })))
}

/// What became of something; its value has a key of its own, a failure is a message.
fn done(key: &str, result: Result<Vec<String>, String>) -> Value {
    match result {
        Ok(list) => json!({ "success": true, key: list, "message": "" }),
        Err(why) => json!({ "success": false, key: [], "message": why }),
    }
}

/// `POST /folders/_/mounts`
pub async fn mount(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let mount = Mount {
        name: params.required(&["name"], rules::text),
        location: params.required(&["fs_location"], rules::text),
        kind: params.optional(&["fs_type"], "nfs".to_owned(), rules::text),
        options: params.optional(&["options"], None, rules::null_or(rules::text)),
    };
    let (group, table) = whereabouts(&mut params);
    params.finish()?;
    let group = group.as_deref();
    Ok(changed(file_system::mount(&call.app, &context, &mount, &table, group).await?))
}

/// `DELETE /folders/_/mounts`
pub async fn unmount(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let name: String = params.required(&["name"], rules::text);
    let (group, table) = whereabouts(&mut params);
    params.finish()?;
    let group = group.as_deref();
    Ok(changed(file_system::unmount(&call.app, &context, &name, &table, group).await?))
}

fn whereabouts(params: &mut Params) -> (Option<String>, Table) {
    let group = params.optional(&["scaling_group"], None, rules::null_or(rules::text));
    let path = params.optional(&["fstab_path"], None, rules::null_or(rules::text));
    let edit = params.optional(&["edit_fstab"], false, rules::lenient_bool);
    (group, Table { edit, path })
}

fn changed(answers: Answers) -> Response {
    let agents: Map<String, Value> = answers
        .into_iter()
        .map(|(agent, answer)| {
            let success = answer.is_ok();
            let message = answer.unwrap_or_else(|why| why);
            (agent, json!({ "success": success, "message": message }))
        })
        .collect();
    ok(&json!({ "manager": { "success": true, "message": MANAGER }, "agents": agents }))
}
