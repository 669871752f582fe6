//! `start-server`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use backendai_service::{Lifecycle, daemon, telemetry};

use super::Site;
use crate::server::Manager;

pub(super) async fn run(site: &Site) -> Result<()> {
    let loaded = site.config()?;
    let config = loaded.value.clone();
    let level = site.common.log_level().unwrap_or(&config.logging.level);
    telemetry::init(level, config.logging.format);
    match &loaded.file {
        Some(file) => tracing::info!(file = %file.display(), "configuration"),
        None => tracing::info!("configuration: no file, defaults and environment only"),
    }
    for key in &loaded.ignored {
        tracing::warn!(key, "this key has no meaning here and is ignored");
    }
    let _pid_file = config.manager.pid_file.as_deref().map(PidFile::write).transpose()?;
    let lifecycle = Lifecycle::new();
    stop_at_signals(&lifecycle)?;
    let built = Manager::build(config, &lifecycle).await;
    let manager = match built {
        Ok(manager) => manager,
        Err(error) => {
            let stopped = lifecycle.is_stopping();
            // What was started before the failure must not outlive it.
            let failure = lifecycle.shut_down(daemon::GRACE).await;
            if stopped && failure.is_ok() {
                tracing::info!("stopped before the manager was ready");
                return Ok(());
            }
            return Err(error);
        }
    };
    tracing::info!(
        api = %manager.api_addr,
        events = %manager.event_addr,
        version = env!("CARGO_PKG_VERSION"),
        "the manager is ready"
    );
    daemon::serve(&lifecycle).await
}

/// Listens for signals from the beginning: the start may wait long for a server that is
/// away, and must end when asked to.
fn stop_at_signals(lifecycle: &Lifecycle) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let stopping = lifecycle.clone();
    lifecycle.spawn("signals", async move {
        tokio::select! {
            _ = terminate.recv() => stopping.stop(),
            _ = interrupt.recv() => stopping.stop(),
            () = stopping.stopping() => {}
        }
    });
    Ok(())
}

/// The file that names the process; removed when the server ends.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> Result<Self> {
        let text = format!("{}\n", std::process::id());
        std::fs::write(path, text)
            .with_context(|| format!("write the pid file {} (manager.pid-file)", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // `/dev/null` is how the product says "no pid file".
        if self.0 != Path::new("/dev/null")
            && let Err(error) = std::fs::remove_file(&self.0)
        {
            tracing::warn!(%error, file = %self.0.display(), "the pid file is left over");
        }
    }
}
