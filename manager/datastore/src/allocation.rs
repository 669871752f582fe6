//! What live kernels occupy. Every "used" figure is a sum over these rows.

use std::collections::BTreeMap;

use backendai_types::{AccessKey, AgentId, GroupId, KernelId, ResourceSlots, SlotName, UserId};
use rust_decimal::Decimal;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::Result;
use crate::tx::Transaction;

/// Held by whoever admits sessions, for the length of a transaction, so that what it has
/// summed up cannot grow until it commits. An arbitrary number.
const ADMISSION_LOCK: i64 = 0x6261_6901;

/// What lies on an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentUsage {
    /// Amounts by slot.
    pub slots: ResourceSlots,
    /// Number of kernels.
    pub kernels: i64,
}

impl Transaction {
    /// Makes this the only transaction that inserts allocations, until it ends. Others may
    /// still delete some.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn admission_lock(&self) -> Result<()> {
        self.query("-- admission_lock\nSELECT pg_advisory_xact_lock($1)", &[&ADMISSION_LOCK])
            .await?;
        Ok(())
    }

    /// Reserves what these kernels ask for on these agents.
    ///
    /// # Errors
    /// `Conflict` when a kernel has allocations already; `Reference` when an agent is unknown.
    pub async fn allocations_insert(&self, placements: &[(KernelId, &AgentId)]) -> Result<()> {
        let kernels: Vec<Uuid> = placements.iter().map(|(kernel, _)| kernel.0).collect();
        let agents: Vec<&str> = placements.iter().map(|(_, agent)| agent.as_str()).collect();
        self.execute(
            "-- allocations_insert
            INSERT INTO allocations (kernel_id, slot, amount, agent, access_key, user_uuid,
                                     group_id, domain_name, is_private)
            SELECT k.id, slot.key, slot.value::numeric, u.agent, s.access_key, s.user_uuid,
                   s.group_id, s.domain_name, s.is_private
            FROM unnest($1::uuid[], $2::text[]) AS u(kernel, agent)
            JOIN kernels k ON k.id = u.kernel
            JOIN sessions s ON s.id = k.session_id,
            LATERAL jsonb_each_text(k.requested_slots) AS slot
            WHERE slot.value::numeric > 0",
            &[&kernels, &agents],
        )
        .await?;
        Ok(())
    }

    /// What lies on the agents of a scaling group. Idle agents are left out.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn agent_usage(&self, scaling_group: &str) -> Result<BTreeMap<AgentId, AgentUsage>> {
        let rows = self
            .query(
                "-- agent_usage
                SELECT l.agent, l.slot, sum(l.amount) AS amount, count(*) AS kernels
                FROM allocations l JOIN agents a ON a.id = l.agent
                WHERE a.scaling_group = $1 AND a.status = 'ALIVE'
                GROUP BY l.agent, l.slot",
                &[&scaling_group],
            )
            .await?;
        let mut usage = BTreeMap::<AgentId, AgentUsage>::new();
        for row in &rows {
            let of_agent = usage.entry(AgentId(row.try_get("agent")?)).or_default();
            add_slot(&mut of_agent.slots, row)?;
            // Every kernel has at least cores and memory, so the widest slot counts them all.
            of_agent.kernels = of_agent.kernels.max(row.try_get("kernels")?);
        }
        Ok(usage)
    }

    /// What the sessions of these keypairs occupy, private ones left out.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn keypair_usage(
        &self,
        keys: &[AccessKey],
    ) -> Result<BTreeMap<AccessKey, ResourceSlots>> {
        let keys: Vec<&str> = keys.iter().map(AccessKey::as_str).collect();
        let rows = self
            .query(
                "-- keypair_usage
                SELECT access_key AS owner, slot, sum(amount) AS amount FROM allocations
                WHERE access_key = ANY($1 /* keys */) AND NOT is_private GROUP BY 1, 2",
                &[&keys],
            )
            .await?;
        by_owner(&rows, |row| Ok(AccessKey(row.try_get("owner")?)))
    }

    /// What the sessions of these users occupy, private ones left out.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn user_usage(&self, users: &[UserId]) -> Result<BTreeMap<UserId, ResourceSlots>> {
        let users: Vec<Uuid> = users.iter().map(|id| id.0).collect();
        let rows = self
            .query(
                "-- user_usage
                SELECT user_uuid AS owner, slot, sum(amount) AS amount FROM allocations
                WHERE user_uuid = ANY($1 /* users */) AND NOT is_private GROUP BY 1, 2",
                &[&users],
            )
            .await?;
        by_owner(&rows, |row| Ok(UserId(row.try_get("owner")?)))
    }

    /// What the sessions of these groups occupy, private ones left out.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn group_usage(
        &self,
        groups: &[GroupId],
    ) -> Result<BTreeMap<GroupId, ResourceSlots>> {
        let groups: Vec<Uuid> = groups.iter().map(|id| id.0).collect();
        let rows = self
            .query(
                "-- group_usage
                SELECT group_id AS owner, slot, sum(amount) AS amount FROM allocations
                WHERE group_id = ANY($1 /* groups */) AND NOT is_private GROUP BY 1, 2",
                &[&groups],
            )
            .await?;
        by_owner(&rows, |row| Ok(GroupId(row.try_get("owner")?)))
    }

    /// What the sessions of these domains occupy, private ones left out.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn domain_usage(
        &self,
        domains: &[String],
    ) -> Result<BTreeMap<String, ResourceSlots>> {
        let rows = self
            .query(
                "-- domain_usage
                SELECT domain_name AS owner, slot, sum(amount) AS amount FROM allocations
                WHERE domain_name = ANY($1 /* domains */) AND NOT is_private GROUP BY 1, 2",
                &[&domains],
            )
            .await?;
        by_owner(&rows, |row| Ok(row.try_get("owner")?))
    }

    /// What the kernels of one session occupy.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_usage(
        &self,
        session: backendai_types::SessionId,
    ) -> Result<ResourceSlots> {
        let rows = self
            .query(
                "-- session_usage
                SELECT l.slot, sum(l.amount) AS amount FROM allocations l
                JOIN kernels k ON k.id = l.kernel_id WHERE k.session_id = $1 GROUP BY 1",
                &[&session.0],
            )
            .await?;
        let mut slots = ResourceSlots::default();
        for row in &rows {
            add_slot(&mut slots, row)?;
        }
        Ok(slots)
    }
}

fn add_slot(slots: &mut ResourceSlots, row: &Row) -> Result<()> {
    let amount: Decimal = row.try_get("amount")?;
    slots.set(SlotName(row.try_get("slot")?), amount.normalize());
    Ok(())
}

fn by_owner<K: Ord>(
    rows: &[Row],
    owner: impl Fn(&Row) -> Result<K>,
) -> Result<BTreeMap<K, ResourceSlots>> {
    let mut usage = BTreeMap::new();
    for row in rows {
        add_slot(usage.entry(owner(row)?).or_default(), row)?;
    }
    Ok(usage)
}
