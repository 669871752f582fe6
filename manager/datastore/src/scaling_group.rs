//! Scaling groups as rows: who may use them and how they schedule.

use backendai_types::{AccessKey, GroupId};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::error::Result;
use crate::tx::Transaction;

/// A scaling group as the scheduler and the creation of sessions see it.
#[derive(Clone, Debug)]
pub struct ScalingGroup {
    /// Its name.
    pub name: String,
    /// False for groups that only system sessions may use.
    pub is_public: bool,
    /// `fifo`, `lifo`, `drf`…
    pub scheduler: String,
    /// See `scheduling.md` §4.
    pub scheduler_opts: Value,
}

/// Columns of a scaling group. For a change, `None` leaves a column as it is; for a new group
/// it takes the table's default.
#[derive(Clone, Debug, Default)]
pub struct ScalingGroupChange {
    /// In words.
    pub description: Option<String>,
    /// Whether it may be used.
    pub is_active: Option<bool>,
    /// False for groups that only system sessions may use.
    pub is_public: Option<bool>,
    /// Address of its app proxy.
    pub wsproxy_addr: Option<String>,
    /// The proxy's token. Never logged.
    pub wsproxy_api_token: Option<String>,
    /// `static`…
    pub driver: Option<String>,
    /// The driver's options.
    pub driver_opts: Option<Value>,
    /// `fifo`…
    pub scheduler: Option<String>,
    /// The scheduler's options.
    pub scheduler_opts: Option<Value>,
    /// Whether containers use the host's network.
    pub use_host_network: Option<bool>,
}

/// Who may use a scaling group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScalingGroupUser {
    /// All of a domain.
    Domain(String),
    /// All of a group.
    Group(GroupId),
    /// Whoever signs with a keypair.
    Keypair(AccessKey),
}

const COLUMNS: &str = "g.name, g.is_public, g.scheduler, g.scheduler_opts";

impl Transaction {
    /// Active scaling groups that sessions of this domain, group and keypair may use, by name.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn scaling_groups_allowed(
        &self,
        domain: &str,
        group: GroupId,
        access_key: &AccessKey,
    ) -> Result<Vec<ScalingGroup>> {
        let rows = self
            .query(
                &format!(
                    "-- scaling_groups_allowed
                    SELECT {COLUMNS} FROM scaling_groups g WHERE g.is_active AND (
                        EXISTS (SELECT FROM sgroups_for_domains d
                                WHERE d.scaling_group = g.name AND d.domain = $1)
                        OR EXISTS (SELECT FROM sgroups_for_groups p
                                   WHERE p.scaling_group = g.name AND p.\"group\" = $2)
                        OR EXISTS (SELECT FROM sgroups_for_keypairs k
                                   WHERE k.scaling_group = g.name AND k.access_key = $3))
                    ORDER BY g.name"
                ),
                &[&domain, &group.0, &access_key.0],
            )
            .await?;
        rows.iter().map(ScalingGroup::from_row).collect()
    }

    /// The address of a scaling group's app proxy, if it has one; `None` if there is no such
    /// scaling group.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn scaling_group_proxy(&self, name: &str) -> Result<Option<Option<String>>> {
        let row = self
            .query_opt(
                "-- scaling_group_proxy\nSELECT wsproxy_addr FROM scaling_groups WHERE name = $1",
                &[&name],
            )
            .await?;
        row.map(|row| Ok(row.try_get("wsproxy_addr")?)).transpose()
    }

    /// Scaling groups in which sessions wait, by name.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn scaling_groups_waiting(&self) -> Result<Vec<ScalingGroup>> {
        let rows = self
            .query(
                &format!(
                    "-- scaling_groups_waiting
                    SELECT {COLUMNS} FROM scaling_groups g
                    WHERE EXISTS (SELECT FROM sessions s
                                  WHERE s.scaling_group = g.name AND s.status = 'PENDING')
                    ORDER BY g.name"
                ),
                &[],
            )
            .await?;
        rows.iter().map(ScalingGroup::from_row).collect()
    }
}

impl Transaction {
    /// Makes a scaling group.
    ///
    /// # Errors
    /// There is one of this name.
    pub async fn scaling_group_insert(&self, name: &str, new: &ScalingGroupChange) -> Result<()> {
        self.execute_one(
            "scaling group",
            "-- scaling_group_insert
            INSERT INTO scaling_groups (name, description, is_active, is_public, wsproxy_addr,
                wsproxy_api_token, driver, driver_opts, scheduler, scheduler_opts,
                use_host_network)
            VALUES ($1, $2, coalesce($3, true), coalesce($4, true), $5, $6,
                coalesce($7, 'static'), coalesce($8, '{}'::jsonb), coalesce($9, 'fifo'),
                coalesce($10, '{}'::jsonb), coalesce($11, false))",
            &params(&name, new),
        )
        .await
    }

    /// Changes a scaling group; false if there is none.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn scaling_group_update(
        &self,
        name: &str,
        change: &ScalingGroupChange,
    ) -> Result<bool> {
        let rows = self
            .execute(
                "-- scaling_group_update
                UPDATE scaling_groups SET
                    description = coalesce($2, description), is_active = coalesce($3, is_active),
                    is_public = coalesce($4, is_public),
                    wsproxy_addr = coalesce($5, wsproxy_addr),
                    wsproxy_api_token = coalesce($6, wsproxy_api_token),
                    driver = coalesce($7, driver), driver_opts = coalesce($8, driver_opts),
                    scheduler = coalesce($9, scheduler),
                    scheduler_opts = coalesce($10, scheduler_opts),
                    use_host_network = coalesce($11, use_host_network)
                WHERE name = $1",
                &params(&name, change),
            )
            .await?;
        Ok(rows == 1)
    }

    /// Removes a scaling group and all associations with it; false if there is none.
    ///
    /// # Errors
    /// It has agents or sessions.
    pub async fn scaling_group_delete(&self, name: &str) -> Result<bool> {
        let sql = "-- scaling_group_delete
                   DELETE FROM scaling_groups WHERE name = $1";
        Ok(self.execute(sql, &[&name]).await? == 1)
    }

    /// Lets somebody use a scaling group.
    ///
    /// # Errors
    /// They may already, or one of the two does not exist.
    pub async fn scaling_group_associate(&self, name: &str, user: &ScalingGroupUser) -> Result<()> {
        let sql = match user {
            ScalingGroupUser::Domain(_) => {
                "-- scaling_group_associate_domain
                INSERT INTO sgroups_for_domains (scaling_group, domain) VALUES ($1, $2)"
            }
            ScalingGroupUser::Group(_) => {
                "-- scaling_group_associate_group
                INSERT INTO sgroups_for_groups (scaling_group, \"group\") VALUES ($1, $2)"
            }
            ScalingGroupUser::Keypair(_) => {
                "-- scaling_group_associate_keypair
                INSERT INTO sgroups_for_keypairs (scaling_group, access_key) VALUES ($1, $2)"
            }
        };
        self.execute_one("association", sql, &[&name, user.id()]).await
    }

    /// Lets somebody use a scaling group (or, without a name, any) no more; the number of
    /// associations that ended.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn scaling_group_disassociate(
        &self,
        name: Option<&str>,
        user: &ScalingGroupUser,
    ) -> Result<u64> {
        let sql = match user {
            ScalingGroupUser::Domain(_) => {
                "-- scaling_group_disassociate_domain
                DELETE FROM sgroups_for_domains
                WHERE ($1::text IS NULL OR scaling_group = $1) AND domain = $2"
            }
            ScalingGroupUser::Group(_) => {
                "-- scaling_group_disassociate_group
                DELETE FROM sgroups_for_groups
                WHERE ($1::text IS NULL OR scaling_group = $1) AND \"group\" = $2"
            }
            ScalingGroupUser::Keypair(_) => {
                "-- scaling_group_disassociate_keypair
                DELETE FROM sgroups_for_keypairs
                WHERE ($1::text IS NULL OR scaling_group = $1) AND access_key = $2"
            }
        };
        self.execute(sql, &[&name, user.id()]).await
    }
}

impl ScalingGroupUser {
    fn id(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Domain(name) => name,
            Self::Group(id) => &id.0,
            Self::Keypair(key) => &key.0,
        }
    }
}

/// The parameters of both statements that write a scaling group.
fn params<'a>(name: &'a &'a str, columns: &'a ScalingGroupChange) -> [&'a (dyn ToSql + Sync); 11] {
    [
        name,
        &columns.description,
        &columns.is_active,
        &columns.is_public,
        &columns.wsproxy_addr,
        &columns.wsproxy_api_token,
        &columns.driver,
        &columns.driver_opts,
        &columns.scheduler,
        &columns.scheduler_opts,
        &columns.use_host_network,
    ]
}

impl ScalingGroup {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            name: row.try_get("name")?,
            is_public: row.try_get("is_public")?,
            scheduler: row.try_get("scheduler")?,
            scheduler_opts: row.try_get("scheduler_opts")?,
        })
    }

    /// True when sessions of this type (`interactive`…) are accepted.
    pub fn accepts(&self, session_type: &str) -> bool {
        match self.scheduler_opts.get("allowed_session_types").and_then(Value::as_array) {
            Some(types) => types
                .iter()
                .filter_map(Value::as_str)
                .any(|allowed| allowed.eq_ignore_ascii_case(session_type)),
            None => matches!(session_type, "interactive" | "batch"),
        }
    }
}
