//! The daemon as a process: etcd, encryption, a manager on the other side, and an end.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use backendai_rpc::agent_api::{AgentClient, Hello};
use backendai_rpc::call::{CallError, Client};
use backendai_rpc::manager_api::ManagerService;
use backendai_rpc::transport::{CurveKeypair, RpcConnector, RpcServer, RpcServerOptions};
use backendai_service::config::HostPort;
use backendai_service::etcd::{Etcd, EtcdAddress};

use crate::support::world::Manager;

const NAMESPACE: &str = "test";

/// Ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

async fn start_etcd(dir: &Path) -> (Process, Etcd, HostPort) {
    let (client, peer) = (free_port(), free_port());
    let url = |port| format!("http://127.0.0.1:{port}");
    let process = Command::new("etcd")
        .args(["--name", "test", "--data-dir", dir.to_str().unwrap()])
        .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
        .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
        .args(["--initial-cluster", &format!("test={}", url(peer))])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process(process);
    let addr = HostPort::new("127.0.0.1", client);
    let address =
        EtcdAddress { addr: addr.to_string(), namespace: NAMESPACE.into(), credentials: None };
    loop {
        if let Ok(etcd) = Etcd::connect(&address).await
            && etcd.put("ready", "yes").await.is_ok()
        {
            return (process, etcd, addr);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_registers_serves_managers_alone_and_ends_promptly() {
    let dir = tempfile::tempdir().unwrap();
    let (_etcd_process, etcd, etcd_addr) = start_etcd(&dir.path().join("etcd")).await;
    let config = dir.path().join("agent.toml");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let text = format!(
        "[etcd]\nnamespace = '{NAMESPACE}'\naddr = '{etcd_addr}'\n\
         [agent]\nbackend = 'dummy'\nid = 'i-one'\nrpc-listen-addr = '127.0.0.1:0'\n\
         ipc-base-path = '{}'\nvar-base-path = '{}'\n\
         [container]\nscratch-root = '{}'\n\
         [debug]\nheartbeat-interval = 0.05\n",
        at("ipc"),
        at("var"),
        at("scratch"),
    );
    std::fs::write(&config, text).unwrap();
    let daemon = Command::new(env!("CARGO_BIN_EXE_backendai-agent"))
        .args(["start-server", "--config", config.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut daemon = Process(daemon);

    // The agent tells its key; the manager's server then lets it in.
    let agent_key = loop {
        if let Some(key) = etcd.get("nodes/agents/i-one/public_key").await.unwrap() {
            break key;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let keys = CurveKeypair::generate();
    let manager = Arc::<Manager>::default();
    let known: HashMap<String, String> = [(agent_key.clone(), "i-one".to_owned())].into();
    let options = RpcServerOptions {
        security: Some((keys.clone(), Arc::new(known))),
        ..RpcServerOptions::default()
    };
    let server = RpcServer::bind(options, Arc::new(ManagerService(Arc::clone(&manager)))).unwrap();
    etcd.put("nodes/manager/i-manager/public_key", &keys.public_key).await.unwrap();
    let leader = serde_json::json!({
        "manager_id": "i-manager",
        "epoch": 1,
        "event_addr": server.endpoint(),
        "public_key": keys.public_key,
    });
    etcd.put("leader", &leader.to_string()).await.unwrap();

    let heartbeat = manager.heartbeat(|heartbeat| heartbeat.info.is_some()).await;
    assert_eq!(heartbeat.agent_id.as_str(), "i-one");
    let info = heartbeat.info.unwrap();
    assert_eq!(info.public_key.as_ref(), Some(&agent_key));
    while etcd.get("nodes/agents/i-one").await.unwrap().as_deref() != Some("running") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let connector = RpcConnector::new(Some(keys)).unwrap();
    let client = AgentClient(Client::new(connector.connect(&info.addr, Some(&agent_key))));
    assert_eq!(client.hello(&Hello {}).await.unwrap().agent_id, "i-one");
    let stranger = RpcConnector::new(Some(CurveKeypair::generate())).unwrap();
    let stranger = AgentClient(Client::new(stranger.connect(&info.addr, Some(&agent_key))));
    let hello = Hello {};
    let refused = tokio::time::timeout(Duration::from_secs(1), stranger.hello(&hello)).await;
    assert!(matches!(refused, Err(_) | Ok(Err(CallError::Timeout { .. } | CallError::Closed))));

    let pid = rustix::process::Pid::from_child(&daemon.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(manager.left().await, "shutdown");
    let status = tokio::task::spawn_blocking(move || daemon.0.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn a_bad_configuration_ends_with_its_own_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    std::fs::write(&config, "[etcd]\nnamespace = 'x'\nadr = 'y'\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_backendai-agent"))
        .args(["config", "check", "--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("agent.toml:3") && text.contains("adr"), "{text}");
}
