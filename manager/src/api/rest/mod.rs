//! Handlers of the REST API, one file per resource.

pub mod account;
pub mod acl;
pub mod auth;
pub mod config;
pub mod dotfile;
pub mod error_log;
pub mod manager;
pub mod resource;
pub mod scaling_group;
pub mod service;
pub mod session;
pub mod session_commit;
pub mod session_files;
pub mod session_history;
pub mod session_logs;
pub mod session_relations;
pub mod ssh_keypair;
pub mod template;
mod template_payload;
pub mod totp;
pub mod usage;
pub mod vfolder;
pub mod vfolder_files;
pub mod vfolder_sharing;
pub mod vfolder_storage;
pub mod vfolder_transfer;
pub mod watcher;
