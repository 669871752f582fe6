//! The management command line: one file per group of commands.
//!
//! Commands print their result on standard output and everything else on standard error.
//! They exit 0 when done, 1 when something failed (with what, where and what to do), 2 when
//! the command line itself is wrong, and 78 when the configuration is.

mod api;
mod check;
mod config;
mod dbshell;
mod etcd;
mod fixture;
mod history;
mod image;
mod keypair;
mod output;
mod schema;
mod server;
mod site;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use backendai_datastore::Datastore;
use backendai_service::config::{ConfigError, Loaded};
use backendai_service::daemon::CommonOptions;
use backendai_service::etcd::{Etcd, EtcdError};
use backendai_service::host::Role;
use backendai_service::host::command::HostConfigCommand;
use backendai_service::telemetry::{self, LogFormat};

use crate::config::{ManagerConfig, load};
use output::OutputFormat;

/// The manager of Backend.AI and its management commands.
#[derive(Debug, Parser)]
#[command(name = "backendai-manager", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    common: CommonOptions,
    /// How lists are printed: tables for people, or JSON for programs.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: OutputFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the manager in the foreground.
    StartServer,
    /// Show or check the configuration file.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Create and upgrade the database.
    #[command(subcommand)]
    Schema(schema::SchemaCommand),
    /// Load rows from files into the database.
    #[command(subcommand)]
    Fixture(fixture::FixtureCommand),
    /// Read and write the cluster's shared configuration.
    #[command(subcommand)]
    Etcd(etcd::EtcdCommand),
    /// Read registries and manage the images users may run.
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// What the site must have, from a file: check it, compare, bring the site into line.
    #[command(subcommand)]
    Site(site::SiteCommand),
    /// Settings of the host (kernel, limits, units): print, write or check them.
    HostConfig(HostConfigCommand),
    /// Print what the API looks like, for programs that use it.
    #[command(subcommand)]
    Api(api::ApiCommand),
    /// Deprecated: `api dump-gql-schema`.
    #[command(subcommand, hide = true)]
    Gql(api::GqlCommand),
    /// Ask Redis whether it is there.
    #[command(subcommand)]
    Redis(check::RedisCommand),
    /// Ask agents whether they are there.
    #[command(subcommand)]
    Agent(check::AgentCommand),
    /// Open PostgreSQL's own shell on the database.
    Dbshell(dbshell::Dbshell),
    /// Forget sessions that ended long ago.
    ClearHistory(history::ClearHistory),
    /// Print completions for a shell: `backendai-manager completions bash`.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Make a pair of API keys and print it. The cluster does not learn of it.
    GenerateApiKeypair,
    /// Make a pair of CURVE keys for encrypted RPC and write it to files.
    GenerateRpcKeypair(keypair::RpcKeypair),
}

/// Runs the command.
///
/// # Errors
/// Why it failed.
pub async fn run(cli: Cli) -> Result<()> {
    let site = Site { common: cli.common, output: cli.output };
    if !matches!(cli.command, Command::StartServer) {
        // What a command has to say it prints; its log is for trouble.
        telemetry::init(site.common.log_level().unwrap_or("WARNING"), LogFormat::Text);
    }
    crate::tls::install_provider();
    match cli.command {
        Command::StartServer => server::run(&site).await,
        Command::Config(command) => config::run(&site, command),
        Command::Schema(command) => schema::run(&site, command).await,
        Command::Fixture(command) => fixture::run(&site, command).await,
        // On the heap: it holds a walk over registries.
        Command::Etcd(command) => Box::pin(etcd::run(&site, command)).await,
        Command::Image(command) => image::run(&site, command).await,
        Command::Site(command) => site::run(&site, command).await,
        Command::HostConfig(command) => command.run(Role::Manager),
        Command::Api(command) => api::run(&command),
        Command::Gql(command) => {
            api::gql(&command);
            Ok(())
        }
        Command::Redis(command) => check::redis(&site, command).await,
        Command::Agent(command) => check::agent(&site, command).await,
        Command::Dbshell(command) => dbshell::run(&site, &command),
        Command::ClearHistory(command) => history::run(&site, &command).await,
        Command::Completions { shell } => {
            let mut command = Cli::command();
            let name = command.get_name().to_owned();
            clap_complete::generate(shell, &mut command, name, &mut std::io::stdout());
            Ok(())
        }
        Command::GenerateApiKeypair => keypair::generate_api(site.output),
        Command::GenerateRpcKeypair(command) => keypair::generate_rpc(&command),
    }
}

/// What the commands share: options, and the servers once a command needs them.
struct Site {
    common: CommonOptions,
    output: OutputFormat,
}

impl Site {
    /// The configuration, loaded and checked.
    fn config(&self) -> Result<Loaded<ManagerConfig>, ConfigError> {
        load(self.common.config.as_deref())
    }

    /// The database, which may not be migrated yet.
    fn datastore(&self) -> Result<Datastore> {
        let config = self.config()?.value.datastore()?;
        Ok(Datastore::new(&config)?)
    }

    /// The database, with the schema this program knows.
    async fn current_datastore(&self) -> Result<Datastore> {
        let datastore = self.datastore()?;
        datastore.check_schema().await.with_context(|| self.database_place())?;
        Ok(datastore)
    }

    /// etcd, which answers.
    async fn etcd(&self) -> Result<Etcd> {
        let address = self.config()?.value.etcd_address();
        let connected = async {
            let etcd = Etcd::connect(&address).await?;
            // Connecting is lazy: only a question shows that somebody is there.
            etcd.get("config").await?;
            Ok::<_, EtcdError>(etcd)
        };
        connected.await.with_context(|| {
            format!("is etcd running at {} (etcd.addr in the configuration)?", address.addr)
        })
    }

    /// Which database a message is about.
    fn database_place(&self) -> String {
        match self.config() {
            Ok(config) => {
                let db = &config.value.db;
                format!("database {} at {} (db.* in the configuration)", db.name, db.addr)
            }
            // The caller has just failed for that reason.
            Err(error) => error.to_string(),
        }
    }
}
