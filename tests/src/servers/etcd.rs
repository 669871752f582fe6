//! etcd with one member.

use anyhow::{Context, Result};

use super::Server;
use crate::process::{Launch, find_program};

pub(super) fn launch(server: &Server) -> Result<Launch> {
    let program =
        find_program(&["etcd"], &[]).context("etcd is not installed: run ./halfstack up")?;
    let client = format!("http://{}", server.addr());
    let peer = format!("http://127.0.0.1:{}", server.record.peer_port);
    let data = server.record.data.display().to_string();
    let launch = Launch::new("etcd", program, &server.log).args([
        "--data-dir",
        &data,
        "--listen-client-urls",
        &client,
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
        "--initial-cluster",
        &format!("default={peer}"),
        // A lone member need not wait a second for rivals before it elects itself.
        "--heartbeat-interval",
        "50",
        "--election-timeout",
        "250",
    ]);
    // Without it etcd 3.4 refuses to start on arm64.
    Ok(if cfg!(target_arch = "aarch64") {
        launch.env("ETCD_UNSUPPORTED_ARCH", "arm64")
    } else {
        launch
    })
}

pub(super) async fn check(server: &Server) -> Result<()> {
    let health: serde_json::Value =
        crate::http().get(format!("http://{}/health", server.addr())).send().await?.json().await?;
    anyhow::ensure!(health["health"] == "true", "etcd answers {health}");
    Ok(())
}
