//! The calls of managers.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use backendai_rpc::agent_api::{
    AgentApi, CommitKernel, CommitState, Complete, CreateKernels, DestroyKernels, DeviceHealth,
    Execute, ExecuteReply, Hello, HelloReply, KernelCall, KernelLog, KernelSpec, OpenStream,
    RestartKernel, RestartKernels, ServiceStart, SessionNetwork, SessionNetworks, SessionSpec,
    StartService, StopService, StreamTicket,
};
use backendai_rpc::call::{CallContext, ErrorKind, RemoteError};
use backendai_rpc::manager_api::{KernelChange, KernelEvent, KernelPhase};
use backendai_rpc::runner::StreamError;
use backendai_rpc::statistics::{Metrics, Packed};
use backendai_types::{KernelId, SessionId};

use crate::backend::BackendError;
use crate::commit;
use crate::core::{Core, EngineState, chain};
use crate::kernel::network;
use crate::kernel::record::{KernelRecord, KernelState};
use crate::kernel::registry::{Kernel, blocking, not_found};
use crate::kernel::task;

/// The reason reported for kernels that are not here.
const ALREADY_TERMINATED: &str = "already-terminated";

/// Answers managers.
pub struct AgentServer {
    core: Arc<Core>,
}

impl AgentServer {
    /// A server for this agent.
    pub fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Until the kernels of an earlier process have been taken up, nothing can be said.
    fn check_recovered(&self) -> Result<(), RemoteError> {
        match *self.core.engine.borrow() {
            EngineState::NotReached => Err(unavailable("has not been reached yet")),
            EngineState::Up | EngineState::Down => Ok(()),
        }
    }

    fn check_engine(&self) -> Result<(), RemoteError> {
        match *self.core.engine.borrow() {
            EngineState::Up => Ok(()),
            EngineState::NotReached => Err(unavailable("has not been reached yet")),
            EngineState::Down => Err(unavailable("does not answer")),
        }
    }

    fn kernel(&self, id: KernelId) -> Result<Arc<Kernel>, RemoteError> {
        self.check_recovered()?;
        self.core.registry.get(id).ok_or_else(|| not_found(id))
    }

    fn running_kernel(&self, id: KernelId) -> Result<Arc<Kernel>, RemoteError> {
        let kernel = self.kernel(id)?;
        kernel.check_running()?;
        Ok(kernel)
    }

    async fn create_kernel(
        &self,
        session: &SessionSpec,
        spec: KernelSpec,
    ) -> Result<(), RemoteError> {
        let record = KernelRecord {
            kernel_id: spec.kernel_id,
            session_id: session.session_id,
            session_type: session.session_type,
            state: KernelState::Creating {
                session: Box::new(session.clone()),
                spec: Box::new(spec.clone()),
            },
            restart: None,
            destroy_reason: None,
            network: network::name(session),
        };
        let (kernel, outbox) = Kernel::new(record);
        if let Err(known) = self.core.registry.insert(&kernel) {
            for event in known.last_events() {
                self.core.events.push_again(event);
            }
            return Ok(());
        }
        if let Err(error) = kernel.save(&self.core.store).await {
            self.core.registry.remove(kernel.id);
            let message = format!("note kernel {} on disk: {error}", kernel.id);
            return Err(RemoteError::new(ErrorKind::Internal, message));
        }
        let begin =
            task::Begin::Create { session: Box::new(session.clone()), spec: Box::new(spec) };
        task::spawn(&self.core, kernel, outbox, begin);
        Ok(())
    }

    async fn restart_kernel(
        &self,
        session: &SessionSpec,
        RestartKernel { restart, spec }: RestartKernel,
    ) -> Result<(), RemoteError> {
        let id = spec.kernel_id;
        let Some(kernel) = self.core.registry.get(id) else {
            self.core.events.push_again(self.already_terminated(id, session.session_id));
            return Ok(());
        };
        let is_new = kernel.record().restart != Some(restart);
        if is_new && kernel.phase() == KernelPhase::Running {
            let asked = kernel.request_restart(&self.core.store, restart, session.clone(), spec);
            return asked.await.map(drop).map_err(|error| {
                let message = format!("note on disk that kernel {id} restarts: {error}");
                RemoteError::new(ErrorKind::Internal, message)
            });
        }
        // It has been restarted, or has ended: the manager may have missed that.
        for event in kernel.last_events() {
            self.core.events.push_again(event);
        }
        Ok(())
    }

    fn already_terminated(&self, kernel_id: KernelId, session_id: SessionId) -> KernelEvent {
        let reason = ALREADY_TERMINATED.to_owned();
        let change = KernelChange::Terminated { reason, exit_code: None, metrics: None };
        KernelEvent { kernel_id, session_id, at: self.core.now(), change }
    }

    async fn destroy_kernel(&self, id: KernelId, session_id: SessionId, reason: &str) {
        let Some(kernel) = self.core.registry.get(id) else {
            self.core.events.push_again(self.already_terminated(id, session_id));
            return;
        };
        if let Err(error) = kernel.request_destroy(&self.core.store, reason).await {
            tracing::error!(kernel.id = %id, %error, "note on disk that a kernel is to be removed");
        }
        if kernel.phase() == KernelPhase::Gone {
            for event in kernel.last_events() {
                self.core.events.push_again(event);
            }
        }
    }
}

#[async_trait]
impl AgentApi for AgentServer {
    async fn hello(&self, _: CallContext, _: Hello) -> Result<HelloReply, RemoteError> {
        let agent_id = self.core.agent_id.to_string();
        Ok(HelloReply { agent_id, version: crate::VERSION.to_owned() })
    }

    async fn create_kernels(
        &self,
        context: CallContext,
        request: CreateKernels,
    ) -> Result<(), RemoteError> {
        self.check_engine()?;
        self.core.epoch.admit(context.epoch)?;
        let CreateKernels { session, kernels } = request;
        let noted = kernels.into_iter().map(|spec| self.create_kernel(&session, spec));
        futures::future::try_join_all(noted).await.map(|_| ())
    }

    async fn restart_kernels(
        &self,
        context: CallContext,
        request: RestartKernels,
    ) -> Result<(), RemoteError> {
        self.check_engine()?;
        self.core.epoch.admit(context.epoch)?;
        let RestartKernels { session, kernels } = request;
        let noted = kernels.into_iter().map(|restart| self.restart_kernel(&session, restart));
        futures::future::try_join_all(noted).await.map(|_| ())
    }

    async fn destroy_kernels(
        &self,
        context: CallContext,
        request: DestroyKernels,
    ) -> Result<(), RemoteError> {
        self.check_recovered()?;
        self.core.epoch.admit(context.epoch)?;
        let DestroyKernels { kernels, reason } = request;
        let noted = kernels.into_iter().map(|(id, s)| self.destroy_kernel(id, s, &reason));
        futures::future::join_all(noted).await;
        Ok(())
    }

    async fn create_network(
        &self,
        context: CallContext,
        network: SessionNetwork,
    ) -> Result<(), RemoteError> {
        self.check_engine()?;
        self.core.epoch.admit(context.epoch)?;
        let made = self.core.networks.order(&self.core, network).await;
        self.core.note_engine(&made);
        made.map_err(|error| network_error(&error))
    }

    async fn remove_networks(
        &self,
        context: CallContext,
        request: SessionNetworks,
    ) -> Result<(), RemoteError> {
        self.check_engine()?;
        self.core.epoch.admit(context.epoch)?;
        for session in request.sessions {
            let removed = self.core.networks.cancel(&self.core, session).await;
            self.core.note_engine(&removed);
            removed.map_err(|error| network_error(&error))?;
        }
        Ok(())
    }

    async fn execute(&self, _: CallContext, request: Execute) -> Result<ExecuteReply, RemoteError> {
        self.running_kernel(request.kernel_id)?.runner.execute(request).await
    }

    async fn interrupt(&self, _: CallContext, request: KernelCall) -> Result<(), RemoteError> {
        self.running_kernel(request.kernel_id)?.runner.interrupt().await
    }

    async fn complete(
        &self,
        _: CallContext,
        request: Complete,
    ) -> Result<Vec<String>, RemoteError> {
        self.running_kernel(request.kernel_id)?.runner.complete(request).await
    }

    async fn start_service(
        &self,
        _: CallContext,
        request: StartService,
    ) -> Result<ServiceStart, RemoteError> {
        self.running_kernel(request.kernel_id)?.runner.start_service(request).await
    }

    async fn stop_service(&self, _: CallContext, request: StopService) -> Result<(), RemoteError> {
        self.running_kernel(request.kernel_id)?.runner.stop_service(request).await
    }

    async fn open_stream(
        &self,
        _: CallContext,
        request: OpenStream,
    ) -> Result<StreamTicket, RemoteError> {
        let kernel = self.running_kernel(request.kernel_id)?;
        let socket = kernel.runner.open_stream(request.target).await?.map_err(|error| {
            let kind = match error {
                StreamError::Refused(_) => ErrorKind::ConnectionRefused,
                StreamError::Ended => ErrorKind::Ended,
                StreamError::Failed(_) => ErrorKind::Internal,
            };
            RemoteError::new(kind, error.to_string())
        })?;
        self.core.streams.ticket(socket).await.map_err(|error| {
            RemoteError::new(ErrorKind::Internal, format!("hand out a stream: {error}"))
        })
    }

    async fn kernel_log(
        &self,
        _: CallContext,
        request: KernelCall,
    ) -> Result<KernelLog, RemoteError> {
        let id = request.kernel_id;
        let waiting = {
            let logs = self.core.logs.clone();
            blocking(move || logs.waiting(id)).await
        };
        if let Ok(Some(bytes)) = waiting {
            return Ok(KernelLog { bytes });
        }
        let kernel = self.kernel(id)?;
        let KernelState::Running(running) = kernel.record().state else {
            return Ok(KernelLog { bytes: Vec::new() });
        };
        self.check_engine()?;
        let max_bytes = usize::try_from(self.core.settings.log_bytes).unwrap_or(usize::MAX);
        let read = self.core.backend.logs(&running.container.id, max_bytes).await;
        self.core.note_engine(&read);
        read.map(|bytes| KernelLog { bytes }).map_err(|error| engine_error(id, &error))
    }

    async fn kernel_metrics(
        &self,
        _: CallContext,
        request: KernelCall,
    ) -> Result<Option<Packed<Metrics>>, RemoteError> {
        let kernel = self.kernel(request.kernel_id)?;
        Ok(self.core.statistics.kernel(kernel.id).map(|metrics| Packed::pack(&metrics)))
    }

    async fn commit(
        &self,
        _: CallContext,
        request: CommitKernel,
    ) -> Result<CommitState, RemoteError> {
        self.check_engine()?;
        commit::commit(&self.core, request).await
    }

    async fn hardware(
        &self,
        _: CallContext,
        _: Hello,
    ) -> Result<BTreeMap<String, DeviceHealth>, RemoteError> {
        self.check_recovered()?;
        let engine = *self.core.engine.borrow();
        let (status, status_info) = match engine {
            EngineState::Up => ("healthy", None),
            _ => ("degraded", Some("the container engine does not answer".to_owned())),
        };
        let health = |(slot, (_, amount)): (_, (_, rust_decimal::Decimal))| {
            let health = DeviceHealth {
                status: status.to_owned(),
                status_info: status_info.clone(),
                metadata: BTreeMap::from([("offered".to_owned(), amount.to_string())]),
            };
            (backendai_types::SlotName::to_string(&slot), health)
        };
        let offered = self.core.pool().map(|pool| pool.lock().offered()).unwrap_or_default();
        Ok(offered.into_iter().map(health).collect())
    }
}

fn unavailable(what: &str) -> RemoteError {
    RemoteError::new(ErrorKind::EngineUnavailable, format!("the agent's container engine {what}"))
}

fn network_error(error: &BackendError) -> RemoteError {
    let kind = match error {
        BackendError::NoSwarm(_) => ErrorKind::NotSupported,
        BackendError::Unavailable(_) => ErrorKind::EngineUnavailable,
        _ => ErrorKind::Internal,
    };
    RemoteError::new(kind, chain(error).to_string())
}

fn engine_error(id: KernelId, error: &BackendError) -> RemoteError {
    let kind = match error {
        BackendError::Unavailable(_) => ErrorKind::EngineUnavailable,
        BackendError::NoSuchContainer(_) => ErrorKind::KernelNotFound,
        _ => ErrorKind::Internal,
    };
    RemoteError::new(kind, format!("kernel {id}: {}", chain(error)))
}
