//! Scaling groups as rows: who may use them and how they schedule.

use backendai_types::{AccessKey, GroupId};
use serde_json::Value;
use tokio_postgres::Row;

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
