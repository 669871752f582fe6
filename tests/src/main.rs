//! `halfstack`: the development stack, a demonstration, the tests and the benchmarks of one
//! clone. The script `./halfstack` at the root installs what is missing, builds, and runs this.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use backendai_tests::Layout;

/// Backend.AI on your own machine.
#[derive(Debug, Parser)]
#[command(name = "./halfstack", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the development cluster; harmless and quick when it runs.
    Up {
        /// Accepted for symmetry with `demo`: the cluster always stays.
        #[arg(long, hide = true)]
        keep: bool,
    },
    /// Stop it, with everything it started.
    Down {
        /// Remove its data too.
        #[arg(long)]
        wipe: bool,
    },
    /// What runs, and where.
    Status,
    /// Show logs.
    Logs {
        /// Only of these parts, as `status` names them.
        parts: Vec<String>,
        /// Go on as they grow.
        #[arg(short, long)]
        follow: bool,
    },
    /// Print the client's environment: eval "$(./halfstack env)".
    Env,
    /// Run a Python program in a container through the stock client.
    Demo {
        /// Leave the cluster running.
        #[arg(long)]
        keep: bool,
    },
    /// Run every check and test, or with arguments those tests that cargo nextest selects by them.
    #[command(disable_help_flag = true)]
    Test {
        /// Arguments of `cargo nextest run`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        nextest: Vec<String>,
    },
    /// Measure, and print figures and ratios.
    #[command(subcommand)]
    Bench(cli::bench::Bench),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let layout = Layout::discover()?;
    match command {
        Command::Up { keep: _ } => cli::stack::up(&layout).await,
        Command::Down { wipe } => cli::stack::down(&layout, wipe).await,
        Command::Status => cli::stack::status(&layout),
        Command::Logs { parts, follow } => cli::stack::logs(&layout, &parts, follow).await,
        Command::Env => cli::stack::env(&layout).await,
        Command::Demo { keep } => cli::demo::run(&layout, keep).await,
        Command::Test { nextest } => cli::test::run(&layout, &nextest).await,
        Command::Bench(bench) => Box::pin(cli::bench::run(&layout, bench)).await,
    }
}
