//! Queries about scaling groups, resource policies and presets.

use async_graphql::{Context, Object, Result};
use backendai_datastore::site_view::ScalingGroupScope;

use super::super::guard::{self, Asker, IntoGraphql};
use super::super::site::{KeypairPolicy, ResourcePreset, ScalingGroup};
use super::own_key;
use crate::context::Role;

/// Queries about scaling groups, resource policies and presets.
#[derive(Default)]
pub struct SiteQueries;

/// Queries about scaling groups, resource policies and presets.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl SiteQueries {
    async fn scaling_group(
        &self,
        ctx: &Context<'_>,
        name: Option<String>,
    ) -> Result<Option<ScalingGroup>> {
        let asker = guard::admit(ctx)?;
        let Some(name) = name else { return Ok(None) };
        let scope = ScalingGroupScope { name: Some(name), ..ScalingGroupScope::default() };
        Ok(scaling_groups(asker, scope).await?.pop())
    }

    async fn scaling_groups(
        &self,
        ctx: &Context<'_>,
        name: Option<String>,
        is_active: Option<bool>,
    ) -> Result<Option<Vec<Option<ScalingGroup>>>> {
        let asker = guard::admit(ctx)?;
        let scope = ScalingGroupScope { name, is_active, ..ScalingGroupScope::default() };
        Ok(Some(scaling_groups(asker, scope).await?.into_iter().map(Some).collect()))
    }

    async fn scaling_groups_for_domain(
        &self,
        ctx: &Context<'_>,
        domain: String,
        is_active: Option<bool>,
    ) -> Result<Option<Vec<Option<ScalingGroup>>>> {
        let asker = guard::admit(ctx)?;
        let scope =
            ScalingGroupScope { domain: Some(domain), is_active, ..ScalingGroupScope::default() };
        Ok(Some(scaling_groups(asker, scope).await?.into_iter().map(Some).collect()))
    }

    async fn scaling_groups_for_user_group(
        &self,
        ctx: &Context<'_>,
        user_group: String,
        is_active: Option<bool>,
    ) -> Result<Option<Vec<Option<ScalingGroup>>>> {
        let asker = guard::admit(ctx)?;
        let group = uuid::Uuid::parse_str(&user_group)
            .map_err(|_| async_graphql::Error::new("user_group: not a UUID"))?;
        let scope =
            ScalingGroupScope { group: Some(group), is_active, ..ScalingGroupScope::default() };
        Ok(Some(scaling_groups(asker, scope).await?.into_iter().map(Some).collect()))
    }

    async fn scaling_groups_for_keypair(
        &self,
        ctx: &Context<'_>,
        access_key: String,
        is_active: Option<bool>,
    ) -> Result<Option<Vec<Option<ScalingGroup>>>> {
        let asker = guard::admit(ctx)?;
        let scope = ScalingGroupScope {
            access_key: Some(access_key),
            is_active,
            ..ScalingGroupScope::default()
        };
        Ok(Some(scaling_groups(asker, scope).await?.into_iter().map(Some).collect()))
    }

    /// The policy of the caller's own keypair if none is named.
    async fn keypair_resource_policy(
        &self,
        ctx: &Context<'_>,
        name: Option<String>,
    ) -> Result<Option<KeypairPolicy>> {
        let asker = guard::admit(ctx)?;
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            let name = match name {
                Some(name) => name,
                None => match db.keypair_view(&own_key(&asker.context), None).await? {
                    Some(own) => own.resource_policy,
                    None => return Ok(None),
                },
            };
            Ok(db.keypair_policy_views(Some(&name), None).await?.pop())
        };
        let row = load.await.map_err(|e: backendai_datastore::DatastoreError| e.into_graphql())?;
        Ok(row.map(KeypairPolicy))
    }

    /// All for administrators, those of their own keypairs for users.
    async fn keypair_resource_policies(
        &self,
        ctx: &Context<'_>,
    ) -> Result<Option<Vec<Option<KeypairPolicy>>>> {
        let asker = guard::admit(ctx)?;
        let user = match asker.context.role {
            Role::Superadmin | Role::Admin => None,
            Role::User | Role::Monitor => Some(asker.context.user_id),
        };
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.keypair_policy_views(None, user).await
        };
        let rows = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(Some(rows.into_iter().map(KeypairPolicy).map(Some).collect()))
    }

    async fn resource_preset(
        &self,
        ctx: &Context<'_>,
        name: String,
    ) -> Result<Option<ResourcePreset>> {
        let asker = guard::admit(ctx)?;
        Ok(presets(asker).await?.into_iter().find(|preset| preset.0.name == name))
    }

    async fn resource_presets(
        &self,
        ctx: &Context<'_>,
    ) -> Result<Option<Vec<Option<ResourcePreset>>>> {
        let asker = guard::admit(ctx)?;
        Ok(Some(presets(asker).await?.into_iter().map(Some).collect()))
    }
}

async fn scaling_groups(asker: &Asker, scope: ScalingGroupScope) -> Result<Vec<ScalingGroup>> {
    let load = async {
        let db = asker.app.datastore.autocommit().await?;
        db.scaling_group_views(&scope).await
    };
    let rows = load.await.map_err(IntoGraphql::into_graphql)?;
    Ok(rows.into_iter().map(ScalingGroup).collect())
}

async fn presets(asker: &Asker) -> Result<Vec<ResourcePreset>> {
    let load = async {
        let db = asker.app.datastore.autocommit().await?;
        db.presets().await
    };
    let rows = load.await.map_err(IntoGraphql::into_graphql)?;
    Ok(rows.into_iter().map(ResourcePreset).collect())
}
