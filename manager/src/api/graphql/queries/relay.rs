//! Queries in the form that Relay reads: by global ids, and page by page with cursors.

use async_graphql::{Context, Error, ID, Object, Result};
use backendai_datastore::identity_view::{GroupScope, UserScope};
use backendai_datastore::list_view::Slice;
use backendai_types::{GroupId, UserId};

use super::super::container_registry::ContainerRegistry;
use super::super::guard::{self, Asker, IntoGraphql};
use super::super::node;
use super::super::relay::{
    GroupConnection, GroupNode, Node, UserConnection, UserNode, Window, group_connection,
    user_connection, user_page,
};
use crate::app;

/// Queries in the form that Relay reads.
#[derive(Default)]
pub struct RelayQueries;

/// Queries in the form that Relay reads.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl RelayQueries {
    /// A user, a group or a container registry, by its global id.
    async fn node(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Node>> {
        let asker = guard::admit(ctx)?;
        let (kind, id) = node::parse(&id)?;
        match kind.as_str() {
            "UserNode" => Ok(user(asker, &id).await?.map(Node::User)),
            "GroupNode" => Ok(group(asker, &id).await?.map(Node::Group)),
            "ContainerRegistry" => Ok(registry(asker, &id).await?.map(Node::Registry)),
            _ => Ok(None),
        }
    }

    async fn user_node(&self, ctx: &Context<'_>, id: String) -> Result<Option<UserNode>> {
        let asker = guard::admit(ctx)?;
        user(asker, &node::of_kind(&id, "UserNode")?).await
    }

    #[expect(clippy::too_many_arguments, reason = "they are the query's own")]
    async fn user_nodes(
        &self,
        ctx: &Context<'_>,
        filter: Option<String>,
        order: Option<String>,
        offset: Option<i32>,
        before: Option<String>,
        after: Option<String>,
        first: Option<i32>,
        last: Option<i32>,
    ) -> Result<Option<UserConnection>> {
        let asker = guard::admit(ctx)?;
        let window = Window { offset, before, after, first, last };
        let scope = UserScope { domain_name: domain(asker), ..UserScope::default() };
        user_connection(asker, &scope, filter, order, &window).await.map(Some)
    }

    async fn group_node(&self, ctx: &Context<'_>, id: String) -> Result<Option<GroupNode>> {
        let asker = guard::admit(ctx)?;
        group(asker, &node::of_kind(&id, "GroupNode")?).await
    }

    /// Filters and orders are refused: groups have none.
    #[expect(clippy::too_many_arguments, reason = "they are the query's own")]
    async fn group_nodes(
        &self,
        ctx: &Context<'_>,
        filter: Option<String>,
        order: Option<String>,
        offset: Option<i32>,
        before: Option<String>,
        after: Option<String>,
        first: Option<i32>,
        last: Option<i32>,
    ) -> Result<Option<GroupConnection>> {
        let asker = guard::admit(ctx)?;
        if [filter, order].into_iter().flatten().any(|text| !text.trim().is_empty()) {
            return Err(Error::new("Groups can be neither filtered nor ordered."));
        }
        let window = Window { offset, before, after, first, last };
        let scope = GroupScope { domain_name: domain(asker), ..GroupScope::default() };
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.group_views(&scope).await
        };
        let groups = load.await.map_err(IntoGraphql::into_graphql)?;
        group_connection(groups, &window).map(Some)
    }
}

/// Superadmins see all domains, others their own.
fn domain(asker: &Asker) -> Option<String> {
    (!asker.context.is_superadmin()).then(|| asker.context.domain_name.clone())
}

async fn user(asker: &Asker, id: &str) -> Result<Option<UserNode>> {
    let id: UserId = id.parse().map_err(|_| Error::new("id: not a UUID"))?;
    let scope = UserScope { id: Some(id), domain_name: domain(asker), ..UserScope::default() };
    let page = user_page(asker, &scope, &Slice::first(1)).await?;
    Ok(page.items.into_iter().next().map(Into::into))
}

async fn group(asker: &Asker, id: &str) -> Result<Option<GroupNode>> {
    let id: GroupId = id.parse().map_err(|_| Error::new("id: not a UUID"))?;
    let scope = GroupScope { id: Some(id), domain_name: domain(asker), ..GroupScope::default() };
    let load = async {
        let db = asker.app.datastore.autocommit().await?;
        db.group_views(&scope).await
    };
    Ok(load.await.map_err(IntoGraphql::into_graphql)?.pop().map(Into::into))
}

/// Registries are for superadmins; to others they are absent.
async fn registry(asker: &Asker, name: &str) -> Result<Option<ContainerRegistry>> {
    if !asker.context.is_superadmin() {
        return Ok(None);
    }
    let found = asker.app.shared.registries().await.map_err(app::Error::from);
    let found = found.map_err(IntoGraphql::into_graphql)?;
    Ok(found.get(name).cloned().map(ContainerRegistry))
}
