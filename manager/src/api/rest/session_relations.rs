//! `/session/{name}/…`: a session's name, and how it stands to others.

use std::collections::BTreeMap;

use backendai_datastore::session_graph::SessionNode;
use backendai_types::SessionId;
use serde_json::{Value, json};
use warp::reply::Response;

use super::super::call::{Call, no_content, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use crate::app::session::{query, rename as rename_session, restart as restart_session};

/// `POST /session/{name}/rename`
pub async fn rename(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let names = ["name", "session_name", "clientSessionToken"];
    let name: String = params.required(&names, rules::session_name);
    params.finish()?;
    rename_session::rename(&call.app, &context, call.segment(0), &name).await?;
    Ok(no_content())
}

/// `PATCH /session/{name}`: restarts it.
pub async fn restart(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let owner = params.optional(&["owner_access_key"], None, rules::null_or(rules::text));
    params.finish()?;
    restart_session::restart(&call.app, &context, call.segment(0), owner.as_deref()).await?;
    Ok(no_content())
}

/// `GET /session/{name}/dependency-graph`
pub async fn dependency_graph(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let (root, mut nodes) = query::dependencies(&call.app, &context, call.segment(0)).await?;
    Ok(ok(&tree(root, &mut nodes).unwrap_or_else(|| json!({}))))
}

/// A node with what it depends on. A session that several others wait for is shown below
/// each of them, its own dependencies only the first time: a tree of all paths could be
/// exponentially larger than the graph.
fn tree(id: SessionId, nodes: &mut BTreeMap<SessionId, SessionNode>) -> Option<Value> {
    let node = nodes.get_mut(&id)?;
    let below = std::mem::take(&mut node.depends_on);
    let mut view = json!({
        "session_id": node.id,
        "session_name": node.name,
        // Clients split at the dot.
        "status": format!("KernelStatus.{}", node.status),
        "status_changed": node.status_changed.format("%Y-%m-%d %H:%M:%S%.6f%:z").to_string(),
    });
    view["depends_on"] = below.into_iter().filter_map(|id| tree(id, nodes)).collect();
    Some(view)
}

/// `GET /session/{name}/direct-access-info`
pub async fn direct_access_info(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let access = query::direct_access(&call.app, &context, call.segment(0)).await?;
    Ok(ok(&match access {
        None => json!({}),
        Some(access) => json!({
            "kernel_role": "SYSTEM",
            "public_host": access.public_host,
            "sshd_ports": access.sshd_ports,
        }),
    }))
}

/// `GET /session/{name}/abusing-report`: nothing is reported, as agents judge no programs.
pub async fn abusing_report(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let _token: Option<String> =
        params.optional(&["login_session_token"], None, rules::null_or(rules::any_text));
    params.finish()?;
    query::info(&call.app, &context, call.segment(0)).await?;
    Ok(ok(&json!({})))
}

/// `POST /session/_/sync-agent-registry`
pub async fn sync_agent_registry(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let agent: String = params.required(&["agent", "agent_id"], rules::text);
    params.finish()?;
    query::sync_agent(&call.app, &agent).await?;
    Ok(ok(&json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use backendai_types::KernelStatus;

    #[test]
    fn a_diamond_shows_each_node_below_each_that_waits_and_stays_small() {
        let ids: Vec<SessionId> = (0..60).map(|_| SessionId::random()).collect();
        // Each depends twice on the next: 2^60 paths.
        let mut nodes: BTreeMap<_, _> = ids
            .iter()
            .enumerate()
            .map(|(n, id)| {
                let next = ids.get(n + 1).copied();
                let node = SessionNode {
                    id: *id,
                    name: format!("n-{n}"),
                    status: KernelStatus::Pending,
                    status_changed: "2026-11-21T04:03:15Z".parse().unwrap(),
                    depends_on: next.into_iter().chain(next).collect(),
                };
                (*id, node)
            })
            .collect();
        let view = tree(ids[0], &mut nodes).unwrap();
        assert_eq!(view["status"], "KernelStatus.PENDING");
        assert_eq!(view["status_changed"], "2026-11-21 04:03:15.000000+00:00");
        let below = view["depends_on"].as_array().unwrap();
        assert_eq!(below[0]["session_name"], "n-1");
        assert_eq!(below[0]["depends_on"].as_array().unwrap().len(), 2);
        assert_eq!(
            (&below[1]["session_name"], &below[1]["depends_on"]),
            (&json!("n-1"), &json!([]))
        );
    }
}
