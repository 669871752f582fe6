//! The agent daemon.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};

use backendai_agent::backend::ContainerBackend;
use backendai_agent::backend::docker::{DockerAddress, DockerBackend};
use backendai_agent::backend::dummy::{DummyBackend, DummySettings};
use backendai_agent::config::{AgentConfig, BackendKind};
use backendai_agent::etcd::{
    Announcement, EtcdLeader, ManagerKeys, announce, apply_shared_settings,
};
use backendai_agent::metrics::LiveGauges;
use backendai_agent::{Agent, AgentDeps, RpcListen, agent_id, metadata, system_clock};
use backendai_rpc::transport::{CurveKeypair, PeerDirectory, RpcConnector};
use backendai_service::Lifecycle;
use backendai_service::daemon::{self, CommonOptions};
use backendai_service::etcd::Etcd;
use backendai_service::host::Role;
use backendai_service::host::command::HostConfigCommand;
use backendai_service::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs compute sessions as containers on this host.
#[derive(Parser)]
#[command(name = "backendai-agent", version)]
struct Cli {
    #[command(flatten)]
    common: CommonOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until SIGTERM. Kernels live on and are taken up at the next start.
    StartServer,
    /// Looks at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Settings of the host (kernel, limits, units): print, write or check them.
    HostConfig(HostConfigCommand),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Prints every value and where it comes from.
    Show,
    /// Checks a file for unknown keys, wrong types and contradictions; says nothing if it is good.
    Check {
        /// The file; the one the agent would use if absent.
        file: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    daemon::run(async move {
        match cli.command.unwrap_or(Command::StartServer) {
            Command::StartServer => start_server(&cli.common).await,
            Command::HostConfig(command) => command.run(Role::Agent),
            Command::Config(ConfigCommand::Show) => {
                daemon::print_config(&AgentConfig::load(config_file(&cli.common), &[])?.show());
                Ok(())
            }
            Command::Config(ConfigCommand::Check { file }) => {
                AgentConfig::load(file.as_deref().or(config_file(&cli.common)), &[])?;
                Ok(())
            }
        }
    })
}

fn config_file(options: &CommonOptions) -> Option<&Path> {
    options.config.as_deref()
}

async fn start_server(options: &CommonOptions) -> anyhow::Result<()> {
    let config = AgentConfig::load(config_file(options), &[])?.value;
    let default_level = if config.debug.enabled { "DEBUG" } else { &config.logging.level };
    telemetry::init(options.log_level().unwrap_or(default_level), config.logging.format);
    if let Some(path) = &config.agent.pid_file {
        std::fs::write(path, std::process::id().to_string()).context("write the pid file")?;
    }
    let lifecycle = Lifecycle::new();
    let starting = lifecycle.clone();
    lifecycle.spawn("start", async move {
        // Boxed: the configuration makes it large.
        if let Err(error) = Box::pin(start(config, &starting)).await {
            starting.fail(format!("{error:#}"));
        }
    });
    daemon::serve(&lifecycle).await
}

async fn start(mut config: AgentConfig, lifecycle: &Lifecycle) -> anyhow::Result<()> {
    let keypair = keypair(&config)?;
    let Some(etcd) = Etcd::connect_patiently(&config.etcd.address(), lifecycle).await else {
        return Ok(());
    };
    apply_shared_settings(&etcd, &agent_id(&config)?, &mut config).await?;
    let config = &config;
    let deps = AgentDeps {
        backend: backend(config),
        leaders: Arc::new(EtcdLeader::follow(etcd.clone(), lifecycle)),
        connector: Arc::new(RpcConnector::new(keypair.clone())?),
        listen: RpcListen::Zmq { security: security(config, keypair, &etcd, lifecycle)? },
        clock: system_clock(),
    };
    let agent = Agent::build(config, deps, lifecycle)?;
    let node = Announcement {
        agent_id: agent_id(config)?,
        ip: agent.host().to_owned(),
        public_key: agent.public_key().map(str::to_owned),
        watcher_port: config.watcher.listen_addr().port,
    };
    tracing::info!(agent.id = %agent.id(), addr = agent.addr(), "agent starts");
    announce(&etcd, &node, "starting", lifecycle).await;
    let core = Arc::clone(agent.core());
    let mut engine = core.engine.subscribe();
    let gauges = Arc::new(LiveGauges(Arc::clone(&core)));
    backendai_service::metrics::start(&config.metrics, gauges, lifecycle).await?;
    agent.start();
    // Not with the agent: it changes the host's firewall, which simulated agents must not.
    metadata::start(&core, &config.agent).await;
    if engine.wait_for(|state| state.is_reached()).await.is_ok() {
        announce(&etcd, &node, "running", lifecycle).await;
    }
    Ok(())
}

fn backend(config: &AgentConfig) -> Arc<dyn ContainerBackend> {
    match config.agent.kind() {
        BackendKind::Docker => Arc::new(DockerBackend::new(DockerAddress::Environment)),
        BackendKind::Dummy => Arc::new(DummyBackend::new(DummySettings::default())),
    }
}

fn keypair(config: &AgentConfig) -> anyhow::Result<Option<CurveKeypair>> {
    if config.agent.rpc_plain {
        return Ok(None);
    }
    let keypair = match &config.agent.rpc_auth_agent_keypair {
        Some(path) => CurveKeypair::load_certificate(path)?,
        None => {
            std::fs::create_dir_all(&config.agent.var_base_path)
                .context("make agent.var-base-path")?;
            CurveKeypair::load_or_generate(config.agent.var_base_path.join("agent.key_secret"))?
        }
    };
    Ok(Some(keypair))
}

fn security(
    config: &AgentConfig,
    keypair: Option<CurveKeypair>,
    etcd: &Etcd,
    lifecycle: &Lifecycle,
) -> anyhow::Result<Option<(CurveKeypair, Arc<dyn PeerDirectory>)>> {
    let Some(keypair) = keypair else { return Ok(None) };
    let fixed = config.agent.rpc_auth_manager_public_key.as_ref();
    let fixed = fixed.map(CurveKeypair::load_public_key).transpose()?;
    let managers = ManagerKeys::follow(etcd.clone(), fixed, lifecycle);
    Ok(Some((keypair, Arc::new(managers))))
}
