//! An agent, and the manager it reports to, in one process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backendai_agent::backend::ContainerBackend;
use backendai_agent::config::AgentConfig;
use backendai_agent::core::Core;
use backendai_agent::leader::{Leader, ManagerConnector};
use backendai_agent::{Agent, AgentDeps, RpcListen, system_clock};
use backendai_rpc::agent_api::{
    AgentClient, AutoPull, CreateKernels, DestroyKernels, Execute, ExecuteMode, ExecuteReply,
    ImageSpec, KernelSpec, SessionSpec,
};
use backendai_rpc::call::{CallContext, CallError, Client, Connection, ErrorKind, RemoteError};
use backendai_rpc::manager_api::{
    Heartbeat, HeartbeatReply, KernelChange, KernelEvent, Leave, ManagerApi, ManagerService,
    Report, StoreKernelLog,
};
use backendai_rpc::statistics::{Metrics, Statistics};
use backendai_rpc::transport::MemoryConnection;
use backendai_service::Lifecycle;
use backendai_types::{ClusterMode, KernelId, SessionId, SessionType};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;

pub const EPOCH: u64 = 5;

/// A manager that notes what it is told.
#[derive(Default)]
pub struct Manager {
    events: watch::Sender<Vec<KernelEvent>>,
    heartbeats: watch::Sender<Vec<Heartbeat>>,
    logs: watch::Sender<BTreeMap<KernelId, Vec<u8>>>,
    left: watch::Sender<Option<String>>,
    statistics: watch::Sender<Option<Statistics>>,
    refuses_reports: AtomicBool,
}

impl Manager {
    pub fn refuse_reports(&self, refuse: bool) {
        self.refuses_reports.store(refuse, Ordering::SeqCst);
    }

    pub fn events_of(&self, id: KernelId) -> Vec<KernelChange> {
        let of = |event: &KernelEvent| (event.kernel_id == id).then(|| event.change.clone());
        self.events.borrow().iter().filter_map(of).collect()
    }

    /// Waits for an event of a kernel that `pick` accepts.
    pub async fn event<T>(&self, id: KernelId, pick: impl Fn(&KernelChange) -> Option<T>) -> T {
        let mut events = self.events.subscribe();
        loop {
            let found = events
                .borrow_and_update()
                .iter()
                .filter(|event| event.kernel_id == id)
                .find_map(|event| pick(&event.change));
            match found {
                Some(found) => return found,
                None => events.changed().await.unwrap(),
            }
        }
    }

    pub async fn started(&self, id: KernelId) -> backendai_rpc::agent_api::CreationInfo {
        self.event(id, |change| match change {
            KernelChange::Started(info) => Some((**info).clone()),
            KernelChange::Failed(error) => panic!("kernel failed: {error}"),
            _ => None,
        })
        .await
    }

    pub async fn failed(&self, id: KernelId) -> RemoteError {
        self.event(id, |change| match change {
            KernelChange::Failed(error) => Some(error.clone()),
            KernelChange::Started(_) => panic!("kernel started"),
            _ => None,
        })
        .await
    }

    pub async fn terminated(&self, id: KernelId) -> (String, Option<i32>) {
        self.event(id, |change| match change {
            KernelChange::Terminated { reason, exit_code, .. } => {
                Some((reason.clone(), *exit_code))
            }
            _ => None,
        })
        .await
    }

    /// Waits for the end of a kernel; its last figures.
    pub async fn last_metrics(&self, id: KernelId) -> Option<Metrics> {
        self.event(id, |change| match change {
            KernelChange::Terminated { metrics, .. } => {
                Some(metrics.as_ref().and_then(|packed| packed.unpack()))
            }
            _ => None,
        })
        .await
    }

    pub async fn heartbeat(&self, pick: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        let mut heartbeats = self.heartbeats.subscribe();
        let skip = heartbeats.borrow_and_update().len();
        loop {
            let found = heartbeats.borrow_and_update()[skip..].iter().find(|h| pick(h)).cloned();
            match found {
                Some(found) => return found,
                None => heartbeats.changed().await.unwrap(),
            }
        }
    }

    pub fn heartbeat_count(&self) -> usize {
        self.heartbeats.borrow().len()
    }

    /// Waits for figures that `pick` accepts.
    pub async fn statistics(&self, pick: impl Fn(&Statistics) -> bool) -> Statistics {
        let mut statistics = self.statistics.subscribe();
        let told = statistics.wait_for(|told| told.as_ref().is_some_and(&pick)).await.unwrap();
        told.clone().unwrap()
    }

    pub async fn log(&self, id: KernelId) -> Vec<u8> {
        let mut logs = self.logs.subscribe();
        let logs = logs.wait_for(|logs| logs.contains_key(&id)).await.unwrap();
        logs[&id].clone()
    }

    pub async fn left(&self) -> String {
        let mut left = self.left.subscribe();
        let reason = left.wait_for(Option::is_some).await.unwrap();
        reason.clone().unwrap()
    }
}

#[async_trait]
impl ManagerApi for Manager {
    async fn heartbeat(
        &self,
        _: CallContext,
        request: Heartbeat,
    ) -> Result<HeartbeatReply, RemoteError> {
        let is_known = self.heartbeats.borrow().iter().any(|h| h.info.is_some());
        let send_info = request.info.is_none() && !is_known;
        self.heartbeats.send_modify(|heartbeats| heartbeats.push(request));
        Ok(HeartbeatReply { send_info, epoch: EPOCH })
    }

    async fn report(&self, _: CallContext, request: Report) -> Result<(), RemoteError> {
        if self.refuses_reports.load(Ordering::SeqCst) {
            return Err(RemoteError::new(ErrorKind::Internal, "not now"));
        }
        self.events.send_modify(|events| events.extend(request.events));
        Ok(())
    }

    async fn statistics(&self, _: CallContext, request: Statistics) -> Result<(), RemoteError> {
        self.statistics.send_replace(Some(request));
        Ok(())
    }

    async fn store_kernel_log(
        &self,
        _: CallContext,
        request: StoreKernelLog,
    ) -> Result<(), RemoteError> {
        self.logs.send_modify(|logs| {
            logs.insert(request.kernel_id, request.bytes);
        });
        Ok(())
    }

    async fn leave(&self, _: CallContext, request: Leave) -> Result<(), RemoteError> {
        self.left.send_replace(Some(request.reason));
        Ok(())
    }
}

struct ToManager(Arc<Manager>);

impl ManagerConnector for ToManager {
    fn connect(&self, _: &Leader) -> Arc<dyn Connection> {
        let service = ManagerService(Arc::clone(&self.0));
        MemoryConnection::new(Arc::new(service), Some("agent".into()))
    }
}

/// Everything around one agent; survives the agent.
pub struct World {
    pub dir: TempDir,
    pub config: AgentConfig,
    pub backend: Arc<dyn ContainerBackend>,
    pub manager: Arc<Manager>,
    pub leader: watch::Sender<Option<Leader>>,
}

/// One process of the agent.
pub struct Running {
    pub lifecycle: Lifecycle,
    pub client: AgentClient,
    pub core: Arc<Core>,
}

impl World {
    pub fn new(backend: Arc<dyn ContainerBackend>) -> Self {
        backendai_service::telemetry::init("warn", Default::default());
        let dir = tempfile::tempdir().unwrap();
        let mut config = AgentConfig::default();
        config.etcd.namespace = "test".into();
        config.agent.id = Some(format!("i-test-{}", uuid::Uuid::new_v4().simple()));
        config.agent.rpc_listen_addr.host = "127.0.0.1".into();
        config.agent.var_base_path = dir.path().join("var");
        config.agent.image_commit_path = dir.path().join("commit");
        config.agent.ipc_base_path = dir.path().join("ipc");
        config.container.scratch_root = dir.path().join("scratch");
        config.container.runner_path = PathBuf::from("/bin/true");
        config.resource.reserved_cpu = 0;
        config.agent.statistics_interval = Duration::from_millis(20);
        config.debug.heartbeat_interval = 0.02;
        config.debug.image_interval = 0.05;
        let leader = Leader {
            manager_id: "m1".into(),
            epoch: EPOCH,
            event_addr: "memory".into(),
            public_key: None,
        };
        Self {
            dir,
            config,
            backend,
            manager: Arc::default(),
            leader: watch::Sender::new(Some(leader)),
        }
    }

    /// Starts an agent without waiting for anything.
    pub fn launch(&self) -> Running {
        let lifecycle = Lifecycle::new();
        let deps = AgentDeps {
            backend: Arc::clone(&self.backend),
            leaders: Arc::new(self.leader.clone()),
            connector: Arc::new(ToManager(Arc::clone(&self.manager))),
            listen: RpcListen::Memory,
            clock: system_clock(),
        };
        let agent = Agent::build(&self.config, deps, &lifecycle).unwrap();
        let core = Arc::clone(agent.core());
        let connection = MemoryConnection::new(agent.service(), Some("m1".into()));
        let context = CallContext { epoch: EPOCH, ..CallContext::default() };
        let client = AgentClient(Client::new(connection)).with_context(context);
        agent.start();
        Running { lifecycle, client, core }
    }

    /// Starts an agent and waits until it has taken up its kernels.
    pub async fn start(&self) -> Running {
        let running = self.launch();
        let mut engine = running.core.engine.subscribe();
        engine.wait_for(|state| state.is_reached()).await.unwrap();
        drop(engine);
        running
    }

    /// Names of everything an agent may leave on disk.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        for folder in ["scratch", "ipc", "var/kernels"] {
            let entries = std::fs::read_dir(self.dir.path().join(folder)).unwrap();
            found.extend(entries.map(|entry| entry.unwrap().path().display().to_string()));
        }
        found
    }
}

impl Drop for Running {
    /// The end of a test is no failure of the agent's tasks.
    fn drop(&mut self) {
        self.lifecycle.stop();
    }
}

impl Running {
    /// Ends it as SIGKILL would.
    pub async fn kill(self) {
        self.lifecycle.kill().await;
    }

    pub async fn create(&self, kernel: KernelSpec) -> SessionId {
        let session = session();
        let id = session.session_id;
        self.create_in(session, vec![kernel]).await.unwrap();
        id
    }

    pub async fn create_in(
        &self,
        session: SessionSpec,
        kernels: Vec<KernelSpec>,
    ) -> Result<(), CallError> {
        self.client.create_kernels(&CreateKernels { session, kernels }).await
    }

    pub async fn destroy(&self, id: KernelId, session: SessionId) {
        let kernels = vec![(id, session)];
        let reason = "user-requested".to_owned();
        self.client.destroy_kernels(&DestroyKernels { kernels, reason }).await.unwrap();
    }

    pub async fn execute(
        &self,
        id: KernelId,
        run_id: Option<&str>,
        mode: ExecuteMode,
        flush_ms: u64,
    ) -> Result<ExecuteReply, CallError> {
        let run_id = run_id.map(str::to_owned);
        let request = Execute { kernel_id: id, run_id, mode, received: 0, flush_ms };
        self.client.execute(&request).await
    }

    /// Runs code and gathers everything until it stops.
    pub async fn query(&self, id: KernelId, code: &str) -> ExecuteReply {
        let mode = ExecuteMode::Query { code: code.to_owned() };
        self.execute(id, None, mode, 10_000).await.unwrap()
    }

    /// Waits until the agent has forgotten a kernel.
    pub async fn forgotten(&self, id: KernelId) {
        eventually(|| self.core.registry.get(id).is_none()).await;
    }
}

pub fn session() -> SessionSpec {
    SessionSpec {
        session_id: SessionId::random(),
        name: "test".into(),
        session_type: SessionType::Interactive,
        cluster_mode: ClusterMode::SingleNode,
        hosts: Vec::new(),
        cluster_ssh_keypair: None,
    }
}

pub fn kernel(image: &str) -> KernelSpec {
    KernelSpec {
        kernel_id: KernelId::random(),
        cluster_role: "main".into(),
        cluster_idx: 1,
        local_rank: 0,
        hostname: "main1".into(),
        image: ImageSpec {
            canonical: image.into(),
            architecture: std::env::consts::ARCH.into(),
            config_digest: String::new(),
            registry_url: None,
            registry_username: None,
            registry_password: None,
            labels: BTreeMap::new(),
        },
        auto_pull: AutoPull::Digest,
        slots: serde_json::from_value(json!({"cpu": "1", "mem": "256m"})).unwrap(),
        shmem: 64 << 20,
        environ: BTreeMap::new(),
        mounts: Vec::new(),
        bootstrap_script: None,
        startup_command: None,
        preopen_ports: Vec::new(),
        ssh_keypair: None,
        dotfiles: Vec::new(),
    }
}

/// Waits for what nobody announces.
pub async fn eventually(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
