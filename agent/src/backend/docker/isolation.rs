//! Keeping containers without a network of their own apart.
//!
//! They share Docker's default bridge, which costs nothing at their start, and on which
//! every container reaches every other. So each one's port of the bridge is marked
//! isolated: the host's kernel then passes its packets to the bridge itself (and so to the
//! outside) and to no other isolated port. A network of its own for each container, or one
//! with `enable_icc=false`, would make Docker start a name server in each: tens of
//! milliseconds. That is left to agents that are not root and may not mark ports.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, NetworkCreateRequest};

use super::{about, failed, network, status};
use crate::backend::BackendError;

/// Docker's default network.
const DEFAULT_NETWORK: &str = "bridge";
/// Option of it with the name of the host's interface.
const INTERFACE_OPTION: &str = "com.docker.network.bridge.name";
/// Option that says whether the engine itself lets containers reach each other.
const ICC_OPTION: &str = "com.docker.network.bridge.enable_icc";
/// A network, shared by all agents of the host, in which the engine keeps containers apart.
const FALLBACK_NETWORK: &str = "bai-isolated";
/// The name of a container's only interface.
const CONTAINER_INTERFACE: &str = "eth0";

/// How an engine's containers are kept apart.
#[derive(Clone, Debug)]
pub enum Isolation {
    /// The engine does so by itself, or has no default network.
    ByEngine,
    /// Their ports of this bridge (a folder of `/sys/class/net`) are isolated.
    Ports(PathBuf),
    /// They are put into this network, by id.
    Network(String),
}

impl Isolation {
    /// Looks at the engine's default network, and makes another if need be.
    ///
    /// # Errors
    /// The engine does not answer or cannot make the network.
    pub async fn choose(docker: &Docker, may_mark_ports: bool) -> Result<Self, BackendError> {
        let options = match docker.inspect_network(DEFAULT_NETWORK, None).await {
            Ok(network) => network.options.unwrap_or_default(),
            Err(error) if status(&error) == Some(404) => return Ok(Self::ByEngine),
            Err(error) => return Err(failed("inspect the default network", error)),
        };
        if options.get(ICC_OPTION).is_some_and(|icc| icc == "false") {
            return Ok(Self::ByEngine);
        }
        let interface = options.get(INTERFACE_OPTION).map_or("docker0", String::as_str);
        let bridge = Path::new("/sys/class/net").join(interface);
        if may_mark_ports && bridge.join("brif").is_dir() {
            return Ok(Self::Ports(bridge));
        }
        let id = match network::ids(docker, "name", FALLBACK_NETWORK).await?.into_iter().next() {
            Some(id) => id,
            None => make_fallback(docker).await?,
        };
        Ok(Self::Network(id))
    }

    /// Changes the definition of a container that has no network of its own.
    pub fn apply_to(&self, body: &mut ContainerCreateBody) {
        if let (Self::Network(id), Some(host)) = (self, &mut body.host_config) {
            host.network_mode = Some(id.clone());
        }
    }

    /// Isolates a container that has just been started; one in a network of its own is left
    /// alone.
    ///
    /// # Errors
    /// Its port cannot be found or marked though it runs.
    pub async fn isolate(&self, docker: &Docker, container: &str) -> Result<(), BackendError> {
        let Self::Ports(bridge) = self else { return Ok(()) };
        let Some(pid) = pid_on_default_network(docker, container).await? else { return Ok(()) };
        let bridge = bridge.clone();
        let marked = tokio::task::spawn_blocking(move || mark_port(&bridge, pid)).await;
        let error = match marked {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(error) => io::Error::other(error),
        };
        // One that has ended meanwhile has no port any more. The engine may not know yet.
        match pid_on_default_network(docker, container).await? {
            None => Ok(()),
            Some(pid) if has_ended(pid) => Ok(()),
            Some(_) => Err(BackendError::Failed {
                action: "isolate the container from others",
                source: error.into(),
            }),
        }
    }
}

/// True when a process is gone, or is only there for its parent to look at.
fn has_ended(pid: i64) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the name, which is in brackets and may hold anything.
        Ok(stat) => stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

async fn make_fallback(docker: &Docker) -> Result<String, BackendError> {
    let request = NetworkCreateRequest {
        name: FALLBACK_NETWORK.to_owned(),
        driver: Some("bridge".to_owned()),
        options: Some([(ICC_OPTION.to_owned(), "false".to_owned())].into()),
        ..Default::default()
    };
    let made = docker.create_network(request).await;
    made.map(|made| made.id).map_err(|error| failed("create the network for kernels", error))
}

/// The first process of a container that runs and is in the default network.
async fn pid_on_default_network(
    docker: &Docker,
    container: &str,
) -> Result<Option<i64>, BackendError> {
    let found = match docker.inspect_container(container, None).await {
        Ok(found) => found,
        Err(error) if status(&error) == Some(404) => return Ok(None),
        Err(error) => return Err(about(container, "inspect container", error)),
    };
    let mode = found.host_config.and_then(|host| host.network_mode).unwrap_or_default();
    let state = found.state.unwrap_or_default();
    let is_meant = matches!(mode.as_str(), "default" | DEFAULT_NETWORK);
    Ok(state.pid.filter(|pid| is_meant && *pid > 0))
}

/// Marks the port behind which a process's interface is. Blocks.
fn mark_port(bridge: &Path, pid: i64) -> io::Result<()> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/igmp"))?;
    let index = interface_index(&table, CONTAINER_INTERFACE)
        .ok_or_else(|| io::Error::other("the container has no network interface"))?;
    for entry in fs::read_dir(bridge.join("brif"))? {
        let port = entry?.path();
        // A port may go while the list is read.
        let Ok(peer) = fs::read_to_string(port.join("../iflink")) else { continue };
        if peer.trim() == index {
            return fs::write(port.join("isolated"), "1");
        }
    }
    Err(io::Error::other(format!("no port of {} leads to the container", bridge.display())))
}

/// The number of an interface in the kernel's table of multicast groups: the one list with
/// numbers that the host's own `/proc` shows of another network namespace.
fn interface_index<'a>(table: &'a str, name: &str) -> Option<&'a str> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let index = words.next()?;
        (words.next()?.trim_end_matches(':') == name).then_some(index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_in_the_table() {
        let table = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
            1\tlo        :     1      V3\n\
            \t\t\t\t010000E0     1 0:00000000\t\t0\n\
            83\teth0      :     1      V3\n\
            \t\t\t\t010000E0     1 0:00000000\t\t0\n";
        assert_eq!(interface_index(table, "eth0"), Some("83"));
        assert_eq!(interface_index(table, "eth1"), None);
    }
}
