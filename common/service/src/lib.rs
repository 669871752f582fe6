//! What every daemon shares: start-up, layered configuration, logs, tasks and shutdown, and
//! thin clients of etcd and Redis.
//!
//! This crate knows nothing of sessions, agents or HTTP routes; whatever only one daemon
//! needs belongs to that daemon.

pub mod config;
pub mod daemon;
pub mod etcd;
pub mod host;
pub mod http;
pub mod lifecycle;
pub mod metrics;
pub mod redis;
pub mod splice;
pub mod telemetry;

pub use lifecycle::Lifecycle;
