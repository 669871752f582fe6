//! Drives the real binary as an agent does, over its socket.

#![expect(clippy::unwrap_used, reason = "what a test needs is there, or it fails")]

mod batch;
mod container;
mod files;
mod input;
mod ipython;
mod library;
mod memory;
mod query;
mod reconnect;
mod service;
mod ssh;
mod startup;
mod support;
mod terminal;
mod ttyd;
