//! Agents in lists, with what lies on them.

use std::collections::HashMap;

use backendai_types::{AgentId, ResourceSlots};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::error::Result;
use crate::kernel::Kernel;
use crate::list_view::{Field, Kind, Page, Slice, Sql};
use crate::row;
use crate::tx::Transaction;

/// An agent in a list.
#[derive(Clone, Debug)]
pub struct AgentView {
    /// Its id.
    pub id: AgentId,
    /// `ALIVE`…
    pub status: String,
    /// Since when.
    pub status_changed: DateTime<Utc>,
    /// `local` on premises.
    pub region: String,
    /// Its scaling group.
    pub scaling_group: String,
    /// Whether it takes sessions.
    pub schedulable: bool,
    /// What it offers.
    pub available_slots: ResourceSlots,
    /// What lies on it.
    pub occupied_slots: ResourceSlots,
    /// Number of kernels on it.
    pub container_count: i64,
    /// RPC address.
    pub addr: String,
    /// CURVE public key (Z85), if its RPC is encrypted.
    pub public_key: Option<String>,
    /// `x86_64`…
    pub architecture: String,
    /// When it was first heard of.
    pub first_contact: DateTime<Utc>,
    /// When it fell silent.
    pub lost_at: Option<DateTime<Utc>>,
    /// Its version.
    pub version: String,
    /// Versions and facts of its compute devices.
    pub compute_plugins: Value,
    /// Whether it ends kernels that abuse it.
    pub auto_terminate_abusing_kernel: bool,
}

/// Which agents.
#[derive(Clone, Debug, Default)]
pub struct AgentScope {
    /// Only this one.
    pub id: Option<AgentId>,
    /// Only of this scaling group.
    pub scaling_group: Option<String>,
    /// Only in one of these statuses; empty is any.
    pub statuses: Vec<String>,
    /// Only of scaling groups that sessions of this keypair may use.
    pub usable_with: Option<String>,
}

/// Names of the statuses.
pub const AGENT_STATUS_NAMES: &[(&str, &str)] = &[
    ("ALIVE", "ALIVE"),
    ("LOST", "LOST"),
    ("RESTARTING", "RESTARTING"),
    ("TERMINATED", "TERMINATED"),
];

/// What agents can be filtered and ordered by.
pub static AGENT_FIELDS: &[Field] = &[
    Field::new("id", "a.id", Kind::Text),
    Field::new("status", "a.status", Kind::Enum(AGENT_STATUS_NAMES)),
    Field::new("status_changed", "a.status_changed", Kind::Date),
    Field::new("region", "a.region", Kind::Text),
    Field::new("scaling_group", "a.scaling_group", Kind::Text),
    Field::new("schedulable", "a.schedulable", Kind::Bool),
    Field::new("addr", "a.addr", Kind::Text).filter_only(),
    Field::new("first_contact", "a.first_contact", Kind::Date),
    Field::new("lost_at", "a.lost_at", Kind::Date),
    Field::new("version", "a.version", Kind::Text),
    Field::new("available_slots", "a.available_slots", Kind::Opaque).order_only(),
    Field::new("occupied_slots", "coalesce(o.slots, '{}')", Kind::Opaque).order_only(),
];

/// What agents can be filtered and ordered by, as users see them.
pub static AGENT_SUMMARY_FIELDS: &[Field] = &[
    Field::new("id", "a.id", Kind::Text),
    Field::new("status", "a.status", Kind::Enum(AGENT_STATUS_NAMES)),
    Field::new("scaling_group", "a.scaling_group", Kind::Text),
    Field::new("schedulable", "a.schedulable", Kind::Bool).order_only(),
    Field::new("available_slots", "a.available_slots", Kind::Opaque).order_only(),
    Field::new("occupied_slots", "coalesce(o.slots, '{}')", Kind::Opaque).order_only(),
];

const SELECT: &str = "SELECT a.id, a.status, a.status_changed, a.region, a.scaling_group, \
    a.schedulable, a.available_slots, coalesce(o.slots, '{}') AS occupied_slots, a.addr, \
    (SELECT count(*) FROM kernels k WHERE k.agent = a.id \
        AND k.status NOT IN ('TERMINATED', 'CANCELLED')) AS container_count, \
    a.public_key, a.architecture, a.first_contact, a.lost_at, a.version, a.compute_plugins, \
    a.auto_terminate_abusing_kernel";
const FROM: &str = " FROM agents a LEFT JOIN LATERAL ( \
    SELECT jsonb_object_agg(slot, amount::text) AS slots FROM ( \
        SELECT slot, sum(amount) AS amount FROM allocations WHERE agent = a.id GROUP BY 1 \
    ) s) o ON true";

impl Transaction {
    /// A page of agents.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn agent_page(&self, scope: &AgentScope, slice: &Slice) -> Result<Page<AgentView>> {
        let mut sql = Sql::new("-- agent_page\n");
        sql.push(SELECT).push(FROM);
        restrict(&mut sql, scope, slice);
        sql.slice(slice, "a.status, a.scaling_group, a.id", "a.id");
        let items = self
            .query_built(&sql, slice.is_custom())
            .await?
            .iter()
            .map(AgentView::from_row)
            .collect::<Result<Vec<_>>>()?;
        if let Some(total) = slice.total_if_last(items.len()) {
            return Ok(Page { items, total });
        }
        let mut sql = Sql::new("-- agent_count\nSELECT count(*) FROM agents a");
        restrict(&mut sql, scope, slice);
        let total = self.count_built(&sql, slice.is_custom()).await?;
        Ok(Page { items, total })
    }

    /// The kernels that lie on several agents now.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn kernels_on_agents(
        &self,
        agents: &[AgentId],
    ) -> Result<HashMap<AgentId, Vec<Kernel>>> {
        let ids: Vec<&str> = agents.iter().map(AgentId::as_str).collect();
        let sql = format!(
            "-- kernels_on_agents
            SELECT {} FROM kernels k WHERE k.agent = ANY($1 /* agents */)
              AND k.status NOT IN ('TERMINATED', 'CANCELLED')
            ORDER BY k.created_at, k.id",
            Kernel::COLUMNS
        );
        let mut kernels: HashMap<_, Vec<Kernel>> = HashMap::new();
        for row in self.query(&sql, &[&ids]).await? {
            let kernel = Kernel::from_row(&row)?;
            if let Some(agent) = kernel.agent.clone() {
                kernels.entry(agent).or_default().push(kernel);
            }
        }
        Ok(kernels)
    }
}

fn restrict(sql: &mut Sql, scope: &AgentScope, slice: &Slice) {
    sql.push(" WHERE true");
    if let Some(id) = &scope.id {
        sql.push(" AND a.id = ").bind(id.0.clone(), Type::TEXT);
    }
    if let Some(group) = &scope.scaling_group {
        sql.push(" AND a.scaling_group = ").bind(group.clone(), Type::TEXT);
    }
    if !scope.statuses.is_empty() {
        sql.push(" AND a.status = ANY(").bind(scope.statuses.clone(), Type::TEXT_ARRAY).push(")");
    }
    if let Some(key) = &scope.usable_with {
        sql.push(
            " AND EXISTS (SELECT FROM keypairs k JOIN users u ON u.uuid = k.\"user\" \
              JOIN scaling_groups g ON g.name = a.scaling_group AND g.is_active \
              WHERE (EXISTS (SELECT FROM sgroups_for_domains d \
                         WHERE d.scaling_group = g.name AND d.domain = u.domain_name) \
                  OR EXISTS (SELECT FROM sgroups_for_groups p \
                         JOIN association_groups_users m ON m.group_id = p.\"group\" \
                         WHERE p.scaling_group = g.name AND m.user_id = u.uuid) \
                  OR EXISTS (SELECT FROM sgroups_for_keypairs s \
                         WHERE s.scaling_group = g.name AND s.access_key = k.access_key)) \
                AND k.access_key = ",
        )
        .bind(key.clone(), Type::TEXT)
        .push(")");
    }
    if let Some(condition) = &slice.filter {
        sql.push(" AND ");
        sql.condition(condition);
    }
}

impl AgentView {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: AgentId(row.try_get("id")?),
            status: row.try_get("status")?,
            status_changed: row.try_get("status_changed")?,
            region: row.try_get("region")?,
            scaling_group: row.try_get("scaling_group")?,
            schedulable: row.try_get("schedulable")?,
            available_slots: row::slots(row, "available_slots")?,
            occupied_slots: row::slots(row, "occupied_slots")?,
            container_count: row.try_get("container_count")?,
            addr: row.try_get("addr")?,
            public_key: row.try_get("public_key")?,
            architecture: row.try_get("architecture")?,
            first_contact: row.try_get("first_contact")?,
            lost_at: row.try_get("lost_at")?,
            version: row.try_get("version")?,
            compute_plugins: row.try_get("compute_plugins")?,
            auto_terminate_abusing_kernel: row.try_get("auto_terminate_abusing_kernel")?,
        })
    }
}
