//! Putting an agent together.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::Utc;
use tokio::sync::{Semaphore, watch};

use backendai_rpc::agent_api::AgentService;
use backendai_rpc::call::Service;
use backendai_rpc::transport::{
    CurveKeypair, PeerDirectory, RpcServer, RpcServerOptions, TransportError,
};
use backendai_service::Lifecycle;
use backendai_service::config::HostPort;
use backendai_types::AgentId;

use crate::backend::ContainerBackend;
use crate::commit::Commits;
use crate::config::{AffinityPolicy, AgentConfig};
use crate::core::{Clock, Core, EngineState, KernelSettings};
use crate::epoch::EpochFence;
use crate::events::EventQueue;
use crate::heartbeat::{HeartbeatSettings, Identity, beat};
use crate::kernel::record::RecordStore;
use crate::leader::{LeaderDirectory, ManagerConnector, ManagerLink};
use crate::logs::LogKeeper;
use crate::reconcile::{ReconcileSettings, follow_engine};
use crate::resources::{HostSettings, PoolSettings};
use crate::scratch::Scratch;
use crate::server::AgentServer;
use crate::statistics::{collect, follow_scratch};
use crate::streams::StreamGate;

/// How long calls in flight may take at shutdown.
const RPC_GRACE: Duration = Duration::from_secs(1);

/// What an agent does not make by itself.
pub struct AgentDeps {
    /// The container engine.
    pub backend: Arc<dyn ContainerBackend>,
    /// Knows which manager leads.
    pub leaders: Arc<dyn LeaderDirectory>,
    /// Makes connections to managers.
    pub connector: Arc<dyn ManagerConnector>,
    /// How managers reach the agent.
    pub listen: RpcListen,
    /// The time.
    pub clock: Clock,
}

/// How managers reach an agent.
pub enum RpcListen {
    /// Through [`Agent::service`] alone, in the same process.
    Memory,
    /// By ZeroMQ, at the configured address.
    Zmq {
        /// The agent's keys, and who may call; without, anybody on loopback.
        security: Option<(CurveKeypair, Arc<dyn PeerDirectory>)>,
    },
}

/// Why an agent could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A folder or file it needs.
    #[error("open {}", path.display())]
    Disk {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its RPC address.
    #[error("listen for managers")]
    Rpc(#[from] TransportError),
    /// Its host name, which makes its id.
    #[error("the host's name cannot be read; set agent.id")]
    HostName,
}

/// The time of the system.
pub fn system_clock() -> Clock {
    Arc::new(Utc::now)
}

/// An agent, ready to work.
pub struct Agent {
    core: Arc<Core>,
    link: ManagerLink,
    server: Option<RpcServer>,
    identity: Identity,
    heartbeat: HeartbeatSettings,
    reconcile: ReconcileSettings,
    statistics_interval: Duration,
}

impl Agent {
    /// Opens the agent's folders and listens for managers, who are told to wait until
    /// [`Agent::start`] has taken up the kernels of an earlier process. Everything the
    /// agent does happens in tasks of `lifecycle`.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(
        config: &AgentConfig,
        deps: AgentDeps,
        lifecycle: &Lifecycle,
    ) -> Result<Self, BuildError> {
        let agent_id = agent_id(config)?;
        let listen = config.agent.listen_addr();
        let host = if listen.host.is_empty() {
            routed_address(&config.etcd.addr)
        } else {
            listen.host.clone()
        };
        let public_host = config.agent.public_host.clone().unwrap_or_else(|| host.clone());
        let core = Arc::new(open_core(config, &deps, agent_id, &public_host, lifecycle)?);

        let service = Arc::new(AgentServer::new(Arc::clone(&core)));
        let mut public_key = None;
        let (server, port) = match deps.listen {
            RpcListen::Memory => (None, listen.port),
            RpcListen::Zmq { security } => {
                public_key = security.as_ref().map(|(keys, _)| keys.public_key.clone());
                let port = if listen.port == 0 { "*".to_owned() } else { listen.port.to_string() };
                let bind = if listen.host.is_empty() { "0.0.0.0" } else { &listen.host };
                let bind = format!("tcp://{}:{port}", bracketed(bind));
                let options = RpcServerOptions { bind, security, ..RpcServerOptions::default() };
                let server = RpcServer::bind(options, Arc::new(AgentService(service)))?;
                let port = port_of(&server.endpoint()).unwrap_or(listen.port);
                (Some(server), port)
            }
        };
        let advertised =
            config.agent.advertised_rpc_addr.clone().unwrap_or(HostPort::new(host, port));
        let identity = Identity {
            addr: format!("tcp://{advertised}"),
            public_key,
            public_host,
            scaling_group: config.agent.scaling_group.clone(),
            region: config.agent.region.clone(),
            incarnation: u64::try_from(core.now().timestamp_micros()).unwrap_or(0),
        };
        let link = ManagerLink::new(&*deps.leaders, deps.connector);
        Ok(Self {
            core,
            link,
            server,
            identity,
            heartbeat: HeartbeatSettings {
                interval: Duration::from_secs_f64(config.debug.heartbeat_interval),
                image_interval: Duration::from_secs_f64(config.debug.image_interval.max(0.1)),
            },
            reconcile: reconcile_settings(config),
            statistics_interval: config.agent.statistics_interval,
        })
    }

    /// Who the agent is.
    pub fn id(&self) -> &AgentId {
        &self.core.agent_id
    }

    /// The RPC address told to managers, `tcp://host:port`.
    pub fn addr(&self) -> &str {
        &self.identity.addr
    }

    /// The host of that address.
    pub fn host(&self) -> &str {
        let addr = self.identity.addr.trim_start_matches("tcp://");
        let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The agent's CURVE public key, if its RPC is encrypted.
    pub fn public_key(&self) -> Option<&str> {
        self.identity.public_key.as_deref()
    }

    /// Answers calls without a network, for callers in the same process.
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::new(AgentService(Arc::new(AgentServer::new(Arc::clone(&self.core)))))
    }

    /// What the agent's parts share; for tests that look inside.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Begins to work: takes up the kernels of an earlier process when the engine answers,
    /// then sends heartbeats. Returns at once.
    pub fn start(self) {
        let Self { core, link, server, identity, heartbeat, reconcile, statistics_interval } = self;
        let lifecycle = core.lifecycle.clone();
        lifecycle.spawn_vital("engine", follow_engine(Arc::clone(&core), reconcile));
        let deliver =
            core.events.clone().deliver(core.agent_id.clone(), link.clone(), lifecycle.clone());
        lifecycle.spawn("events", deliver);
        lifecycle.spawn("logs", core.logs.clone().hand_over(link.clone(), lifecycle.clone()));
        let statistics = collect(Arc::clone(&core), statistics_interval, link.clone());
        lifecycle.spawn("statistics", statistics);
        lifecycle.spawn("scratch_sizes", follow_scratch(Arc::clone(&core), statistics_interval));
        lifecycle.spawn("heartbeat", beat(core, identity, heartbeat, link));
        if let Some(server) = server {
            let stop = lifecycle.clone();
            lifecycle.spawn("rpc", async move {
                stop.stopping().await;
                server.shutdown(RPC_GRACE).await;
            });
        }
    }
}

fn open_core(
    config: &AgentConfig,
    deps: &AgentDeps,
    agent_id: AgentId,
    public_host: &str,
    lifecycle: &Lifecycle,
) -> Result<Core, BuildError> {
    let var = &config.agent.var_base_path;
    let container = &config.container;
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| BuildError::Disk { path, source }
    };
    std::fs::create_dir_all(var).map_err(at(var))?;
    let [records, logs, epoch] = ["kernels", "logs", "epoch"].map(|name| var.join(name));
    let scratch = Scratch::open(
        &container.scratch_root,
        &config.agent.ipc_base_path,
        container.owner(),
        container.scratch_volume(),
    )
    .map_err(at(&container.scratch_root))?;
    // The engine wants absolute paths; a dummy has no runner to find.
    let runner_path = std::fs::canonicalize(&container.runner_path)
        .unwrap_or_else(|_| container.runner_path.clone());
    let kernel_host = container
        .advertised_host
        .clone()
        .or_else(|| container.kernel_host.clone())
        .or_else(|| Some(container.bind_host.clone()).filter(|host| !host.is_empty()))
        .unwrap_or_else(|| public_host.to_owned());
    Ok(Core {
        agent_id,
        settings: KernelSettings {
            kernel_host,
            mount_root: config.agent.mount_path.clone(),
            runner_path,
            ready_timeout: container.ready_timeout,
            stop_grace: container.stop_grace,
            log_bytes: container.log_max_length.bytes(),
            pids_limit: container.pids_limit,
        },
        backend: Arc::clone(&deps.backend),
        clock: Arc::clone(&deps.clock),
        lifecycle: lifecycle.clone(),
        registry: Default::default(),
        store: RecordStore::open(records.clone()).map_err(at(&records))?,
        scratch,
        networks: Default::default(),
        events: EventQueue::default(),
        addresses: Default::default(),
        statistics: Default::default(),
        logs: LogKeeper::open(logs.clone()).map_err(at(&logs))?,
        streams: StreamGate::new(
            &config.agent.listen_addr().host,
            container.port_range,
            lifecycle.clone(),
        ),
        commits: Commits::new(config.agent.image_commit_path.clone()),
        epoch: EpochFence::open(epoch.clone()).map_err(at(&epoch))?,
        creations: Semaphore::new(config.agent.kernel_creation_concurrency),
        engine: watch::Sender::new(EngineState::NotReached),
        host: OnceLock::new(),
        pulled: Default::default(),
    })
}

fn reconcile_settings(config: &AgentConfig) -> ReconcileSettings {
    let resource = &config.resource;
    ReconcileSettings {
        host: HostSettings {
            reserved_cpu: resource.reserved_cpu,
            reserved_mem: resource.reserved_mem.bytes(),
            cpu_overcommit: resource.cpu_overcommit_factor,
            mem_overcommit: resource.mem_overcommit_factor,
        },
        pool: PoolSettings {
            allocation_order: resource.allocation_order.clone(),
            prefer_single_node: resource.affinity_policy == AffinityPolicy::PreferSingleNode,
        },
    }
}

/// The configured id, else `i-` and the host's name.
pub fn agent_id(config: &AgentConfig) -> Result<AgentId, BuildError> {
    if let Some(id) = &config.agent.id {
        return Ok(AgentId(id.clone()));
    }
    let names = rustix::system::uname();
    match names.nodename().to_str() {
        Ok(name) if !name.is_empty() => Ok(AgentId(format!("i-{name}"))),
        _ => Err(BuildError::HostName),
    }
}

/// This host's address on the way to etcd: managers are on that side.
fn routed_address(etcd: &HostPort) -> String {
    let found = std::net::UdpSocket::bind(("0.0.0.0", 0)).and_then(|socket| {
        // Sends nothing: it only chooses the route.
        socket.connect((etcd.host.as_str(), etcd.port))?;
        socket.local_addr()
    });
    match found {
        Ok(address) => address.ip().to_string(),
        Err(error) => {
            tracing::warn!(%error, "no route to etcd; telling managers the loopback address");
            "127.0.0.1".to_owned()
        }
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn port_of(endpoint: &str) -> Option<u16> {
    endpoint.rsplit_once(':')?.1.parse().ok()
}
