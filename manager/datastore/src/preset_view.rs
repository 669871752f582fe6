//! Resource presets and the room that is left for them.

use std::collections::BTreeMap;

use backendai_types::{AgentId, ResourceSlots, SessionId, UserId};
use tokio_postgres::Row;

use crate::error::Result;
use crate::row;
use crate::tx::Transaction;

/// A named set of amounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresetView {
    /// Its name.
    pub name: String,
    /// Amounts by slot.
    pub slots: ResourceSlots,
    /// Bytes; `None` takes the image's default.
    pub shared_memory: Option<i64>,
}

/// What is left on an agent that takes sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRoom {
    /// The agent.
    pub agent: AgentId,
    /// Its scaling group.
    pub scaling_group: String,
    /// What it has in all.
    pub available: ResourceSlots,
    /// What lies on it.
    pub occupied: ResourceSlots,
}

impl Transaction {
    /// Every preset, by name.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn presets(&self) -> Result<Vec<PresetView>> {
        let rows = self
            .query(
                "-- presets
                SELECT name, resource_slots, shared_memory FROM resource_presets ORDER BY name",
                &[],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(PresetView {
                    name: row.try_get("name")?,
                    slots: row::slots(row, "resource_slots")?,
                    shared_memory: row.try_get("shared_memory")?,
                })
            })
            .collect()
    }

    /// Agents of these scaling groups that are alive and take sessions.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn agent_rooms(&self, scaling_groups: &[String]) -> Result<Vec<AgentRoom>> {
        let rows = self
            .query(
                "-- agent_rooms
                SELECT a.id, a.scaling_group, a.available_slots, coalesce(u.slots, '{}') AS occupied
                FROM agents a
                LEFT JOIN (
                    SELECT agent, jsonb_object_agg(slot, amount::text) AS slots FROM (
                        SELECT agent, slot, sum(amount) AS amount FROM allocations GROUP BY 1, 2
                    ) s GROUP BY 1
                ) u ON u.agent = a.id
                WHERE a.scaling_group = ANY($1 /* groups */) AND a.status = 'ALIVE' AND a.schedulable
                ORDER BY a.id",
                &[&scaling_groups],
            )
            .await?;
        rows.iter().map(room).collect()
    }

    /// What a user's kernels occupy in each scaling group.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn user_usage_by_scaling_group(
        &self,
        user: UserId,
    ) -> Result<BTreeMap<String, ResourceSlots>> {
        let rows = self
            .query(
                "-- user_usage_by_scaling_group
                SELECT scaling_group, jsonb_object_agg(slot, amount::text) AS slots FROM (
                    SELECT a.scaling_group, l.slot, sum(l.amount) AS amount
                    FROM allocations l JOIN agents a ON a.id = l.agent
                    WHERE l.user_uuid = $1 GROUP BY 1, 2
                ) s GROUP BY 1",
                &[&user.0],
            )
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("scaling_group")?, row::slots(row, "slots")?)))
            .collect()
    }

    /// Sessions that have not ended, the oldest first.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn sessions_unfinished(&self) -> Result<Vec<SessionId>> {
        let rows = self
            .query(
                "-- sessions_unfinished
                SELECT id FROM sessions WHERE status NOT IN ('TERMINATED', 'CANCELLED')
                ORDER BY created_at",
                &[],
            )
            .await?;
        rows.iter().map(|row| Ok(SessionId(row.try_get("id")?))).collect()
    }

    /// Sessions that have been scheduled and are not gone.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn active_session_count(&self) -> Result<i64> {
        let row = self
            .query_one(
                "-- active_session_count
                SELECT count(*) FROM sessions WHERE status NOT IN ('PENDING', 'TERMINATED', 'CANCELLED')",
                &[],
            )
            .await?;
        Ok(row.try_get(0)?)
    }
}

fn room(row: &Row) -> Result<AgentRoom> {
    Ok(AgentRoom {
        agent: AgentId(row.try_get("id")?),
        scaling_group: row.try_get("scaling_group")?,
        available: row::slots(row, "available_slots")?,
        occupied: row::slots(row, "occupied")?,
    })
}
