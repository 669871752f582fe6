//! Kernels: one container each, with one task that owns its changes.
//!
//! [`registry`] has the kernels by id, [`record`] what lies on disk of each, [`task`] the
//! life of one from its making ([`create`]) to its end ([`destroy`]). [`runs`] executes
//! code in it, [`questions`] waits for its runner's answers. [`definition`] is what engine
//! and runner are told, [`summary`] what the container's labels keep of it, [`network`] what
//! the kernels of a cluster share. [`recover`] takes up what an earlier process left.

pub mod create;
pub mod definition;
pub mod destroy;
pub mod mounts;
pub mod network;
pub mod place;
pub mod questions;
pub mod record;
pub mod recover;
pub mod registry;
pub mod run_log;
pub mod runs;
pub mod summary;
pub mod task;
