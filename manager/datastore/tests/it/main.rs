//! Tests against a real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod fixture;
mod image;
mod life;
mod migrate;
mod plans;
mod transition_view;
mod tx;
