//! Listing, making, renaming and removing what is in a folder.

use chrono::{DateTime, Utc};
use rustix::fs::{AtFlags, FileType, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::beneath::{self, Directory};
use super::{remove as removal, walk};
use crate::error::{Result, StorageError};
use crate::path::FolderPath;
use crate::{Entry, Kind};

pub fn list(folder: &Directory, path: &FolderPath) -> Result<Vec<Entry>> {
    let failed = |errno| StorageError::system(path)(errno);
    let directory = folder.open_directory(path.as_str()).map_err(failed)?;
    let mut entries = Vec::new();
    for name in walk::names(&directory).map_err(failed)? {
        match directory.stat(&*name) {
            Ok(stat) => entries.push(entry(name.to_string_lossy().into_owned(), &stat)),
            // It went away meanwhile.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(entries)
}

pub fn stat(folder: &Directory, path: &FolderPath) -> Result<Entry> {
    let file = folder.open(path.as_str(), OFlags::PATH).map_err(StorageError::system(path))?;
    let stat = rustix::fs::fstat(&file).map_err(StorageError::system(path))?;
    Ok(entry(path.name().unwrap_or_default().to_owned(), &stat))
}

pub fn make_directory(
    folder: &Directory,
    path: &FolderPath,
    parents: bool,
    exist_ok: bool,
) -> Result<()> {
    if path.is_root() {
        return if exist_ok { Ok(()) } else { Err(StorageError::system(path)(Errno::EXIST)) };
    }
    let (parent, name) =
        if parents { folder.make_parent(path)? } else { folder.open_parent(path)? };
    match beneath::make(&parent, name) {
        Err(Errno::EXIST) if exist_ok => match folder.open_directory(path.as_str()) {
            Ok(_) => Ok(()),
            Err(_) => Err(StorageError::system(path)(Errno::EXIST)),
        },
        made => made.map_err(StorageError::system(path)),
    }
}

pub fn rename(folder: &Directory, from: &FolderPath, to: &FolderPath) -> Result<()> {
    let (source, name) = folder.open_parent(from)?;
    let into = || to.is_root() || folder.open_directory(to.as_str()).is_ok();
    let onto = if from != to && into() { FolderPath::new(name)?.within(to) } else { to.clone() };
    let (target, new_name) = folder.make_parent(&onto)?;
    let renamed =
        rustix::fs::renameat_with(&source, name, &target, new_name, RenameFlags::NOREPLACE);
    match renamed {
        // Of the file systems without this flag, NFS is the one that matters.
        Err(Errno::INVAL) if matches!(target.stat(new_name), Err(Errno::NOENT)) => {
            rustix::fs::renameat(&source, name, &target, new_name)
                .map_err(StorageError::system(from))
        }
        Err(Errno::EXIST) => Err(StorageError::system(&onto)(Errno::EXIST)),
        renamed => renamed.map_err(StorageError::system(from)),
    }
}

pub fn remove(
    folder: &Directory,
    paths: &[FolderPath],
    recursive: bool,
    removed: &Directory,
) -> Result<()> {
    for path in paths {
        let (parent, name) = folder.open_parent(path)?;
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::ISDIR | Errno::PERM) if recursive => {
                removal::tree(&parent, name, removed)?;
            }
            Err(errno) => return Err(StorageError::system(path)(errno)),
        }
    }
    Ok(())
}

/// A thing as others are told of it.
pub fn entry(name: String, stat: &Stat) -> Entry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        _ => Kind::Special,
    };
    let time = |seconds: i64, nanoseconds: i64| -> DateTime<Utc> {
        let nanoseconds = u32::try_from(nanoseconds).unwrap_or_default();
        DateTime::from_timestamp(seconds, nanoseconds).unwrap_or_default()
    };
    Entry {
        name,
        kind,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mode: stat.st_mode,
        created: time(stat.st_ctime, stat.st_ctime_nsec as i64),
        modified: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    }
}
