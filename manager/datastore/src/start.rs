//! Everything an agent must be told to create kernels.

use std::collections::BTreeMap;

use backendai_types::{
    AccessKey, ClusterMode, KernelId, KernelStatus, ResourceSlots, SessionId, SessionStatus,
    SessionType,
};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::dotfile::{self, Dotfile};
use crate::error::Result;
use crate::kernel::{AgentAddr, ports};
use crate::row;
use crate::tx::Transaction;
use crate::vfolder_mount::VfolderMount;

/// A session whose kernels are to be created.
#[derive(Clone, Debug)]
pub struct StartingSession {
    /// Its id.
    pub id: SessionId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub session_type: SessionType,
    /// Where its kernels may lie.
    pub cluster_mode: ClusterMode,
    /// Its status.
    pub status: SessionStatus,
    /// The owner's keypair.
    pub access_key: AccessKey,
    /// Environment variables the user gave.
    pub environ: BTreeMap<String, String>,
    /// Script run before the session is RUNNING.
    pub bootstrap_script: Option<String>,
    /// Command of a batch session.
    pub startup_command: Option<String>,
    /// Folders it sees.
    pub vfolder_mounts: Vec<VfolderMount>,
    /// Files of the domain, the group and the keypair, in this order; a path may repeat.
    pub dotfiles: Vec<Dotfile>,
    /// The owner's ssh keys, public and private.
    pub ssh_keypair: Option<(String, String)>,
    /// Keys shared by the kernels of a cluster, public and private.
    pub cluster_ssh_keypair: Option<(String, String)>,
    /// Its image; `None` if it was deleted meanwhile.
    pub image: Option<StartingImage>,
    /// Its kernels, the main one first.
    pub kernels: Vec<StartingKernel>,
}

/// The image of a session.
#[derive(Clone, Debug)]
pub struct StartingImage {
    /// Full name.
    pub canonical: String,
    /// `x86_64`…
    pub architecture: String,
    /// Name of its registry.
    pub registry: String,
    /// `sha256:…` of its configuration.
    pub config_digest: String,
    /// True for images that only agents have.
    pub is_local: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A kernel to be created.
#[derive(Clone, Debug)]
pub struct StartingKernel {
    /// Its id.
    pub id: KernelId,
    /// Its status.
    pub status: KernelStatus,
    /// `main` or `sub`.
    pub cluster_role: String,
    /// From 1 within the role.
    pub cluster_idx: i32,
    /// 0 for the main kernel, then counting up.
    pub local_rank: i32,
    /// `main1`, `sub1`…
    pub cluster_hostname: String,
    /// What it occupies.
    pub requested_slots: ResourceSlots,
    /// `{"shmem": bytes}`.
    pub resource_opts: Value,
    /// Ports to serve that no label declares.
    pub preopen_ports: Vec<u16>,
    /// Its agent; `None` if it lies on none any more.
    pub agent: Option<AgentAddr>,
    /// False when the agent is LOST or has left.
    pub agent_alive: bool,
}

impl Transaction {
    /// Ids of sessions that are SCHEDULED, those that have been so longest first.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn sessions_scheduled(&self, limit: i64) -> Result<Vec<SessionId>> {
        let rows = self
            .query(
                "-- sessions_scheduled
                SELECT id FROM sessions
                WHERE status NOT IN ('TERMINATED', 'CANCELLED') AND status = 'SCHEDULED'
                ORDER BY status_changed, id LIMIT $1",
                &[&limit],
            )
            .await?;
        rows.iter().map(|row| Ok(SessionId(row.try_get("id")?))).collect()
    }

    /// What it takes to start these sessions.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn sessions_starting(&self, sessions: &[SessionId]) -> Result<Vec<StartingSession>> {
        let ids: Vec<Uuid> = sessions.iter().map(|id| id.0).collect();
        let rows = self
            .query(
                "-- sessions_starting
                SELECT s.id, s.name, s.session_type, s.cluster_mode, s.status AS session_status,
                       s.access_key, s.environ, s.bootstrap_script, s.startup_command,
                       s.cluster_ssh_keypair, s.vfolder_mounts,
                       p.ssh_public_key, p.ssh_private_key, p.dotfiles AS keypair_dotfiles,
                       d.dotfiles AS domain_dotfiles, g.dotfiles AS group_dotfiles,
                       i.name AS image, i.architecture AS image_architecture,
                       i.registry, i.config_digest, i.is_local, i.labels,
                       k.id AS kernel_id, k.status, k.cluster_role, k.cluster_idx, k.local_rank,
                       k.cluster_hostname, k.requested_slots, k.resource_opts, k.preopen_ports,
                       a.id AS agent, a.addr, a.public_key, a.status = 'ALIVE' AS alive
                FROM sessions s
                JOIN kernels k ON k.session_id = s.id
                JOIN keypairs p ON p.access_key = s.access_key
                JOIN domains d ON d.name = s.domain_name
                JOIN groups g ON g.id = s.group_id
                LEFT JOIN images i ON i.name = s.image AND i.architecture = s.architecture
                LEFT JOIN agents a ON a.id = k.agent
                WHERE s.id = ANY($1 /* sessions */)
                ORDER BY s.id, k.local_rank",
                &[&ids],
            )
            .await?;
        let mut starting: Vec<StartingSession> = Vec::new();
        for row in &rows {
            let id = SessionId(row.try_get("id")?);
            let kernel = StartingKernel::from_row(row)?;
            match starting.last_mut() {
                Some(last) if last.id == id => last.kernels.push(kernel),
                _ => {
                    let mut session = StartingSession::from_row(row)?;
                    session.kernels.push(kernel);
                    starting.push(session);
                }
            }
        }
        Ok(starting)
    }
}

impl StartingSession {
    fn from_row(row: &Row) -> Result<Self> {
        let public: Option<String> = row.try_get("ssh_public_key")?;
        let private: Option<String> = row.try_get("ssh_private_key")?;
        let cluster: Option<Value> = row.try_get("cluster_ssh_keypair")?;
        let half = |name: &str| Some(cluster.as_ref()?.get(name)?.as_str()?.to_owned());
        Ok(Self {
            id: SessionId(row.try_get("id")?),
            name: row.try_get("name")?,
            session_type: row::parsed(row, "session_type")?,
            cluster_mode: row::parsed(row, "cluster_mode")?,
            status: row::parsed(row, "session_status")?,
            access_key: AccessKey(row.try_get("access_key")?),
            environ: row::json(row, "environ")?,
            bootstrap_script: row.try_get("bootstrap_script")?,
            startup_command: row.try_get("startup_command")?,
            vfolder_mounts: row::json(row, "vfolder_mounts")?,
            dotfiles: dotfile::of_session(row)?,
            ssh_keypair: public.zip(private),
            cluster_ssh_keypair: half("public_key").zip(half("private_key")),
            image: StartingImage::from_row(row)?,
            kernels: Vec::new(),
        })
    }
}

impl StartingImage {
    fn from_row(row: &Row) -> Result<Option<Self>> {
        let canonical: Option<String> = row.try_get("image")?;
        let Some(canonical) = canonical else { return Ok(None) };
        Ok(Some(Self {
            canonical,
            architecture: row.try_get("image_architecture")?,
            registry: row.try_get("registry")?,
            config_digest: row.try_get("config_digest")?,
            is_local: row.try_get("is_local")?,
            labels: row::json(row, "labels")?,
        }))
    }
}

impl StartingKernel {
    fn from_row(row: &Row) -> Result<Self> {
        let agent: Option<String> = row.try_get("agent")?;
        let addr: Option<String> = row.try_get("addr")?;
        let alive: Option<bool> = row.try_get("alive")?;
        Ok(Self {
            id: KernelId(row.try_get("kernel_id")?),
            status: row::parsed(row, "status")?,
            cluster_role: row.try_get("cluster_role")?,
            cluster_idx: row.try_get("cluster_idx")?,
            local_rank: row.try_get("local_rank")?,
            cluster_hostname: row.try_get("cluster_hostname")?,
            requested_slots: row::slots(row, "requested_slots")?,
            resource_opts: row.try_get("resource_opts")?,
            preopen_ports: ports(row.try_get("preopen_ports")?),
            agent: match agent.zip(addr) {
                Some((id, addr)) => {
                    Some(AgentAddr { id: id.into(), addr, public_key: row.try_get("public_key")? })
                }
                None => None,
            },
            agent_alive: alive.unwrap_or(false),
        })
    }
}
