//! The first process of a dummy container: lives as its script says.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use backendai_rpc::runner::{CONFIG_PATH, IPC_DIR};

use super::{Script, runner};
use crate::backend::{ContainerSpec, ExitStatus};

/// Exit code of a program ended by SIGKILL, as engines report it.
const KILLED: i32 = 137;
/// Exit code of a program ended by SIGTERM.
const TERMINATED: i32 = 143;

/// What a container's program has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    None,
    Term,
    Kill,
}

/// The first process of a container.
pub(super) struct Program {
    script: Script,
    orders: watch::Receiver<Order>,
    /// Folder with the agent's socket, if it is mounted.
    ipc_dir: Option<PathBuf>,
    config_file: Option<PathBuf>,
}

impl Program {
    /// The program of a container of this definition.
    pub fn of(spec: &ContainerSpec, script: Script, orders: watch::Receiver<Order>) -> Self {
        let (config_dir, config_name) = CONFIG_PATH.rsplit_once('/').unwrap_or(("", CONFIG_PATH));
        let source = |target: &str| {
            let found = spec.mounts.iter().find(|mount| mount.target == target);
            found.map(|mount| mount.source.clone())
        };
        Self {
            script,
            orders,
            ipc_dir: source(IPC_DIR),
            config_file: source(config_dir).map(|dir| dir.join(config_name)),
        }
    }

    /// Runs until it ends by itself or is ended.
    pub async fn run(self) -> ExitStatus {
        let code = tokio::select! {
            code = ordered_end(self.orders, self.script.stubborn) => code,
            () = lifetime(self.script.run_for) => self.script.exit_code,
            code = work(self.ipc_dir, self.config_file, &self.script) => code,
        };
        ExitStatus { code: Some(code) }
    }
}

async fn ordered_end(mut orders: watch::Receiver<Order>, stubborn: bool) -> i32 {
    loop {
        match *orders.borrow_and_update() {
            Order::Kill => return KILLED,
            Order::Term if !stubborn => return TERMINATED,
            _ => {}
        }
        if orders.changed().await.is_err() {
            return KILLED;
        }
    }
}

async fn lifetime(run_for: Option<Duration>) {
    match run_for {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

async fn work(ipc_dir: Option<PathBuf>, config_file: Option<PathBuf>, script: &Script) -> i32 {
    match (ipc_dir, config_file) {
        (Some(ipc_dir), Some(config_file)) if !script.mute => {
            runner::run(&ipc_dir, &config_file, script.stubborn).await
        }
        _ => std::future::pending().await,
    }
}
