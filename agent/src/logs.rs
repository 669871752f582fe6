//! Logs of kernels that are gone, on their way to the manager.
//!
//! A log is written to `{var-base-path}/logs/{kernel}.log` before its container is removed
//! and leaves the disk when the manager has taken it, whatever happens in between. Logs go
//! one at a time, so that memory holds one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use backendai_rpc::call::{CallError, ErrorKind, RemoteError};
use backendai_rpc::manager_api::StoreKernelLog;
use backendai_service::Lifecycle;
use backendai_types::KernelId;

use crate::leader::ManagerLink;

/// Between attempts when the manager does not take a log; then doubling.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// The folder with the logs that wait.
#[derive(Clone)]
pub struct LogKeeper {
    dir: PathBuf,
    added: Arc<Notify>,
}

impl LogKeeper {
    /// Opens the folder, making it if need be.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, added: Arc::default() })
    }

    /// Keeps a log until the manager has it. Empty ones are not kept. Blocks.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, kernel_id: KernelId, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let path = self.dir.join(format!("{kernel_id}.log"));
        let draft = path.with_extension("new");
        fs::write(&draft, bytes)?;
        fs::rename(draft, path)?;
        self.added.notify_one();
        Ok(())
    }

    /// The log of a kernel that is gone, while it waits here. Blocks.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn waiting(&self, kernel_id: KernelId) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.dir.join(format!("{kernel_id}.log"))) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands over what waits, and what comes, until the shutdown.
    pub async fn hand_over(self, link: ManagerLink, lifecycle: Lifecycle) {
        let mut retry = FIRST_RETRY;
        while !lifecycle.is_stopping() {
            let Some((kernel_id, path)) = self.oldest().await else {
                tokio::select! {
                    () = self.added.notified() => {}
                    () = lifecycle.stopping() => return,
                }
                continue;
            };
            match self.hand_over_one(kernel_id, &path, &link).await {
                Ok(()) => retry = FIRST_RETRY,
                Err(error) => {
                    tracing::debug!(kernel.id = %kernel_id, "store a kernel's log: {error}");
                    lifecycle.sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    }

    async fn oldest(&self) -> Option<(KernelId, PathBuf)> {
        let dir = self.dir.clone();
        let found = tokio::task::spawn_blocking(move || first_log(&dir)).await;
        found.ok().and_then(Result::ok).flatten()
    }

    async fn hand_over_one(
        &self,
        kernel_id: KernelId,
        path: &Path,
        link: &ManagerLink,
    ) -> Result<(), HandOverError> {
        let bytes = tokio::fs::read(path).await?;
        let manager = link.client().ok_or(HandOverError::NoManager)?;
        let result = manager.store_kernel_log(&StoreKernelLog { kernel_id, bytes }).await;
        match result {
            // A leader that answers but does not want the log will not want it later.
            Err(CallError::Remote(error)) if is_final(&error) => {
                tracing::warn!(kernel.id = %kernel_id, %error, "the manager refused a kernel's log");
            }
            other => other?,
        }
        tokio::fs::remove_file(path).await?;
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum HandOverError {
    #[error("no manager leads")]
    NoManager,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("read or remove the file: {0}")]
    File(#[from] io::Error),
}

/// True unless another manager, or the same one later, may decide otherwise.
fn is_final(error: &RemoteError) -> bool {
    !matches!(
        error.kind,
        ErrorKind::StaleEpoch | ErrorKind::EngineUnavailable | ErrorKind::Internal
    )
}

fn first_log(dir: &Path) -> io::Result<Option<(KernelId, PathBuf)>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|s| s.parse().ok());
        if let (true, Some(id)) = (is_log, id) {
            return Ok(Some((id, path)));
        }
    }
    Ok(None)
}
