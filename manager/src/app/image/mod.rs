//! Kernel images: which there are, and which one a user means.
//!
//! [`resolve`](resolve::resolve) finds the image a name or alias stands for; [`scan`] reads
//! registries, [`rescan`] does so in the background; [`manage`] is what operators do to single images.

pub mod manage;
pub mod rescan;
pub mod resolve;
pub mod scan;

pub use resolve::resolve;
