//! Where a session belongs: domain, group, scaling group, and the sessions and agents it names.

use backendai_datastore::policy::Owner;
use backendai_datastore::scaling_group::ScalingGroup;
use backendai_types::{AgentId, GroupId, SessionId};
use futures::try_join;

use super::super::CreateSession;
use crate::app::{App, Error, Result};
use crate::context::RequestContext;

/// The domain and group of a session.
pub(super) struct Scope {
    pub domain: String,
    pub group_id: GroupId,
    pub allowed_docker_registries: Vec<String>,
}

/// Resolves domain and group as `rest-auth.md` §8 says.
pub(super) async fn scope(
    app: &App,
    context: &RequestContext,
    owner: &Owner,
    domain: &str,
    group: &str,
) -> Result<Scope> {
    let for_another = owner.access_key != context.access_key;
    let is_free = for_another && owner.role == "superadmin";
    let has_any_group = is_free || (for_another && owner.role == "admin");
    let own_domain = owner.domain_name.as_deref().unwrap_or_default();
    let member = (!has_any_group).then_some(owner.user_id);
    let tx = app.datastore.autocommit().await?;
    let (own, access, group_id) = try_join!(
        tx.domain_active(own_domain),
        tx.domain_active(domain),
        tx.group_active(domain, group, member),
    )?;
    if own.is_none() {
        return Err(Error::invalid("Invalid domain"));
    }
    if domain != own_domain && !is_free {
        return Err(Error::invalid(if has_any_group {
            "You can only set the domain to the owner's domain."
        } else {
            "You can only set the domain to your domain."
        }));
    }
    let access = access.ok_or_else(|| Error::invalid("Invalid domain"))?;
    let group_id = group_id.ok_or_else(|| Error::invalid("Invalid group"))?;
    Ok(Scope {
        domain: domain.to_owned(),
        group_id,
        allowed_docker_registries: access.allowed_docker_registries,
    })
}

/// The scaling group asked for, or the first that takes such a session.
pub(super) fn scaling_group(
    groups: &[ScalingGroup],
    request: &CreateSession,
    is_private: bool,
) -> Result<String> {
    let session_type = request.session_type.as_rest_str();
    let not_found =
        |message: String| Error::NotFound { object: "scaling group", message: Some(message) };
    let usable =
        |group: &&ScalingGroup| (group.is_public || is_private) && group.accepts(session_type);
    match &request.scaling_group {
        Some(name) => {
            let Some(group) = groups.iter().find(|group| group.name == *name) else {
                return Err(not_found(format!(
                    "The scaling group {name} does not exist or you do not have access to it."
                )));
            };
            if usable(&group) {
                return Ok(group.name.clone());
            }
            Err(not_found(format!(
                "The scaling group {name} does not accept the session type '{session_type}'."
            )))
        }
        None => match groups.iter().find(usable) {
            Some(group) => Ok(group.name.clone()),
            None => Err(not_found(format!(
                "No scaling groups accept the session type '{session_type}'."
            ))),
        },
    }
}

/// Sessions of the owner by id or name, ended ones included.
pub(super) async fn dependencies(
    app: &App,
    owner: &Owner,
    references: &[String],
) -> Result<Vec<SessionId>> {
    let mut ids = Vec::new();
    if references.is_empty() {
        return Ok(ids);
    }
    let tx = app.datastore.autocommit().await?;
    for reference in references {
        let found = tx.session_find(&owner.access_key, reference, false).await?;
        // The newest of that name.
        let Some(session) = found.first() else {
            return Err(Error::InvalidParams {
                message: "Unknown session ID or name in the dependency list".into(),
                data: Some(serde_json::json!({"session_ref": reference})),
            });
        };
        if !ids.contains(&session.id) {
            ids.push(session.id);
        }
    }
    Ok(ids)
}

/// Agents a superadmin asked for, all of which must exist.
pub(super) async fn designated_agents(
    app: &App,
    wanted: Option<&[String]>,
) -> Result<Option<Vec<AgentId>>> {
    let Some(wanted) = wanted else { return Ok(None) };
    let tx = app.datastore.autocommit().await?;
    let existing = tx.agents_existing(wanted).await?;
    match wanted.iter().find(|agent| !existing.contains(agent)) {
        Some(missing) => Err(Error::invalid(format!("No such agent: {missing}"))),
        None => Ok(Some(wanted.iter().map(|agent| AgentId(agent.clone())).collect())),
    }
}
