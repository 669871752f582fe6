//! Queries about policies of users and projects, container registries, permissions, and the
//! audit log.

use async_graphql::{Context, Object, Result, SimpleObject};
use backendai_datastore::audit::AUDIT_FIELDS;
use backendai_types::HostPermission;

use super::super::audit::AuditLogList;
use super::super::container_registry::ContainerRegistry;
use super::super::guard::{self, Asker, IntoGraphql};
use super::super::resource_policy::{ProjectPolicy, UserPolicy};
use super::{own_email, slice};
use crate::app::container_registry;
use crate::context::Role;

/// Queries about policies, registries and permissions.
#[derive(Default)]
pub struct PolicyQueries;

/// What may be done on a host of folders.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
struct PredefinedAtomicPermission {
    vfolder_host_permission_list: Option<Vec<Option<String>>>,
}

/// Queries about policies, registries and permissions.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl PolicyQueries {
    /// The caller's own policy if none is named.
    async fn user_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: Option<String>,
    ) -> Result<Option<UserPolicy>> {
        let asker = guard::admit(ctx)?;
        let own = name.is_none().then_some(asker.context.user_id);
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.user_policy_views(name.as_deref(), own).await
        };
        Ok(load.await.map_err(IntoGraphql::into_graphql)?.pop().map(UserPolicy))
    }

    /// All for administrators, their own for users.
    async fn user_resource_policies(
        &self,
        ctx: &Context<'_>,
    ) -> Result<Option<Vec<Option<UserPolicy>>>> {
        let asker = guard::admit(ctx)?;
        let own = (!is_administrator(asker)).then_some(asker.context.user_id);
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.user_policy_views(None, own).await
        };
        let rows = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(Some(rows.into_iter().map(UserPolicy).map(Some).collect()))
    }

    async fn project_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: String,
    ) -> Result<Option<ProjectPolicy>> {
        let asker = guard::admit(ctx)?;
        Ok(project_policies(asker, Some(&name)).await?.pop())
    }

    async fn project_resource_policies(
        &self,
        ctx: &Context<'_>,
    ) -> Result<Option<Vec<Option<ProjectPolicy>>>> {
        let asker = guard::admit(ctx)?;
        Ok(Some(project_policies(asker, None).await?.into_iter().map(Some).collect()))
    }

    async fn container_registry(
        &self,
        ctx: &Context<'_>,
        hostname: String,
    ) -> Result<Option<ContainerRegistry>> {
        let asker = guard::admit(ctx)?;
        let found = container_registry::show(&asker.app, &hostname).await;
        found.map(ContainerRegistry).map(Some).map_err(IntoGraphql::into_graphql)
    }

    async fn container_registries(
        &self,
        ctx: &Context<'_>,
    ) -> Result<Option<Vec<Option<ContainerRegistry>>>> {
        let asker = guard::admit(ctx)?;
        let found = container_registry::list(&asker.app).await;
        let found = found.map_err(IntoGraphql::into_graphql)?;
        Ok(Some(found.into_values().map(ContainerRegistry).map(Some).collect()))
    }

    async fn vfolder_host_permissions(
        &self,
        ctx: &Context<'_>,
    ) -> Result<Option<PredefinedAtomicPermission>> {
        guard::admit(ctx)?;
        let list = HostPermission::ALL.iter().map(|one| Some(one.as_str().to_owned())).collect();
        Ok(Some(PredefinedAtomicPermission { vfolder_host_permission_list: Some(list) }))
    }

    /// Who changed what, the latest first: all for superadmins, what users of their domain
    /// did for administrators.
    async fn audit_log_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        filter: Option<String>,
        order: Option<String>,
        domain_name: Option<String>,
    ) -> Result<Option<AuditLogList>> {
        let (asker, scope) = guard::scope(ctx, domain_name, None, own_email)?;
        let slice = slice(limit, offset, filter, order, AUDIT_FIELDS)?;
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.audit_page(scope.domain.as_deref(), &slice).await
        };
        Ok(Some(AuditLogList(load.await.map_err(IntoGraphql::into_graphql)?)))
    }
}

fn is_administrator(asker: &Asker) -> bool {
    matches!(asker.context.role, Role::Superadmin | Role::Admin)
}

async fn project_policies(asker: &Asker, name: Option<&str>) -> Result<Vec<ProjectPolicy>> {
    let load = async {
        let db = asker.app.datastore.autocommit().await?;
        db.project_policy_views(name).await
    };
    let rows = load.await.map_err(IntoGraphql::into_graphql)?;
    Ok(rows.into_iter().map(ProjectPolicy).collect())
}
