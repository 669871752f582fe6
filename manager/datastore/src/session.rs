//! Sessions as rows.

use std::collections::BTreeMap;

use backendai_types::{
    AccessKey, AgentId, ClusterMode, GroupId, KernelId, ResourceSlots, SessionId, SessionResult,
    SessionStatus, SessionType, UserId,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::Result;
use crate::kernel::Kernel;
use crate::row;
use crate::tx::Transaction;
use crate::vfolder_mount::VfolderMount;

/// A session, as stored.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Its name, unique among the live sessions of a keypair.
    pub name: String,
    /// What it is for.
    pub session_type: SessionType,
    /// Where its kernels may lie.
    pub cluster_mode: ClusterMode,
    /// Number of kernels.
    pub cluster_size: i32,
    /// The owner's domain.
    pub domain_name: String,
    /// The group it belongs to.
    pub group_id: GroupId,
    /// The owner.
    pub user_id: UserId,
    /// The owner's keypair.
    pub access_key: AccessKey,
    /// Where it is scheduled.
    pub scaling_group: String,
    /// Canonical name of the image.
    pub image: String,
    /// The image's architecture.
    pub architecture: String,
    /// Free text for the user.
    pub tag: Option<String>,
    /// What all kernels together ask for.
    pub requested_slots: ResourceSlots,
    /// Environment variables the user gave.
    pub environ: BTreeMap<String, String>,
    /// Mounted folders.
    pub vfolder_mounts: Value,
    /// Script run before the session is RUNNING.
    pub bootstrap_script: Option<String>,
    /// Command of a batch session.
    pub startup_command: Option<String>,
    /// Where to report the session's life.
    pub callback_url: Option<String>,
    /// Agents a superadmin asked for.
    pub designated_agents: Option<Vec<AgentId>>,
    /// True for system (sftp) sessions.
    pub is_private: bool,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When a batch session may start.
    pub starts_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub terminated_at: Option<DateTime<Utc>>,
    /// Its status; changed by [`crate::transition`] alone.
    pub status: SessionStatus,
    /// Since when.
    pub status_changed: DateTime<Utc>,
    /// Why, in a kebab-case word.
    pub status_info: Option<String>,
    /// Why, in detail.
    pub status_data: Value,
    /// How a batch session ended.
    pub result: SessionResult,
    /// Pieces of code executed in it.
    pub num_queries: i64,
}

/// A session to insert; its kernels are in [`NewKernel`].
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// See [`Session`].
    pub name: String,
    /// See [`Session`].
    pub session_type: SessionType,
    /// See [`Session`].
    pub cluster_mode: ClusterMode,
    /// See [`Session`].
    pub domain_name: String,
    /// See [`Session`].
    pub group_id: GroupId,
    /// See [`Session`].
    pub user_id: UserId,
    /// See [`Session`].
    pub access_key: AccessKey,
    /// See [`Session`].
    pub scaling_group: String,
    /// See [`Session`].
    pub image: String,
    /// See [`Session`].
    pub architecture: String,
    /// Registry of the image.
    pub registry: String,
    /// See [`Session`].
    pub tag: Option<String>,
    /// See [`Session`].
    pub requested_slots: ResourceSlots,
    /// See [`Session`].
    pub environ: BTreeMap<String, String>,
    /// See [`Session`].
    pub bootstrap_script: Option<String>,
    /// See [`Session`].
    pub startup_command: Option<String>,
    /// See [`Session`].
    pub callback_url: Option<String>,
    /// Keys shared by the kernels of a cluster, public and private; `None` for single kernels.
    pub cluster_ssh_keypair: Option<(String, String)>,
    /// See [`Session`].
    pub designated_agents: Option<Vec<AgentId>>,
    /// See [`Session`].
    pub is_private: bool,
    /// See [`Session`].
    pub starts_at: Option<DateTime<Utc>>,
    /// Sessions that must succeed first.
    pub dependencies: Vec<SessionId>,
    /// Folders it sees; noted by [`Transaction::session_vfolders_insert`].
    pub vfolder_mounts: Vec<VfolderMount>,
    /// Its kernels, the main one first.
    pub kernels: Vec<NewKernel>,
}

/// A kernel to insert with its session, whose image it runs.
#[derive(Clone, Debug)]
pub struct NewKernel {
    /// Its id.
    pub id: KernelId,
    /// `main` or `sub`.
    pub cluster_role: &'static str,
    /// From 1 within the role.
    pub cluster_idx: i32,
    /// 0 for the main kernel, then counting up.
    pub local_rank: i32,
    /// What it asks for.
    pub requested_slots: ResourceSlots,
    /// `{"shmem": "bytes"}` and whatever else the user gave.
    pub resource_opts: Value,
    /// Ports to serve that no label declares.
    pub preopen_ports: Vec<u16>,
}

/// Name of the index that makes the name of a live session unique within a keypair; the
/// constraint of the [`Conflict`](crate::DatastoreError::Conflict) that
/// [`Transaction::session_insert`] fails with when the name is taken.
pub const LIVE_NAME_INDEX: &str = "sessions_live_name";

impl Session {
    const COLUMNS: &'static str = "s.id, s.name, s.session_type, s.cluster_mode, s.cluster_size, \
        s.domain_name, s.group_id, s.user_uuid, s.access_key, s.scaling_group, s.image, \
        s.architecture, s.tag, s.requested_slots, s.environ, s.vfolder_mounts, \
        s.bootstrap_script, s.startup_command, s.callback_url, s.designated_agents, \
        s.is_private, s.created_at, s.starts_at, s.terminated_at, s.status, s.status_changed, \
        s.status_info, s.status_data, s.result, s.num_queries";

    pub(crate) fn from_row(row: &Row) -> Result<Self> {
        let agents: Option<Vec<String>> = row.try_get("designated_agents")?;
        Ok(Self {
            id: SessionId(row.try_get("id")?),
            name: row.try_get("name")?,
            session_type: row::parsed(row, "session_type")?,
            cluster_mode: row::parsed(row, "cluster_mode")?,
            cluster_size: row.try_get("cluster_size")?,
            domain_name: row.try_get("domain_name")?,
            group_id: GroupId(row.try_get("group_id")?),
            user_id: UserId(row.try_get("user_uuid")?),
            access_key: AccessKey(row.try_get("access_key")?),
            scaling_group: row.try_get("scaling_group")?,
            image: row.try_get("image")?,
            architecture: row.try_get("architecture")?,
            tag: row.try_get("tag")?,
            requested_slots: row::slots(row, "requested_slots")?,
            environ: row::json(row, "environ")?,
            vfolder_mounts: row.try_get("vfolder_mounts")?,
            bootstrap_script: row.try_get("bootstrap_script")?,
            startup_command: row.try_get("startup_command")?,
            callback_url: row.try_get("callback_url")?,
            designated_agents: agents.map(|ids| ids.into_iter().map(AgentId).collect()),
            is_private: row.try_get("is_private")?,
            created_at: row.try_get("created_at")?,
            starts_at: row.try_get("starts_at")?,
            terminated_at: row.try_get("terminated_at")?,
            status: row::parsed(row, "status")?,
            status_changed: row.try_get("status_changed")?,
            status_info: row.try_get("status_info")?,
            status_data: row.try_get("status_data")?,
            result: row::parsed(row, "result")?,
            num_queries: row.try_get("num_queries")?,
        })
    }
}

impl Transaction {
    /// Inserts a session with its kernels and dependencies as PENDING, and the event
    /// `session_enqueued`: one statement, so that it needs no transaction around it.
    ///
    /// # Errors
    /// `Conflict` on [`LIVE_NAME_INDEX`] when the keypair has a live session of this name;
    /// `Reference` when something it refers to has vanished.
    pub async fn session_insert(&self, new: &NewSession, actor: &str) -> Result<()> {
        let kernels = KernelColumns::of(&new.kernels);
        let size = i32::try_from(new.kernels.len()).unwrap_or(i32::MAX);
        let slots = row::slots_json(&new.requested_slots);
        let environ = serde_json::to_value(&new.environ).expect("a map of texts is JSON");
        let agents: Option<Vec<&str>> =
            new.designated_agents.as_ref().map(|ids| ids.iter().map(AgentId::as_str).collect());
        let cluster_keys = new.cluster_ssh_keypair.as_ref().map(
            |(public, private)| serde_json::json!({"public_key": public, "private_key": private}),
        );
        let dependencies: Vec<Uuid> = new.dependencies.iter().map(|id| id.0).collect();
        self.execute(
            "-- session_insert
            WITH session AS (
                INSERT INTO sessions (id, name, session_type, cluster_mode, cluster_size,
                    domain_name, group_id, user_uuid, access_key, scaling_group, image,
                    architecture, tag, requested_slots, environ, bootstrap_script,
                    startup_command, callback_url, designated_agents, is_private, starts_at,
                    cluster_ssh_keypair)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                        $17, $18, $19, $20, $21, $32)
            ), kernel AS (
                INSERT INTO kernels (id, session_id, cluster_role, cluster_idx, local_rank,
                    cluster_hostname, requested_slots, resource_opts, preopen_ports,
                    image, architecture, registry)
                SELECT k.id, $1, k.role, k.idx, k.rank, k.role || k.idx, k.slots, k.opts,
                       ARRAY(SELECT jsonb_array_elements_text(k.ports)::int), $11, $12, $22
                FROM unnest($23::uuid[], $24::text[], $25::int[], $26::int[], $27::jsonb[],
                            $28::jsonb[], $29::jsonb[])
                    AS k(id, role, idx, rank, slots, opts, ports)
            ), dependency AS (
                INSERT INTO session_dependencies (session_id, depends_on)
                SELECT $1, d FROM unnest($30::uuid[]) AS d
            )
            -- Followers count on a transaction having its id before it draws a number.
            INSERT INTO transitions (xact, session_id, event, to_status, actor)
            SELECT x.id, $1, 'session_enqueued', 'PENDING', $31
            FROM (SELECT pg_current_xact_id() AS id OFFSET 0) x",
            &[
                &new.id.0,
                &new.name,
                &new.session_type.as_str(),
                &new.cluster_mode.as_str(),
                &size,
                &new.domain_name,
                &new.group_id.0,
                &new.user_id.0,
                &new.access_key.0,
                &new.scaling_group,
                &new.image,
                &new.architecture,
                &new.tag,
                &slots,
                &environ,
                &new.bootstrap_script,
                &new.startup_command,
                &new.callback_url,
                &agents,
                &new.is_private,
                &new.starts_at,
                &new.registry,
                &kernels.id,
                &kernels.role,
                &kernels.idx,
                &kernels.rank,
                &kernels.slots,
                &kernels.opts,
                &kernels.ports,
                &dependencies,
                &actor,
                &cluster_keys,
            ],
        )
        .await?;
        Ok(())
    }

    /// Sessions of a keypair with this id or name, newest first, at most ten.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_find(
        &self,
        access_key: &AccessKey,
        reference: &str,
        live_only: bool,
    ) -> Result<Vec<Session>> {
        if let Ok(id) = reference.parse::<Uuid>() {
            let rows = self
                .query(
                    &format!(
                        "-- session_find_by_id
                        SELECT {} FROM sessions s WHERE s.id = $1 AND s.access_key = $2
                          AND (NOT $3 OR s.status NOT IN ('TERMINATED', 'CANCELLED'))",
                        Session::COLUMNS
                    ),
                    &[&id, &access_key.0, &live_only],
                )
                .await?;
            if !rows.is_empty() {
                return rows.iter().map(Session::from_row).collect();
            }
        }
        // Two texts, so that the partial index of live names serves the common one.
        let live = match live_only {
            true => "AND s.status NOT IN ('TERMINATED', 'CANCELLED')",
            false => "",
        };
        let rows = self
            .query(
                &format!(
                    "-- session_find_by_name
                    SELECT {} FROM sessions s WHERE s.access_key = $1 AND s.name = $2 {live}
                    ORDER BY s.created_at DESC, s.id LIMIT 10",
                    Session::COLUMNS
                ),
                &[&access_key.0, &reference],
            )
            .await?;
        rows.iter().map(Session::from_row).collect()
    }

    /// The live session of a keypair with this name.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_named(
        &self,
        access_key: &AccessKey,
        name: &str,
    ) -> Result<Option<Session>> {
        let row = self
            .query_opt(
                &format!(
                    "-- session_named
                    SELECT {} FROM sessions s WHERE s.access_key = $1 AND s.name = $2
                      AND s.status NOT IN ('TERMINATED', 'CANCELLED')",
                    Session::COLUMNS
                ),
                &[&access_key.0, &name],
            )
            .await?;
        row.as_ref().map(Session::from_row).transpose()
    }

    /// A session by its id.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_get(&self, id: SessionId) -> Result<Option<Session>> {
        let row = self
            .query_opt(
                &format!(
                    "-- session_get\nSELECT {} FROM sessions s WHERE s.id = $1",
                    Session::COLUMNS
                ),
                &[&id.0],
            )
            .await?;
        row.as_ref().map(Session::from_row).transpose()
    }

    /// As [`Transaction::session_get`], with the row locked until the transaction ends.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_lock(&self, id: SessionId) -> Result<Option<Session>> {
        let row = self
            .query_opt(
                &format!(
                    "-- session_lock
                    SELECT {} FROM sessions s WHERE s.id = $1 FOR NO KEY UPDATE",
                    Session::COLUMNS
                ),
                &[&id.0],
            )
            .await?;
        row.as_ref().map(Session::from_row).transpose()
    }

    /// Gives a session that may be used another name. False if it may not be used (any more).
    ///
    /// # Errors
    /// `Conflict` on [`LIVE_NAME_INDEX`] when the keypair has a live session of this name.
    pub async fn session_rename(&self, id: SessionId, name: &str) -> Result<bool> {
        let rows = self
            .execute(
                "-- session_rename
                UPDATE sessions SET name = $2
                WHERE id = $1 AND status IN ('RUNNING', 'RUNNING_DEGRADED')",
                &[&id.0, &name],
            )
            .await?;
        Ok(rows > 0)
    }

    /// A session's status and its main kernel, for those who wait for it.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_progress(
        &self,
        id: SessionId,
    ) -> Result<Option<(SessionStatus, Option<Kernel>)>> {
        let row = self
            .query_opt(
                &format!(
                    "-- session_progress
                    SELECT s.status AS session_status, {} FROM sessions s
                    LEFT JOIN kernels k ON k.session_id = s.id AND k.cluster_role = 'main'
                    WHERE s.id = $1",
                    Kernel::COLUMNS
                ),
                &[&id.0],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let kernel: Option<Uuid> = row.try_get("id")?;
        let kernel = kernel.map(|_| Kernel::from_row(&row)).transpose()?;
        Ok(Some((row::parsed(&row, "session_status")?, kernel)))
    }

    /// A session and all sessions that depend on it, near ones first, with their owners.
    /// Ended ones are left out.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_dependents(&self, id: SessionId) -> Result<Vec<SessionId>> {
        let rows = self
            .query(
                "-- session_dependents
                WITH RECURSIVE tree(id, depth) AS (
                    SELECT $1::uuid, 0
                    UNION
                    SELECT d.session_id, tree.depth + 1
                    FROM session_dependencies d JOIN tree ON d.depends_on = tree.id
                    WHERE tree.depth < 1000
                )
                SELECT tree.id FROM tree JOIN sessions s ON s.id = tree.id
                WHERE s.status NOT IN ('TERMINATED', 'CANCELLED') AND tree.depth > 0
                GROUP BY tree.id ORDER BY min(tree.depth), tree.id",
                &[&id.0],
            )
            .await?;
        rows.iter().map(|row| Ok(SessionId(row.try_get("id")?))).collect()
    }

    /// Adds to the counts of executed code.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_add_queries(&self, counts: &[(SessionId, i64)]) -> Result<()> {
        let ids: Vec<Uuid> = counts.iter().map(|(id, _)| id.0).collect();
        let numbers: Vec<i64> = counts.iter().map(|(_, count)| *count).collect();
        self.execute(
            "-- session_add_queries
            UPDATE sessions s SET num_queries = s.num_queries + u.count
            FROM unnest($1::uuid[], $2::bigint[]) AS u(id, count) WHERE s.id = u.id",
            &[&ids, &numbers],
        )
        .await?;
        Ok(())
    }
}

/// Values of a session's kernels, by column.
#[derive(Default)]
struct KernelColumns {
    id: Vec<Uuid>,
    role: Vec<&'static str>,
    idx: Vec<i32>,
    rank: Vec<i32>,
    slots: Vec<Value>,
    opts: Vec<Value>,
    ports: Vec<Value>,
}

impl KernelColumns {
    fn of(kernels: &[NewKernel]) -> Self {
        let mut columns = Self::default();
        for kernel in kernels {
            columns.id.push(kernel.id.0);
            columns.role.push(kernel.cluster_role);
            columns.idx.push(kernel.cluster_idx);
            columns.rank.push(kernel.local_rank);
            columns.slots.push(row::slots_json(&kernel.requested_slots));
            columns.opts.push(kernel.resource_opts.clone());
            columns.ports.push(Value::from(kernel.preopen_ports.clone()));
        }
        columns
    }
}
