//! `backendai-watcher`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use backendai_service::daemon::{self, CommonOptions};
use backendai_service::{Lifecycle, telemetry};
use backendai_watcher::config::WatcherConfig;
use backendai_watcher::server::Watcher;
use backendai_watcher::token::Token;
use backendai_watcher::units::systemd::Systemd;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Watches over the agent's service on this host.
#[derive(Parser)]
#[command(name = "backendai-watcher", version)]
struct Cli {
    #[command(flatten)]
    common: CommonOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until SIGTERM.
    StartServer,
    /// Looks at the configuration, which is the agent's file.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Prints a token for `config/watcher/token` in etcd.
    GenerateToken,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Prints every value and where it comes from.
    Show,
    /// Checks a file for unknown keys, wrong types and contradictions; says nothing if it is good.
    Check {
        /// The file; the one the watcher would use if absent.
        file: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let file = cli.common.config.as_deref();
    daemon::run(async {
        match cli.command.unwrap_or(Command::StartServer) {
            Command::StartServer => start_server(&cli.common).await,
            Command::Config(ConfigCommand::Show) => {
                daemon::print_config(&WatcherConfig::load(file)?.show());
                Ok(())
            }
            Command::Config(ConfigCommand::Check { file: named }) => {
                WatcherConfig::load(named.as_deref().or(file))?;
                Ok(())
            }
            Command::GenerateToken => {
                println!("{}", Token::generate().expose());
                Ok(())
            }
        }
    })
}

async fn start_server(options: &CommonOptions) -> anyhow::Result<()> {
    let config = WatcherConfig::load(options.config.as_deref())?.value;
    telemetry::init(options.log_level().unwrap_or(&config.logging.level), config.logging.format);
    let lifecycle = Lifecycle::new();
    let starting = lifecycle.clone();
    lifecycle.spawn("start", async move {
        let built = Watcher::start(config, Arc::new(Systemd), &starting).await;
        match built {
            Ok(Some(addr)) => {
                tracing::info!(%addr, "the watcher is ready");
                backendai_service::lifecycle::ready(&starting);
            }
            Ok(None) => {}
            Err(error) => starting.fail(format!("{error:#}")),
        }
    });
    lifecycle.run_until_signal(daemon::GRACE).await.map_err(anyhow::Error::msg)
}
