//! The stock web server, unmodified from PyPI, before one test's cluster: what a site puts
//! between its people's browsers and the manager.
//!
//! It serves the web pages and keeps people's keys: they sign in with a password, and it signs
//! what their pages ask of the manager (the client calls this "session mode"). So a test sees
//! the whole way of a real site; in "API mode" people would have to paste their secret keys
//! into a page served from elsewhere.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;
use serde_json::json;

use crate::client::Venv;
use crate::cluster::TestCluster;
use crate::deployment::write_toml;
use crate::layout::Layout;
use crate::ports::Ports;
use crate::process::{Background, Launch, Lifetime};
use crate::progress::Progress;
use crate::wait::wait_until;

/// A Python program on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_GRACE: Duration = Duration::from_secs(20);
/// A database of Redis of its own; ours use the first.
const REDIS_DATABASE: u8 = 9;

/// A running web server.
#[derive(Debug)]
pub struct WebServer {
    process: Background,
    url: String,
    /// Keeps the port from other tests.
    _ports: Ports,
}

impl WebServer {
    /// Starts one before a cluster's manager and waits until it answers. The first time it is
    /// installed, which takes about a minute.
    ///
    /// # Errors
    /// PyPI cannot be reached, or it ends; the message holds the end of its log.
    pub async fn start(cluster: &TestCluster) -> Result<Self> {
        let layout = Layout::discover()?;
        let venv = Venv::webserver(&layout, &Progress::silent()).await?;
        let mut ports = Ports::default();
        let port = ports.choose(&layout.cache)?;
        let dir = cluster.dir().join("webserver");
        std::fs::create_dir_all(&dir)?;
        let config = json!({
            "service": {
                "ip": "127.0.0.1", "port": port, "mode": "webui", "wsproxy": { "url": "" },
                "enable_signup": false,
            },
            "resources": {},
            "environments": {},
            "plugin": {},
            "pipeline": {},
            "ui": { "brand": "Backend.AI" },
            "api": {
                "domain": "default", "endpoint": cluster.plan.endpoint(), "text": "Backend.AI",
                "ssl_verify": false, "auth_token_name": "sToken",
            },
            "session": {
                "max_age": 604_800, "flush_on_startup": false,
                "redis": { "addr": cluster.servers.redis.addr(), "db": REDIS_DATABASE },
            },
            "license": {},
            "webserver": { "ipc-base-path": dir, "event-loop": "asyncio" },
            "logging": {
                "level": "INFO", "drivers": ["console"],
                "console": { "colored": false, "format": "verbose" },
            },
            "debug": { "enabled": false },
        });
        let file = dir.join("webserver.conf");
        write_toml(&file, &config)?;
        let launch = Launch::new("webserver", venv.program(), cluster.dir().join("log/web.log"))
            .args(["web", "start-server", "-f"])
            .args([file]);
        let mut process = launch.start(Lifetime::Caller)?;
        let url = format!("http://127.0.0.1:{port}");
        let http = crate::http();
        wait_until(START_LIMIT, "the web server to answer", async || {
            process.ensure_alive()?;
            Ok(http.get(&url).send().await?.status().is_success())
        })
        .await?;
        Ok(Self { process, url, _ports: ports })
    }

    /// Where its pages are.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it.
    ///
    /// # Errors
    /// Not even a kill does.
    pub async fn stop(mut self) -> Result<()> {
        self.process.stop(Signal::TERM, STOP_GRACE).await.map(drop)
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.process.kill_now();
    }
}
