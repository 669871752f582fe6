//! Putting a watcher together.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use parking_lot::RwLock;
use tokio::net::TcpListener;

use backendai_service::etcd::{Etcd, EtcdError};
use backendai_service::telemetry::chain;
use backendai_service::{Lifecycle, http};

use crate::api;
use crate::config::WatcherConfig;
use crate::mounts::{DEFAULT_PREFIX, MountError, Prefix};
use crate::token::{Token, TokenError};
use crate::units::{UnitManager, Units};

/// Where etcd keeps the token.
const TOKEN_KEY: &str = "config/watcher/token";
/// Where etcd keeps the mount prefix.
const PREFIX_KEY: &str = "volumes/_mount";

/// What requests are answered with.
pub struct Watcher {
    /// The configuration.
    pub config: WatcherConfig,
    /// The agent's unit.
    pub units: Units,
    /// The cluster's shared configuration.
    pub etcd: Etcd,
    token: RwLock<Token>,
}

/// The mount prefix could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum PrefixError {
    /// etcd cannot be asked.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// etcd holds something else.
    #[error(transparent)]
    Invalid(#[from] MountError),
}

impl Watcher {
    /// Waits for etcd, takes the token, and begins to serve. `None` if the shutdown began.
    ///
    /// # Errors
    /// There is no good token, or the address cannot be listened on.
    pub async fn start(
        config: WatcherConfig,
        manager: Arc<dyn UnitManager>,
        lifecycle: &Lifecycle,
    ) -> anyhow::Result<Option<SocketAddr>> {
        let Some(etcd) = Etcd::connect_patiently(&config.etcd.address(), lifecycle).await else {
            return Ok(None);
        };
        let token = Token::new(etcd.get(TOKEN_KEY).await?.as_deref())?;
        let addr = config.watcher.listen_addr();
        let listener = TcpListener::bind((addr.host.as_str(), addr.port))
            .await
            .with_context(|| format!("listen on {addr} (watcher.service-addr)"))?;
        let bound = listener.local_addr().context("the address listened on")?;
        let section = &config.watcher;
        let units = Units::new(manager, section.target_service.clone(), section.host_control);
        let watcher = Arc::new(Self { units, etcd, token: RwLock::new(token), config });
        let serving = lifecycle.clone();
        lifecycle.spawn_vital("api", async move {
            http::serve_requests(listener, serving, move |request, peer| {
                api::answer(Arc::clone(&watcher), request, peer)
            })
            .await;
            Ok(())
        });
        Ok(Some(bound))
    }

    /// The token as etcd has it now; while etcd is away, the last one that was good.
    ///
    /// # Errors
    /// The token was taken away or replaced by a bad one.
    pub async fn token(&self) -> Result<Token, TokenError> {
        match self.etcd.get(TOKEN_KEY).await {
            Ok(text) => {
                let token = Token::new(text.as_deref())?;
                *self.token.write() = token.clone();
                Ok(token)
            }
            Err(error) => {
                tracing::warn!("the last known token is used: {}", chain(&error));
                Ok(self.token.read().clone())
            }
        }
    }

    /// The folder below which file systems are mounted.
    ///
    /// # Errors
    /// etcd cannot be asked, or holds no usable path.
    pub async fn mount_prefix(&self) -> Result<Prefix, PrefixError> {
        let text = self.etcd.get(PREFIX_KEY).await?;
        Ok(Prefix::new(text.as_deref().unwrap_or(DEFAULT_PREFIX))?)
    }
}
