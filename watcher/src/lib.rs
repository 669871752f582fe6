//! The watcher: beside the agent, it tells managers how the agent's service is and starts, stops
//! and restarts it through systemd.
//!
//! It answers on a port of its own, so that a host whose agent hangs can still be helped. Every
//! request must bring the cluster's watcher token. Nothing a request says names a unit or a path
//! outside the configured ones: read [`units`] and [`mounts`] for how that is held.

pub mod api;
pub mod config;
pub mod hardware;
pub mod health;
pub mod mounts;
pub mod server;
pub mod token;
pub mod units;
