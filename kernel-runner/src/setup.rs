//! What the runner is told: where things are, and the configuration written by the agent.

use std::path::PathBuf;

use backendai_rpc::runner::{self, RunnerConfig};

/// Where the runner finds things. In a container these are fixed; a runner that is not
/// PID 1 takes them from the environment, which is how tests run it. PID 1 does not: its
/// environment is partly the user's.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The [`RunnerConfig`], `$BACKENDAI_RUNNER_CONFIG`.
    pub config: PathBuf,
    /// The agent's socket, in `$BACKENDAI_RUNNER_IPC`.
    pub socket: PathBuf,
    /// Home and working directory of everything, `$BACKENDAI_RUNNER_WORK`.
    pub work: PathBuf,
    /// Folder of the ssh keys that the agent left, beside the configuration.
    pub keys: PathBuf,
    /// Folder of `passwd`, `group` and the services' definitions, `$BACKENDAI_RUNNER_ETC`.
    pub etc: PathBuf,
    /// What is written for the image's Python, `$BACKENDAI_RUNNER_LIBRARY`.
    pub library: PathBuf,
    /// Socket for programs that ask the user, `$BACKENDAI_RUNNER_INPUT`.
    pub input: PathBuf,
    /// Where the kernel shows the container's limits, `$BACKENDAI_RUNNER_CGROUP`.
    pub cgroup: PathBuf,
}

/// Prefix of the variables above; children do not get them.
pub const VARIABLE_PREFIX: &str = "BACKENDAI_RUNNER_";

impl Paths {
    /// The paths of this process.
    pub fn find() -> Self {
        let path = |name: &str, fixed: &str| {
            let named = (!is_init()).then(|| std::env::var_os(format!("{VARIABLE_PREFIX}{name}")));
            PathBuf::from(named.flatten().unwrap_or_else(|| fixed.into()))
        };
        let config = path("CONFIG", runner::CONFIG_PATH);
        Self {
            keys: config.with_file_name("ssh"),
            config,
            socket: path("IPC", runner::IPC_DIR).join(runner::SOCKET_NAME),
            work: path("WORK", runner::WORK_DIR),
            etc: path("ETC", "/etc"),
            library: path("LIBRARY", "/opt/backend.ai/lib"),
            input: path("INPUT", "/tmp/bai-user-input.sock"),
            cgroup: path("CGROUP", "/sys/fs/cgroup"),
        }
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// If it cannot be read or is not a [`RunnerConfig`].
    pub fn read_config(&self) -> Result<RunnerConfig, ConfigError> {
        let path = self.config.display().to_string();
        let text = match std::fs::read(&self.config) {
            Ok(text) => text,
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        serde_json::from_slice(&text).map_err(|source| ConfigError::Parse { path, source })
    }
}

/// True in the usual case, as the first process of a container.
pub fn is_init() -> bool {
    std::process::id() == 1
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not readable.
    #[error("read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not a configuration.
    #[error("parse {path}: {source}")]
    Parse {
        /// The file.
        path: String,
        /// Where and why.
        source: serde_json::Error,
    },
}
