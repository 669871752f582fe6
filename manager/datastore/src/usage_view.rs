//! What kernels have used: accounting of a period, kernel by kernel.

use backendai_types::{KernelId, KernelStatus, ResourceSlots, UserId};
use chrono::{DateTime, NaiveDate, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::Result;
use crate::row;
use crate::tx::Transaction;

/// A kernel that lived in a period. Times are texts in the time zone of the transaction.
#[derive(Clone, Debug)]
pub struct KernelUsage {
    /// The kernel.
    pub id: KernelId,
    /// Its session.
    pub session_id: Uuid,
    /// The session's name.
    pub session_name: String,
    /// Its container; `None` if it never had one.
    pub container_id: Option<String>,
    /// The session's domain.
    pub domain_name: String,
    /// The session's group.
    pub group_id: Uuid,
    /// The group's name.
    pub group_name: String,
    /// The keypair it counts against.
    pub access_key: String,
    /// The owner's e-mail address.
    pub email: String,
    /// The owner's name.
    pub full_name: Option<String>,
    /// Where it lay.
    pub agent: Option<String>,
    /// What it was given.
    pub slots: ResourceSlots,
    /// `{"shmem": bytes}`.
    pub resource_opts: Value,
    /// Devices by kind.
    pub attached_devices: Value,
    /// Names of the folders mounted.
    pub mounts: Vec<String>,
    /// Canonical name of its image.
    pub image: String,
    /// Its last figures; `None` while it lives or if there are none.
    pub last_stat: Option<Value>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub terminated_at: Option<DateTime<Utc>>,
    /// `created_at` for people.
    pub created_text: String,
    /// `terminated_at` for people.
    pub terminated_text: Option<String>,
    /// Its status.
    pub status: KernelStatus,
    /// Why.
    pub status_info: Option<String>,
    /// Since when, for people.
    pub status_changed_text: String,
    /// When it entered each status: `{status: text}`.
    pub status_history: Value,
    /// `single-node` or `multi-node`.
    pub cluster_mode: String,
}

/// A kernel's life and size, for sums over time.
#[derive(Clone, Debug)]
pub struct KernelSpan {
    /// Its session.
    pub session_id: Uuid,
    /// Since when it lay on an agent or waited for it.
    pub begin: DateTime<Utc>,
    /// Until when; `None` if it lives.
    pub end: Option<DateTime<Utc>>,
    /// What it was given.
    pub slots: ResourceSlots,
    /// Its last figures.
    pub last_stat: Option<Value>,
}

impl Transaction {
    /// Makes a time zone that of texts and dates of this transaction; false if PostgreSQL
    /// knows no such zone.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn use_time_zone(&self, zone: &str) -> Result<bool> {
        let known = self
            .query_opt(
                "-- use_time_zone
                SELECT set_config('TimeZone', name, true) FROM pg_timezone_names WHERE name = $1",
                &[&zone],
            )
            .await?;
        Ok(known.is_some())
    }

    /// Kernels that lay on an agent at some time from `first` to the day before `end`, by
    /// group and age. `groups` of `None` are all.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn kernel_usage(
        &self,
        first: NaiveDate,
        end: NaiveDate,
        groups: Option<&[Uuid]>,
    ) -> Result<Vec<KernelUsage>> {
        let rows = self
            .query(
                "-- kernel_usage
                SELECT k.id, k.session_id, s.name, k.container_id, s.domain_name, s.group_id,
                    g.name AS group_name, s.access_key, u.email, u.full_name, k.agent,
                    k.requested_slots, k.resource_opts, k.attached_devices, k.image,
                    k.last_stat, k.created_at, k.terminated_at, k.status, k.status_info,
                    s.cluster_mode,
                    ARRAY(SELECT m ->> 'name' FROM jsonb_array_elements(s.vfolder_mounts) m
                          WHERE m ? 'name') AS mounts,
                    to_char(k.created_at, 'YYYY-MM-DD HH24:MI:SS.USTZH:TZM') AS created_text,
                    to_char(k.terminated_at, 'YYYY-MM-DD HH24:MI:SS.USTZH:TZM') AS terminated_text,
                    to_char(k.status_changed, 'YYYY-MM-DD HH24:MI:SS.USTZH:TZM') AS changed_text,
                    (SELECT coalesce(jsonb_object_agg(t.to_status,
                                to_char(t.at, 'YYYY-MM-DD\"T\"HH24:MI:SS.USTZH:TZM') ORDER BY t.seq), '{}')
                     FROM transitions t
                     WHERE t.session_id = k.session_id AND t.kernel_id = k.id
                       AND t.to_status IS NOT NULL) AS history
                FROM kernels k
                JOIN sessions s ON s.id = k.session_id
                JOIN groups g ON g.id = s.group_id
                JOIN users u ON u.uuid = s.user_uuid
                WHERE k.created_at < $2::date /* end */
                  AND (k.terminated_at IS NULL OR k.terminated_at >= $1::date /* first */)
                  AND k.agent IS NOT NULL AND k.status <> 'CANCELLED'
                  AND ($3::uuid[] IS NULL OR s.group_id = ANY($3 /* groups */))
                ORDER BY g.domain_name, g.name, g.id, k.created_at, k.id",
                &[&first, &end, &groups],
            )
            .await?;
        rows.iter().map(KernelUsage::from_row).collect()
    }

    /// Kernels that lay on an agent after a time; of a user, or of everybody.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn kernel_spans(
        &self,
        since: DateTime<Utc>,
        user: Option<UserId>,
    ) -> Result<Vec<KernelSpan>> {
        let rows = self
            .query(
                "-- kernel_spans
                SELECT k.session_id, k.created_at, k.terminated_at, k.requested_slots, k.last_stat
                FROM kernels k JOIN sessions s ON s.id = k.session_id
                WHERE (k.terminated_at IS NULL OR k.terminated_at >= $1 /* since */)
                  AND k.agent IS NOT NULL AND k.status <> 'CANCELLED'
                  AND ($2::uuid IS NULL OR s.user_uuid = $2 /* user */)",
                &[&since, &user.map(|user| user.0)],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(KernelSpan {
                    session_id: row.try_get("session_id")?,
                    begin: row.try_get("created_at")?,
                    end: row.try_get("terminated_at")?,
                    slots: row::slots(row, "requested_slots")?,
                    last_stat: row.try_get("last_stat")?,
                })
            })
            .collect()
    }
}

impl KernelUsage {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: KernelId(row.try_get("id")?),
            session_id: row.try_get("session_id")?,
            session_name: row.try_get("name")?,
            container_id: row.try_get("container_id")?,
            domain_name: row.try_get("domain_name")?,
            group_id: row.try_get("group_id")?,
            group_name: row.try_get("group_name")?,
            access_key: row.try_get("access_key")?,
            email: row.try_get("email")?,
            full_name: row.try_get("full_name")?,
            agent: row.try_get("agent")?,
            slots: row::slots(row, "requested_slots")?,
            resource_opts: row.try_get("resource_opts")?,
            attached_devices: row.try_get("attached_devices")?,
            mounts: row.try_get("mounts")?,
            image: row.try_get("image")?,
            last_stat: row.try_get("last_stat")?,
            created_at: row.try_get("created_at")?,
            terminated_at: row.try_get("terminated_at")?,
            created_text: row.try_get("created_text")?,
            terminated_text: row.try_get("terminated_text")?,
            status: row::parsed(row, "status")?,
            status_info: row.try_get("status_info")?,
            status_changed_text: row.try_get("changed_text")?,
            status_history: row.try_get("history")?,
            cluster_mode: row.try_get("cluster_mode")?,
        })
    }
}
