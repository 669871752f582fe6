//! The only SQL of the system.
//!
//! One file per resource, each adding methods to [`Transaction`]; callers group them with
//! [`Datastore::run_tx`], whose body may run more than once and so must be safe to repeat.
//! A query's text begins with its name, so that it can be found in PostgreSQL's logs.
//! "Not found" is `Ok(None)`: whether that is an error, the caller decides.
//!
//! This crate makes no decisions of policy and speaks to nothing but PostgreSQL.

pub mod agent;
pub mod agent_list_view;
pub mod allocation;
pub mod audit;
pub mod background_task;
pub mod credential_view;
pub mod domain;
pub mod dotfile;
mod error;
pub mod error_log;
pub mod fixture;
pub mod group;
pub mod history;
pub mod identity_view;
pub mod image;
pub mod image_change;
pub mod kernel;
pub mod kernel_list_view;
pub mod keypair;
pub mod keypair_view;
pub mod list_view;
pub mod load_view;
pub mod migrate;
pub mod overdue;
pub mod password;
pub mod pending;
pub mod policy;
pub mod preset;
pub mod preset_view;
pub mod resource_policy;
mod row;
pub mod scaling_group;
pub mod session;
pub mod session_callback;
pub mod session_graph;
pub mod session_list_view;
pub mod site;
pub mod site_view;
pub mod ssh_keypair;
pub mod start;
pub mod template;
#[cfg(feature = "testing")]
pub mod testing;
pub mod totp;
pub mod transition;
pub mod transition_view;
mod tx;
pub mod usage_view;
pub mod user;
pub mod vfolder;
pub mod vfolder_access;
pub mod vfolder_mount;
pub mod vfolder_sharing;
pub mod vfolder_upload;
pub mod vfolder_view;

pub use error::{DatastoreError, Result};
pub use tx::{AsDatastoreError, Datastore, DatastoreConfig, Transaction};
