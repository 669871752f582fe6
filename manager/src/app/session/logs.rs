//! What kernels have written.
//!
//! While a container lives, its engine has the log; when it is gone, the database keeps the
//! end of it. A batch command writes to the same log, so that it serves as the task's log.

use backendai_datastore::kernel::{AgentAddr, Kernel};
use backendai_rpc::agent_api::KernelCall;
use backendai_rpc::call::{CallError, ErrorKind};
use backendai_types::{AccessKey, KernelId, KernelStatus};
use uuid::Uuid;

use super::lookup;
use crate::app::error::AgentOperation;
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// The main kernel's log: from its agent while it lives, from the database afterwards.
/// Empty for a session that has not begun to run.
///
/// # Errors
/// No such session, or its agent failed.
pub async fn logs(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
    owner_access_key: Option<&str>,
) -> Result<String> {
    let owner: AccessKey = lookup::resolve_owner(app, context, owner_access_key).await?;
    let session = lookup::find_any(app, &owner, reference).await?;
    let tx = app.datastore.autocommit().await?;
    let Some(kernel) = tx.main_kernel_located(session.id).await? else {
        return Ok(String::new());
    };
    drop(tx);
    let bytes = read(app, context, kernel.id, kernel.status, Some(&kernel.agent)).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The log of one of the caller's kernels, as bytes. A session's id stands for its main
/// kernel.
///
/// # Errors
/// No such kernel, or its agent failed.
pub async fn task_log(app: &SharedApp, context: &RequestContext, id: Uuid) -> Result<Vec<u8>> {
    let tx = app.datastore.autocommit().await?;
    let Some(kernel) = tx.kernel_of_user(context.user_id, id).await? else {
        return Err(Error::session_not_found(&id.to_string()));
    };
    let Kernel { id, status, agent, .. } = kernel;
    let agent = match &agent {
        Some(agent) => tx.agent_addr(agent).await?,
        None => None,
    };
    drop(tx);
    read(app, context, id, status, agent.as_ref()).await
}

async fn read(
    app: &SharedApp,
    context: &RequestContext,
    kernel: KernelId,
    status: KernelStatus,
    agent: Option<&AgentAddr>,
) -> Result<Vec<u8>> {
    let tx = app.datastore.autocommit().await?;
    if let Some(stored) = tx.kernel_log(kernel).await? {
        return Ok(stored);
    }
    drop(tx);
    let Some(agent) = agent.filter(|_| !status.is_terminal()) else { return Ok(Vec::new()) };
    let client = app.agents.client(agent, Some(&context.request_id));
    match client.kernel_log(&KernelCall { kernel_id: kernel }).await {
        Ok(log) => Ok(log.bytes),
        // Its agent has not begun with it, or is done with it.
        Err(CallError::Remote(error)) if error.kind == ErrorKind::KernelNotFound => Ok(Vec::new()),
        Err(source) => Err(Error::Agent { operation: AgentOperation::Execute, source }),
    }
}
