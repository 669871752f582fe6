//! Agents as rows.

use backendai_types::{AgentId, KernelId, KernelStatus, ResourceSlots, SessionId};
use serde_json::Value;

use crate::error::{DatastoreError, Result};
use crate::kernel::AgentAddr;
use crate::row;
use crate::tx::Transaction;

/// The state of an agent as the manager sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentStatus {
    /// It sends heartbeats.
    Alive,
    /// It fell silent.
    Lost,
    /// It said that it will be back.
    Restarting,
    /// It said good-bye.
    Terminated,
}

impl AgentStatus {
    /// The spelling in SQL and GraphQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "ALIVE",
            Self::Lost => "LOST",
            Self::Restarting => "RESTARTING",
            Self::Terminated => "TERMINATED",
        }
    }
}

/// What an agent says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentProfile {
    /// Where it answers calls.
    pub addr: AgentAddr,
    /// New at every start of its process.
    pub incarnation: u64,
    /// See the schema.
    pub region: String,
    /// The scaling group it belongs to.
    pub scaling_group: String,
    /// What it offers.
    pub available_slots: ResourceSlots,
    /// Host name or address for users.
    pub public_host: String,
    /// Its version.
    pub version: String,
    /// `x86_64`…
    pub architecture: String,
    /// Versions and facts of its compute devices.
    pub compute_plugins: Value,
    /// Canonical names of the images its engine has.
    pub images: Vec<String>,
}

/// An agent on which sessions may be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulableAgent {
    /// Its id.
    pub id: AgentId,
    /// `x86_64`…
    pub architecture: String,
    /// What it offers.
    pub available_slots: ResourceSlots,
}

impl Transaction {
    /// Changes whether sessions are placed on an agent, and its scaling group; `None` leaves
    /// it. False if there is no such agent.
    ///
    /// # Errors
    /// `Reference` when there is no such scaling group.
    pub async fn agent_modify(
        &self,
        id: &AgentId,
        schedulable: Option<bool>,
        scaling_group: Option<&str>,
    ) -> Result<bool> {
        let sql = "-- agent_modify
                   UPDATE agents SET schedulable = coalesce($2, schedulable),
                       scaling_group = coalesce($3, scaling_group) WHERE id = $1";
        Ok(self.execute(sql, &[&id.0, &schedulable, &scaling_group]).await? == 1)
    }

    /// Stores an agent's profile and makes it ALIVE. True if it was not ALIVE before.
    ///
    /// # Errors
    /// `Reference` when there is no such scaling group.
    pub async fn agent_upsert(&self, profile: &AgentProfile) -> Result<bool> {
        // SQL has no unsigned numbers; only equality matters, which the cast keeps.
        let incarnation = profile.incarnation.cast_signed();
        let slots = row::slots_json(&profile.available_slots);
        let row = self
            .query_one(
                "-- agent_upsert
                WITH old AS (SELECT status FROM agents WHERE id = $1)
                INSERT INTO agents (id, incarnation, region, scaling_group, available_slots, addr,
                    public_host, public_key, version, architecture, compute_plugins, images,
                    reported_scaling_group)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $4)
                ON CONFLICT (id) DO UPDATE SET
                    status = 'ALIVE',
                    status_changed = CASE WHEN agents.status = 'ALIVE'
                                          THEN agents.status_changed ELSE now() END,
                    lost_at = NULL,
                    incarnation = $2, region = $3, available_slots = $5,
                    scaling_group = CASE WHEN agents.reported_scaling_group IS DISTINCT FROM $4
                                         THEN $4 ELSE agents.scaling_group END,
                    reported_scaling_group = $4,
                    addr = $6, public_host = $7, public_key = $8, version = $9,
                    architecture = $10, compute_plugins = $11, images = $12
                RETURNING (SELECT status FROM old) IS DISTINCT FROM 'ALIVE' AS revived",
                &[
                    &profile.addr.id.0,
                    &incarnation,
                    &profile.region,
                    &profile.scaling_group,
                    &slots,
                    &profile.addr.addr,
                    &profile.public_host,
                    &profile.addr.public_key,
                    &profile.version,
                    &profile.architecture,
                    &profile.compute_plugins,
                    &profile.images,
                ],
            )
            .await?;
        Ok(row.try_get("revived")?)
    }

    /// Changes the status of agents that have another one; returns those changed.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn agents_set_status(
        &self,
        agents: &[AgentId],
        status: AgentStatus,
    ) -> Result<Vec<AgentId>> {
        let ids: Vec<&str> = agents.iter().map(AgentId::as_str).collect();
        let rows = self
            .query(
                "-- agents_set_status
                UPDATE agents SET status = $2, status_changed = now(),
                    lost_at = CASE WHEN $2 = 'ALIVE' THEN NULL ELSE now() END
                WHERE id = ANY($1 /* agents */) AND status <> $2
                RETURNING id",
                &[&ids, &status.as_str()],
            )
            .await?;
        rows.iter().map(|row| Ok(AgentId(row.try_get("id")?))).collect()
    }

    /// Every agent with its status, address and incarnation.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn agents_known(&self) -> Result<Vec<(AgentAddr, AgentStatus, u64)>> {
        let rows = self
            .query(
                "-- agents_known\nSELECT id, addr, public_key, status, incarnation FROM agents",
                &[],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let addr = AgentAddr {
                    id: AgentId(row.try_get("id")?),
                    addr: row.try_get("addr")?,
                    public_key: row.try_get("public_key")?,
                };
                let incarnation: i64 = row.try_get("incarnation")?;
                Ok((addr, status(row.try_get("status")?)?, incarnation.cast_unsigned()))
            })
            .collect()
    }

    /// Agents that are alive, in order of their ids; with a scaling group those of it.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn agents_alive(&self, scaling_group: Option<&str>) -> Result<Vec<AgentId>> {
        let rows = self
            .query(
                "-- agents_alive
                SELECT id FROM agents
                WHERE status = 'ALIVE' AND ($1::text IS NULL OR scaling_group = $1) ORDER BY id",
                &[&scaling_group],
            )
            .await?;
        rows.iter().map(|row| Ok(AgentId(row.try_get("id")?))).collect()
    }

    /// Agents of a scaling group that may be given sessions, in order of their ids.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn agents_schedulable(&self, scaling_group: &str) -> Result<Vec<SchedulableAgent>> {
        let rows = self
            .query(
                "-- agents_schedulable
                SELECT id, architecture, available_slots FROM agents
                WHERE scaling_group = $1 AND status = 'ALIVE' AND schedulable ORDER BY id",
                &[&scaling_group],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(SchedulableAgent {
                    id: AgentId(row.try_get("id")?),
                    architecture: row.try_get("architecture")?,
                    available_slots: row::slots(row, "available_slots")?,
                })
            })
            .collect()
    }

    /// Lets agents take new sessions, or keeps them from it. Returns those that exist.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn agents_set_schedulable(
        &self,
        agents: &[String],
        schedulable: bool,
    ) -> Result<Vec<String>> {
        let rows = self
            .query(
                "-- agents_set_schedulable
                UPDATE agents SET schedulable = $2 WHERE id = ANY($1 /* agents */) RETURNING id",
                &[&agents, &schedulable],
            )
            .await?;
        rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
    }

    /// Slots that alive agents of a scaling group offer to new sessions, each once.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn slots_schedulable(&self, scaling_group: &str) -> Result<Vec<String>> {
        let rows = self
            .query(
                "-- slots_schedulable
                SELECT DISTINCT slot FROM agents, jsonb_object_keys(available_slots) slot
                WHERE scaling_group = $1 AND status = 'ALIVE' AND schedulable",
                &[&scaling_group],
            )
            .await?;
        rows.iter().map(|row| Ok(row.try_get("slot")?)).collect()
    }

    /// Kernels that lie on an agent and have not ended: id, session and status.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn agent_kernels(
        &self,
        agent: &AgentId,
    ) -> Result<Vec<(KernelId, SessionId, KernelStatus)>> {
        let rows = self
            .query(
                "-- agent_kernels
                SELECT id, session_id, status FROM kernels
                WHERE agent = $1 AND status NOT IN ('TERMINATED', 'CANCELLED')",
                &[&agent.0],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok((
                    KernelId(row.try_get("id")?),
                    SessionId(row.try_get("session_id")?),
                    row::parsed(row, "status")?,
                ))
            })
            .collect()
    }

    /// Those of these sessions that exist and have not ended.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn sessions_not_ended(&self, sessions: &[SessionId]) -> Result<Vec<SessionId>> {
        let ids: Vec<_> = sessions.iter().map(|id| id.0).collect();
        let rows = self
            .query(
                "-- sessions_not_ended
                SELECT id FROM sessions
                WHERE id = ANY($1) AND status NOT IN ('TERMINATED', 'CANCELLED')",
                &[&ids],
            )
            .await?;
        rows.iter().map(|row| Ok(SessionId(row.try_get("id")?))).collect()
    }

    /// Where an agent answers calls.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn agent_addr(&self, agent: &AgentId) -> Result<Option<AgentAddr>> {
        let row = self
            .query_opt(
                "-- agent_addr\nSELECT id, addr, public_key FROM agents WHERE id = $1",
                &[&agent.0],
            )
            .await?;
        row.map(|row| {
            Ok(AgentAddr {
                id: AgentId(row.try_get("id")?),
                addr: row.try_get("addr")?,
                public_key: row.try_get("public_key")?,
            })
        })
        .transpose()
    }

    /// Which of these agents exist.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn agents_existing(&self, agents: &[String]) -> Result<Vec<String>> {
        let rows = self
            .query(
                "-- agents_existing\nSELECT id FROM agents WHERE id = ANY($1 /* agents */)",
                &[&agents],
            )
            .await?;
        rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
    }
}

fn status(text: &str) -> Result<AgentStatus> {
    [AgentStatus::Alive, AgentStatus::Lost, AgentStatus::Restarting, AgentStatus::Terminated]
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or_else(|| DatastoreError::Malformed {
            column: "agents.status",
            message: format!("{text:?} is unknown"),
        })
}
