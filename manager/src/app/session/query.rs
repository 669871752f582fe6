//! What a session is, for those who ask.

use std::collections::BTreeMap;

use backendai_datastore::kernel::Kernel;
use backendai_datastore::session::Session;
use backendai_datastore::session_graph::SessionNode;
use backendai_types::{KernelId, KernelStatus, ResourceSlots, SessionId};
use chrono::{DateTime, Utc};

use serde_json::Value;

use super::lookup;
use crate::app::statistics;
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;
use crate::wake::Task;

/// A session with its main kernel.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The session.
    pub session: Session,
    /// Its main kernel.
    pub main_kernel: Kernel,
    /// What its kernels occupy now.
    pub occupied_slots: ResourceSlots,
    /// The main kernel's statistics as clients see them: live ones while it runs.
    pub last_stat: Option<Value>,
}

impl SessionInfo {
    /// The main kernel's status, which the API shows in places as the session's.
    pub fn kernel_status(&self) -> KernelStatus {
        self.main_kernel.status
    }
}

/// A live session of the caller.
///
/// # Errors
/// No such session.
pub async fn info(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
) -> Result<SessionInfo> {
    let session = lookup::find_live(app, &context.access_key, reference).await?;
    let tx = app.datastore.autocommit().await?;
    let (kernels, occupied_slots) =
        futures::try_join!(tx.session_kernels(session.id), tx.session_usage(session.id))?;
    let main_kernel = kernels.into_iter().find(|kernel| kernel.cluster_role == "main");
    let Some(main_kernel) = main_kernel else {
        return Err(Error::NotFound { object: "main kernel", message: None });
    };
    let last_stat = match main_kernel.status.is_terminal() {
        true => main_kernel.last_stat.clone(),
        false => statistics::kernels(&app.redis, &[main_kernel.id])
            .await
            .get(&main_kernel.id)
            .map(statistics::kernel_view),
    };
    Ok(SessionInfo { session, main_kernel, occupied_slots, last_stat })
}

/// The main kernel of a session.
///
/// # Errors
/// It is gone.
pub async fn main_kernel(app: &SharedApp, session: SessionId) -> Result<KernelId> {
    let tx = app.datastore.autocommit().await?;
    let kernels = tx.session_kernels(session).await?;
    let main = kernels.into_iter().find(|kernel| kernel.cluster_role == "main");
    main.map(|kernel| kernel.id).ok_or(Error::NotFound { object: "main kernel", message: None })
}

/// What a session of the caller depends on, directly or not: its own id, and every
/// node by id.
///
/// # Errors
/// No such session.
pub async fn dependencies(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
) -> Result<(SessionId, BTreeMap<SessionId, SessionNode>)> {
    let session = lookup::find_any(app, &context.access_key, reference).await?;
    let tx = app.datastore.autocommit().await?;
    Ok((session.id, tx.session_graph(session.id).await?))
}

/// Where a system (sftp) session can be reached without the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectAccess {
    /// Host name or address of its agent.
    pub public_host: String,
    /// Ports of that host that lead to its sftp or ssh server; empty where the agent admits
    /// connections through the API alone.
    pub sshd_ports: Vec<u16>,
}

/// How to reach a live session of the caller directly; `None` for ordinary sessions.
///
/// # Errors
/// No such session.
pub async fn direct_access(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
) -> Result<Option<DirectAccess>> {
    let SessionInfo { session, main_kernel, .. } = info(app, context, reference).await?;
    if !session.is_private {
        return Ok(None);
    }
    let ports_of = |name: &str| -> Option<Vec<u16>> {
        let port = main_kernel.service_ports.iter().find(|port| port.name == name)?;
        Some(port.host_ports.iter().copied().flatten().collect())
    };
    Ok(Some(DirectAccess {
        public_host: main_kernel.kernel_host.clone().unwrap_or_default(),
        sshd_ports: ports_of("sftpd").or_else(|| ports_of("sshd")).unwrap_or_default(),
    }))
}

/// Sees to it that what an agent has and what the database says of it are compared soon.
///
/// # Errors
/// No such agent.
pub async fn sync_agent(app: &SharedApp, agent: &str) -> Result<()> {
    let tx = app.datastore.autocommit().await?;
    if tx.agents_existing(&[agent.to_owned()]).await?.is_empty() {
        return Err(Error::NotFound { object: "agent instance", message: Some(agent.to_owned()) });
    }
    app.wake.task(Task::StartSessions);
    app.wake.task(Task::ReapSessions);
    Ok(())
}

/// When a session first came to each of its statuses, in order of time. Ended sessions
/// have a history too.
///
/// # Errors
/// No such session, or its keypair is none of the caller's business.
pub async fn status_history(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
    owner_access_key: Option<&str>,
) -> Result<Vec<(String, DateTime<Utc>)>> {
    let owner = lookup::resolve_owner(app, context, owner_access_key).await?;
    let session = lookup::find_any(app, &owner, reference).await?;
    let db = app.datastore.autocommit().await?;
    let mut histories = db.session_histories(&[session.id]).await?;
    Ok(histories.remove(&session.id).unwrap_or_default())
}
