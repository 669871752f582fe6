//! Sessions that have been in an in-between status for too long.

use backendai_types::{KernelId, KernelStatus, SessionId, SessionStatus};

use crate::error::Result;
use crate::row;
use crate::tx::Transaction;

/// A kernel of a session whose deadline has passed.
#[derive(Clone, Debug)]
pub struct OverdueKernel {
    /// The session.
    pub session_id: SessionId,
    /// The session's status.
    pub session_status: SessionStatus,
    /// The kernel.
    pub kernel_id: KernelId,
    /// The kernel's status.
    pub status: KernelStatus,
    /// True when it lies on an agent that is ALIVE.
    pub agent_alive: bool,
}

impl Transaction {
    /// Kernels that have not ended, of sessions whose deadline has passed.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn kernels_overdue(&self) -> Result<Vec<OverdueKernel>> {
        let rows = self
            .query(
                "-- kernels_overdue
                SELECT s.id, s.status AS session_status, k.id AS kernel_id, k.status,
                       coalesce(a.status = 'ALIVE', false) AS alive
                FROM sessions s
                JOIN kernels k ON k.session_id = s.id
                LEFT JOIN agents a ON a.id = k.agent
                WHERE s.status NOT IN ('TERMINATED', 'CANCELLED') AND s.deadline < now()
                  AND k.status NOT IN ('TERMINATED', 'CANCELLED')
                ORDER BY s.id, k.local_rank",
                &[],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(OverdueKernel {
                    session_id: SessionId(row.try_get("id")?),
                    session_status: row::parsed(row, "session_status")?,
                    kernel_id: KernelId(row.try_get("kernel_id")?),
                    status: row::parsed(row, "status")?,
                    agent_alive: row.try_get("alive")?,
                })
            })
            .collect()
    }
}
