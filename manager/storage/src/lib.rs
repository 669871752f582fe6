//! Where the bytes of virtual folders lie.
//!
//! A [`StorageVolume`] holds folders, each known by its id alone, and the parts of files that
//! are still being uploaded. [`LocalVolume`] keeps them on a file system that this process
//! sees: a disk, NFS, CephFS. Nothing here knows users, names or rights: the caller decides
//! who may do what, this crate that no path leads out of its folder.

mod error;
mod local;
mod path;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use uuid::Uuid;

pub use error::{Result, StorageError, message};
pub use local::LocalVolume;
pub use path::FolderPath;

/// A volume, shared by all who use it.
pub type Volume = Arc<dyn StorageVolume>;

/// Chunks of a file on their way to a reader. It ends early after an error.
pub type Chunks = mpsc::Receiver<Result<Bytes>>;

/// A place that holds folders.
#[async_trait]
pub trait StorageVolume: Send + Sync {
    /// What kind of place, as administrators see it: `vfs`…
    fn backend(&self) -> &'static str;

    /// Where it is, as administrators see it.
    fn location(&self) -> String;

    /// How full it is.
    async fn capacity(&self) -> Result<Capacity>;

    /// Makes an empty folder. One that exists stays as it is.
    async fn create_folder(&self, folder: Uuid) -> Result<()>;

    /// Removes a folder and all in it; none of it is visible from the beginning. One that is
    /// not there counts as removed.
    async fn remove_folder(&self, folder: Uuid) -> Result<()>;

    /// Copies a folder to one that does not exist yet, and which appears when it is complete.
    /// What an earlier attempt left is removed first. `progress` is told the bytes so far.
    async fn copy_folder(&self, from: Uuid, to: Uuid, progress: Progress) -> Result<Usage>;

    /// The same from a folder of another volume.
    async fn copy_folder_from(
        &self,
        source: &Volume,
        from: Uuid,
        to: Uuid,
        progress: Progress,
    ) -> Result<Usage> {
        let _ = (source, from, to, progress);
        Err(StorageError::Unsupported { kind: self.backend(), what: "copies between volumes" })
    }

    /// What it counts of its use, if it does.
    async fn performance(&self) -> Result<Performance> {
        Err(StorageError::Unsupported { kind: self.backend(), what: "counts of its use" })
    }

    /// The volume as what it is: those of one kind can do more with each other.
    fn as_any(&self) -> &dyn std::any::Any;

    /// Ends the removals that somebody began and died over.
    async fn sweep(&self) -> Result<()>;

    /// Ids of the folders that are there.
    async fn folders(&self) -> Result<Vec<Uuid>>;

    /// What a folder holds.
    async fn usage(&self, folder: Uuid) -> Result<Usage>;

    /// What lies in a directory, by name.
    async fn list(&self, folder: Uuid, path: &FolderPath) -> Result<Vec<Entry>>;

    /// Makes a directory; with `parents` also those above it.
    async fn make_directory(
        &self,
        folder: Uuid,
        path: &FolderPath,
        parents: bool,
        exist_ok: bool,
    ) -> Result<()>;

    /// Gives a file or directory another path; into the directory of that path if there is
    /// one. Nothing is replaced.
    async fn rename(&self, folder: Uuid, from: &FolderPath, to: &FolderPath) -> Result<()>;

    /// Removes files, and with `recursive` directories with all in them.
    async fn remove(&self, folder: Uuid, paths: &[FolderPath], recursive: bool) -> Result<()>;

    /// Prepares to take the bytes of a file.
    async fn begin_upload(&self, upload: Uuid) -> Result<()>;

    /// How many bytes of an upload are there. `NoUpload` if it was never begun, is finished,
    /// or was dropped.
    async fn upload_size(&self, upload: Uuid) -> Result<u64>;

    /// Goes on with an upload that has `offset` bytes; it shall not grow beyond `limit`.
    /// Nobody else can write to it meanwhile.
    async fn append(&self, upload: Uuid, offset: u64, limit: u64) -> Result<UploadWriter>;

    /// Makes an upload the file of this path, instead of what was there; directories above
    /// it are made.
    async fn finish_upload(&self, upload: Uuid, folder: Uuid, path: &FolderPath) -> Result<()>;

    /// Forgets an upload.
    async fn drop_upload(&self, upload: Uuid) -> Result<()>;

    /// Ids of the uploads that are not finished, and when they were last written to.
    async fn uploads(&self) -> Result<Vec<(Uuid, DateTime<Utc>)>>;

    /// What lies at a path; links are followed within the folder.
    async fn stat(&self, folder: Uuid, path: &FolderPath) -> Result<Entry>;

    /// The bytes of a file from `offset` on, `length` of them. The file's entry is that of
    /// the file that is read, whatever happens to its name meanwhile.
    async fn read(&self, folder: Uuid, path: &FolderPath) -> Result<OpenFile>;

    /// A directory with all in it as one archive. Links and special files are left out: an
    /// archive shall lead nobody out of where it is unpacked.
    async fn archive(&self, folder: Uuid, path: &FolderPath, format: Archive) -> Result<Chunks>;
}

/// Is told of a copy's progress: bytes so far.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// How full a volume is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// All there is.
    pub total: u64,
    /// What is taken.
    pub used: u64,
}

/// What a volume counts of its use, since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Performance {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

/// What a folder holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files, links and special files; no directories.
    pub files: u64,
    /// Their bytes. Holes count nothing.
    pub bytes: u64,
}

/// The kind of a thing in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A link.
    Link,
    /// Something else: a socket, a pipe, a device.
    Special,
}

/// A thing in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name; what is not UTF-8 in it is replaced.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its size in bytes.
    pub size: u64,
    /// Type and permission bits, as `stat(2)` has them.
    pub mode: u32,
    /// When it was last changed in any way.
    pub created: DateTime<Utc>,
    /// When its content was last changed.
    pub modified: DateTime<Utc>,
}

/// The form of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// Zip with 64-bit sizes, stored.
    Zip,
    /// Tar.
    Tar,
}

/// A file that is open.
pub struct OpenFile {
    /// What it is.
    pub entry: Entry,
    file: std::fs::File,
}

impl OpenFile {
    /// A part of it, in chunks.
    pub fn chunks(self, offset: u64, length: u64) -> Chunks {
        local::chunks(self.file, offset, length)
    }
}

/// Takes the bytes of an upload.
pub struct UploadWriter {
    bytes: mpsc::Sender<Bytes>,
    written: tokio::task::JoinHandle<Result<u64>>,
}

impl UploadWriter {
    /// Adds bytes. False when they cannot be taken; [`UploadWriter::finish`] says why.
    pub async fn write(&mut self, bytes: Bytes) -> bool {
        self.bytes.send(bytes).await.is_ok()
    }

    /// Waits until all is written, and says how many bytes the upload has now.
    ///
    /// # Errors
    /// The disk failed, or there was too much; what was written before stays.
    pub async fn finish(self) -> Result<u64> {
        drop(self.bytes);
        self.written.await.map_err(|error| StorageError::Broken(error.to_string()))?
    }
}
