//! The commands.

pub mod bench;
pub mod demo;
pub mod stack;
pub mod test;
