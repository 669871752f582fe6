//! Kernel images: which there are, and which one a user means.
//!
//! [`resolve`](resolve::resolve) finds the image a name or alias stands for; [`scan`] reads
//! registries; [`manage`] is what operators do to single images.

pub mod manage;
pub mod resolve;
pub mod scan;

pub use resolve::resolve;
