//! Queries about sessions, agents and images.

use async_graphql::{Context, Error, Object, Result};
use backendai_datastore::agent_list_view::{AGENT_FIELDS, AgentScope};
use backendai_datastore::list_view::Slice;
use backendai_datastore::session_list_view::{SESSION_FIELDS, SessionScope};
use backendai_types::{AccessKey, AgentId, GroupId, SessionId};

use super::super::agent::{Agent, AgentList};
use super::super::guard::{self, IntoGraphql};
use super::super::image::Image;
use super::super::scalars::Uuid;
use super::super::session::{ComputeSession, ComputeSessionList};
use super::{own_key, parse_agent_statuses, parse_statuses, slice};

/// Agents that the unpaginated query shows at most.
const MAX_AGENTS: i64 = 10_000;

/// Queries about sessions, agents and images.
#[derive(Default)]
pub struct ClusterQueries;

/// Queries about sessions, agents and images.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ClusterQueries {
    async fn agent(&self, ctx: &Context<'_>, agent_id: String) -> Result<Option<Agent>> {
        let asker = guard::admit(ctx)?;
        let scope = AgentScope { id: Some(AgentId(agent_id)), ..AgentScope::default() };
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.agent_page(&scope, &Slice::first(1)).await
        };
        let page = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(Agent::together(&asker.app, page.items).pop())
    }

    async fn agents(
        &self,
        ctx: &Context<'_>,
        scaling_group: Option<String>,
        status: Option<String>,
    ) -> Result<Option<Vec<Option<Agent>>>> {
        let asker = guard::admit(ctx)?;
        let statuses = status.map(|text| parse_agent_statuses(&text)).transpose()?;
        let scope = AgentScope {
            scaling_group,
            statuses: statuses.unwrap_or_default(),
            ..AgentScope::default()
        };
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.agent_page(&scope, &Slice::first(MAX_AGENTS)).await
        };
        let page = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(Some(Agent::together(&asker.app, page.items).into_iter().map(Some).collect()))
    }

    #[expect(clippy::too_many_arguments, reason = "they are the query's own")]
    async fn agent_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        filter: Option<String>,
        order: Option<String>,
        scaling_group: Option<String>,
        status: Option<String>,
    ) -> Result<Option<AgentList>> {
        let asker = guard::admit(ctx)?;
        let slice = slice(limit, offset, filter, order, AGENT_FIELDS)?;
        let statuses = status.map(|text| parse_agent_statuses(&text)).transpose()?;
        let scope = AgentScope {
            scaling_group,
            statuses: statuses.unwrap_or_default(),
            ..AgentScope::default()
        };
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.agent_page(&scope, &slice).await
        };
        let page = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(Some(AgentList::new(&asker.app, page)))
    }

    async fn image(
        &self,
        ctx: &Context<'_>,
        reference: String,
        #[graphql(default_with = "Some(\"x86_64\".to_owned())")] architecture: Option<String>,
    ) -> Result<Option<Image>> {
        let asker = guard::admit(ctx)?;
        let architecture = architecture.as_deref().unwrap_or("x86_64");
        Image::named(asker, &reference, architecture).await.map(Some)
    }

    /// `is_operation: false` means all images, as clients send it for that.
    async fn images(
        &self,
        ctx: &Context<'_>,
        is_installed: Option<bool>,
        is_operation: Option<bool>,
    ) -> Result<Option<Vec<Option<Image>>>> {
        let asker = guard::admit(ctx)?;
        let mut images = Image::visible(asker).await?;
        if let Some(wanted) = is_installed {
            images.retain(|image| image.is_installed() == wanted);
        }
        if is_operation == Some(true) {
            images.retain(Image::is_operation);
        }
        Ok(Some(images.into_iter().map(Some).collect()))
    }

    async fn compute_session(
        &self,
        ctx: &Context<'_>,
        id: Uuid,
        domain_name: Option<String>,
        access_key: Option<String>,
    ) -> Result<Option<ComputeSession>> {
        let (asker, scope) = guard::scope(ctx, domain_name, access_key, own_key)?;
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.session_views(&[SessionId(id.0)]).await
        };
        let mut rows = load.await.map_err(IntoGraphql::into_graphql)?;
        rows.retain(|row| {
            scope.domain.as_ref().is_none_or(|domain| *domain == row.domain_name)
                && scope.owner.as_ref().is_none_or(|owner| owner == row.access_key.as_str())
        });
        Ok(ComputeSession::together(&asker.app, rows).pop())
    }

    #[expect(clippy::too_many_arguments, reason = "they are the query's own")]
    async fn compute_session_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        filter: Option<String>,
        order: Option<String>,
        domain_name: Option<String>,
        group_id: Option<String>,
        access_key: Option<String>,
        status: Option<String>,
    ) -> Result<Option<ComputeSessionList>> {
        let (asker, scope) = guard::scope(ctx, domain_name, access_key, own_key)?;
        let slice = slice(limit, offset, filter, order, SESSION_FIELDS)?;
        let group_id = group_id
            .map(|text| text.parse::<GroupId>().map_err(|_| Error::new("group_id: not a UUID")))
            .transpose()?;
        let statuses = status.map(|text| parse_statuses(&text)).transpose()?.unwrap_or_default();
        let scope = SessionScope {
            domain_name: scope.domain,
            group_id,
            access_key: scope.owner.map(AccessKey),
            statuses,
        };
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.session_page(&scope, &slice).await
        };
        let page = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(Some(ComputeSessionList::new(&asker.app, page)))
    }
}
