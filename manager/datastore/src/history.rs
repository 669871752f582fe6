//! Forgetting what is over.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::tx::Transaction;

impl Transaction {
    /// Deletes at most `limit` sessions that ended before a time, with their kernels, logs and
    /// transitions. Returns how many sessions and kernels.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn sessions_forget(&self, before: DateTime<Utc>, limit: i64) -> Result<(i64, i64)> {
        let row = self
            .query_one(
                "-- sessions_forget
                WITH old AS MATERIALIZED (
                    SELECT id FROM sessions
                    WHERE status IN ('TERMINATED', 'CANCELLED') AND terminated_at < $1 /* before */
                    ORDER BY terminated_at LIMIT $2 /* limit */ FOR UPDATE SKIP LOCKED),
                kernels_of AS (SELECT count(*) AS n FROM kernels WHERE session_id IN (SELECT id FROM old)),
                gone AS (DELETE FROM sessions WHERE id IN (SELECT id FROM old) RETURNING id)
                SELECT (SELECT count(*) FROM gone), (SELECT n FROM kernels_of)",
                &[&before, &limit],
            )
            .await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    /// Gives the space of deleted rows back to the tables; with `full` to the disk, which locks
    /// the tables meanwhile.
    ///
    /// # Errors
    /// PostgreSQL failed, or a transaction is under way.
    pub async fn vacuum(&self, full: bool) -> Result<()> {
        let tables = "sessions, kernels, kernel_logs, transitions, session_dependencies";
        let sql = match full {
            true => format!("-- vacuum\nVACUUM (FULL, ANALYZE) {tables}"),
            false => format!("-- vacuum\nVACUUM (ANALYZE) {tables}"),
        };
        self.execute(&sql, &[]).await?;
        Ok(())
    }
}
