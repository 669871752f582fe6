//! Kernels as rows.

use backendai_types::image::ServicePort;
use backendai_types::{AgentId, KernelId, KernelStatus, ResourceSlots, SessionId, UserId};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::Result;
use crate::row;
use crate::tx::Transaction;

/// A kernel, as stored.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its id.
    pub id: KernelId,
    /// Its session.
    pub session_id: SessionId,
    /// `main` or `sub`.
    pub cluster_role: String,
    /// From 1 within the role.
    pub cluster_idx: i32,
    /// 0 for the main kernel, then counting up.
    pub local_rank: i32,
    /// `main1`, `sub1`…
    pub cluster_hostname: String,
    /// Canonical name of its image.
    pub image: String,
    /// The image's architecture.
    pub architecture: String,
    /// The image's registry.
    pub registry: String,
    /// Where it lies; `None` until scheduled.
    pub agent: Option<AgentId>,
    /// The engine's id; `None` until it runs.
    pub container_id: Option<String>,
    /// Address of its agent for apps; `None` until it runs.
    pub kernel_host: Option<String>,
    /// What it asks for.
    pub requested_slots: ResourceSlots,
    /// `{"shmem": bytes}`.
    pub resource_opts: Value,
    /// Ports to serve that no label declares.
    pub preopen_ports: Vec<u16>,
    /// Apps it serves; empty until it runs.
    pub service_ports: Vec<ServicePort>,
    /// Devices it got: kind → slot → device → amount.
    pub attached_devices: Value,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it ran first.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub terminated_at: Option<DateTime<Utc>>,
    /// Its status; changed by [`crate::transition`] alone.
    pub status: KernelStatus,
    /// Since when.
    pub status_changed: DateTime<Utc>,
    /// Why, in a kebab-case word.
    pub status_info: Option<String>,
    /// Why, in detail.
    pub status_data: Value,
    /// Exit code of the container's main process.
    pub exit_code: Option<i32>,
    /// The last statistics.
    pub last_stat: Option<Value>,
}

/// Where an agent answers calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AgentAddr {
    /// The agent.
    pub id: AgentId,
    /// `tcp://host:port`.
    pub addr: String,
    /// Its CURVE public key (Z85); `None` if it speaks in plain text.
    pub public_key: Option<String>,
}

/// A kernel that lies on an agent, with the agent's address.
#[derive(Clone, Debug)]
pub struct LocatedKernel {
    /// The kernel.
    pub id: KernelId,
    /// Its session.
    pub session_id: SessionId,
    /// Its status.
    pub status: KernelStatus,
    /// Why it has this status.
    pub status_info: Option<String>,
    /// Since when.
    pub status_changed: DateTime<Utc>,
    /// Its agent.
    pub agent: AgentAddr,
    /// False when the agent is LOST or has left.
    pub agent_alive: bool,
}

impl Kernel {
    pub(crate) const COLUMNS: &'static str = "k.id, k.session_id, k.cluster_role, k.cluster_idx, \
        k.local_rank, k.cluster_hostname, k.image, k.architecture, k.registry, k.agent, \
        k.container_id, k.kernel_host, k.requested_slots, k.resource_opts, k.preopen_ports, \
        k.service_ports, k.attached_devices, k.created_at, k.started_at, k.terminated_at, \
        k.status, k.status_changed, k.status_info, k.status_data, k.exit_code, k.last_stat";

    pub(crate) fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: KernelId(row.try_get("id")?),
            session_id: SessionId(row.try_get("session_id")?),
            cluster_role: row.try_get("cluster_role")?,
            cluster_idx: row.try_get("cluster_idx")?,
            local_rank: row.try_get("local_rank")?,
            cluster_hostname: row.try_get("cluster_hostname")?,
            image: row.try_get("image")?,
            architecture: row.try_get("architecture")?,
            registry: row.try_get("registry")?,
            agent: row.try_get::<_, Option<String>>("agent")?.map(AgentId),
            container_id: row.try_get("container_id")?,
            kernel_host: row.try_get("kernel_host")?,
            requested_slots: row::slots(row, "requested_slots")?,
            resource_opts: row.try_get("resource_opts")?,
            preopen_ports: ports(row.try_get("preopen_ports")?),
            service_ports: row::json(row, "service_ports")?,
            attached_devices: row.try_get("attached_devices")?,
            created_at: row.try_get("created_at")?,
            started_at: row.try_get("started_at")?,
            terminated_at: row.try_get("terminated_at")?,
            status: row::parsed(row, "status")?,
            status_changed: row.try_get("status_changed")?,
            status_info: row.try_get("status_info")?,
            status_data: row.try_get("status_data")?,
            exit_code: row.try_get("exit_code")?,
            last_stat: row.try_get("last_stat")?,
        })
    }
}

/// The column is of 32 bits because SQL has no unsigned 16.
pub(crate) fn ports(stored: Vec<i32>) -> Vec<u16> {
    stored.into_iter().filter_map(|port| u16::try_from(port).ok()).collect()
}

impl Transaction {
    /// The kernels of a session, the main one first.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_kernels(&self, session: SessionId) -> Result<Vec<Kernel>> {
        let rows = self
            .query(
                &format!(
                    "-- session_kernels
                    SELECT {} FROM kernels k WHERE k.session_id = $1 ORDER BY k.local_rank",
                    Kernel::COLUMNS
                ),
                &[&session.0],
            )
            .await?;
        rows.iter().map(Kernel::from_row).collect()
    }

    /// The kernels of a session that lie on an agent.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_kernels_located(&self, session: SessionId) -> Result<Vec<LocatedKernel>> {
        let rows = self
            .query(
                "-- session_kernels_located
                SELECT k.id, k.session_id, k.status, k.status_info, k.status_changed, k.agent, a.addr,
                       a.public_key, a.status = 'ALIVE' AS alive
                FROM kernels k JOIN agents a ON a.id = k.agent
                WHERE k.session_id = $1 ORDER BY k.local_rank",
                &[&session.0],
            )
            .await?;
        rows.iter().map(LocatedKernel::from_row).collect()
    }

    /// The main kernel of a session with the address of its agent, if it has one.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn main_kernel_located(&self, session: SessionId) -> Result<Option<LocatedKernel>> {
        let row = self
            .query_opt(
                "-- main_kernel_located
                SELECT k.id, k.session_id, k.status, k.status_info, k.status_changed, k.agent, a.addr,
                       a.public_key, a.status = 'ALIVE' AS alive
                FROM kernels k JOIN agents a ON a.id = k.agent
                WHERE k.session_id = $1 AND k.cluster_role = 'main'",
                &[&session.0],
            )
            .await?;
        row.as_ref().map(LocatedKernel::from_row).transpose()
    }

    /// A kernel of a user's sessions by its own id or, if it is a main kernel, its session's.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn kernel_of_user(&self, user: UserId, id: Uuid) -> Result<Option<Kernel>> {
        let row = self
            .query_opt(
                &format!(
                    "-- kernel_of_user
                    SELECT {} FROM kernels k JOIN sessions s ON s.id = k.session_id
                    WHERE s.user_uuid = $1
                      AND (k.id = $2 OR (s.id = $2 AND k.cluster_role = 'main'))
                    ORDER BY k.id = $2 DESC LIMIT 1",
                    Kernel::COLUMNS
                ),
                &[&user.0, &id],
            )
            .await?;
        row.as_ref().map(Kernel::from_row).transpose()
    }

    /// All kernels in one of these statuses that lie on an agent.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn kernels_located(&self, statuses: &[KernelStatus]) -> Result<Vec<LocatedKernel>> {
        let statuses: Vec<&str> = statuses.iter().map(|status| status.as_str()).collect();
        let rows = self
            .query(
                "-- kernels_located
                SELECT k.id, k.session_id, k.status, k.status_info, k.status_changed, k.agent, a.addr,
                       a.public_key, a.status = 'ALIVE' AS alive
                FROM kernels k JOIN agents a ON a.id = k.agent
                WHERE k.status NOT IN ('TERMINATED', 'CANCELLED')
                  AND k.status = ANY($1 /* statuses */)
                ORDER BY k.id",
                &[&statuses],
            )
            .await?;
        rows.iter().map(LocatedKernel::from_row).collect()
    }

    /// Which of these kernels the database knows, and in which status.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn kernel_statuses(
        &self,
        kernels: &[KernelId],
    ) -> Result<Vec<(KernelId, KernelStatus)>> {
        let ids: Vec<Uuid> = kernels.iter().map(|id| id.0).collect();
        let rows = self
            .query(
                "-- kernel_statuses
                SELECT id, status FROM kernels WHERE id = ANY($1 /* kernels */)",
                &[&ids],
            )
            .await?;
        rows.iter()
            .map(|row| Ok((KernelId(row.try_get("id")?), row::parsed(row, "status")?)))
            .collect()
    }

    /// Keeps the log of a kernel, in place of an earlier one. False if there is no such kernel.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn kernel_log_store(&self, kernel: KernelId, content: &[u8]) -> Result<bool> {
        let rows = self
            .execute(
                "-- kernel_log_store
                INSERT INTO kernel_logs (kernel_id, content)
                SELECT id, $2 FROM kernels WHERE id = $1
                ON CONFLICT (kernel_id) DO UPDATE SET content = $2, stored_at = now()",
                &[&kernel.0, &content],
            )
            .await?;
        Ok(rows > 0)
    }

    /// The kept log of a kernel that is gone.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn kernel_log(&self, kernel: KernelId) -> Result<Option<Vec<u8>>> {
        let row = self
            .query_opt(
                "-- kernel_log\nSELECT content FROM kernel_logs WHERE kernel_id = $1",
                &[&kernel.0],
            )
            .await?;
        Ok(row.map(|row| row.try_get("content")).transpose()?)
    }
}

impl LocatedKernel {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: KernelId(row.try_get("id")?),
            session_id: SessionId(row.try_get("session_id")?),
            status: row::parsed(row, "status")?,
            status_info: row.try_get("status_info")?,
            status_changed: row.try_get("status_changed")?,
            agent: AgentAddr {
                id: AgentId(row.try_get("agent")?),
                addr: row.try_get("addr")?,
                public_key: row.try_get("public_key")?,
            },
            agent_alive: row.try_get("alive")?,
        })
    }
}
