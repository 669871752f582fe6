//! Who did what to whom, when, from where, and what came of it.

use backendai_types::UserId;
use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::error::Result;
use crate::list_view::{Field, Kind, Page, Slice, Sql};
use crate::tx::Transaction;

/// One thing that was done or tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Names the request in logs.
    pub request_id: String,
    /// Who; `None` for callers who did not sign.
    pub user_id: Option<UserId>,
    /// The user's e-mail address.
    pub email: Option<String>,
    /// The user's domain.
    pub domain_name: Option<String>,
    /// The keypair that signed.
    pub access_key: Option<String>,
    /// The address it came from.
    pub client: Option<String>,
    /// A GraphQL mutation, or method and path of a route.
    pub operation: String,
    /// What it was done to, as the caller named it.
    pub target: String,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// Why it was refused or failed, as the caller was told.
    pub message: String,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOutcome {
    /// It was done.
    Success,
    /// The caller may not, or what it asked for makes no sense.
    Refused,
    /// Something broke.
    Failed,
}

impl AuditOutcome {
    /// The spelling in SQL and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// An entry as administrators see it.
#[derive(Clone, Debug)]
pub struct AuditView {
    /// Its number; later ones are higher.
    pub seq: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// What.
    pub request_id: String,
    /// Who.
    pub user_id: Option<UserId>,
    /// The user's e-mail address.
    pub email: Option<String>,
    /// The user's domain.
    pub domain_name: Option<String>,
    /// The keypair that signed.
    pub access_key: Option<String>,
    /// The address it came from.
    pub client: Option<String>,
    /// A GraphQL mutation, or method and path of a route.
    pub operation: String,
    /// What it was done to.
    pub target: String,
    /// `success`, `refused` or `failed`.
    pub outcome: String,
    /// Why.
    pub message: String,
}

/// What entries can be filtered and ordered by.
pub static AUDIT_FIELDS: &[Field] = &[
    Field::new("at", "a.at", Kind::Date),
    Field::new("request_id", "a.request_id", Kind::Text),
    Field::new("user_id", "a.user_uuid", Kind::Uuid),
    Field::new("email", "a.email", Kind::Text),
    Field::new("domain_name", "a.domain_name", Kind::Text),
    Field::new("access_key", "a.access_key", Kind::Text),
    Field::new("client", "a.client", Kind::Text),
    Field::new("operation", "a.operation", Kind::Text),
    Field::new("target", "a.target", Kind::Text),
    Field::new("outcome", "a.outcome", Kind::Text),
    Field::new("message", "a.message", Kind::Text),
];

impl Transaction {
    /// Writes an entry.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn audit_insert(&self, entry: &AuditEntry) -> Result<()> {
        self.execute_one(
            "audit entry",
            "-- audit_insert
            INSERT INTO audit_log (request_id, user_uuid, email, domain_name, access_key, client,
                operation, target, outcome, message)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            &[
                &entry.request_id,
                &entry.user_id.map(|id| id.0),
                &entry.email,
                &entry.domain_name,
                &entry.access_key,
                &entry.client,
                &entry.operation,
                &entry.target,
                &entry.outcome.as_str(),
                &entry.message,
            ],
        )
        .await
    }

    /// A page of entries, the newest first unless asked otherwise; only what users of one
    /// domain did, if given.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn audit_page(&self, domain: Option<&str>, slice: &Slice) -> Result<Page<AuditView>> {
        let restrict = |sql: &mut Sql| {
            sql.push(" FROM audit_log a WHERE true");
            if let Some(domain) = domain {
                sql.push(" AND a.domain_name = ").bind(domain.to_owned(), Type::TEXT);
            }
            if let Some(condition) = &slice.filter {
                sql.push(" AND ");
                sql.condition(condition);
            }
        };
        let mut sql = Sql::new(
            "-- audit_page
            SELECT a.seq, a.at, a.request_id, a.user_uuid, a.email, a.domain_name, a.access_key,
                   a.client, a.operation, a.target, a.outcome, a.message",
        );
        restrict(&mut sql);
        sql.slice(slice, "a.seq DESC", "a.seq");
        let rows = self.query_built(&sql, slice.is_custom()).await?;
        let items = rows.iter().map(AuditView::from_row).collect::<Result<Vec<_>>>()?;
        if let Some(total) = slice.total_if_last(items.len()) {
            return Ok(Page { items, total });
        }
        let mut sql = Sql::new("-- audit_count\nSELECT count(*)");
        restrict(&mut sql);
        let total = self.count_built(&sql, slice.is_custom()).await?;
        Ok(Page { items, total })
    }
}

impl AuditView {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            seq: row.try_get("seq")?,
            at: row.try_get("at")?,
            request_id: row.try_get("request_id")?,
            user_id: row.try_get::<_, Option<uuid::Uuid>>("user_uuid")?.map(UserId),
            email: row.try_get("email")?,
            domain_name: row.try_get("domain_name")?,
            access_key: row.try_get("access_key")?,
            client: row.try_get("client")?,
            operation: row.try_get("operation")?,
            target: row.try_get("target")?,
            outcome: row.try_get("outcome")?,
            message: row.try_get("message")?,
        })
    }
}
