//! Templates: what sessions and clusters are made of, kept for use again and again.
//!
//! Whoever may see a template may use it: its owner, the members of its group, and the
//! administrators of its domain. Only the owner and administrators change it. To all others
//! it does not exist.

mod merge;

pub use merge::{cluster_base, task_base};

use backendai_datastore::template::{NewTemplate, Template, TemplateKind, TemplateScope};
use serde_json::Value;
use uuid::Uuid;

use super::session::{create, lookup};
use crate::app::{Error, Result, SharedApp};
use crate::context::{RequestContext, Role};

/// Where new templates belong, as the request says it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Group name or id.
    pub group: String,
    /// Domain name.
    pub domain: String,
    /// Another keypair to make them for.
    pub owner_access_key: Option<String>,
}

/// A template that was checked.
#[derive(Clone, Debug)]
pub struct Draft {
    /// A name other than the one in the template.
    pub name: Option<String>,
    /// Another group.
    pub group_id: Option<Uuid>,
    /// Another user; superadmins only.
    pub user_id: Option<Uuid>,
    /// What it says, in canonical spelling.
    pub template: Value,
}

impl Draft {
    fn name(&self) -> String {
        let own = self.template.pointer("/metadata/name").and_then(Value::as_str);
        self.name.clone().or_else(|| own.map(str::to_owned)).unwrap_or_default()
    }
}

/// Keeps templates; all or none.
///
/// # Errors
/// The owner, domain or group is unknown or out of the caller's reach.
pub async fn create(
    app: &SharedApp,
    context: &RequestContext,
    kind: TemplateKind,
    place: &Place,
    drafts: Vec<Draft>,
) -> Result<Vec<NewTemplate>> {
    let owner = lookup::owner(app, context, place.owner_access_key.as_deref()).await?;
    let mut new = Vec::new();
    for draft in &drafts {
        let group = draft.group_id.map_or_else(|| place.group.clone(), |id| id.to_string());
        let (domain_name, group_id) =
            create::place(app, context, &owner, &place.domain, &group).await?;
        let user_id = draft.user_id.map_or(owner.user_id, backendai_types::UserId);
        if user_id != owner.user_id && !context.is_superadmin() {
            return Err(Error::Forbidden(
                "Only superadmins can make templates for users by their id.".into(),
            ));
        }
        new.push(NewTemplate {
            id: Uuid::new_v4(),
            domain_name,
            group_id,
            user_id,
            name: draft.name(),
            template: draft.template.clone(),
        });
    }
    let inserted = &new;
    app.datastore
        .run_tx("templates_create", |tx| async move {
            tx.templates_insert(kind, inserted).await.map_err(|error| match error {
                backendai_datastore::DatastoreError::Reference { .. } => {
                    Error::invalid("No such user or group.")
                }
                error => error.into(),
            })
        })
        .await?;
    Ok(new)
}

/// The templates the caller may see, the oldest first, with whether each is the caller's own.
///
/// # Errors
/// PostgreSQL failed.
pub async fn list(
    app: &SharedApp,
    context: &RequestContext,
    kind: TemplateKind,
    group: Option<Uuid>,
) -> Result<Vec<(Template, bool)>> {
    let tx = app.datastore.autocommit().await?;
    let templates = tx.templates(kind, &scope(context), None).await?;
    Ok(templates
        .into_iter()
        .filter(|template| group.is_none() || template.group_id.map(|id| id.0) == group)
        .map(|template| {
            let is_own = template.user_id == context.user_id;
            (template, is_own)
        })
        .collect())
}

/// A template the caller may see; `None` if there is none.
///
/// # Errors
/// The caller may not act for the owner.
pub async fn get(
    app: &SharedApp,
    context: &RequestContext,
    kind: TemplateKind,
    id: Uuid,
    owner_access_key: Option<&str>,
) -> Result<Option<Template>> {
    lookup::resolve_owner(app, context, owner_access_key).await?;
    let tx = app.datastore.autocommit().await?;
    Ok(tx.templates(kind, &scope(context), Some(id)).await?.pop())
}

/// As [`get`], where there must be one.
///
/// # Errors
/// There is none, or the caller may not see it.
pub async fn find(
    app: &SharedApp,
    context: &RequestContext,
    kind: TemplateKind,
    id: Uuid,
) -> Result<Template> {
    get(app, context, kind, id, None).await?.ok_or_else(not_found)
}

/// A cluster's template, and the templates of its nodes in their order.
///
/// # Errors
/// One is missing, or the caller may not see it.
pub async fn find_cluster(
    app: &SharedApp,
    context: &RequestContext,
    id: Uuid,
) -> Result<(Template, Vec<Template>)> {
    let cluster = find(app, context, TemplateKind::Cluster, id).await?;
    let mut nodes = Vec::new();
    let listed = cluster.template.pointer("/spec/nodes").and_then(Value::as_array);
    for node in listed.into_iter().flatten() {
        let id = node["session_template"].as_str().and_then(|id| Uuid::parse_str(id).ok());
        let id = id.ok_or_else(not_found)?;
        nodes.push(find(app, context, TemplateKind::Task, id).await?);
    }
    Ok((cluster, nodes))
}

/// Replaces a template's content.
///
/// # Errors
/// There is none that the caller may change.
pub async fn update(
    app: &SharedApp,
    context: &RequestContext,
    kind: TemplateKind,
    id: Uuid,
    owner_access_key: Option<&str>,
    draft: &Draft,
) -> Result<()> {
    check_changeable(app, context, kind, id, owner_access_key).await?;
    let tx = app.datastore.autocommit().await?;
    match tx.template_update(kind, id, &draft.name(), &draft.template).await? {
        true => Ok(()),
        false => Err(not_found()),
    }
}

/// Deletes a template.
///
/// # Errors
/// There is none that the caller may change.
pub async fn delete(
    app: &SharedApp,
    context: &RequestContext,
    kind: TemplateKind,
    id: Uuid,
    owner_access_key: Option<&str>,
) -> Result<()> {
    check_changeable(app, context, kind, id, owner_access_key).await?;
    let tx = app.datastore.autocommit().await?;
    match tx.template_deactivate(kind, id).await? {
        true => Ok(()),
        false => Err(not_found()),
    }
}

async fn check_changeable(
    app: &SharedApp,
    context: &RequestContext,
    kind: TemplateKind,
    id: Uuid,
    owner_access_key: Option<&str>,
) -> Result<()> {
    let owner = lookup::owner(app, context, owner_access_key).await?;
    let template = get(app, context, kind, id, owner_access_key).await?.ok_or_else(not_found)?;
    let administers = matches!(context.role, Role::Superadmin | Role::Admin);
    match administers || template.user_id == owner.user_id {
        true => Ok(()),
        // Seeing a template of one's group is not the same as owning it.
        false => Err(not_found()),
    }
}

fn scope(context: &RequestContext) -> TemplateScope {
    match context.role {
        Role::Superadmin => TemplateScope::Everything,
        Role::Admin => TemplateScope::Domain(context.domain_name.clone()),
        Role::User | Role::Monitor => TemplateScope::User(context.user_id),
    }
}

/// There is no such template, or it is out of reach.
pub fn not_found() -> Error {
    Error::NotFound { object: "task template", message: None }
}
