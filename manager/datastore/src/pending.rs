//! Sessions that wait for the scheduler.

use std::collections::BTreeMap;

use backendai_types::{
    AccessKey, AgentId, ClusterMode, GroupId, KernelId, ResourceSlots, SessionId, SessionType,
    UserId,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::error::Result;
use crate::row;
use crate::tx::Transaction;

/// A PENDING session.
#[derive(Clone, Debug)]
pub struct PendingSession {
    /// Its id.
    pub id: SessionId,
    /// What it is for.
    pub session_type: SessionType,
    /// Where its kernels may lie.
    pub cluster_mode: ClusterMode,
    /// The owner's keypair.
    pub access_key: AccessKey,
    /// The owner.
    pub user_id: UserId,
    /// The group it belongs to.
    pub group_id: GroupId,
    /// The owner's domain.
    pub domain_name: String,
    /// True for system (sftp) sessions.
    pub is_private: bool,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When a batch session may start.
    pub starts_at: Option<DateTime<Utc>>,
    /// Agents a superadmin asked for.
    pub designated_agents: Option<Vec<AgentId>>,
    /// Why it was not scheduled the last time; null before the first.
    pub scheduler: Value,
    /// Its kernels, the main one first.
    pub kernels: Vec<PendingKernel>,
    /// Sessions it waits for: id and name.
    pub unmet_dependencies: Vec<(SessionId, String)>,
}

/// A kernel of a PENDING session.
#[derive(Clone, Debug)]
pub struct PendingKernel {
    /// Its id.
    pub id: KernelId,
    /// Canonical name of its image.
    pub image: String,
    /// The image's architecture.
    pub architecture: String,
    /// What it asks for.
    pub requested_slots: ResourceSlots,
}

/// Which sessions of a scaling group to read.
#[derive(Clone, Debug)]
pub struct Page {
    /// Begin behind (in order of creation) this session.
    pub after: Option<(DateTime<Utc>, SessionId)>,
    /// Read at most this many.
    pub limit: i64,
    /// The youngest first.
    pub newest_first: bool,
    /// Leave out sessions of these architectures, unless their agents are designated.
    pub without_architectures: Vec<String>,
}

impl Transaction {
    /// PENDING sessions of a scaling group in order of creation.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn sessions_pending(
        &self,
        scaling_group: &str,
        page: &Page,
    ) -> Result<Vec<PendingSession>> {
        let (behind, order) = if page.newest_first { ("<", "DESC") } else { (">", "ASC") };
        let after_at = page.after.map(|(at, _)| at);
        let after_id = page.after.map(|(_, id)| id.0);
        let rows = self
            .query(
                &format!(
                    "-- sessions_pending
                    WITH page AS (
                        SELECT * FROM sessions s WHERE s.status = 'PENDING' AND s.scaling_group = $1
                          AND ($2::timestamptz IS NULL OR (s.created_at, s.id) {behind} ($2, $3::uuid))
                          AND (s.designated_agents IS NOT NULL OR s.architecture <> ALL($5))
                        ORDER BY s.created_at {order}, s.id {order} LIMIT $4
                    )
                    SELECT s.id, s.session_type, s.cluster_mode, s.access_key, s.user_uuid,
                           s.group_id, s.domain_name, s.is_private, s.created_at, s.starts_at,
                           s.designated_agents, s.status_data->'scheduler' AS scheduler,
                           k.id AS kernel_id, k.image, k.architecture, k.requested_slots
                    FROM page s JOIN kernels k ON k.session_id = s.id
                    ORDER BY s.created_at {order}, s.id {order}, k.local_rank"
                ),
                &[&scaling_group, &after_at, &after_id, &page.limit, &page.without_architectures],
            )
            .await?;
        let mut sessions: Vec<PendingSession> = Vec::new();
        for row in &rows {
            let id = SessionId(row.try_get("id")?);
            let kernel = PendingKernel {
                id: KernelId(row.try_get("kernel_id")?),
                image: row.try_get("image")?,
                architecture: row.try_get("architecture")?,
                requested_slots: row::slots(row, "requested_slots")?,
            };
            match sessions.last_mut() {
                Some(last) if last.id == id => last.kernels.push(kernel),
                _ => {
                    let agents: Option<Vec<String>> = row.try_get("designated_agents")?;
                    let scheduler: Option<Value> = row.try_get("scheduler")?;
                    sessions.push(PendingSession {
                        id,
                        session_type: row::parsed(row, "session_type")?,
                        cluster_mode: row::parsed(row, "cluster_mode")?,
                        access_key: AccessKey(row.try_get("access_key")?),
                        user_id: UserId(row.try_get("user_uuid")?),
                        group_id: GroupId(row.try_get("group_id")?),
                        domain_name: row.try_get("domain_name")?,
                        is_private: row.try_get("is_private")?,
                        created_at: row.try_get("created_at")?,
                        starts_at: row.try_get("starts_at")?,
                        designated_agents: agents.map(|ids| ids.into_iter().map(AgentId).collect()),
                        scheduler: scheduler.unwrap_or_default(),
                        kernels: vec![kernel],
                        unmet_dependencies: Vec::new(),
                    });
                }
            }
        }
        self.add_unmet_dependencies(&mut sessions).await?;
        Ok(sessions)
    }

    async fn add_unmet_dependencies(&self, sessions: &mut [PendingSession]) -> Result<()> {
        let ids: Vec<Uuid> = sessions.iter().map(|session| session.id.0).collect();
        let rows = self
            .query(
                "-- dependencies_unmet
                SELECT d.session_id, s.id, s.name
                FROM session_dependencies d JOIN sessions s ON s.id = d.depends_on
                WHERE d.session_id = ANY($1 /* sessions */) AND s.result <> 'SUCCESS'
                ORDER BY s.name, s.id",
                &[&ids],
            )
            .await?;
        let mut unmet = BTreeMap::<SessionId, Vec<(SessionId, String)>>::new();
        for row in &rows {
            let of = SessionId(row.try_get("session_id")?);
            let on = (SessionId(row.try_get("id")?), row.try_get("name")?);
            unmet.entry(of).or_default().push(on);
        }
        for session in sessions {
            session.unmet_dependencies = unmet.remove(&session.id).unwrap_or_default();
        }
        Ok(())
    }

    /// Notes why sessions were not scheduled, for those still PENDING: the reason in
    /// `status_info`, the details in `status_data.scheduler`.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn sessions_note_scheduling(
        &self,
        notes: &[(SessionId, &'static str, Value)],
    ) -> Result<()> {
        if notes.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = notes.iter().map(|(id, ..)| id.0).collect();
        let infos: Vec<&str> = notes.iter().map(|(_, info, _)| *info).collect();
        let data: Vec<&Value> = notes.iter().map(|(.., data)| data).collect();
        self.execute(
            "-- sessions_note_scheduling
            WITH locked AS (
                SELECT id FROM sessions WHERE id = ANY($1) AND status = 'PENDING'
                ORDER BY id FOR NO KEY UPDATE)
            UPDATE sessions s SET status_info = u.info,
                status_data = s.status_data || jsonb_build_object('scheduler', u.data)
            FROM locked, unnest($1::uuid[], $2::text[], $3::jsonb[]) AS u(id, info, data)
            WHERE s.id = locked.id AND u.id = s.id",
            &[&ids, &infos, &data],
        )
        .await?;
        Ok(())
    }
}
