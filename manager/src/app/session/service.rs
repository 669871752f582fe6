//! Services of a session: apps in its main kernel that listen on ports.

use std::collections::BTreeMap;
use std::convert::Infallible;

use backendai_rpc::agent_api::{ServiceStart, StartService, StopService};
use backendai_types::image::ServicePort;

use super::execute::{self, RunningKernel, failed};
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// Protocols that can be passed on.
const PROTOCOLS: [&str; 3] = ["tcp", "http", "preopen"];

/// A service that is wanted.
#[derive(Clone, Debug, Default)]
pub struct ServiceRequest {
    /// Its name.
    pub name: String,
    /// Which of its ports; the first if absent.
    pub port: Option<u16>,
    /// Command-line arguments by flag: none, one or several values each.
    pub arguments: BTreeMap<String, Vec<String>>,
    /// Environment variables.
    pub envs: BTreeMap<String, String>,
}

/// The services of the caller's session; none for a session without a running kernel.
///
/// # Errors
/// No such session.
pub async fn list(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
) -> Result<Vec<ServicePort>> {
    let session = super::lookup::find_live(app, &context.access_key, reference).await?;
    let tx = app.datastore.autocommit().await?;
    let progress = tx.session_progress(session.id).await?;
    Ok(progress
        .and_then(|(_, kernel)| kernel)
        .map(|kernel| kernel.service_ports)
        .unwrap_or_default())
}

/// Starts a service of the caller's session if it does not run; gives the kernel and the
/// container port to connect to.
///
/// # Errors
/// No such session, it does not run, it has no such service or port, or the service does
/// not start.
pub async fn start(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
    request: ServiceRequest,
) -> Result<(RunningKernel, u16)> {
    let kernel = execute::open(app, context, reference).await?;
    let ports = list(app, context, reference).await?;
    let port = pick_port(&ports, reference, &request)?;
    let call = StartService {
        kernel_id: kernel.kernel_id,
        name: request.name,
        arguments: request.arguments,
        envs: request.envs,
    };
    match kernel.client.start_service(&call).await.map_err(failed)? {
        ServiceStart::Started | ServiceStart::Running => Ok((kernel, port)),
        ServiceStart::Failed(reason) => Err(Error::ServiceFailed { reason }),
    }
}

/// Would hand a service to an app proxy beside the manager (a scaling group's coordinator),
/// which reaches kernels at ports of the agent. Kernels have no such ports here: apps are
/// reached through the manager's own `tcpproxy` alone.
///
/// # Errors
/// No such session or service, or no coordinator: always one of them.
pub async fn start_by_coordinator(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
    request: &ServiceRequest,
) -> Result<Infallible> {
    let ports = list(app, context, reference).await?;
    pick_port(&ports, reference, request)?;
    Err(Error::NoCoordinator)
}

/// Ends a service of the caller's session. One that does not run is no error.
///
/// # Errors
/// No such session, it does not run, or its agent failed.
pub async fn stop(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
    name: &str,
) -> Result<()> {
    let kernel = execute::open(app, context, reference).await?;
    let call = StopService { kernel_id: kernel.kernel_id, name: name.to_owned() };
    kernel.client.stop_service(&call).await.map_err(failed)
}

/// The container port that a request means.
fn pick_port(ports: &[ServicePort], session: &str, request: &ServiceRequest) -> Result<u16> {
    let name = &request.name;
    let service = ports.iter().find(|port| port.name == *name).ok_or_else(|| Error::NotFound {
        object: "app service",
        message: Some(format!("{session}:{name}")),
    })?;
    if !PROTOCOLS.contains(&service.protocol.as_str()) {
        let message = format!("Unsupported service protocol: {}", service.protocol);
        return Err(Error::invalid(message));
    }
    match request.port {
        Some(port) if service.container_ports.contains(&port) => Ok(port),
        Some(port) => {
            let message = format!("Service {name} does not open the port number {port}.");
            Err(Error::invalid(message))
        }
        None => service
            .container_ports
            .first()
            .copied()
            .ok_or_else(|| Error::invalid(format!("Service {name} has no port."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_picked_by_service_and_number() {
        let service = |name: &str, protocol: &str, ports: &[u16]| ServicePort {
            name: name.into(),
            protocol: protocol.into(),
            container_ports: ports.to_vec(),
            ..ServicePort::default()
        };
        let ports = [service("web", "http", &[8081, 8082]), service("old", "pty", &[9000])];
        let pick = |name: &str, port| {
            let request = ServiceRequest { name: name.into(), port, ..Default::default() };
            pick_port(&ports, "s1", &request).map_err(|error| error.to_string())
        };
        assert_eq!(pick("web", None), Ok(8081));
        assert_eq!(pick("web", Some(8082)), Ok(8082));
        assert_eq!(
            pick("web", Some(1)).unwrap_err(),
            "invalid parameters: Service web does not open the port number 1."
        );
        assert_eq!(pick("none", None).unwrap_err(), "no such app service: s1:none");
        assert_eq!(
            pick("old", None).unwrap_err(),
            "invalid parameters: Unsupported service protocol: pty"
        );
    }
}
