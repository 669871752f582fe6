//! Tests of the manager's API and command line and of what they set up, against real servers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod api;
mod cli_declared;
mod cli_etcd;
mod cli_site;
mod config;
mod life;
mod scan;
mod scan_catalogues;
mod shared_config;
mod sse;
mod start_server;
mod support;
