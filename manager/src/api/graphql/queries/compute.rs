//! Queries about kernels, and about agents as users see them.

use async_graphql::{Context, Error, ID, Object, Result};
use backendai_datastore::agent_list_view::{AGENT_SUMMARY_FIELDS, AgentScope};
use backendai_datastore::kernel_list_view::{KERNEL_FIELDS, KernelScope};
use backendai_datastore::list_view::{Page, Slice};
use backendai_types::{AgentId, KernelId, SessionId};

use super::super::agent_summary::{AgentSummary, AgentSummaryList};
use super::super::container::{ComputeContainer, ComputeContainerList};
use super::super::guard::{self, Asker, IntoGraphql, Scope};
use super::super::scalars::Uuid;
use super::{own_key, parse_agent_statuses, slice};

/// Queries about kernels, and about agents as users see them.
#[derive(Default)]
pub struct ComputeQueries;

/// Queries about kernels, and about agents as users see them.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ComputeQueries {
    async fn compute_container(
        &self,
        ctx: &Context<'_>,
        id: Uuid,
        domain_name: Option<String>,
        access_key: Option<String>,
    ) -> Result<Option<ComputeContainer>> {
        let (asker, scope) = guard::scope(ctx, domain_name, access_key, own_key)?;
        let scope = KernelScope {
            id: Some(KernelId(id.0)),
            domain_name: scope.domain,
            access_key: scope.owner,
            ..KernelScope::default()
        };
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.kernel_page(&scope, &Slice::first(1)).await
        };
        let page = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(ComputeContainer::together(&asker.app, page.items).pop())
    }

    #[expect(clippy::too_many_arguments, reason = "they are the query's own")]
    async fn compute_container_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        filter: Option<String>,
        order: Option<String>,
        session_id: ID,
        role: Option<String>,
        domain_name: Option<String>,
        access_key: Option<String>,
    ) -> Result<Option<ComputeContainerList>> {
        let (asker, scope) = guard::scope(ctx, domain_name, access_key, own_key)?;
        let slice = slice(limit, offset, filter, order, KERNEL_FIELDS)?;
        let session: SessionId =
            session_id.parse().map_err(|_| Error::new("session_id: not a UUID"))?;
        let scope = KernelScope {
            id: None,
            session_id: Some(session),
            cluster_role: role,
            domain_name: scope.domain,
            access_key: scope.owner,
        };
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.kernel_page(&scope, &slice).await
        };
        let page = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(Some(ComputeContainerList::new(&asker.app, page)))
    }

    /// One of the agents whose scaling group the caller may use.
    async fn agent_summary(
        &self,
        ctx: &Context<'_>,
        agent_id: String,
        domain_name: Option<String>,
        access_key: Option<String>,
    ) -> Result<Option<AgentSummary>> {
        let (asker, scope) = guard::scope(ctx, domain_name, access_key, own_key)?;
        let agents = AgentScope { id: Some(AgentId(agent_id)), ..AgentScope::default() };
        let page = summaries(asker, scope, agents, &Slice::first(1)).await?;
        let found = page.items.into_iter().next().map(AgentSummary);
        found.map(Some).ok_or_else(|| Error::new("No such agent."))
    }

    /// The agents whose scaling groups the caller may use.
    #[expect(clippy::too_many_arguments, reason = "they are the query's own")]
    async fn agent_summary_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        filter: Option<String>,
        order: Option<String>,
        scaling_group: Option<String>,
        status: Option<String>,
        domain_name: Option<String>,
        access_key: Option<String>,
    ) -> Result<Option<AgentSummaryList>> {
        let (asker, scope) = guard::scope(ctx, domain_name, access_key, own_key)?;
        let slice = slice(limit, offset, filter, order, AGENT_SUMMARY_FIELDS)?;
        let statuses = status.map(|text| parse_agent_statuses(&text)).transpose()?;
        let agents = AgentScope {
            scaling_group,
            statuses: statuses.unwrap_or_default(),
            ..AgentScope::default()
        };
        Ok(Some(AgentSummaryList(summaries(asker, scope, agents, &slice).await?)))
    }
}

async fn summaries(
    asker: &Asker,
    scope: Scope,
    agents: AgentScope,
    slice: &Slice,
) -> Result<Page<backendai_datastore::agent_list_view::AgentView>> {
    if asker.app.config.manager.hide_agents && !asker.context.is_superadmin() {
        return Err(Error::new("No such agent."));
    }
    let key = scope.owner.unwrap_or_else(|| own_key(&asker.context));
    let agents = AgentScope { usable_with: Some(key), ..agents };
    let load = async {
        let db = asker.app.datastore.autocommit().await?;
        db.agent_page(&agents, slice).await
    };
    load.await.map_err(IntoGraphql::into_graphql)
}
