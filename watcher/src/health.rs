//! How the agent is, from three sides: systemd, etcd, and its own port.

use std::time::Duration;

use serde::Serialize;
use tokio::net::TcpStream;

use backendai_service::etcd::{Etcd, EtcdError};

use crate::config::AgentSection;
use crate::units::{UnitError, UnitState, Units};

/// How long the agent's port may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The agent's health.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AgentHealth {
    /// True if the service runs, is known to the cluster and accepts connections.
    pub healthy: bool,
    /// The agent's id.
    pub agent_id: String,
    /// What systemd says of its unit.
    pub unit: UnitState,
    /// What the agent last wrote of itself to etcd: `starting` or `running`.
    pub node_status: Option<String>,
    /// The address of its RPC, as managers know it.
    pub rpc_addr: Option<String>,
    /// Whether anybody accepts connections there.
    pub rpc_reachable: bool,
}

/// The health could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// systemd cannot be asked.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// etcd cannot be asked.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// Looks at the agent.
///
/// # Errors
/// systemd or etcd cannot be asked.
pub async fn look(
    units: &Units,
    etcd: &Etcd,
    agent: &AgentSection,
) -> Result<AgentHealth, HealthError> {
    let agent_id = agent.id();
    let unit = units.state().await?;
    let node = etcd.get_tree(&format!("nodes/agents/{agent_id}")).await?;
    let host = node.value("ip").map(str::to_owned);
    let rpc_reachable = match &host {
        Some(host) => {
            let connecting = TcpStream::connect((host.as_str(), agent.rpc_port()));
            matches!(tokio::time::timeout(CONNECT_LIMIT, connecting).await, Ok(Ok(_)))
        }
        None => false,
    };
    let node_status = node.value("").map(str::to_owned);
    Ok(AgentHealth {
        healthy: unit.active == "active"
            && node_status.as_deref() == Some("running")
            && rpc_reachable,
        agent_id,
        unit,
        node_status,
        rpc_addr: host.map(|host| format!("{host}:{}", agent.rpc_port())),
        rpc_reachable,
    })
}
