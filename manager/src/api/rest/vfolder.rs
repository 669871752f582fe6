//! `/folders`: folders themselves; `vfolder_files` is about what is in them,
//! `vfolder_sharing` about who else uses them.

use backendai_datastore::vfolder::{Vfolder, VfolderOwner};
use backendai_datastore::vfolder_access::VfolderAccess;
use backendai_types::{GroupId, UsageMode, VfolderId, VfolderPermission};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use warp::http::StatusCode;
use warp::reply::Response;

use super::super::call::{Call, json as answer, no_content, ok};
use super::super::params::{Checked, rules};
use super::super::problem::Problem;
use crate::app::vfolder::create::CreateVfolder;
use crate::app::vfolder::{access, audit, create as make, host, manage};
use crate::context::RequestContext;

/// What is said of a folder that may hold less than it could.
const MIB: i64 = 1 << 20;

/// `POST /folders`
pub async fn create(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let wanted = CreateVfolder {
        name: params.required(&["name"], rules::slug),
        host: params.optional(&["host"], None, rules::null_or(rules::text)),
        usage_mode: params.optional(&["usage_mode"], UsageMode::General, usage_mode),
        permission: params.optional(&["permission"], VfolderPermission::ReadWrite, permission),
        unmanaged_path: params.optional(
            &["unmanaged_path", "unmanagedPath"],
            None,
            rules::null_or(rules::text),
        ),
        group: params.optional(
            &["group", "groupId", "group_id"],
            None,
            rules::null_or(rules::text),
        ),
        quota: params
            .optional(&["quota"], None, rules::null_or(rules::size))
            .filter(|bytes| *bytes > 0),
        cloneable: params.optional(&["cloneable"], false, rules::strict_bool),
    };
    params.finish()?;
    let folder = make::create(&call.app, &context, wanted).await?;
    Ok(answer(StatusCode::CREATED, &made(&folder)))
}

/// A folder that was just made.
pub(super) fn made(folder: &Vfolder) -> Value {
    json!({
        "id": hex(folder.id),
        "name": folder.name,
        "quota_scope_id": folder.owner.quota_scope(),
        "host": folder.host,
        "usage_mode": folder.usage_mode,
        "permission": folder.permission,
        "max_size": folder.max_size.map(|bytes| bytes / MIB),
        "creator": folder.creator,
        "ownership_type": ownership(folder.owner),
        "user": folder.owner.user(),
        "group": folder.owner.group(),
        "cloneable": folder.cloneable,
        "status": folder.status,
    })
}

/// `GET /folders`: those the caller may use, or another's for superadmins.
pub async fn list(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let all = params.optional(&["all"], false, rules::lenient_bool);
    let group: Option<String> =
        params.optional(&["group_id", "groupId"], None, rules::null_or(rules::text));
    let owner: Option<String> =
        params.optional(&["owner_user_email", "ownerUserEmail"], None, rules::null_or(rules::text));
    params.finish()?;
    if all {
        return Err(Problem::invalid_params("Deprecated use of 'all' option"));
    }
    let shown = match owner {
        Some(email) => access::all_of(&call.app, &context, &email).await?,
        None => access::all(&call.app, &context).await?,
    };
    let group = match group {
        Some(reference) => Some(access::group(&call.app, &context, &reference).await?),
        None => None,
    };
    let fits = |access: &&VfolderAccess| match (group, access.folder.owner.group()) {
        (Some(wanted), Some(group)) => wanted == group,
        _ => true,
    };
    let items: Vec<Value> =
        shown.iter().filter(fits).map(|access| listed(&context, access)).collect();
    Ok(ok(&items))
}

fn listed(context: &RequestContext, access: &VfolderAccess) -> Value {
    let folder = &access.folder;
    json!({
        "name": folder.name,
        "id": hex(folder.id),
        "quota_scope_id": folder.owner.quota_scope(),
        "host": folder.host,
        "status": folder.status,
        "usage_mode": folder.usage_mode,
        "created_at": date(folder.created_at),
        "is_owner": access::is_owner(context, access),
        "permission": access.permission,
        "user": folder.owner.user(),
        "group": folder.owner.group(),
        "creator": folder.creator,
        "user_email": folder.user_email,
        "group_name": folder.group_name,
        "ownership_type": ownership(folder.owner),
        "type": ownership(folder.owner),
        "cloneable": folder.cloneable,
        "max_files": folder.max_files,
        "max_size": folder.max_size.map(|bytes| bytes / MIB),
        "cur_size": folder.used_bytes >> 10,
    })
}

/// `GET /folders/{name}`
pub async fn info(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let (access, usage) = manage::info(&call.app, &context, call.segment(0)).await?;
    let folder = &access.folder;
    let text = |id: Option<String>| id.unwrap_or_else(|| "None".to_owned());
    Ok(ok(&json!({
        "name": folder.name,
        "id": hex(folder.id),
        "host": folder.host,
        "quota_scope_id": folder.owner.quota_scope(),
        "status": folder.status,
        "numFiles": usage.files,
        "num_files": usage.files,
        "used_bytes": usage.bytes,
        "created": date(folder.created_at),
        "created_at": date(folder.created_at),
        "last_used": date(folder.last_used.unwrap_or(folder.created_at)),
        "user": text(folder.owner.user().map(|id| id.to_string())),
        "group": text(folder.owner.group().map(|id| id.to_string())),
        "type": ownership(folder.owner),
        "is_owner": access::is_owner(&context, &access),
        "permission": access.permission,
        "usage_mode": folder.usage_mode,
        "cloneable": folder.cloneable,
        "max_size": folder.max_size.map(|bytes| bytes / MIB),
        "cur_size": usage.bytes >> 10,
    })))
}

/// `DELETE /folders/{name}`
pub async fn delete(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    manage::delete(&call.app, &context, call.segment(0)).await?;
    Ok(no_content())
}

/// `DELETE /folders`: any folder, by its id.
pub async fn delete_by_id(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let id = params.required(&["id", "vfolder_id"], rules::uuid);
    params.finish()?;
    manage::delete_by_id(&call.app, &context, VfolderId(id)).await?;
    Ok(no_content())
}

/// `POST /folders/{name}/rename`
pub async fn rename(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let new_name = params.required(&["new_name"], rules::slug);
    params.finish()?;
    manage::rename(&call.app, &context, call.segment(0), &new_name).await?;
    Ok(created())
}

/// `POST /folders/{name}/update-options`
pub async fn update_options(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let cloneable = params.optional(&["cloneable"], None, rules::null_or(rules::strict_bool));
    let permission = params.optional(&["permission"], None, rules::null_or(permission));
    params.finish()?;
    let name = call.segment(0);
    manage::update_options(&call.app, &context, name, cloneable, permission).await?;
    Ok(created())
}

/// `GET /folders/_/trash`: what was deleted and can be had back.
pub async fn trash(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let folders = manage::trashed(&call.app, &context).await?;
    Ok(ok(&folders.iter().map(made).collect::<Vec<_>>()))
}

/// `POST /folders/restore-from-trash-bin`
pub async fn restore(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let id = vfolder_id(&call)?;
    manage::restore(&call.app, &context, id).await?;
    Ok(no_content())
}

/// `POST /folders/delete-from-trash-bin`
pub async fn purge(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let id = vfolder_id(&call)?;
    manage::purge(&call.app, &context, id).await?;
    Ok(no_content())
}

fn vfolder_id(call: &Call) -> Result<VfolderId, Problem> {
    let mut params = call.params()?;
    let id = params.required(&["vfolder_id", "vfolderId", "id"], rules::uuid);
    params.finish()?;
    Ok(VfolderId(id))
}

/// `GET /folders/_/hosts`
pub async fn hosts(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let group: Option<String> =
        params.optional(&["group_id", "groupId"], None, rules::null_or(rules::text));
    params.finish()?;
    let group: Option<GroupId> = match group {
        Some(reference) => Some(access::group(&call.app, &context, &reference).await?),
        None => None,
    };
    let found = host::list(&call.app, &context, group.map(|group| group.0)).await?;
    let info: serde_json::Map<String, Value> = found
        .hosts
        .iter()
        .map(|(name, host)| {
            let capacity = host.capacity;
            let mut usage = serde_json::Map::new();
            for exposed in &found.exposed {
                match exposed.as_str() {
                    "used_bytes" => drop(usage.insert("used".into(), capacity.used.into())),
                    "capacity_bytes" => drop(usage.insert("total".into(), capacity.total.into())),
                    "percentage" => {
                        let percent = capacity.used as f64 / capacity.total.max(1) as f64 * 100.0;
                        usage.insert("percentage".into(), percent.into());
                    }
                    _ => {}
                }
            }
            let about = json!({
                "backend": host.backend,
                "capabilities": ["vfolder"],
                "usage": usage,
                "sftp_scaling_groups": [],
            });
            (name.clone(), about)
        })
        .collect();
    let allowed: Vec<&String> = found.hosts.keys().collect();
    Ok(ok(&json!({ "default": found.default, "allowed": allowed, "volume_info": info })))
}

/// `GET /folders/_/all-hosts`
pub async fn all_hosts(call: Call) -> Result<Response, Problem> {
    let (default, allowed) = host::all(&call.app).await?;
    Ok(ok(&json!({ "default": default, "allowed": allowed })))
}

/// `GET /folders/_/allowed-types`
pub async fn allowed_types(call: Call) -> Result<Response, Problem> {
    Ok(ok(&host::allowed_types(&call.app).await?))
}

/// `GET /folders/_/audit`: what lies on the hosts against what the database says.
pub async fn audit(call: Call) -> Result<Response, Problem> {
    let hosts = audit::audit(&call.app).await?;
    let hosts: serde_json::Map<String, Value> = hosts
        .into_iter()
        .map(|(host, found)| {
            let about = json!({
                "folders": found.folders,
                "trashed": found.trashed,
                "directories_without_folder": found.without_row,
                "folders_without_directory": found.without_directory,
                "capacity_bytes": found.capacity.map(|capacity| capacity.total),
                "used_bytes": found.capacity.map(|capacity| capacity.used),
                "failure": found.failure,
            });
            (host, about)
        })
        .collect();
    Ok(ok(&json!({ "hosts": hosts })))
}

/// 201 without a body.
pub(super) fn created() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::CREATED;
    response
}

/// An id as this part of the API writes it: without dashes.
pub(super) fn hex(id: VfolderId) -> String {
    id.0.simple().to_string()
}

fn ownership(owner: VfolderOwner) -> &'static str {
    match owner {
        VfolderOwner::User(_) => "user",
        VfolderOwner::Group(_) => "group",
    }
}

/// A point in time as this part of the API writes it.
pub(super) fn date(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.6f+00:00").to_string()
}

pub(super) fn permission(value: Value) -> Checked<VfolderPermission> {
    rules::member("VFolderPermission", VfolderPermission::ALL, VfolderPermission::as_str)(value)
}

pub(super) fn usage_mode(value: Value) -> Checked<UsageMode> {
    rules::member("VFolderUsageMode", UsageMode::ALL, UsageMode::as_str)(value)
}
