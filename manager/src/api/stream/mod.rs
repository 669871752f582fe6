//! Websockets.

pub mod execute;
