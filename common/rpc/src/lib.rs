//! What the daemons say to each other: manager ↔ agent, and agent ↔ kernel runner.
//!
//! [`agent_api`] and [`manager_api`] are the contracts between manager and agent: plain
//! messages and one trait each, from which the client and the server side are generated.
//! [`statistics`] are the figures that go the same way.
//! [`call`] is the envelope they travel in, [`transport`] carries envelopes over ZeroMQ
//! (CURVE) or inside a process. [`runner`] is the separate, smaller language between an
//! agent and the static kernel runner inside a container.
//!
//! This crate knows neither containers nor SQL, and decides nothing.
//!
//! Features: `runner` has the runner's messages alone, without any C library; `zmq` adds
//! the rest for manager and agent.

pub mod runner;

#[cfg(feature = "zmq")]
pub mod agent_api;
#[cfg(feature = "zmq")]
pub mod call;
#[cfg(feature = "zmq")]
pub mod manager_api;
#[cfg(feature = "zmq")]
pub mod statistics;
#[cfg(feature = "zmq")]
pub mod transport;
