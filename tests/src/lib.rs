//! Real servers, real daemons, the real client: what the `halfstack` program, the integration
//! tests and the benchmarks have in common.
//!
//! Everything starts on free loopback ports with its state under one folder, and only
//! processes, containers and mounts that were started here are ever ended. Our own daemons are
//! run as the programs they are; this crate must not depend on theirs.
//!
//! Read on in [`servers`] (PostgreSQL, Redis, etcd, registry), [`images`], [`site`] (the
//! example site), [`daemon`] (manager and agent), [`deployment`] (their configuration), [`cluster`] (a world for one test).

pub mod client;
pub mod cluster;
pub mod daemon;
pub mod deployment;
pub mod images;
pub mod layout;
pub mod ports;
pub mod process;
pub mod progress;
pub mod proxy;
pub mod servers;
pub mod site;
pub mod stack;
pub mod systemd;
pub mod wait;
pub mod webserver;

pub use client::{ClientOutput, SignedClient, StockClient};
pub use cluster::TestCluster;
pub use layout::Layout;
pub use site::{Identities, Identity};

/// An HTTP client without proxies, connecting anew where told to; cheap to make.
pub fn http() -> reqwest::Client {
    // Fails only if a provider was installed before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        // Below what any server grants: a connection it closes just then fails its request.
        .pool_idle_timeout(std::time::Duration::from_secs(5))
        .build()
        .expect("no option of this client can fail")
}

/// Drives something to its end beside the caller, for as long as the runtime lives.
pub(crate) fn background(future: impl Future<Output = ()> + Send + 'static) {
    #[expect(
        clippy::disallowed_methods,
        reason = "these tasks end with the object they drive; there is nothing to stop or await"
    )]
    tokio::spawn(future);
}
