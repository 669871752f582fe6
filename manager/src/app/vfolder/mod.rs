//! Virtual folders: what people keep between sessions.
//!
//! PostgreSQL says which folders there are and who may use them; a
//! [`StorageVolume`](backendai_storage::StorageVolume) holds their content, each under its
//! id. `access` finds a folder for somebody and says what that one may do with it: every
//! rule begins there, and a folder one may not use is as absent as one that does not exist.

pub mod access;
pub mod audit;
pub mod clone;
pub mod create;
pub mod file_system;
pub mod files;
pub mod host;
pub mod limit;
pub mod manage;
pub mod mount;
pub mod quota;
pub mod remove;
pub mod share;
pub mod token;
pub mod transfer;

pub use super::error::VfolderError;
