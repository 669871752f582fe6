//! What the agent knows of a kernel, on disk: one small file each.
//!
//! A file is written anew beside the old one, synced and renamed, so that a crash leaves
//! one or the other. Passwords of registries are left out; a kernel that runs needs
//! neither its environment nor its keys any more, so those leave the disk then.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use backendai_rpc::agent_api::{CreationInfo, KernelSpec, SessionSpec};
use backendai_rpc::call::RemoteError;
use backendai_rpc::manager_api::{KernelChange, KernelEvent, KernelPhase, KernelReport};
use backendai_rpc::statistics::{Metrics, Packed};
use backendai_types::{KernelId, SessionId, SessionType};

use crate::backend::ContainerHandle;
use crate::resources::Allocation;

/// All the agent knows of one kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelRecord {
    /// The kernel.
    pub kernel_id: KernelId,
    /// Its session.
    pub session_id: SessionId,
    /// What its session is for.
    pub session_type: SessionType,
    /// How far it is.
    pub state: KernelState,
    /// The name of its last restart, if it was restarted: its work folder is in use already.
    #[serde(default)]
    pub restart: Option<i64>,
    /// Why it is to be removed, once somebody wants that.
    pub destroy_reason: Option<String>,
    /// The network it shares with the other kernels of its session.
    #[serde(default)]
    pub network: Option<String>,
}

/// How far a kernel is. Each state has what is needed to go on from it.
///
/// ```text
/// Creating ──▶ Running ──▶ Gone
///     │ ◀─(restart)─┘       ▲
///     └─────────────────────┘
/// ```
/// From Creating or Running a kernel leaves when it is to be removed or ends by itself;
/// Gone lasts until the manager knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KernelState {
    /// Wanted. A container may exist already, under the kernel's name.
    Creating {
        /// The session.
        session: Box<SessionSpec>,
        /// The kernel.
        spec: Box<KernelSpec>,
    },
    /// Its runner answered.
    Running(Box<RunningKernel>),
    /// Nothing is left but the duty to tell the manager.
    Gone {
        /// What to tell.
        change: KernelEnd,
        /// When it ended.
        at: DateTime<Utc>,
    },
}

/// A kernel that runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningKernel {
    /// Its container.
    pub container: ContainerHandle,
    /// What it holds.
    pub allocation: Allocation,
    /// What the manager was told.
    pub info: CreationInfo,
    /// When its runner answered.
    pub at: DateTime<Utc>,
    /// How its batch command ended, and when.
    pub batch_end: Option<(i32, DateTime<Utc>)>,
}

/// How a kernel ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KernelEnd {
    /// It could not be made.
    Failed(RemoteError),
    /// It is gone.
    Terminated {
        /// Why.
        reason: String,
        /// Exit code of its container, if known.
        exit_code: Option<i32>,
        /// The last figures of it, if there are any.
        metrics: Option<Packed<Metrics>>,
    },
}

impl From<KernelEnd> for KernelChange {
    fn from(end: KernelEnd) -> Self {
        match end {
            KernelEnd::Failed(error) => Self::Failed(error),
            KernelEnd::Terminated { reason, exit_code, metrics } => {
                Self::Terminated { reason, exit_code, metrics }
            }
        }
    }
}

impl KernelRecord {
    /// How far it is, in the manager's words.
    pub fn phase(&self) -> KernelPhase {
        match &self.state {
            KernelState::Gone { .. } => KernelPhase::Gone,
            _ if self.destroy_reason.is_some() => KernelPhase::Destroying,
            KernelState::Creating { .. } => KernelPhase::Creating,
            KernelState::Running(_) => KernelPhase::Running,
        }
    }

    /// Its line of a heartbeat.
    pub fn report(&self) -> KernelReport {
        KernelReport { kernel_id: self.kernel_id, session_id: self.session_id, phase: self.phase() }
    }

    /// Something that happened to it.
    pub fn event(&self, at: DateTime<Utc>, change: KernelChange) -> KernelEvent {
        KernelEvent { kernel_id: self.kernel_id, session_id: self.session_id, at, change }
    }

    /// The event that tells that it runs.
    pub fn started(&self, at: DateTime<Utc>, info: CreationInfo) -> KernelEvent {
        let info = Box::new(info);
        self.event(
            at,
            match self.restart {
                None => KernelChange::Started(info),
                Some(restart) => KernelChange::Restarted { restart, info },
            },
        )
    }

    /// The events that tell its present state to a manager that may have missed them.
    pub fn last_events(&self) -> Vec<KernelEvent> {
        match &self.state {
            KernelState::Creating { .. } => Vec::new(),
            KernelState::Running(running) => {
                let mut events = vec![self.started(running.at, running.info.clone())];
                if let Some((exit_code, at)) = running.batch_end {
                    events.push(self.event(at, KernelChange::BatchFinished { exit_code }));
                }
                events
            }
            KernelState::Gone { change, at } => vec![self.event(*at, change.clone().into())],
        }
    }

    /// The record as it may lie on disk.
    fn without_secrets(&self) -> Self {
        let mut record = self.clone();
        if let KernelState::Creating { spec, .. } = &mut record.state {
            spec.image.registry_password = None;
        }
        record
    }
}

/// The folder with all records.
#[derive(Clone, Debug)]
pub struct RecordStore {
    dir: PathBuf,
}

impl RecordStore {
    /// Opens the folder, making it if need be.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// Writes a record and waits until it is on disk. Blocks.
    ///
    /// # Errors
    /// The disk is full or gone; the record that was there is still whole.
    pub fn save(&self, record: &KernelRecord) -> io::Result<()> {
        let body = serde_json::to_vec(&record.without_secrets())?;
        write_synced(&self.path(record.kernel_id), &body)
    }

    /// Writes a record so that it survives this process, though perhaps not a power cut.
    /// Blocks.
    ///
    /// # Errors
    /// The disk is full or gone; the record that was there is still whole.
    pub fn write(&self, record: &KernelRecord) -> io::Result<()> {
        let body = serde_json::to_vec(&record.without_secrets())?;
        replace(&self.path(record.kernel_id), &body, false)
    }

    /// Waits until a record that was written is on disk. Blocks.
    ///
    /// # Errors
    /// The disk fails.
    pub fn sync(&self, kernel_id: KernelId) -> io::Result<()> {
        match File::open(self.path(kernel_id)) {
            Ok(file) => file.sync_data(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes a record. Blocks. One that does not exist is no error.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn delete(&self, kernel_id: KernelId) -> io::Result<()> {
        match fs::remove_file(self.path(kernel_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All records. Files that are none are set aside with a line in the log. Blocks.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn load_all(&self) -> io::Result<Vec<KernelRecord>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match serde_json::from_slice(&fs::read(&path)?) {
                Ok(record) => records.push(record),
                Err(error) => {
                    let aside = path.with_extension("broken");
                    tracing::error!(
                        path = %path.display(), %error,
                        "a kernel record cannot be read and is set aside",
                    );
                    fs::rename(&path, aside)?;
                }
            }
        }
        Ok(records)
    }

    fn path(&self, kernel_id: KernelId) -> PathBuf {
        self.dir.join(format!("{kernel_id}.json"))
    }
}

/// Replaces a file so that after a crash it has the old or the new content, and waits
/// until the new one is on disk.
pub fn write_synced(path: &Path, body: &[u8]) -> io::Result<()> {
    replace(path, body, true)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_data(),
        None => Ok(()),
    }
}

fn replace(path: &Path, body: &[u8], sync: bool) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(body)?;
    if sync {
        file.sync_data()?;
    }
    fs::rename(&draft, path)
}
