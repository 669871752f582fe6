//! What a session waits for, and what that waits for in turn.

use std::collections::BTreeMap;

use backendai_types::{KernelStatus, SessionId};
use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::row;
use crate::tx::Transaction;

/// A session as a node of the graph of dependencies.
#[derive(Clone, Debug)]
pub struct SessionNode {
    /// Its id.
    pub id: SessionId,
    /// Its name.
    pub name: String,
    /// Its main kernel's status.
    pub status: KernelStatus,
    /// Since when the main kernel has it.
    pub status_changed: DateTime<Utc>,
    /// The sessions that must succeed before it, by name.
    pub depends_on: Vec<SessionId>,
}

impl Transaction {
    /// A session and all it depends on, directly or not, ended ones included.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_graph(&self, root: SessionId) -> Result<BTreeMap<SessionId, SessionNode>> {
        let rows = self
            .query(
                "-- session_graph
                WITH RECURSIVE graph(id) AS (
                    SELECT $1::uuid
                    UNION
                    SELECT d.depends_on
                    FROM session_dependencies d JOIN graph ON d.session_id = graph.id
                )
                SELECT s.id, s.name, k.status, k.status_changed,
                       ARRAY(SELECT d.depends_on FROM session_dependencies d
                             JOIN sessions o ON o.id = d.depends_on
                             WHERE d.session_id = s.id ORDER BY o.name, o.id) AS depends_on
                FROM graph JOIN sessions s ON s.id = graph.id
                JOIN kernels k ON k.session_id = s.id AND k.cluster_role = 'main'",
                &[&root.0],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let id = SessionId(row.try_get("id")?);
                let depends_on: Vec<uuid::Uuid> = row.try_get("depends_on")?;
                let node = SessionNode {
                    id,
                    name: row.try_get("name")?,
                    status: row::parsed(row, "status")?,
                    status_changed: row.try_get("status_changed")?,
                    depends_on: depends_on.into_iter().map(SessionId).collect(),
                };
                Ok((id, node))
            })
            .collect()
    }
}
