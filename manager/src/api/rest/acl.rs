//! `/acl`: what there is to permit.

use backendai_types::HostPermission;
use serde_json::json;
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::problem::Problem;

/// `GET /acl`
pub async fn permissions(_: Call) -> Result<Response, Problem> {
    let names: Vec<&str> = HostPermission::ALL.iter().map(|one| one.as_str()).collect();
    Ok(ok(&json!({ "vfolder_host_permission_list": names })))
}
