//! Folders on a real file system, used as intended and otherwise.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod hostile;
mod use_it;
