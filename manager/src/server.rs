//! Puts the manager together.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpListener;

use backendai_datastore::{Datastore, DatastoreError};
use backendai_rpc::call::Service;
use backendai_rpc::manager_api::ManagerService;
use backendai_rpc::transport::{CurveKeypair, RpcConnector, RpcServer, RpcServerOptions};
use backendai_service::Lifecycle;
use backendai_service::config::HostPort;
use backendai_service::etcd::Etcd;
use backendai_service::redis::Redis;
use backendai_service::telemetry::chain;

use crate::agent_keys::AgentKeys;
use crate::agents::AgentPool;
use crate::app::background_task::BackgroundTasks;
use crate::app::{App, SharedApp};
use crate::config::ManagerConfig;
use crate::events::AgentEvents;
use crate::feed::Feed;
use crate::leader::{Candidate, Leadership};
use crate::metrics::LiveGauges;
use crate::shared_config::SharedConfig;
use crate::wake::Wake;
use crate::{api, tasks};

/// Pause between attempts to reach a server that is away at start.
const START_RETRY: Duration = Duration::from_secs(1);
/// Calls of agents answered at once: every agent of the largest cluster planned for may have
/// its heartbeat under way.
const MAX_EVENT_CALLS: usize = 16_384;
/// How long reports under way may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// A manager that serves until its lifecycle ends.
pub struct Manager {
    /// Where the API listens, with the real port.
    pub api_addr: SocketAddr,
    /// Where agents report, with the real port.
    pub event_addr: String,
    /// What requests and tasks share.
    pub app: SharedApp,
}

impl Manager {
    /// Connects to the stores, binds the ports and starts everything; the caller then waits
    /// for the lifecycle. While a store is away this waits for it and says so.
    ///
    /// # Errors
    /// The configuration cannot be used, a port is taken, or the schema does not fit.
    pub async fn build(config: ManagerConfig, lifecycle: &Lifecycle) -> Result<Self> {
        let keypair = keypair(&config)?;
        // Ports first: a second manager on the same port should say so at once.
        let listener = bind_api(&config.manager.service_addr).await?;
        let api_addr = listener.local_addr()?;
        let connector = RpcConnector::new(keypair.clone()).context("prepare calls to agents")?;

        let datastore = Datastore::new(&config.datastore()?)?;
        let (etcd, ()) = tokio::try_join!(
            wait_for_etcd(&config, lifecycle),
            wait_for_schema(&datastore, &config, lifecycle),
        )?;
        let shared = SharedConfig::new(etcd.clone());
        let address = shared.redis_address().await?.context(
            "etcd has no config/redis/addr: run \
             `backendai-manager etcd put config/redis/addr HOST:PORT`",
        )?;
        let redis = Redis::connect(&address, &format!("backendai:{}", config.etcd.namespace))
            .await
            .context("prepare the connection to Redis (config/redis/* in etcd)")?;

        let app = Arc::new(App {
            datastore,
            shared,
            wake: Wake::shared(redis.clone(), lifecycle),
            redis,
            agents: AgentPool::new(connector),
            executions: crate::app::session::execute::Executions::default(),
            received_output: Default::default(),
            feed: Feed::default(),
            background_tasks: BackgroundTasks::new(lifecycle.clone()),
            volumes: Default::default(),
            etcd: etcd.clone(),
            config,
        });
        lifecycle.spawn("shared_config", app.shared.clone().follow_status(lifecycle.clone()));
        let (leadership, candidacy) = Leadership::new();
        let events = Arc::new(AgentEvents::new(Arc::clone(&app), leadership.clone()));
        let service: Arc<dyn Service> = Arc::new(ManagerService(Arc::clone(&events)));
        let event_server = bind_events(&app.config, keypair.clone(), &etcd, lifecycle, service)?;
        let event_addr = advertised(&app.config, &event_server.endpoint());
        lifecycle.spawn("event_server", {
            let lifecycle = lifecycle.clone();
            async move {
                lifecycle.stopping().await;
                event_server.shutdown(DRAIN).await;
            }
        });
        candidacy.campaign(
            etcd,
            Candidate {
                manager_id: app.config.manager_id(),
                event_addr: event_addr.clone(),
                public_key: keypair.map(|keypair| keypair.public_key),
                lease: Duration::from_secs(app.config.tunables.leader_lease_s),
            },
            lifecycle,
        );
        tasks::start(&app, &leadership, &events, lifecycle);
        let gauges = Arc::new(LiveGauges(Arc::clone(&app)));
        backendai_service::metrics::start(&app.config.metrics, gauges, lifecycle).await?;
        lifecycle.spawn_vital("api", api::serve(Arc::clone(&app), listener, lifecycle.clone()));
        Ok(Self { api_addr, event_addr, app })
    }
}

/// The manager's own key, unless calls are not encrypted.
///
/// # Errors
/// Its file cannot be read or made.
pub fn keypair(config: &ManagerConfig) -> Result<Option<CurveKeypair>> {
    if config.manager.rpc_plain {
        return Ok(None);
    }
    let keypair = match &config.manager.rpc_auth_manager_keypair {
        Some(path) => CurveKeypair::load_certificate(path).with_context(|| {
            format!("read {} (manager.rpc-auth-manager-keypair)", path.display())
        })?,
        None => {
            let path = config.manager.state_dir.join("manager.key_secret");
            std::fs::create_dir_all(&config.manager.state_dir).with_context(|| {
                format!("make {} (manager.state-dir)", config.manager.state_dir.display())
            })?;
            CurveKeypair::load_or_generate(&path)
                .with_context(|| format!("keep a key in {} (manager.state-dir)", path.display()))?
        }
    };
    Ok(Some(keypair))
}

async fn bind_api(addr: &HostPort) -> Result<TcpListener> {
    TcpListener::bind((addr.host.as_str(), addr.port))
        .await
        .with_context(|| format!("listen on {addr} (manager.service-addr)"))
}

fn bind_events(
    config: &ManagerConfig,
    keypair: Option<CurveKeypair>,
    etcd: &Etcd,
    lifecycle: &Lifecycle,
    service: Arc<dyn Service>,
) -> Result<RpcServer> {
    let addr = &config.manager.event_listen_addr;
    let options = RpcServerOptions {
        bind: format!("tcp://{addr}"),
        security: keypair.map(|keypair| {
            (keypair, Arc::new(AgentKeys::follow(etcd.clone(), lifecycle)) as Arc<_>)
        }),
        max_in_flight: MAX_EVENT_CALLS,
    };
    RpcServer::bind(options, service)
        .with_context(|| format!("listen on {addr} (manager.event-listen-addr)"))
}

/// The address agents are told to report to.
fn advertised(config: &ManagerConfig, endpoint: &str) -> String {
    let section = &config.manager;
    if let Some(addr) = &section.event_advertised_addr {
        return format!("tcp://{addr}");
    }
    let any = section.event_listen_addr.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    let port = endpoint.rsplit(':').next().and_then(|port| port.parse().ok());
    match (any, port, address_towards(&config.etcd.addr)) {
        (true, Some(port), Some(ip)) => format!("tcp://{}", SocketAddr::new(ip, port)),
        _ => endpoint.to_owned(),
    }
}

/// The address this host has on the way to another; agents share that network with etcd.
fn address_towards(addr: &HostPort) -> Option<IpAddr> {
    // Connecting a datagram socket sends nothing: it only asks the routing table.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect((addr.host.as_str(), addr.port)).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

async fn wait_for_etcd(config: &ManagerConfig, lifecycle: &Lifecycle) -> Result<Etcd> {
    let address = config.etcd_address();
    loop {
        let attempt = async {
            let etcd = Etcd::connect(&address).await?;
            // Connecting is lazy: only a read tells whether somebody answers.
            etcd.get(crate::shared_config::STATUS_KEY).await?;
            Ok::<_, backendai_service::etcd::EtcdError>(etcd)
        };
        match attempt.await {
            Ok(etcd) => return Ok(etcd),
            Err(error) => tracing::warn!(
                "waiting for etcd at {} (etcd.addr): {}",
                address.addr,
                chain(&error)
            ),
        }
        pause(lifecycle).await?;
    }
}

async fn wait_for_schema(
    datastore: &Datastore,
    config: &ManagerConfig,
    lifecycle: &Lifecycle,
) -> Result<()> {
    loop {
        match datastore.check_schema().await {
            Ok(()) => return Ok(()),
            // Only a person can mend these.
            Err(DatastoreError::Schema(text)) => {
                let db = &config.db;
                anyhow::bail!("database {} at {} (db.*): {text}", db.name, db.addr);
            }
            Err(error) => tracing::warn!(
                "waiting for PostgreSQL at {} (db.addr): {}",
                config.db.addr,
                chain(&error)
            ),
        }
        pause(lifecycle).await?;
    }
}

async fn pause(lifecycle: &Lifecycle) -> Result<()> {
    if lifecycle.sleep(START_RETRY).await {
        Ok(())
    } else {
        anyhow::bail!("stopped before the start was complete")
    }
}
