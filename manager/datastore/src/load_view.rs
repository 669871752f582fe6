//! How many of what there are, for those who watch the cluster.

use backendai_types::SessionStatus;

use crate::agent::AgentStatus;
use crate::error::Result;
use crate::tx::{Datastore, Transaction};

/// Connections to PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Open ones.
    pub open: usize,
    /// Those of them that nobody uses.
    pub free: usize,
    /// The most there may be.
    pub most: usize,
    /// How many callers wait for one.
    pub waiting: usize,
}

impl Datastore {
    /// How the pool of connections is used.
    pub fn pool_use(&self) -> PoolUse {
        let status = self.pool.status();
        PoolUse {
            open: status.size,
            free: status.available,
            most: status.max_size,
            waiting: status.waiting,
        }
    }
}

impl Transaction {
    /// The number of sessions in each status that is no end.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn live_session_counts(&self) -> Result<Vec<(SessionStatus, i64)>> {
        let rows = self
            .query(
                "-- live_session_counts
                SELECT status, count(*) AS count FROM sessions
                WHERE status NOT IN ('TERMINATED', 'CANCELLED') GROUP BY status",
                &[],
            )
            .await?;
        let live = SessionStatus::ALL.iter().filter(|status| !status.is_terminal());
        live.map(|status| Ok((*status, count(&rows, status.as_str())?))).collect()
    }

    /// The number of agents in each status.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn agent_counts(&self) -> Result<Vec<(AgentStatus, i64)>> {
        let rows = self
            .query(
                "-- agent_counts
                SELECT status, count(*) AS count FROM agents GROUP BY status",
                &[],
            )
            .await?;
        let all = [
            AgentStatus::Alive,
            AgentStatus::Lost,
            AgentStatus::Restarting,
            AgentStatus::Terminated,
        ];
        all.into_iter().map(|status| Ok((status, count(&rows, status.as_str())?))).collect()
    }
}

/// The count of the row with a status; zero if there is none.
fn count(rows: &[tokio_postgres::Row], status: &str) -> Result<i64> {
    for row in rows {
        if row.try_get::<_, &str>("status")? == status {
            return Ok(row.try_get("count")?);
        }
    }
    Ok(0)
}
