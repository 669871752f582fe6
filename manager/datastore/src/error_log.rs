//! Errors that clients have seen and reported.

use backendai_types::UserId;
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::Result;
use crate::tx::Transaction;

/// A report.
#[derive(Clone, Debug)]
pub struct ErrorLog {
    /// Its id.
    pub id: Uuid,
    /// When it came.
    pub created_at: DateTime<Utc>,
    /// `critical`, `error`, `warning`, `info` or `debug`.
    pub severity: String,
    /// What reports it.
    pub source: String,
    /// Who reports it.
    pub user_id: Option<UserId>,
    /// True once its user has marked it so.
    pub is_read: bool,
    /// True once its user wants to see it no more.
    pub is_cleared: bool,
    /// In words.
    pub message: String,
    /// The reporting program's language.
    pub context_lang: String,
    /// Facts about the reporting program.
    pub context_env: Value,
    /// The request that failed.
    pub request_url: Option<String>,
    /// How it was answered.
    pub request_status: Option<i32>,
    /// Where in the program it happened.
    pub traceback: Option<String>,
}

/// Whose reports somebody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorLogScope {
    /// All there are.
    Everything,
    /// Those of a domain's users.
    Domain(String),
    /// A user's own, without cleared ones.
    User(UserId),
}

impl ErrorLogScope {
    /// As the parameters of the queries below.
    fn parts(&self) -> (Option<&str>, Option<Uuid>) {
        match self {
            Self::Everything => (None, None),
            Self::Domain(domain) => (Some(domain), None),
            Self::User(user) => (None, Some(user.0)),
        }
    }
}

impl Transaction {
    /// Keeps a report. Its time is now.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn error_log_insert(&self, log: &ErrorLog) -> Result<()> {
        self.execute(
            "-- error_log_insert
            INSERT INTO error_logs (id, severity, source, \"user\", message, context_lang,
                                    context_env, request_url, request_status, traceback)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            &[
                &log.id,
                &log.severity,
                &log.source,
                &log.user_id.map(|user| user.0),
                &log.message,
                &log.context_lang,
                &log.context_env,
                &log.request_url,
                &log.request_status,
                &log.traceback,
            ],
        )
        .await?;
        Ok(())
    }

    /// One page of the reports that `scope` shows, the newest first, and how many there are.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn error_logs(
        &self,
        scope: &ErrorLogScope,
        limit: i64,
        offset: i64,
    ) -> Result<(Vec<ErrorLog>, i64)> {
        let (domain, user) = scope.parts();
        let rows = self
            .query(
                "-- error_logs
                SELECT e.id, e.created_at, e.severity, e.source, e.\"user\", e.is_read,
                       e.is_cleared, e.message, e.context_lang, e.context_env, e.request_url,
                       e.request_status, e.traceback
                FROM error_logs e LEFT JOIN users u ON u.uuid = e.\"user\"
                WHERE ($1::text IS NULL OR u.domain_name = $1)
                  AND ($2::uuid IS NULL OR (e.\"user\" = $2 AND NOT e.is_cleared))
                ORDER BY e.created_at DESC, e.id LIMIT $3 OFFSET $4",
                &[&domain, &user, &limit, &offset],
            )
            .await?;
        let count = self
            .query_one(
                "-- error_logs_count
                SELECT count(*) FROM error_logs e LEFT JOIN users u ON u.uuid = e.\"user\"
                WHERE ($1::text IS NULL OR u.domain_name = $1)
                  AND ($2::uuid IS NULL OR (e.\"user\" = $2 AND NOT e.is_cleared))",
                &[&domain, &user],
            )
            .await?;
        let logs = rows.iter().map(ErrorLog::from_row).collect::<Result<_>>()?;
        Ok((logs, count.try_get(0)?))
    }

    /// Notes that a user has read some of the user's own reports.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn error_logs_mark_read(&self, user: UserId, ids: &[Uuid]) -> Result<()> {
        self.execute(
            "-- error_logs_mark_read
            UPDATE error_logs SET is_read = true
            WHERE \"user\" = $1 AND id = ANY($2 /* logs */) AND NOT is_read",
            &[&user.0, &ids],
        )
        .await?;
        Ok(())
    }

    /// Clears a report that `scope` shows. False if there is none of this id.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn error_log_clear(&self, scope: &ErrorLogScope, id: Uuid) -> Result<bool> {
        let (domain, user) = scope.parts();
        let rows = self
            .execute(
                "-- error_log_clear
                UPDATE error_logs e SET is_cleared = true
                WHERE e.id = $1
                  AND ($2::text IS NULL OR e.\"user\" IN (
                      SELECT uuid FROM users WHERE domain_name = $2))
                  AND ($3::uuid IS NULL OR (e.\"user\" = $3 AND NOT e.is_cleared))",
                &[&id, &domain, &user],
            )
            .await?;
        Ok(rows > 0)
    }
}

impl ErrorLog {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            created_at: row.try_get("created_at")?,
            severity: row.try_get("severity")?,
            source: row.try_get("source")?,
            user_id: row.try_get::<_, Option<Uuid>>("user")?.map(UserId),
            is_read: row.try_get("is_read")?,
            is_cleared: row.try_get("is_cleared")?,
            message: row.try_get("message")?,
            context_lang: row.try_get("context_lang")?,
            context_env: row.try_get("context_env")?,
            request_url: row.try_get("request_url")?,
            request_status: row.try_get("request_status")?,
            traceback: row.try_get("traceback")?,
        })
    }
}
