//! A stand-in for Docker's socket that a test can take away and give back, as nobody may stop
//! the machine's own Docker.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

const DOCKER: &str = "/var/run/docker.sock";

/// A unix socket behind which Docker answers, until [`cut`](Self::cut).
#[derive(Debug)]
pub struct DockerProxy {
    path: PathBuf,
    listener: Mutex<Option<AbortHandle>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl DockerProxy {
    /// Opens the socket.
    ///
    /// # Errors
    /// The path is too long or taken.
    pub fn open(path: &Path) -> Result<Self> {
        let proxy =
            Self { path: path.to_owned(), listener: Mutex::default(), tasks: Arc::default() };
        proxy.restore()?;
        Ok(proxy)
    }

    /// What goes into `DOCKER_HOST`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// Docker is dead: every connection breaks and no new one is accepted.
    pub fn cut(&self) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = listener {
            listener.abort();
        }
        // If it is gone already, all the better.
        let _ = std::fs::remove_file(&self.path);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    /// Docker is back.
    ///
    /// # Errors
    /// The path is taken.
    pub fn restore(&self) -> Result<()> {
        let listener = UnixListener::bind(&self.path)
            .with_context(|| format!("listen on {}", self.path.display()))?;
        let tasks = Arc::clone(&self.tasks);
        let accept = async move {
            while let Ok((client, _)) = listener.accept().await {
                tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(forward(client));
            }
        };
        let handle = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(accept);
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        Ok(())
    }
}

impl Drop for DockerProxy {
    fn drop(&mut self) {
        self.cut();
    }
}

async fn forward(mut client: UnixStream) {
    if let Ok(mut docker) = UnixStream::connect(DOCKER).await {
        // Either side may hang up at any time; that is what connections do.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut docker).await;
    }
}
