//! The part of a kernel that its container's labels keep.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use backendai_rpc::agent_api::{CreationInfo, KernelSpec, SessionSpec};
use backendai_rpc::runner::{AppInfo, SSHD_PORT, TTYD_PORT};
use backendai_types::image::{ImageLabels, ServicePort, parse_service_ports};
use backendai_types::{KernelId, SessionId, SessionType};
use chrono::{DateTime, Utc};

use super::network;
use super::record::{KernelRecord, KernelState, RunningKernel};
use crate::backend::{ContainerHandle, labels};
use crate::resources::Allocation;

/// Ports that the product reserves in every container (`images.md` §1).
const RESERVED_PORTS: [u16; 6] = [2000, 2001, 2002, 2003, SSHD_PORT, TTYD_PORT];
/// Role of the kernel that serves a session's apps.
const MAIN_ROLE: &str = "main";

/// What is needed of a running kernel when its record is lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelSummary {
    /// What its session is for.
    pub session_type: SessionType,
    /// Apps it can serve.
    pub service_ports: Vec<ServicePort>,
    /// What it holds.
    pub allocation: Allocation,
    /// The network it shares with the other kernels of its session.
    #[serde(default)]
    pub network: Option<String>,
    /// The restart that made the container, if it was one.
    #[serde(default)]
    pub restart: Option<i64>,
}

impl KernelSummary {
    /// The summary of a kernel that is being made.
    pub fn of(
        session: &SessionSpec,
        spec: &KernelSpec,
        allocation: &Allocation,
        restart: Option<i64>,
    ) -> Self {
        Self {
            restart,
            session_type: session.session_type,
            service_ports: service_ports(spec),
            allocation: allocation.clone(),
            network: network::name(session),
        }
    }

    /// Reads it from a container's labels.
    pub fn from_labels(found: &BTreeMap<String, String>) -> Option<Self> {
        serde_json::from_str(found.get(labels::RECORD)?).ok()
    }

    /// A record made of a running container's labels alone; `None` if they are not whole.
    pub fn record(
        found: &BTreeMap<String, String>,
        container: &ContainerHandle,
        kernel_host: &str,
        at: DateTime<Utc>,
    ) -> Option<KernelRecord> {
        let summary = Self::from_labels(found)?;
        let kernel_id: KernelId = found.get(labels::KERNEL_ID)?.parse().ok()?;
        let session_id: SessionId = found.get(labels::SESSION_ID)?.parse().ok()?;
        let running = RunningKernel {
            container: container.clone(),
            info: CreationInfo {
                container_id: container.id.clone(),
                kernel_host: kernel_host.to_owned(),
                service_ports: summary.service_ports,
                slots: summary.allocation.slots(),
                allocations: summary.allocation.as_text(),
            },
            allocation: summary.allocation,
            at,
            batch_end: None,
        };
        Some(KernelRecord {
            kernel_id,
            session_id,
            session_type: summary.session_type,
            restart: summary.restart,
            state: KernelState::Running(Box::new(running)),
            destroy_reason: None,
            network: summary.network,
        })
    }
}

/// The runner's own, and for main kernels those of the image's label and the ports asked for.
pub fn service_ports(spec: &KernelSpec) -> Vec<ServicePort> {
    let mut ports =
        vec![port("sshd".to_owned(), "tcp", SSHD_PORT), port("ttyd".to_owned(), "http", TTYD_PORT)];
    if spec.cluster_role != MAIN_ROLE {
        return ports;
    }
    match parse_service_ports(ImageLabels(&spec.image.labels).service_ports().unwrap_or("")) {
        Ok(declared) => ports
            .extend(declared.into_iter().filter(|p| p.container_ports.iter().all(|n| is_free(*n)))),
        Err(error) => tracing::warn!(
            image = spec.image.canonical, %error,
            "the image's service ports cannot be read and are left out",
        ),
    }
    for number in spec.preopen_ports.iter().filter(|number| is_free(**number)) {
        ports.push(port(number.to_string(), "preopen", *number));
    }
    ports
}

fn is_free(port: u16) -> bool {
    !RESERVED_PORTS.contains(&port)
}

fn port(name: String, protocol: &str, number: u16) -> ServicePort {
    ServicePort {
        name,
        protocol: protocol.to_owned(),
        container_ports: vec![number],
        host_ports: vec![None],
        ..ServicePort::default()
    }
}

/// Adds to service ports what the runner has read of them in the image.
pub fn describe(ports: &mut [ServicePort], apps: Vec<AppInfo>) {
    for app in apps {
        for port in ports.iter_mut().filter(|port| port.name == app.name) {
            port.url_template = app.url_template.clone();
            port.allowed_arguments = app.allowed_arguments.clone();
            port.allowed_envs = app.allowed_envs.clone();
        }
    }
}

/// The service port label of a container: the image's, with the preopened ports added.
pub fn service_ports_label(spec: &KernelSpec) -> String {
    let declared = ImageLabels(&spec.image.labels).service_ports().unwrap_or("").to_owned();
    let preopened = spec.preopen_ports.iter().map(|port| format!("{port}:preopen:{port}"));
    let parts: Vec<String> =
        std::iter::once(declared).chain(preopened).filter(|part| !part.is_empty()).collect();
    parts.join(",")
}
