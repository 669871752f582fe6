//! Redis, which holds only what may vanish: counters, wake-ups, live statistics.
//!
//! Every call has a short deadline and callers treat a failure as "not known": losing Redis
//! must cost speed, never a session or a right.

use std::time::Duration;

use redis::aio::ConnectionManager;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

/// A multiplexed connection that reconnects by itself, and the cluster's key prefix.
#[derive(Clone)]
pub struct Redis {
    manager: ConnectionManager,
    client: Client,
    prefix: String,
}

/// How to reach Redis, as etcd's `config/redis/*` says.
#[derive(Clone, Debug)]
pub struct RedisAddress {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Password, if any.
    pub password: Option<crate::config::Secret>,
}

impl Redis {
    /// Prepares a connection; succeeds even while the server is down, and connects when it
    /// is back. Keys get `prefix` and a colon in front.
    ///
    /// # Errors
    /// The address cannot be used at all.
    pub async fn connect(address: &RedisAddress, prefix: &str) -> redis::RedisResult<Self> {
        let mut settings = RedisConnectionInfo::default();
        if let Some(password) = &address.password {
            settings = settings.set_password(password.expose());
        }
        let info: ConnectionInfo = ConnectionAddr::Tcp(address.host.clone(), address.port)
            .into_connection_info()?
            .set_redis_settings(settings);
        let client = Client::open(info)?;
        let config = redis::aio::ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(Duration::from_secs(2)))
            .set_number_of_retries(1);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Self { manager, client, prefix: prefix.to_owned() })
    }

    /// The shared connection for commands.
    pub fn connection(&self) -> ConnectionManager {
        self.manager.clone()
    }

    /// A connection of its own that listens to channels.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn listen(&self) -> redis::RedisResult<redis::aio::PubSub> {
        self.client.get_async_pubsub().await
    }

    /// The full name of a key or channel.
    pub fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }
}
