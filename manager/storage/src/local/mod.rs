//! Folders on a file system that this process sees.
//!
//! ```text
//! folders/<id>   the folders
//! uploads/<id>   files that are not complete yet; renamed into a folder when they are
//! copies/<id>    folders that are not complete yet; renamed to folders/ when they are
//! removed/…      what nobody can see any more and is on its way out
//! ```
//!
//! All four are on one file system, so that each change that others see is one rename.
//! Operations run on tokio's threads for blocking work.

mod archive;
mod beneath;
mod copy;
mod files;
mod remove;
mod transfer;
mod walk;
mod zip;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use self::beneath::Directory;
use crate::error::{Result, StorageError};
use crate::path::FolderPath;
use crate::{
    Archive, Capacity, Chunks, Entry, OpenFile, Progress, StorageVolume, UploadWriter, Usage,
    Volume,
};

pub(crate) use transfer::chunks;

const AREAS: [&str; 4] = [FOLDERS, UPLOADS, COPIES, REMOVED];
const FOLDERS: &str = "folders";
const UPLOADS: &str = "uploads";
const COPIES: &str = "copies";
const REMOVED: &str = "removed";

/// A volume on a file system.
#[derive(Clone)]
pub struct LocalVolume {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    folders: Directory,
    uploads: Directory,
    copies: Directory,
    removed: Directory,
}

impl LocalVolume {
    /// The volume in a directory; what it needs there is made. Waits for the disk.
    ///
    /// # Errors
    /// The directory cannot be made or opened.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = || path.display().to_string();
        std::fs::create_dir_all(path).map_err(StorageError::io(shown()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty());
        let root = Directory(root.map_err(StorageError::system(shown()))?);
        for area in AREAS {
            // Only the manager, and who mounts folders as root, gets beyond this.
            match rustix::fs::mkdirat(&root, area, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(StorageError::system(shown())(errno)),
            }
        }
        let area = |name| root.open_directory(name).map_err(StorageError::system(shown()));
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                folders: area(FOLDERS)?,
                uploads: area(UPLOADS)?,
                copies: area(COPIES)?,
                removed: area(REMOVED)?,
            }),
        })
    }

    /// The path of a folder beneath the directory of any volume of this kind.
    pub fn relative_path(folder: Uuid) -> String {
        format!("{FOLDERS}/{}", name(folder))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|error| StorageError::Broken(error.to_string()))?
    }
}

impl Inner {
    fn folder(&self, folder: Uuid) -> Result<Directory> {
        let opened = self.folders.open_directory(&name(folder));
        opened.map_err(StorageError::system("."))
    }
}

/// A name in an area.
fn name(id: Uuid) -> String {
    id.simple().to_string()
}

/// The ids that name something in an area; what else lies there is not ours.
fn ids(area: &Directory) -> Result<Vec<Uuid>> {
    let names = walk::names(area).map_err(StorageError::system("."))?;
    let id = |name: std::ffi::CString| Uuid::try_parse(name.to_str().ok()?).ok();
    Ok(names.into_iter().filter_map(id).collect())
}

#[async_trait]
impl StorageVolume for LocalVolume {
    fn backend(&self) -> &'static str {
        "vfs"
    }

    fn location(&self) -> String {
        self.inner.path.display().to_string()
    }

    async fn capacity(&self) -> Result<Capacity> {
        self.run(|inner| {
            let stat = rustix::fs::fstatvfs(&inner.folders).map_err(StorageError::system("."))?;
            let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
            let used = bytes(stat.f_blocks.saturating_sub(stat.f_bfree));
            Ok(Capacity { total: bytes(stat.f_blocks), used })
        })
        .await
    }

    async fn create_folder(&self, folder: Uuid) -> Result<()> {
        self.run(move |inner| {
            match beneath::make(&inner.folders, name(folder).as_str()) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(StorageError::system(".")(errno)),
            }
            rustix::fs::fsync(&inner.folders).map_err(StorageError::system("."))
        })
        .await
    }

    async fn remove_folder(&self, folder: Uuid) -> Result<()> {
        self.run(move |inner| {
            remove::tree(&inner.copies, &name(folder), &inner.removed)?;
            remove::tree(&inner.folders, &name(folder), &inner.removed)
        })
        .await
    }

    async fn sweep(&self) -> Result<()> {
        self.run(|inner| remove::everything(&inner.removed)).await
    }

    async fn copy_folder(&self, from: Uuid, to: Uuid, progress: Progress) -> Result<Usage> {
        self.run(move |inner| copy::folder(inner, from, inner, to, &*progress)).await
    }

    async fn copy_folder_from(
        &self,
        source: &Volume,
        from: Uuid,
        to: Uuid,
        progress: Progress,
    ) -> Result<Usage> {
        let Some(source) = source.as_any().downcast_ref::<Self>() else {
            let (kind, what) = (self.backend(), "copies from volumes of other kinds");
            return Err(StorageError::Unsupported { kind, what });
        };
        let source = Arc::clone(&source.inner);
        self.run(move |inner| copy::folder(&source, from, inner, to, &*progress)).await
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    async fn folders(&self) -> Result<Vec<Uuid>> {
        self.run(|inner| ids(&inner.folders)).await
    }

    async fn usage(&self, folder: Uuid) -> Result<Usage> {
        self.run(move |inner| walk::usage(inner.folder(folder)?)).await
    }

    async fn list(&self, folder: Uuid, path: &FolderPath) -> Result<Vec<Entry>> {
        let path = path.clone();
        self.run(move |inner| files::list(&inner.folder(folder)?, &path)).await
    }

    async fn make_directory(
        &self,
        folder: Uuid,
        path: &FolderPath,
        parents: bool,
        exist_ok: bool,
    ) -> Result<()> {
        let path = path.clone();
        self.run(move |inner| {
            files::make_directory(&inner.folder(folder)?, &path, parents, exist_ok)
        })
        .await
    }

    async fn rename(&self, folder: Uuid, from: &FolderPath, to: &FolderPath) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.run(move |inner| files::rename(&inner.folder(folder)?, &from, &to)).await
    }

    async fn remove(&self, folder: Uuid, paths: &[FolderPath], recursive: bool) -> Result<()> {
        let paths = paths.to_vec();
        self.run(move |inner| {
            files::remove(&inner.folder(folder)?, &paths, recursive, &inner.removed)
        })
        .await
    }

    async fn begin_upload(&self, upload: Uuid) -> Result<()> {
        self.run(move |inner| transfer::begin(&inner.uploads, &name(upload))).await
    }

    async fn upload_size(&self, upload: Uuid) -> Result<u64> {
        self.run(move |inner| transfer::size(&inner.uploads, &name(upload))).await
    }

    async fn append(&self, upload: Uuid, offset: u64, limit: u64) -> Result<UploadWriter> {
        self.run(move |inner| transfer::append(&inner.uploads, &name(upload), offset, limit)).await
    }

    async fn finish_upload(&self, upload: Uuid, folder: Uuid, path: &FolderPath) -> Result<()> {
        let path = path.clone();
        self.run(move |inner| {
            transfer::finish(&inner.uploads, &name(upload), &inner.folder(folder)?, &path)
        })
        .await
    }

    async fn drop_upload(&self, upload: Uuid) -> Result<()> {
        self.run(move |inner| transfer::drop_upload(&inner.uploads, &name(upload))).await
    }

    async fn uploads(&self) -> Result<Vec<(Uuid, DateTime<Utc>)>> {
        self.run(|inner| {
            let mut uploads = Vec::new();
            for id in ids(&inner.uploads)? {
                match inner.uploads.stat(name(id).as_str()) {
                    Ok(stat) => uploads.push((id, files::entry(String::new(), &stat).modified)),
                    // It was finished meanwhile.
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(StorageError::system(".")(errno)),
                }
            }
            Ok(uploads)
        })
        .await
    }

    async fn stat(&self, folder: Uuid, path: &FolderPath) -> Result<Entry> {
        let path = path.clone();
        self.run(move |inner| files::stat(&inner.folder(folder)?, &path)).await
    }

    async fn read(&self, folder: Uuid, path: &FolderPath) -> Result<OpenFile> {
        let path = path.clone();
        self.run(move |inner| transfer::open(&inner.folder(folder)?, &path)).await
    }

    async fn archive(&self, folder: Uuid, path: &FolderPath, format: Archive) -> Result<Chunks> {
        let path = path.clone();
        self.run(move |inner| {
            let folder = inner.folder(folder)?;
            let directory = folder.open_directory(path.as_str());
            let directory = directory.map_err(StorageError::system(&path))?;
            Ok(archive::stream(directory, format))
        })
        .await
    }
}
