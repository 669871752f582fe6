//! Sessions: what users may ask of them.
//!
//! [`create`] writes what is wanted and waits, if asked to, until the tasks made it so;
//! [`destroy`] likewise. [`lookup`] is the one rule by which a name or id finds a session.

pub mod commit;
pub mod create;
pub mod destroy;
pub mod events;
pub mod execute;
pub mod files;
pub mod logs;
pub mod lookup;
pub mod query;
pub mod received;
pub mod rename;
pub mod restart;
pub mod service;
pub mod stream;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use backendai_types::image::ServicePort;
use backendai_types::{ClusterMode, SessionId, SessionType};

use crate::app::{Error, Result};

/// A request for a session, after the API checked each field for itself.
#[derive(Clone, Debug)]
pub struct CreateSession {
    /// 4 to 64 word characters.
    pub name: String,
    /// Image name or alias.
    pub image: String,
    /// `x86_64`…
    pub architecture: String,
    /// What it is for.
    pub session_type: SessionType,
    /// Group name or id.
    pub group: String,
    /// Domain name.
    pub domain: String,
    /// Number of kernels.
    pub cluster_size: u32,
    /// Where they may lie.
    pub cluster_mode: ClusterMode,
    /// Amounts as the user wrote them, by slot.
    pub resources: Map<String, Value>,
    /// `shmem` and others, as the user wrote them.
    pub resource_opts: Map<String, Value>,
    /// Environment variables.
    pub environ: BTreeMap<String, String>,
    /// Folder names, with subpaths.
    pub mounts: Vec<String>,
    /// Paths inside the container by folder name.
    pub mount_map: BTreeMap<String, String>,
    /// The scaling group; chosen if absent.
    pub scaling_group: Option<String>,
    /// Ports to serve that no label declares.
    pub preopen_ports: Vec<u16>,
    /// Agents to use; superadmins only.
    pub agent_list: Option<Vec<String>>,
    /// Free text for the user.
    pub tag: Option<String>,
    /// Answer at once.
    pub enqueue_only: bool,
    /// How long to wait for RUNNING; `None` is without limit.
    pub max_wait: Option<Duration>,
    /// When a batch session may start.
    pub starts_at: Option<String>,
    /// A live session of the same name and image may be returned instead.
    pub reuse_if_exists: bool,
    /// Command of a batch session.
    pub startup_command: Option<String>,
    /// Script run before the session is RUNNING.
    pub bootstrap_script: Option<String>,
    /// Ids or names of sessions that must succeed first.
    pub dependencies: Vec<String>,
    /// Where to report the session's life.
    pub callback_url: Option<String>,
    /// Another keypair to create it for.
    pub owner_access_key: Option<String>,
}

/// What came of a [`CreateSession`].
#[derive(Clone, Debug)]
pub struct CreatedSession {
    /// The session.
    pub session_id: SessionId,
    /// Its name.
    pub name: String,
    /// The session's status, or `TIMEOUT` when waiting took too long.
    pub status: String,
    /// Apps of the main kernel.
    pub service_ports: Vec<ServicePort>,
    /// False when an existing session was reused.
    pub created: bool,
}

/// The API uses these words in place of a session's name.
const RESERVED_NAMES: &[&str] = &["from-template"];

/// # Errors
/// No session may have this name.
fn reserved_name(name: &str) -> Result<()> {
    if RESERVED_NAMES.contains(&name) {
        return Err(Error::invalid(format!("The session name {name:?} is reserved.")));
    }
    Ok(())
}
