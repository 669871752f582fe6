//! `KeyPair`.

use async_graphql::{Context, ID, Object, Result, SimpleObject};
use backendai_datastore::keypair_view::KeypairView;
use backendai_datastore::list_view::{Page, Slice};
use backendai_datastore::session_list_view::SessionScope;
use backendai_datastore::vfolder_view::VfolderScope;
use backendai_types::SessionStatus;
use tokio::sync::OnceCell;

use super::guard::{self, Asker, IntoGraphql};
use super::queries::parse_statuses;
use super::scalars::{DateTime, Uuid};
use super::session::ComputeSession;
use super::vfolder::VirtualFolder;
use crate::api::ratelimit::{KeyUse, key_use};
use crate::context::Role;

/// Sessions that a keypair shows at most, and folders.
const MAX_SHOWN: i64 = 100;

/// A keypair.
pub struct Keypair {
    row: KeypairView,
    shows_secret: bool,
    used: OnceCell<Option<KeyUse>>,
}

/// A page of keypairs.
pub struct KeypairList {
    items: Vec<Keypair>,
    total: i64,
}

impl KeypairList {
    /// A page as the asker may see it.
    pub fn new(asker: &Asker, page: Page<KeypairView>) -> Self {
        let items = page.items.into_iter().map(|row| Keypair::new(asker, row)).collect();
        Self { items, total: page.total }
    }
}

/// A page of keypairs.
#[Object(name = "KeyPairList", rename_fields = "snake_case")]
impl KeypairList {
    async fn items(&self) -> Vec<Option<&Keypair>> {
        self.items.iter().map(Some).collect()
    }

    async fn total_count(&self) -> i32 {
        i32::try_from(self.total).unwrap_or(i32::MAX)
    }
}

/// Who a keypair's user is.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
struct UserInfo {
    email: Option<String>,
    full_name: Option<String>,
}

impl Keypair {
    /// A keypair as the asker may see it: not the secret of somebody with a higher role.
    pub fn new(asker: &Asker, row: KeypairView) -> Self {
        let shows_secret = asker.context.is_superadmin()
            || asker.context.access_key == row.access_key
            || (asker.context.role == Role::Admin && row.role != Role::Superadmin.as_str());
        Self { row, shows_secret, used: OnceCell::new() }
    }

    async fn key_use(&self, ctx: &Context<'_>) -> Result<Option<KeyUse>> {
        let asker = guard::asker(ctx)?;
        let read = || key_use(&asker.app.redis, self.row.access_key.as_str());
        Ok(*self.used.get_or_init(read).await)
    }
}

/// A keypair.
#[Object(name = "KeyPair", rename_fields = "snake_case", rename_args = "snake_case")]
impl Keypair {
    async fn id(&self) -> Option<ID> {
        Some(self.row.access_key.0.clone().into())
    }

    async fn user_id(&self) -> Option<&str> {
        Some(&self.row.email)
    }

    async fn full_name(&self) -> Option<&str> {
        self.row.full_name.as_deref()
    }

    async fn access_key(&self) -> Option<&str> {
        Some(self.row.access_key.as_str())
    }

    async fn secret_key(&self) -> Option<&str> {
        self.shows_secret.then_some(self.row.secret_key.as_str())
    }

    async fn is_active(&self) -> Option<bool> {
        Some(self.row.is_active)
    }

    async fn is_admin(&self) -> Option<bool> {
        Some(self.row.is_admin)
    }

    async fn resource_policy(&self) -> Option<&str> {
        Some(&self.row.resource_policy)
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(self.row.created_at.into())
    }

    async fn last_used(&self, ctx: &Context<'_>) -> Result<Option<DateTime>> {
        let used = self.key_use(ctx).await?;
        Ok(used.map(|used| used.last).or(self.row.last_used).map(Into::into))
    }

    async fn rate_limit(&self) -> Option<i32> {
        Some(self.row.rate_limit)
    }

    async fn num_queries(&self, ctx: &Context<'_>) -> Result<Option<i32>> {
        let calls = self.key_use(ctx).await?.map_or(0, |used| used.calls);
        Ok(Some(self.row.num_queries.saturating_add(i32::try_from(calls).unwrap_or(i32::MAX))))
    }

    async fn user(&self) -> Option<Uuid> {
        Some(Uuid(self.row.user_id.0))
    }

    async fn projects(&self) -> Option<Vec<Option<&str>>> {
        Some(self.row.projects.iter().map(|name| Some(name.as_str())).collect())
    }

    async fn ssh_public_key(&self) -> Option<&str> {
        self.row.ssh_public_key.as_deref()
    }

    async fn compute_sessions(
        &self,
        ctx: &Context<'_>,
        status: Option<String>,
    ) -> Result<Option<Vec<Option<ComputeSession>>>> {
        let asker = guard::asker(ctx)?;
        let statuses = match status {
            Some(text) => parse_statuses(&text)?,
            None => SessionStatus::ALL.iter().copied().filter(|s| !s.is_terminal()).collect(),
        };
        let scope = SessionScope {
            access_key: Some(self.row.access_key.clone()),
            statuses,
            ..SessionScope::default()
        };
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.session_page(&scope, &Slice::first(MAX_SHOWN)).await
        };
        let page = load.await.map_err(IntoGraphql::into_graphql)?;
        let sessions = ComputeSession::together(&asker.app, page.items);
        Ok(Some(sessions.into_iter().map(Some).collect()))
    }

    /// The folders of its user.
    async fn vfolders(&self, ctx: &Context<'_>) -> Result<Option<Vec<Option<VirtualFolder>>>> {
        let asker = guard::asker(ctx)?;
        let scope = VfolderScope { user: Some(self.row.user_id), ..VfolderScope::default() };
        let load = async {
            let db = asker.app.datastore.autocommit().await?;
            db.vfolder_page(&scope, &Slice::first(MAX_SHOWN)).await
        };
        let page = load.await.map_err(IntoGraphql::into_graphql)?;
        Ok(Some(page.items.into_iter().map(VirtualFolder).map(Some).collect()))
    }

    /// The resource policy says it.
    #[graphql(deprecation = "use max_concurrent_sessions of the resource policy")]
    async fn concurrency_limit(&self) -> Option<i32> {
        None
    }

    async fn concurrency_used(&self) -> Option<i32> {
        i32::try_from(self.row.concurrency_used).ok()
    }

    async fn user_info(&self) -> Option<UserInfo> {
        Some(UserInfo {
            email: Some(self.row.email.clone()),
            full_name: Some(self.row.full_name.clone().unwrap_or_default()),
        })
    }
}
