//! What a kernel may ask about itself, over HTTP at 169.254.169.254.
//!
//! ```text
//! program in a container ──http://169.254.169.254/──▶ bridge ──redirect──▶ this process
//! ```
//! The server listens on a port of the host. While it runs, rules of the host's firewall
//! ([`redirect`]) send it what the agent's own containers want from that address, which no
//! host has and clouds use for the same. Who asks is known by the address in the engine's
//! network; a container cannot take another's, as it may neither set its address nor send
//! raw packets. Nobody else is answered.
//!
//! Where the host has no firewall to be told, or the agent may not, kernels do without.

mod redirect;
mod tree;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;

use backendai_rpc::runner::RunnerConfig;
use backendai_service::http::{self, Get, Page, StatusCode};
use backendai_types::KernelId;

use self::redirect::Redirect;
use self::tree::Node;
use crate::config::{AgentSection, BackendKind};
use crate::core::Core;
use crate::kernel::registry::blocking;

/// Kernels by the addresses of their containers.
#[derive(Default)]
pub struct Addresses {
    kernels: Mutex<HashMap<Ipv4Addr, KernelId>>,
    /// Sent to after every change.
    changed: watch::Sender<()>,
}

impl Addresses {
    /// Notes where a kernel's container is.
    pub fn note(&self, kernel: KernelId, addresses: &[Ipv4Addr]) {
        self.kernels.lock().extend(addresses.iter().map(|address| (*address, kernel)));
        self.changed.send_replace(());
    }

    /// Forgets a kernel, before its container is gone and its address another's.
    pub fn forget(&self, kernel: KernelId) {
        self.kernels.lock().retain(|_, known| *known != kernel);
        self.changed.send_replace(());
    }

    fn kernel(&self, address: Ipv4Addr) -> Option<KernelId> {
        self.kernels.lock().get(&address).copied()
    }

    fn all(&self) -> Vec<Ipv4Addr> {
        let mut all: Vec<Ipv4Addr> = self.kernels.lock().keys().copied().collect();
        all.sort_unstable();
        all
    }
}

/// Begins to answer, until the shutdown. Where that cannot be, says so once.
pub async fn start(core: &Arc<Core>, config: &AgentSection) {
    // Containers in memory have nothing to ask with.
    if !config.metadata_server_enabled || config.kind() == BackendKind::Dummy {
        return;
    }
    let (host, port) = (config.metadata_server_bind_host.as_str(), config.metadata_server_port);
    let bound = TcpListener::bind((host, port)).await;
    let (listener, port) = match bound.and_then(|listener| {
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    }) {
        Ok(bound) => bound,
        Err(error) => {
            tracing::warn!(%error, host, port, "kernels have no metadata service: listen");
            return;
        }
    };
    let redirect = Redirect::new(core.agent_id.as_str(), port);
    if let Err(error) = redirect.set_up().await {
        tracing::warn!("kernels have no metadata service: {error}");
        return;
    }
    tracing::info!(port, "kernels are told about themselves");
    let lifecycle = &core.lifecycle;
    lifecycle.spawn("metadata_redirect", follow(Arc::clone(core), redirect));
    let answering = Arc::clone(core);
    lifecycle.spawn(
        "metadata",
        http::serve(listener, lifecycle.clone(), move |get| {
            let core = Arc::clone(&answering);
            async move { answer(&core, get).await }
        }),
    );
}

/// Keeps the redirection to the containers there are.
async fn follow(core: Arc<Core>, redirect: Redirect) {
    let mut changed = core.addresses.changed.subscribe();
    let mut is_failing = false;
    loop {
        changed.mark_unchanged();
        match redirect.replace(&core.addresses.all()).await {
            Ok(()) => is_failing = false,
            Err(error) if !std::mem::replace(&mut is_failing, true) => {
                tracing::warn!("some kernels cannot reach the metadata service: {error}");
            }
            Err(_) => {}
        }
        tokio::select! {
            // The sender is in the core, which this task holds.
            _ = changed.changed() => {}
            () = core.lifecycle.stopping() => break,
        }
    }
    if let Err(error) = redirect.remove().await {
        tracing::warn!("stop redirecting to the metadata service: {error}");
    }
}

async fn answer(core: &Arc<Core>, get: Get) -> Page {
    let address = match get.peer.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(address) => address.to_ipv4_mapped(),
    };
    let Some(address) = address else { return Page::status(StatusCode::FORBIDDEN) };
    let Some(kernel) = core.addresses.kernel(address) else {
        return Page::status(StatusCode::FORBIDDEN);
    };
    match tree::find(&get.path) {
        None => Page::status(StatusCode::NOT_FOUND),
        Some(Node::Folder(entries)) => Page::text(entries.join("\n")),
        Some(Node::Sandbox) => Page::text("docker"),
        Some(Node::LocalIpv4) => Page::text(address.to_string()),
        Some(Node::Envs) => {
            let core = Arc::clone(core);
            match blocking(move || environ(&core, kernel)).await {
                Ok(text) => Page { content_type: "application/json", ..Page::text(text) },
                Err(error) => {
                    tracing::warn!(kernel.id = %kernel, %error, "read its environment");
                    Page::status(StatusCode::INTERNAL_SERVER_ERROR)
                }
            }
        }
    }
}

/// A kernel's environment as JSON, from what its runner was told. Blocks.
fn environ(core: &Core, kernel: KernelId) -> io::Result<String> {
    let file = core.scratch.paths(kernel).config.join("runner.json");
    let told: RunnerConfig = serde_json::from_slice(&fs::read(file)?)?;
    Ok(serde_json::to_string(&told.environ)?)
}
