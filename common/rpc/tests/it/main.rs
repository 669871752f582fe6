//! Tests of the carriers: what a caller and a service see of them.

mod agent;
mod curve;
mod failures;
mod limits;
mod security;
mod support;
