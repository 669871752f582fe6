//! Running code in a session, through the agent its main kernel lies on.

use std::collections::HashMap;
use std::time::Duration;

use backendai_datastore::Datastore;
use backendai_datastore::kernel::AgentAddr;
use backendai_rpc::agent_api::{
    AgentClient, Complete, Execute, ExecuteMode, ExecuteReply, KernelCall, RunStatus,
};
use backendai_rpc::call::{CallError, ErrorKind};
use backendai_types::{KernelId, KernelStatus, SessionId};
use parking_lot::Mutex;

use super::lookup;
use crate::app::error::AgentOperation;
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// Exit code of runs whose kernel is gone: that of a shell whose program was interrupted.
const EXIT_GONE: i32 = 130;

/// One step of a run.
#[derive(Clone, Debug)]
pub struct ExecuteRequest {
    /// Which run; `None` lets the agent name a new one.
    pub run_id: Option<String>,
    /// What to do.
    pub mode: ExecuteMode,
    /// How long to gather output before answering `continued`.
    pub flush: Duration,
}

/// A main kernel that runs, looked up once for any number of steps.
#[derive(Clone)]
pub struct RunningKernel {
    /// The session.
    pub session_id: SessionId,
    /// The session's main kernel.
    pub kernel_id: KernelId,
    pub(super) agent_addr: String,
    pub(super) client: AgentClient,
    app: SharedApp,
}

impl RunningKernel {
    /// One step of a run. A kernel that is gone gives a finished run with exit code 130.
    ///
    /// # Errors
    /// The agent failed or did not answer.
    pub async fn step(&self, request: ExecuteRequest) -> Result<ExecuteReply> {
        if matches!(request.mode, ExecuteMode::Query { .. } | ExecuteMode::Batch { .. }) {
            self.app.executions.count(self.session_id);
        }
        let run_id = request.run_id.clone();
        let call = Execute {
            kernel_id: self.kernel_id,
            received: self.app.received_output.last_record(self.kernel_id, run_id.as_deref()),
            run_id: request.run_id,
            mode: request.mode,
            flush_ms: u64::try_from(request.flush.as_millis()).unwrap_or(u64::MAX),
        };
        match self.client.execute(&call).await {
            Ok(reply) => {
                self.app.received_output.note(self.kernel_id, &reply);
                Ok(reply)
            }
            Err(CallError::Remote(error)) if error.kind == ErrorKind::KernelNotFound => {
                Ok(ExecuteReply {
                    run_id: run_id.unwrap_or_default(),
                    status: RunStatus::Finished,
                    exit_code: Some(EXIT_GONE),
                    is_password: None,
                    console: Vec::new(),
                    last_record: 0,
                })
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Interrupts what the kernel runs, as Ctrl-C would.
    ///
    /// # Errors
    /// The agent failed or did not answer.
    pub async fn interrupt(&self) -> Result<()> {
        self.client.interrupt(&KernelCall { kernel_id: self.kernel_id }).await.map_err(failed)
    }

    /// Completes code at the cursor (row and column from 0; the end of the code if absent).
    ///
    /// # Errors
    /// The agent failed or did not answer.
    pub async fn complete(&self, code: &str, cursor: Option<(u32, u32)>) -> Result<Vec<String>> {
        let call = Complete { kernel_id: self.kernel_id, code: code.to_owned(), cursor };
        self.client.complete(&call).await.map_err(failed)
    }
}

/// Finds the caller's session and its running main kernel.
///
/// # Errors
/// No such session, or it does not run.
pub async fn open(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
) -> Result<RunningKernel> {
    let session = lookup::find_live(app, &context.access_key, reference).await?;
    let tx = app.datastore.autocommit().await?;
    let kernel = tx.main_kernel_located(session.id).await?;
    match kernel {
        Some(kernel) if kernel.status == KernelStatus::Running => Ok(RunningKernel {
            session_id: session.id,
            kernel_id: kernel.id,
            agent_addr: kernel.agent.addr.clone(),
            client: client(app, &kernel.agent, context),
            app: app.clone(),
        }),
        _ => Err(Error::invalid(format!(
            "The session {} is not running: its status is {}.",
            session.name, session.status
        ))),
    }
}

/// One step of a run in the caller's session.
///
/// # Errors
/// No such session, it does not run, or its agent failed.
pub async fn execute(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
    request: ExecuteRequest,
) -> Result<ExecuteReply> {
    open(app, context, reference).await?.step(request).await
}

/// Interrupts what the caller's session runs.
///
/// # Errors
/// No such session, it does not run, or its agent failed.
pub async fn interrupt(app: &SharedApp, context: &RequestContext, reference: &str) -> Result<()> {
    open(app, context, reference).await?.interrupt().await
}

/// Completes code at the cursor (row and column from 0; the end of the code if absent).
///
/// # Errors
/// No such session, it does not run, or its agent failed.
pub async fn complete(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
    code: &str,
    cursor: Option<(u32, u32)>,
) -> Result<Vec<String>> {
    open(app, context, reference).await?.complete(code, cursor).await
}

fn client(app: &SharedApp, agent: &AgentAddr, context: &RequestContext) -> AgentClient {
    app.agents.client(agent, Some(&context.request_id))
}

pub(super) fn failed(source: CallError) -> Error {
    Error::Agent { operation: AgentOperation::Execute, source }
}

/// Counts pieces of executed code in memory; the counts reach the sessions' rows in batches,
/// so that executing costs no write.
#[derive(Default)]
pub struct Executions {
    counts: Mutex<HashMap<SessionId, i64>>,
}

impl Executions {
    fn count(&self, session: SessionId) {
        *self.counts.lock().entry(session).or_default() += 1;
    }

    /// Adds what was counted to the rows; keeps it when that fails.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn flush(&self, datastore: &Datastore) -> backendai_datastore::Result<()> {
        let counts: Vec<(SessionId, i64)> = self.counts.lock().drain().collect();
        if counts.is_empty() {
            return Ok(());
        }
        let written = async {
            let tx = datastore.autocommit().await?;
            tx.session_add_queries(&counts).await
        };
        let result = written.await;
        if result.is_err() {
            let mut kept = self.counts.lock();
            for (session, count) in counts {
                *kept.entry(session).or_default() += count;
            }
        }
        result
    }
}
