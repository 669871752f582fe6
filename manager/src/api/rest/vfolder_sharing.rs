//! `/folders/…`: invitations, shares, copies and owners of folders.

use backendai_datastore::vfolder_sharing::VfolderInvitation;
use backendai_types::{UsageMode, UserId, VfolderId, VfolderPermission};
use serde_json::{Value, json};
use uuid::Uuid;
use warp::http::StatusCode;
use warp::reply::Response;

use super::super::call::{Call, json as answer, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use super::vfolder::{date, hex, made, permission, usage_mode};
use crate::app::vfolder::clone::{self, CloneVfolder};
use crate::app::vfolder::share;

/// `POST /folders/{name}/invite`
pub async fn invite(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let given = params.optional(
        &["perm", "permission"],
        VfolderPermission::ReadWrite,
        or_default(VfolderPermission::ReadWrite),
    );
    let emails: Vec<String> =
        params.required(&["emails", "user_ids", "userIDs"], rules::list(rules::text));
    params.finish()?;
    let invited = share::invite(&call.app, &context, call.segment(0), given, &emails).await?;
    Ok(answer(StatusCode::CREATED, &json!({ "invited_ids": invited })))
}

/// A permission; null is the default one.
fn or_default(
    default: VfolderPermission,
) -> impl FnOnce(Value) -> super::super::params::Checked<VfolderPermission> {
    move |value| Ok(rules::null_or(permission)(value)?.unwrap_or(default))
}

/// `GET /folders/invitations/list`
pub async fn received(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let list = share::received(&call.app, &context).await?;
    Ok(invitations(&list))
}

/// `GET /folders/invitations/list-sent`
pub async fn sent(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let list = share::sent(&call.app, &context).await?;
    Ok(invitations(&list))
}

fn invitations(list: &[VfolderInvitation]) -> Response {
    let items: Vec<Value> = list
        .iter()
        .map(|invitation| {
            json!({
                "id": invitation.id,
                "inviter": invitation.inviter,
                "invitee": invitation.invitee,
                "perm": invitation.permission,
                "state": invitation.state,
                "created_at": date(invitation.created_at),
                "modified_at": invitation.modified_at.map_or_else(|| "None".to_owned(), date),
                "vfolder_id": invitation.vfolder,
                "vfolder_name": invitation.vfolder_name,
            })
        })
        .collect();
    ok(&json!({ "invitations": items }))
}

/// `POST /folders/invitations/update/{inv_id}`
pub async fn update_invitation(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let given: Option<VfolderPermission> =
        params.required(&["perm", "permission"], |value| permission(value).map(Some));
    params.finish()?;
    let id = call.segment(0);
    if let (Some(given), Ok(id)) = (given, Uuid::parse_str(id)) {
        share::change_invitation(&call.app, &context, id, given).await?;
    }
    Ok(ok(&json!({ "msg": format!("vfolder invitation updated: {id}.") })))
}

/// `POST /folders/invitations/accept`
pub async fn accept(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    share::accept(&call.app, &context, invitation_id(&call)?).await?;
    Ok(ok(&json!({})))
}

/// `DELETE /folders/invitations/delete`
pub async fn decline(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    share::decline(&call.app, &context, invitation_id(&call)?).await?;
    Ok(ok(&json!({})))
}

fn invitation_id(call: &Call) -> Result<Uuid, Problem> {
    let mut params = call.params()?;
    let id: Uuid = params.required(&["inv_id"], rules::uuid);
    params.finish()?;
    Ok(id)
}

/// `POST /folders/{name}/leave`
pub async fn leave(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let user: Option<Uuid> =
        params.optional(&["shared_user_uuid", "sharedUserUuid"], None, rules::null_or(rules::uuid));
    params.finish()?;
    share::leave(&call.app, &context, call.segment(0), user.map(UserId)).await?;
    Ok(ok(&json!({ "msg": "left the shared vfolder" })))
}

/// `POST /folders/{name}/share`
pub async fn share(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let given = params.optional(
        &["permission"],
        VfolderPermission::ReadWrite,
        or_default(VfolderPermission::ReadWrite),
    );
    let emails: Vec<String> = params.required(&["emails"], rules::list(rules::text));
    params.finish()?;
    let shared = share::share(&call.app, &context, call.segment(0), given, &emails).await?;
    Ok(answer(StatusCode::CREATED, &json!({ "shared_emails": shared })))
}

/// `DELETE /folders/{name}/unshare`
pub async fn unshare(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let emails: Vec<String> = params.required(&["emails"], rules::list(rules::text));
    params.finish()?;
    let unshared = share::unshare(&call.app, &context, call.segment(0), &emails).await?;
    Ok(ok(&json!({ "unshared_emails": unshared })))
}

/// `GET /folders/_/shared`
pub async fn shared(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let id: Option<Uuid> =
        params.optional(&["vfolder_id", "vfolderId"], None, rules::null_or(rules::uuid));
    params.finish()?;
    let shares = share::shares(&call.app, &context, id.map(VfolderId)).await?;
    let items: Vec<Value> = shares
        .iter()
        .map(|share| {
            json!({
                "vfolder_id": share.vfolder,
                "vfolder_name": share.vfolder_name,
                "status": share.status,
                "owner": share.owner,
                "type": if share.is_group { "project" } else { "user" },
                "shared_to": { "uuid": share.user, "email": share.email },
                "perm": share.permission,
            })
        })
        .collect();
    Ok(ok(&json!({ "shared": items })))
}

/// `POST /folders/_/shared`
pub async fn update_shared(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let folder = VfolderId(params.required(&["vfolder"], rules::uuid));
    let user = UserId(params.required(&["user"], rules::uuid));
    let given = params.required(&["perm", "permission"], rules::null_or(permission));
    params.finish()?;
    share::change_share(&call.app, &context, folder, user, given).await?;
    Ok(ok(&json!({ "msg": "shared vfolder permission updated" })))
}

/// `POST /folders/_/change-ownership`
pub async fn change_owner(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let folder = VfolderId(params.required(&["vfolder"], rules::uuid));
    let email: String = params.required(&["user_email"], rules::text);
    params.finish()?;
    share::change_owner(&call.app, folder, &email).await?;
    Ok(ok(&json!({})))
}

/// `POST /folders/{name}/clone`
pub async fn clone_folder(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let wanted = CloneVfolder {
        name: params.required(&["target_name"], rules::slug),
        host: params.optional(&["target_host"], None, rules::null_or(rules::text)),
        cloneable: params.optional(&["cloneable"], false, rules::strict_bool),
        usage_mode: params.optional(&["usage_mode"], UsageMode::General, usage_mode),
        permission: params.optional(
            &["permission"],
            VfolderPermission::ReadWrite,
            or_default(VfolderPermission::ReadWrite),
        ),
    };
    params.finish()?;
    let (folder, task) = clone::clone(&call.app, &context, call.segment(0), wanted).await?;
    let mut reply = made(&folder);
    if let Some(reply) = reply.as_object_mut() {
        reply.insert("id".into(), hex(folder.id).into());
        reply.insert("bgtask_id".into(), task.to_string().into());
    }
    Ok(answer(StatusCode::CREATED, &reply))
}
