//! One watcher with its etcd, its bus and its folders.

use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use backendai_service::etcd::{Etcd, EtcdAddress};

use crate::systemd::FakeSystemd;

const NAMESPACE: &str = "test";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// A debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct World {
    pub dir: tempfile::TempDir,
    pub etcd: Etcd,
    pub systemd: FakeSystemd,
    pub token: String,
    pub agent_port: u16,
    port: u16,
    daemon: Option<Process>,
    _etcd: Process,
}

pub struct Reply {
    pub status: StatusCode,
    pub server: String,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

impl World {
    /// A running watcher.
    pub async fn start() -> Self {
        Self::running(Self::made(Some(TOKEN), true).await).await
    }

    /// A running watcher on a bus without systemd.
    pub async fn without_systemd() -> Self {
        Self::running(Self::made(Some(TOKEN), false).await).await
    }

    /// Everything but the watcher itself.
    pub async fn prepare(token: Option<&str>) -> Self {
        Self::made(token, true).await
    }

    async fn made(token: Option<&str>, with_systemd: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (etcd_port, peer, port, agent_port) =
            (free_port(), free_port(), free_port(), free_port());
        let url = |port| format!("http://127.0.0.1:{port}");
        let process = Command::new("etcd")
            .args(["--name", "test", "--data-dir", dir.path().join("etcd").to_str().unwrap()])
            .args(["--listen-client-urls", &url(etcd_port)])
            .args(["--advertise-client-urls", &url(etcd_port)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &format!("test={}", url(peer))])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process(process);
        let addr = format!("127.0.0.1:{etcd_port}");
        let address =
            EtcdAddress { addr: addr.clone(), namespace: NAMESPACE.into(), credentials: None };
        let etcd = loop {
            if let Ok(etcd) = Etcd::connect(&address).await
                && etcd.put("ready", "yes").await.is_ok()
            {
                break etcd;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        if let Some(token) = token {
            etcd.put("config/watcher/token", token).await.unwrap();
        }
        std::fs::write(dir.path().join("fstab"), "# empty\n").unwrap();
        let config = format!(
            "[etcd]\nnamespace = '{NAMESPACE}'\naddr = '{addr}'\n\
             [agent]\nid = 'i-watched'\nrpc-listen-addr = '127.0.0.1:{agent_port}'\n\
             [watcher]\nservice-addr = '127.0.0.1:{port}'\nfstab-path = '{}'\n",
            dir.path().join("fstab").display()
        );
        std::fs::write(dir.path().join("agent.toml"), config).unwrap();
        let systemd = FakeSystemd::start(&dir.path().join("bus"), with_systemd).await;
        let token = token.unwrap_or_default().to_owned();
        Self { dir, etcd, systemd, token, agent_port, port, daemon: None, _etcd: process }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backendai-watcher"));
        let bus = format!("unix:path={}", self.dir.path().join("bus").display());
        command.args(["start-server", "--config"]).arg(self.dir.path().join("agent.toml"));
        command.env("DBUS_SYSTEM_BUS_ADDRESS", bus);
        command
    }

    async fn running(mut self) -> Self {
        let child = self.command().stderr(Stdio::null()).spawn().unwrap();
        self.daemon = Some(Process(child));
        let answers = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, answers).await.expect("the watcher does not listen");
        self
    }

    /// Runs the watcher, which is expected to end by itself.
    pub async fn run_to_end(&mut self) -> Output {
        let mut command = self.command();
        command.env_remove("RUST_LOG");
        let running = tokio::task::spawn_blocking(move || command.output().unwrap());
        tokio::time::timeout(LIMIT, running).await.expect("it goes on").unwrap()
    }

    /// Asks it to end and expects that it does, with success.
    pub async fn stop(mut self) {
        let mut process = self.daemon.take().unwrap();
        let pid = process.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let ended = tokio::task::spawn_blocking(move || process.0.wait().unwrap());
        let status = tokio::time::timeout(LIMIT, ended).await.expect("it goes on").unwrap();
        assert!(status.success(), "{status}");
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, Some(&self.token), None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, Some(&self.token), Some(body)).await
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Reply {
        // Fails only if a provider was installed before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = http.request(method, format!("http://127.0.0.1:{}{path}", self.port));
        if let Some(token) = token {
            request = request.header("X-BackendAI-Watcher-Token", token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let reply = request.send().await.unwrap();
        let server = reply.headers()["server"].to_str().unwrap().to_owned();
        Reply { status: reply.status(), server, text: reply.text().await.unwrap() }
    }
}
