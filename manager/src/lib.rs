//! The manager: the public API and the loops that carry sessions through their life.
//!
//! Layers go one way: [`api`] decodes requests and encodes answers and is the only place
//! that knows HTTP; [`app`] holds the business rules; `backendai-datastore` the SQL;
//! [`tasks`] compare what is wanted with what is and act, under the leader's lease. Agents
//! are reached through [`agents`] and report through [`events`].
//!
//! This crate never talks to a container engine: that is the agent's.

pub mod agent_keys;
pub mod agents;
pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod context;
pub mod events;
pub mod feed;
pub mod leader;
mod metrics;
pub mod server;
pub mod shared_config;
pub mod ssh_key;
pub mod tasks;
pub mod tls;
pub mod wake;

/// The version of the product whose API this is; clients compare it with their own.
pub const PRODUCT_VERSION: &str = "23.09.10";
/// The newest API version.
pub const API_VERSION: (u32, &str) = (7, "20230615");
