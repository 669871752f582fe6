//! Queries about domains, groups, users and keypairs.

use async_graphql::{Context, Error, ID, Object, Result};
use backendai_datastore::identity_view::{GroupScope, USER_FIELDS, UserScope};
use backendai_datastore::keypair_view::{KEYPAIR_FIELDS, KeypairScope};
use backendai_datastore::list_view::Slice;
use backendai_types::{GroupId, UserId};

use super::super::guard::{self, Asker, IntoGraphql};
use super::super::identity::{Domain, Group, User, UserList};
use super::super::keypair::{Keypair, KeypairList};
use super::super::scalars::Uuid;
use super::{own_email, own_key, slice};
use crate::context::Role;

/// Rows of the older queries that have no pages.
const MAX_UNPAGED: i64 = 100;

/// Queries about domains, groups, users and keypairs.
#[derive(Default)]
pub struct PeopleQueries;

/// Queries about domains, groups, users and keypairs.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl PeopleQueries {
    /// The caller's own domain if none is named; another's is absent.
    async fn domain(&self, ctx: &Context<'_>, name: Option<String>) -> Result<Option<Domain>> {
        let asker = guard::admit(ctx)?;
        let name = name.unwrap_or_else(|| asker.context.domain_name.clone());
        if !asker.context.is_superadmin() && name != asker.context.domain_name {
            return Err(Error::new("No such domain."));
        }
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.domain_views(Some(&name), None).await
        };
        Ok(load.await.map_err(IntoGraphql::into_graphql)?.pop().map(Domain))
    }

    async fn domains(
        &self,
        ctx: &Context<'_>,
        is_active: Option<bool>,
    ) -> Result<Option<Vec<Option<Domain>>>> {
        let asker = guard::admit(ctx)?;
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.domain_views(None, is_active).await
        };
        let rows = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(Some(rows.into_iter().map(Domain).map(Some).collect()))
    }

    async fn group(
        &self,
        ctx: &Context<'_>,
        id: Uuid,
        domain_name: Option<String>,
    ) -> Result<Option<Group>> {
        let asker = guard::admit(ctx)?;
        let scope = GroupScope { id: Some(GroupId(id.0)), domain_name, ..GroupScope::default() };
        let found = groups(asker, within_role(asker, scope)).await?.pop();
        match (found, asker.context.role) {
            (None, Role::User | Role::Monitor) => Err(Error::new("Insufficient privilege.")),
            (found, _) => Ok(found),
        }
    }

    async fn groups_by_name(
        &self,
        ctx: &Context<'_>,
        name: String,
        domain_name: Option<String>,
    ) -> Result<Option<Vec<Option<Group>>>> {
        let asker = guard::admit(ctx)?;
        let scope = GroupScope { name: Some(name), domain_name, ..GroupScope::default() };
        let found = groups(asker, within_role(asker, scope)).await?;
        Ok(Some(found.into_iter().map(Some).collect()))
    }

    async fn groups(
        &self,
        ctx: &Context<'_>,
        domain_name: Option<String>,
        is_active: Option<bool>,
    ) -> Result<Option<Vec<Option<Group>>>> {
        let asker = guard::admit(ctx)?;
        let scope = GroupScope { domain_name, is_active, ..GroupScope::default() };
        let found = groups(asker, within_role(asker, scope)).await?;
        Ok(Some(found.into_iter().map(Some).collect()))
    }

    async fn user(
        &self,
        ctx: &Context<'_>,
        domain_name: Option<String>,
        email: Option<String>,
    ) -> Result<Option<User>> {
        let (asker, scope) = guard::scope(ctx, domain_name, email, own_email)?;
        let email = scope.owner.unwrap_or_else(|| own_email(&asker.context));
        let scope =
            UserScope { email: Some(email), domain_name: scope.domain, ..UserScope::default() };
        Ok(users(asker, &scope, &Slice::first(1)).await?.0.items.pop().map(User))
    }

    async fn user_from_uuid(
        &self,
        ctx: &Context<'_>,
        domain_name: Option<String>,
        user_id: Option<ID>,
    ) -> Result<Option<User>> {
        let own = |context: &crate::context::RequestContext| context.user_id.to_string();
        // Ids compare as ids, however they are spelled.
        let wanted = user_id
            .map(|id| id.parse::<UserId>().map(|id| id.to_string()))
            .transpose()
            .map_err(|_| Error::new("user_id: not a UUID"))?;
        let (asker, scope) = guard::scope(ctx, domain_name, wanted, own)?;
        let id = scope.owner.and_then(|id| id.parse().ok()).unwrap_or(asker.context.user_id);
        let scope = UserScope { id: Some(id), domain_name: scope.domain, ..UserScope::default() };
        Ok(users(asker, &scope, &Slice::first(1)).await?.0.items.pop().map(User))
    }

    async fn users(
        &self,
        ctx: &Context<'_>,
        domain_name: Option<String>,
        group_id: Option<Uuid>,
        is_active: Option<bool>,
        status: Option<String>,
    ) -> Result<Option<Vec<Option<User>>>> {
        let (asker, scope) = people_scope(ctx, domain_name, group_id, is_active, status)?;
        let page = users(asker, &scope, &Slice::first(MAX_UNPAGED)).await?;
        Ok(Some(page.0.items.into_iter().map(User).map(Some).collect()))
    }

    #[expect(clippy::too_many_arguments, reason = "they are the query's own")]
    async fn user_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        filter: Option<String>,
        order: Option<String>,
        domain_name: Option<String>,
        group_id: Option<Uuid>,
        is_active: Option<bool>,
        status: Option<String>,
    ) -> Result<Option<UserList>> {
        let (asker, scope) = people_scope(ctx, domain_name, group_id, is_active, status)?;
        let slice = slice(limit, offset, filter, order, USER_FIELDS)?;
        users(asker, &scope, &slice).await.map(Some)
    }

    async fn keypair(
        &self,
        ctx: &Context<'_>,
        domain_name: Option<String>,
        access_key: Option<String>,
    ) -> Result<Option<Keypair>> {
        let (asker, scope) = guard::scope(ctx, domain_name, access_key, own_key)?;
        let access_key = scope.owner.unwrap_or_else(|| own_key(&asker.context));
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.keypair_view(&access_key, scope.domain.as_deref()).await
        };
        let row = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(row.map(|row| Keypair::new(asker, row)))
    }

    async fn keypairs(
        &self,
        ctx: &Context<'_>,
        domain_name: Option<String>,
        email: Option<String>,
        is_active: Option<bool>,
    ) -> Result<Option<Vec<Option<Keypair>>>> {
        let (asker, scope) = guard::scope(ctx, domain_name, email, own_email)?;
        let scope = KeypairScope {
            access_key: None,
            domain_name: scope.domain,
            email: scope.owner,
            is_active,
        };
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.keypair_page(&scope, &Slice::first(MAX_UNPAGED)).await
        };
        let page = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(Some(page.items.into_iter().map(|row| Some(Keypair::new(asker, row))).collect()))
    }

    #[expect(clippy::too_many_arguments, reason = "they are the query's own")]
    async fn keypair_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        filter: Option<String>,
        order: Option<String>,
        domain_name: Option<String>,
        email: Option<String>,
        is_active: Option<bool>,
    ) -> Result<Option<KeypairList>> {
        let (asker, scope) = guard::scope(ctx, domain_name, email, own_email)?;
        let slice = slice(limit, offset, filter, order, KEYPAIR_FIELDS)?;
        let scope = KeypairScope {
            access_key: None,
            domain_name: scope.domain,
            email: scope.owner,
            is_active,
        };
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.keypair_page(&scope, &slice).await
        };
        let page = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(Some(KeypairList::new(asker, page)))
    }
}

/// Administrators see the groups of their domain, users those they belong to.
fn within_role(asker: &Asker, scope: GroupScope) -> GroupScope {
    match asker.context.role {
        Role::Superadmin => scope,
        Role::Admin => GroupScope { domain_name: Some(asker.context.domain_name.clone()), ..scope },
        Role::User | Role::Monitor => GroupScope {
            domain_name: Some(asker.context.domain_name.clone()),
            member: Some(asker.context.user_id),
            ..scope
        },
    }
}

async fn groups(asker: &Asker, scope: GroupScope) -> Result<Vec<Group>> {
    let load = async {
        let db = asker.app.datastore.autocommit().await?;
        db.group_views(&scope).await
    };
    let rows = load.await.map_err(IntoGraphql::into_graphql)?;
    Ok(rows.into_iter().map(Group).collect())
}

/// Lists of users are for administrators: superadmins see all, others their domain.
fn people_scope<'a>(
    ctx: &Context<'a>,
    domain_name: Option<String>,
    group_id: Option<Uuid>,
    is_active: Option<bool>,
    status: Option<String>,
) -> Result<(&'a Asker, UserScope)> {
    let (asker, scope) = guard::scope(ctx, domain_name, None, own_email)?;
    let scope = UserScope {
        domain_name: scope.domain,
        group_id: group_id.map(|id| GroupId(id.0)),
        is_active,
        status,
        ..UserScope::default()
    };
    Ok((asker, scope))
}

async fn users(asker: &Asker, scope: &UserScope, slice: &Slice) -> Result<UserList> {
    let load = async {
        let db = asker.app.datastore.autocommit().await?;
        db.user_page(scope, slice).await
    };
    load.await.map(UserList).map_err(IntoGraphql::into_graphql)
}
