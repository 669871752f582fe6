//! The frame of every daemon's `main`: command line, configuration, logs, signals, exit code.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::ShownValue;
use crate::lifecycle::Lifecycle;

/// Options every daemon's command line has.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonOptions {
    /// Configuration file; the usual places are searched if absent.
    #[arg(short = 'f', long = "config", visible_alias = "config-path", global = true)]
    pub config: Option<PathBuf>,
    /// CRITICAL, ERROR, WARNING, INFO, DEBUG or a filter.
    #[arg(long, global = true)]
    pub log_level: Option<String>,
    /// Same as --log-level DEBUG.
    #[arg(long, global = true)]
    pub debug: bool,
}

impl CommonOptions {
    /// The log level of the command line, if it has one.
    pub fn log_level(&self) -> Option<&str> {
        if self.debug { Some("DEBUG") } else { self.log_level.as_deref() }
    }
}

/// Exit code of a configuration that cannot be used (`EX_CONFIG` of sysexits).
pub const EXIT_CONFIG: u8 = 78;

/// How long tasks may take to finish after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(5);

/// Starts the runtime and runs a command to its exit code.
pub fn run<F: Future<Output = anyhow::Result<()>>>(command: F) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(command);
    // Blocking calls that hang must not hold up the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.downcast_ref::<crate::config::ConfigError>() {
                Some(_) => ExitCode::from(EXIT_CONFIG),
                None => ExitCode::FAILURE,
            }
        }
    }
}

/// Serves until a signal: tells systemd, waits, shuts down.
///
/// # Errors
/// Why the process failed, if it did.
pub async fn serve(lifecycle: &Lifecycle) -> anyhow::Result<()> {
    crate::lifecycle::ready(lifecycle);
    lifecycle.run_until_signal(GRACE).await.map_err(anyhow::Error::msg)
}

/// Prints `config show`.
pub fn print_config(values: &[ShownValue]) {
    let width = values.iter().map(|v| v.key.len()).max().unwrap_or(0);
    for value in values {
        println!("{:width$} = {}  # {}", value.key, value.value, value.origin);
    }
}
