//! Keypairs with what their users are called.

use backendai_types::{AccessKey, UserId};
use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::error::Result;
use crate::list_view::{Field, Kind, Page, Slice, Sql};
use crate::tx::Transaction;

/// A keypair as its owner and administrators see it.
#[derive(Clone)]
pub struct KeypairView {
    /// The public half.
    pub access_key: AccessKey,
    /// The secret half. Never logged.
    pub secret_key: String,
    /// Whether it may be used.
    pub is_active: bool,
    /// True for administrators' keypairs.
    pub is_admin: bool,
    /// Name of its resource policy.
    pub resource_policy: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last used.
    pub last_used: Option<DateTime<Utc>>,
    /// Calls in a rolling window of 900 s.
    pub rate_limit: i32,
    /// Calls so far.
    pub num_queries: i32,
    /// OpenSSH form.
    pub ssh_public_key: Option<String>,
    /// Its user.
    pub user_id: UserId,
    /// The user's e-mail address.
    pub email: String,
    /// The user's name.
    pub full_name: Option<String>,
    /// The user's role, as SQL spells it.
    pub role: String,
    /// Names of the user's groups.
    pub projects: Vec<String>,
    /// Sessions that count against its limit.
    pub concurrency_used: i64,
}

/// Which keypairs.
#[derive(Clone, Debug, Default)]
pub struct KeypairScope {
    /// Only this one.
    pub access_key: Option<String>,
    /// Only of this domain's users.
    pub domain_name: Option<String>,
    /// Only of the user with this address.
    pub email: Option<String>,
    /// Only active or inactive ones.
    pub is_active: Option<bool>,
}

const PROJECTS: &str = "ARRAY(SELECT g.name FROM association_groups_users m \
    JOIN groups g ON g.id = m.group_id WHERE m.user_id = u.uuid ORDER BY g.name)::text[]";

/// What keypairs can be filtered and ordered by. `user_id` compares the user's id, although
/// the field of that name shows the address: so does the product.
pub static KEYPAIR_FIELDS: &[Field] = &[
    Field::new("access_key", "k.access_key", Kind::Text),
    Field::new("user_id", "u.uuid", Kind::Uuid).filter_only(),
    Field::new("email", "u.email", Kind::Text),
    Field::new("full_name", "u.full_name", Kind::Text),
    Field::new("is_active", "k.is_active", Kind::Bool),
    Field::new("is_admin", "k.is_admin", Kind::Bool),
    Field::new("resource_policy", "k.resource_policy", Kind::Text),
    Field::new("created_at", "k.created_at", Kind::Date),
    Field::new("last_used", "k.last_used", Kind::Date),
    Field::new("rate_limit", "k.rate_limit", Kind::Int),
    Field::new("num_queries", "k.num_queries", Kind::Int),
    Field::new("ssh_public_key", "k.ssh_public_key", Kind::Text).filter_only(),
    Field::new("projects", PROJECTS, Kind::Text).array(),
];

const COLUMNS: &str = "SELECT k.access_key, k.secret_key, k.is_active, k.is_admin, \
    k.resource_policy, k.created_at, k.last_used, k.rate_limit, k.num_queries, \
    k.ssh_public_key, u.uuid, u.email, u.full_name, u.role, \
    (SELECT count(*) FROM sessions s WHERE s.access_key = k.access_key AND NOT s.is_private \
        AND s.status NOT IN ('TERMINATED', 'CANCELLED') \
        AND s.status NOT IN ('PENDING', 'TERMINATING')) AS concurrency_used, ";
const FROM: &str = " FROM keypairs k JOIN users u ON u.uuid = k.\"user\"";

impl Transaction {
    /// A keypair, if its user is of this domain (or of any).
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn keypair_view(
        &self,
        access_key: &str,
        domain: Option<&str>,
    ) -> Result<Option<KeypairView>> {
        let scope = KeypairScope {
            access_key: Some(access_key.to_owned()),
            domain_name: domain.map(str::to_owned),
            ..KeypairScope::default()
        };
        Ok(self.keypair_page(&scope, &Slice::first(1)).await?.items.pop())
    }

    /// A page of keypairs, the newest first unless asked otherwise.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn keypair_page(
        &self,
        scope: &KeypairScope,
        slice: &Slice,
    ) -> Result<Page<KeypairView>> {
        let mut sql = Sql::new("-- keypair_page\n");
        sql.push(COLUMNS).push(PROJECTS).push(" AS projects").push(FROM);
        restrict(&mut sql, scope, slice);
        sql.slice(slice, "k.created_at DESC, k.access_key", "k.access_key");
        let items = self
            .query_built(&sql, slice.is_custom())
            .await?
            .iter()
            .map(KeypairView::from_row)
            .collect::<Result<Vec<_>>>()?;
        let total = match (slice.total_if_last(items.len()), &scope.access_key) {
            (Some(total), _) => total,
            // There is no second keypair of this key.
            (None, Some(_)) => items.len() as i64,
            (None, None) => {
                let mut sql = Sql::new("-- keypair_count\nSELECT count(*)");
                sql.push(FROM);
                restrict(&mut sql, scope, slice);
                self.count_built(&sql, slice.is_custom()).await?
            }
        };
        Ok(Page { items, total })
    }
}

fn restrict(sql: &mut Sql, scope: &KeypairScope, slice: &Slice) {
    sql.push(" WHERE true");
    if let Some(key) = &scope.access_key {
        sql.push(" AND k.access_key = ").bind(key.clone(), Type::TEXT);
    }
    if let Some(domain) = &scope.domain_name {
        sql.push(" AND u.domain_name = ").bind(domain.clone(), Type::TEXT);
    }
    if let Some(email) = &scope.email {
        sql.push(" AND u.email = ").bind(email.clone(), Type::TEXT);
    }
    if let Some(is_active) = scope.is_active {
        sql.push(" AND k.is_active = ").bind(is_active, Type::BOOL);
    }
    if let Some(condition) = &slice.filter {
        sql.push(" AND ");
        sql.condition(condition);
    }
}

impl KeypairView {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            access_key: AccessKey(row.try_get("access_key")?),
            secret_key: row.try_get("secret_key")?,
            is_active: row.try_get("is_active")?,
            is_admin: row.try_get("is_admin")?,
            resource_policy: row.try_get("resource_policy")?,
            created_at: row.try_get("created_at")?,
            last_used: row.try_get("last_used")?,
            rate_limit: row.try_get("rate_limit")?,
            num_queries: row.try_get("num_queries")?,
            ssh_public_key: row.try_get("ssh_public_key")?,
            user_id: UserId(row.try_get("uuid")?),
            email: row.try_get("email")?,
            full_name: row.try_get("full_name")?,
            role: row.try_get("role")?,
            projects: row.try_get("projects")?,
            concurrency_used: row.try_get("concurrency_used")?,
        })
    }
}
