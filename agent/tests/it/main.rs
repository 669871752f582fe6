//! The agent from outside: every backend against one contract, the whole agent over
//! containers in memory and over Docker, and the daemon as a process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail there")]

mod backend_contract;
mod commits;
mod config;
mod daemon;
mod docker_kernels;
mod making_kernels;
mod recovery;
mod restarting;
mod running_code;
mod support;
mod telling_the_manager;
