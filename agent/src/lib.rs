//! The agent: runs kernels as containers on one host.
//!
//! [`Agent::build`] opens what the agent keeps on disk and listens for managers;
//! [`Agent::start`] begins to work. Where to read on:
//!
//! - [`server`] answers managers, [`kernel`] is the life of one kernel,
//! - [`backend`] is the seam to the container engine, [`reconcile`] keeps kernels and
//!   containers the same,
//! - [`runner_link`] is the socket to the runner in a container,
//! - [`streams`] is where managers fetch the traffic of apps and terminals,
//! - [`events`], [`heartbeat`] and [`logs`] speak to the leading manager ([`leader`]),
//! - [`statistics`] measures how busy node and kernels are,
//! - [`metadata`] tells kernels about themselves,
//! - [`resources`] counts cores, memory and devices; [`scratch`] makes kernels' folders,
//! - [`etcd`] is used by the daemon alone: tests and simulations say who leads themselves.
//!
//! This crate must not decide what should run: it does what the leading manager wants and
//! says what is. It knows neither users nor SQL, and only [`backend`] knows an engine.

mod agent;
pub mod backend;
pub mod commit;
pub mod config;
pub mod core;
pub mod epoch;
pub mod etcd;
pub mod events;
pub mod heartbeat;
pub mod kernel;
pub mod leader;
pub mod logs;
pub mod metadata;
pub mod metrics;
pub mod reconcile;
pub mod resources;
pub mod runner_link;
pub mod scratch;
pub mod server;
pub mod statistics;
pub mod streams;
mod work_folder;

pub use agent::{Agent, AgentDeps, BuildError, RpcListen, agent_id, system_clock};

/// The agent's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
