//! An agent that makes kernels of nothing, and misbehaves as it is told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backendai_manager::agents::{AgentAddr, AgentTransport};
use backendai_rpc::agent_api::*;
use backendai_rpc::call::{
    CallContext, CallError, Client, Connection, ErrorKind, RemoteError, Service,
};
use backendai_rpc::manager_api::*;
use backendai_rpc::statistics::{Metric, Metrics, Packed, Unit};
use backendai_rpc::transport::MemoryConnection;
use backendai_types::image::ServicePort;
use backendai_types::{AgentId, KernelId, SessionId, SlotName, SlotType};
use parking_lot::Mutex;
use rust_decimal::Decimal;

/// How often a played agent sends heartbeats.
const HEARTBEAT: Duration = Duration::from_millis(50);

/// The figures of every kernel.
pub fn figures() -> Metrics {
    let mem = Metric::new(Unit::Bytes, 512.0).of(1024.0);
    Metrics::from([("mem".to_owned(), mem)])
}

/// What the agent does with a request for kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Creating {
    /// Starts them.
    #[default]
    Starts,
    /// Refuses the call.
    Refuses,
    /// Takes the call and reports failure.
    Fails,
    /// Starts main kernels and reports failure for the others.
    FailsSubs,
    /// Takes the call and says no more.
    Hangs,
    /// Says that it pulls and no more.
    Pulls,
    /// The call does not arrive; the next ones do.
    LosesCall,
    /// Starts the kernels, but the reports are lost.
    LosesReports,
}

/// What the agent remembers.
#[derive(Default)]
pub struct State {
    pub kernels: BTreeMap<KernelId, (SessionId, KernelPhase)>,
    pub creating: Creating,
    /// Does not answer, send heartbeats, or report.
    pub is_silent: bool,
    /// Ignores requests to destroy.
    pub keeps: bool,
    pub specs: Vec<CreateKernels>,
    /// Kernels it was told to restart, with the names of the restarts.
    pub restarts: Vec<(KernelId, i64)>,
    pub destroyed: Vec<(KernelId, String)>,
    /// Sessions with a network of several hosts.
    pub networks: BTreeSet<SessionId>,
    /// Is on no manager of a swarm.
    pub has_no_swarm: bool,
    pub reported: Vec<KernelEvent>,
    pub epochs: Vec<u64>,
    incarnation: u64,
    info_wanted: bool,
}

pub struct FakeAgent {
    pub id: AgentId,
    pub state: Mutex<State>,
    capacity: BTreeMap<SlotName, (SlotType, Decimal)>,
    managers: Arc<Mutex<Vec<ManagerClient>>>,
}

impl FakeAgent {
    pub fn new(id: &str, cpu: i64, managers: Arc<Mutex<Vec<ManagerClient>>>) -> Arc<Self> {
        let state = State { incarnation: 1, info_wanted: true, ..State::default() };
        Arc::new(Self {
            id: id.into(),
            state: Mutex::new(state),
            capacity: BTreeMap::from([
                (SlotName::cpu(), (SlotType::Count, Decimal::from(cpu))),
                (SlotName::mem(), (SlotType::Bytes, Decimal::from(cpu << 32))),
            ]),
            managers,
        })
    }

    /// Sends heartbeats for ever.
    pub async fn beat(self: Arc<Self>) {
        loop {
            self.beat_once().await;
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    async fn beat_once(&self) {
        let heartbeat = {
            let state = self.state.lock();
            if state.is_silent {
                return;
            }
            let kernels = state.kernels.iter().map(|(kernel, (session, phase))| KernelReport {
                kernel_id: *kernel,
                session_id: *session,
                phase: *phase,
            });
            Heartbeat {
                agent_id: self.id.clone(),
                incarnation: state.incarnation,
                info: state.info_wanted.then(|| self.info()),
                kernels: kernels.collect(),
                networks: state.networks.iter().copied().collect(),
            }
        };
        for manager in self.clients() {
            if let Ok(reply) = manager.heartbeat(&heartbeat).await {
                self.state.lock().info_wanted = reply.send_info;
            }
        }
    }

    fn info(&self) -> AgentInfo {
        AgentInfo {
            addr: format!("memory://{}", self.id),
            public_key: None,
            public_host: "127.0.0.1".into(),
            scaling_group: "default".into(),
            region: "local".into(),
            version: "test".into(),
            architecture: "x86_64".into(),
            slots: self.capacity.clone(),
            compute_plugins: BTreeMap::new(),
            images: Vec::new(),
        }
    }

    fn clients(&self) -> Vec<ManagerClient> {
        self.managers.lock().clone()
    }

    /// Reports until a leader has taken it in.
    pub async fn report(&self, events: Vec<KernelEvent>) {
        self.state.lock().reported.extend(events.clone());
        let report = Report { agent_id: self.id.clone(), events };
        loop {
            if self.state.lock().is_silent {
                return;
            }
            for manager in self.clients() {
                if manager.report(&report).await.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn event(kernel: KernelId, session: SessionId, change: KernelChange) -> KernelEvent {
        KernelEvent { kernel_id: kernel, session_id: session, at: chrono::Utc::now(), change }
    }

    pub fn started() -> KernelChange {
        KernelChange::Started(Self::info_of_kernel())
    }

    pub fn info_of_kernel() -> Box<CreationInfo> {
        Box::new(CreationInfo {
            container_id: "c0ffee".into(),
            kernel_host: "127.0.0.1".into(),
            service_ports: vec![ServicePort {
                name: "jupyter".into(),
                protocol: "http".into(),
                container_ports: vec![8888],
                host_ports: vec![None],
                ..ServicePort::default()
            }],
            slots: Default::default(),
            allocations: BTreeMap::new(),
        })
    }

    /// Restarted without any of its kernels.
    pub fn restart_empty(&self) {
        let mut state = self.state.lock();
        state.kernels.clear();
        state.incarnation += 1;
        state.info_wanted = true;
    }

    async fn create(&self, request: CreateKernels) {
        let creating = self.state.lock().creating;
        let session = request.session.session_id;
        let mut events = Vec::new();
        for kernel in &request.kernels {
            let event = |change| Self::event(kernel.kernel_id, session, change);
            let fails = creating == Creating::Fails
                || (creating == Creating::FailsSubs && kernel.cluster_role != "main");
            if fails {
                self.state.lock().kernels.remove(&kernel.kernel_id);
                let error = RemoteError::new(ErrorKind::ImageNotAvailable, "no such image");
                events.push(event(KernelChange::Failed(error)));
                continue;
            }
            events.push(event(KernelChange::Pulling { image: kernel.image.canonical.clone() }));
            if creating == Creating::Pulls {
                continue;
            }
            events.push(event(KernelChange::Creating));
            events.push(event(Self::started()));
            self.state.lock().kernels.insert(kernel.kernel_id, (session, KernelPhase::Running));
        }
        match creating {
            Creating::Hangs => {}
            Creating::LosesReports => self.state.lock().creating = Creating::Starts,
            _ => self.report(events).await,
        }
    }
}

#[async_trait]
impl AgentApi for FakeAgent {
    async fn hello(&self, _: CallContext, _: Hello) -> Result<HelloReply, RemoteError> {
        Ok(HelloReply { agent_id: self.id.0.clone(), version: "test".into() })
    }

    async fn create_kernels(
        &self,
        context: CallContext,
        request: CreateKernels,
    ) -> Result<(), RemoteError> {
        {
            let mut state = self.state.lock();
            state.epochs.push(context.epoch);
            if state.creating == Creating::Refuses {
                return Err(RemoteError::new(ErrorKind::InsufficientResource, "no room here"));
            }
            state.specs.push(request.clone());
            for kernel in &request.kernels {
                let entry = (request.session.session_id, KernelPhase::Creating);
                state.kernels.entry(kernel.kernel_id).or_insert(entry);
            }
        }
        self.create(request).await;
        Ok(())
    }

    async fn restart_kernels(
        &self,
        context: CallContext,
        request: RestartKernels,
    ) -> Result<(), RemoteError> {
        let session = request.session.session_id;
        let mut events = Vec::new();
        {
            let mut state = self.state.lock();
            state.epochs.push(context.epoch);
            for RestartKernel { restart, spec } in &request.kernels {
                let id = spec.kernel_id;
                state.restarts.push((id, *restart));
                let change = match state.creating {
                    Creating::Fails => {
                        state.kernels.remove(&id);
                        KernelChange::Failed(RemoteError::new(ErrorKind::Internal, "no such luck"))
                    }
                    Creating::Hangs => continue,
                    _ => {
                        KernelChange::Restarted { restart: *restart, info: Self::info_of_kernel() }
                    }
                };
                events.push(Self::event(id, session, change));
            }
            if state.creating == Creating::LosesReports {
                state.creating = Creating::Starts;
                return Ok(());
            }
        }
        self.report(events).await;
        Ok(())
    }

    async fn destroy_kernels(
        &self,
        _: CallContext,
        request: DestroyKernels,
    ) -> Result<(), RemoteError> {
        let mut events = Vec::new();
        {
            let mut state = self.state.lock();
            if state.keeps {
                return Ok(());
            }
            for (kernel, session) in request.kernels {
                let known = state.kernels.remove(&kernel).is_some();
                state.destroyed.push((kernel, request.reason.clone()));
                let reason =
                    if known { request.reason.clone() } else { "already-terminated".into() };
                let exit_code = Some(137);
                let metrics = Some(Packed::pack(&figures()));
                let change = KernelChange::Terminated { reason, exit_code, metrics };
                events.push(Self::event(kernel, session, change));
            }
        }
        self.report(events).await;
        Ok(())
    }

    async fn create_network(
        &self,
        _: CallContext,
        network: SessionNetwork,
    ) -> Result<(), RemoteError> {
        let mut state = self.state.lock();
        if state.has_no_swarm {
            return Err(RemoteError::new(ErrorKind::NotSupported, "no swarm here"));
        }
        state.networks.insert(network.session_id);
        Ok(())
    }

    async fn remove_networks(
        &self,
        _: CallContext,
        request: SessionNetworks,
    ) -> Result<(), RemoteError> {
        self.state.lock().networks.retain(|session| !request.sessions.contains(session));
        Ok(())
    }

    async fn execute(&self, _: CallContext, request: Execute) -> Result<ExecuteReply, RemoteError> {
        if !self.state.lock().kernels.contains_key(&request.kernel_id) {
            return Err(RemoteError::new(ErrorKind::KernelNotFound, "no such kernel"));
        }
        Ok(ExecuteReply {
            run_id: request.run_id.unwrap_or_else(|| "run".into()),
            status: RunStatus::Finished,
            exit_code: Some(0),
            is_password: None,
            console: Vec::new(),
            last_record: 0,
        })
    }

    async fn interrupt(&self, _: CallContext, _: KernelCall) -> Result<(), RemoteError> {
        Ok(())
    }

    async fn complete(&self, _: CallContext, call: Complete) -> Result<Vec<String>, RemoteError> {
        Ok(vec![format!("{}nt", call.code)])
    }

    async fn start_service(
        &self,
        _: CallContext,
        _: StartService,
    ) -> Result<ServiceStart, RemoteError> {
        Ok(ServiceStart::Started)
    }

    async fn stop_service(&self, _: CallContext, _: StopService) -> Result<(), RemoteError> {
        Ok(())
    }

    async fn open_stream(
        &self,
        _: CallContext,
        _: OpenStream,
    ) -> Result<StreamTicket, RemoteError> {
        Err(RemoteError::new(ErrorKind::ConnectionRefused, "there is nothing to reach"))
    }

    async fn kernel_metrics(
        &self,
        _: CallContext,
        _: KernelCall,
    ) -> Result<Option<Packed<Metrics>>, RemoteError> {
        Ok(Some(Packed::pack(&figures())))
    }

    async fn kernel_log(&self, _: CallContext, _: KernelCall) -> Result<KernelLog, RemoteError> {
        Ok(KernelLog { bytes: b"live \xff log".to_vec() })
    }

    async fn commit(&self, _: CallContext, _: CommitKernel) -> Result<CommitState, RemoteError> {
        Ok(CommitState::Done { bytes: 0 })
    }

    async fn hardware(
        &self,
        _: CallContext,
        _: Hello,
    ) -> Result<BTreeMap<String, DeviceHealth>, RemoteError> {
        Ok(BTreeMap::new())
    }
}

/// Connects to the played agents.
#[derive(Clone, Default)]
pub struct Fleet(pub Arc<Mutex<HashMap<AgentId, Arc<FakeAgent>>>>);

impl AgentTransport for Fleet {
    fn connect(&self, agent: &AgentAddr) -> Arc<dyn Connection> {
        let agent = self.0.lock().get(&agent.id).cloned().expect("a played agent");
        let service: Arc<dyn Service> = Arc::new(AgentService(Arc::clone(&agent)));
        Arc::new(Line { agent, inner: MemoryConnection::new(service, None) })
    }
}

/// A connection that can be silent.
struct Line {
    agent: Arc<FakeAgent>,
    inner: Arc<dyn Connection>,
}

#[async_trait]
impl Connection for Line {
    async fn call(
        &self,
        context: &CallContext,
        method: &'static str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        {
            let mut state = self.agent.state.lock();
            if state.is_silent {
                return Err(CallError::Closed);
            }
            let makes = matches!(method, "create_kernels" | "restart_kernels");
            if state.creating == Creating::LosesCall && makes {
                state.creating = Creating::Starts;
                return Err(CallError::Closed);
            }
        }
        self.inner.call(context, method, body, timeout).await
    }
}

pub fn manager_client(service: Arc<dyn Service>) -> ManagerClient {
    ManagerClient(Client::new(MemoryConnection::new(service, None)))
}
