//! Websockets.

pub mod execute;
pub mod proxy;
mod socket;
pub mod terminal;
mod tunnel;
