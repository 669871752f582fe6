//! Reading `transitions` as it grows.
//!
//! Sequence numbers are drawn before a transaction commits, so a lower number may become
//! visible after a higher one. Whoever reads "everything after the last one I saw" would
//! miss it. The way out is to read only up to a [`Horizon`] that has settled:
//!
//! ```text
//! look    upto = highest visible number, before = a transaction id assigned now
//! wait    until every transaction older than `before` has ended
//! read    the numbers up to `upto`: there will never be another among them
//! ```
//!
//! It holds because a writer has its transaction id before it draws a number (the door's
//! locks see to that, and `session_insert` asks for one): whoever drew a number below a
//! visible one has an id older than `before`. A snapshot's own bounds would not do: a
//! running transaction can be newer than everything that has ended, and so beyond its xmax.

use backendai_types::{AccessKey, GroupId, KernelId, SessionId, UserId};
use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::error::Result;
use crate::tx::Transaction;

/// Up to where the table can be read once the transactions running now have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// The highest sequence number there was.
    pub upto: i64,
    /// Older transactions may still bring lower numbers.
    before: i64,
}

/// A transition with what its readers need to know of its session.
#[derive(Clone, Debug)]
pub struct TransitionView {
    /// Its place in the order of everything that happened.
    pub seq: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// `session_scheduled`, `kernel_started`…
    pub event: String,
    /// Why: a kebab-case word, an image's name when pulling, or nothing.
    pub reason: String,
    /// Of a kernel's main process or a batch command, if it is known.
    pub exit_code: Option<i32>,
    /// The session.
    pub session_id: SessionId,
    /// The session's name.
    pub session_name: String,
    /// The keypair it belongs to.
    pub access_key: AccessKey,
    /// The user it belongs to.
    pub user_id: UserId,
    /// The group it belongs to.
    pub group_id: GroupId,
    /// The domain it belongs to.
    pub domain_name: String,
    /// True if the session has a callback URL.
    pub has_callback: bool,
    /// The kernel concerned; `None` for changes of the session itself.
    pub kernel: Option<KernelPlace>,
}

/// A kernel's place in its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPlace {
    /// The kernel.
    pub id: KernelId,
    /// `main` or `sub`.
    pub cluster_role: String,
    /// From 1 within the role.
    pub cluster_idx: i32,
}

impl Transaction {
    /// A horizon beyond `after`, or `None` if there is nothing beyond it. Assigns a
    /// transaction id only where there is.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn transitions_horizon(&self, after: Option<i64>) -> Result<Option<Horizon>> {
        let row = self
            .query_one(
                "-- transitions_horizon
                SELECT upto, CASE WHEN $1::bigint /* known */ IS NULL OR upto > $1
                                  THEN pg_current_xact_id()::text::bigint END AS before
                FROM (SELECT coalesce(max(seq), 0) AS upto FROM transitions) t",
                &[&after],
            )
            .await?;
        let before: Option<i64> = row.try_get("before")?;
        let upto = row.try_get("upto")?;
        Ok(before.map(|before| Horizon { upto, before }))
    }

    /// True when no transaction can bring numbers up to the horizon any more.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn transitions_settled(&self, horizon: &Horizon) -> Result<bool> {
        let row = self
            .query_one(
                "-- transitions_settled
                SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= $1 /* before */",
                &[&horizon.before],
            )
            .await?;
        Ok(row.try_get(0)?)
    }

    /// The first `limit` transitions with numbers in `(after, upto]`, in order.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn transitions_between(
        &self,
        after: i64,
        upto: i64,
        limit: i64,
    ) -> Result<Vec<TransitionView>> {
        let rows = self
            .query(
                "-- transitions_between
                SELECT t.seq, t.at, t.event, t.reason, t.exit_code, t.session_id,
                       s.name, s.access_key, s.user_uuid, s.group_id, s.domain_name,
                       s.callback_url IS NOT NULL AS has_callback,
                       t.kernel_id, k.cluster_role, k.cluster_idx
                FROM transitions t
                JOIN sessions s ON s.id = t.session_id
                LEFT JOIN kernels k ON k.id = t.kernel_id
                WHERE t.seq > $1 /* after */ AND t.seq <= $2 /* upto */
                ORDER BY t.seq LIMIT $3",
                &[&after, &upto, &limit],
            )
            .await?;
        rows.iter().map(view).collect()
    }
}

fn view(row: &Row) -> Result<TransitionView> {
    let kernel = match row.try_get::<_, Option<uuid::Uuid>>("kernel_id")? {
        Some(id) => Some(KernelPlace {
            id: KernelId(id),
            cluster_role: row.try_get("cluster_role")?,
            cluster_idx: row.try_get("cluster_idx")?,
        }),
        None => None,
    };
    Ok(TransitionView {
        seq: row.try_get("seq")?,
        at: row.try_get("at")?,
        event: row.try_get("event")?,
        reason: row.try_get("reason")?,
        exit_code: row.try_get("exit_code")?,
        session_id: SessionId(row.try_get("session_id")?),
        session_name: row.try_get("name")?,
        access_key: AccessKey(row.try_get("access_key")?),
        user_id: UserId(row.try_get("user_uuid")?),
        group_id: GroupId(row.try_get("group_id")?),
        domain_name: row.try_get("domain_name")?,
        has_callback: row.try_get("has_callback")?,
        kernel,
    })
}
