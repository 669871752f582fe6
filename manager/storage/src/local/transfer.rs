//! Files on their way in and out.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use bytes::{Bytes, BytesMut};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::beneath::{Directory, FILE_MODE};
use super::files;
use crate::error::{Result, StorageError};
use crate::path::FolderPath;
use crate::{Chunks, OpenFile, UploadWriter};

/// Bytes read at once: large enough that calls do not count, small enough that a thousand
/// downloads fit into memory.
const CHUNK: usize = 256 << 10;
/// Chunks that wait for a slow reader or a slow disk.
const WAITING: usize = 4;

pub fn begin(uploads: &Directory, name: &str) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(uploads, name, flags, FILE_MODE);
    let file = file.map_err(StorageError::system("."))?;
    // Whatever our umask says: the folder's users change their files.
    rustix::fs::fchmod(file, FILE_MODE).map_err(StorageError::system("."))
}

pub fn size(uploads: &Directory, name: &str) -> Result<u64> {
    let stat = uploads.stat(name).map_err(no_upload)?;
    Ok(u64::try_from(stat.st_size).unwrap_or_default())
}

fn no_upload(errno: Errno) -> StorageError {
    match errno {
        Errno::NOENT => StorageError::NoUpload,
        errno => StorageError::system(".")(errno),
    }
}

fn open_upload(uploads: &Directory, name: &str) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(uploads, name, flags, Mode::empty()).map_err(no_upload)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(File::from(file)),
        Err(Errno::WOULDBLOCK) => Err(StorageError::Busy),
        Err(errno) => Err(StorageError::system(".")(errno)),
    }
}

pub fn append(uploads: &Directory, name: &str, offset: u64, limit: u64) -> Result<UploadWriter> {
    let mut file = open_upload(uploads, name)?;
    let actual = file.metadata().map_err(StorageError::io("."))?.len();
    if actual != offset {
        return Err(StorageError::Offset { actual });
    }
    let (sender, mut receiver) = mpsc::channel::<Bytes>(WAITING);
    let written = tokio::task::spawn_blocking(move || {
        let mut size = actual;
        while let Some(bytes) = receiver.blocking_recv() {
            let fits = usize::try_from(limit - size).unwrap_or(usize::MAX).min(bytes.len());
            let (taken, rest) = bytes.split_at(fits);
            file.write_all(taken).map_err(StorageError::io("."))?;
            size += fits as u64;
            if !rest.is_empty() {
                return Err(StorageError::TooLong { limit });
            }
        }
        Ok(size)
    });
    Ok(UploadWriter { bytes: sender, written })
}

pub fn finish(
    uploads: &Directory,
    name: &str,
    folder: &Directory,
    path: &FolderPath,
) -> Result<()> {
    // Nobody may add to it while it becomes a file.
    let file = open_upload(uploads, name)?;
    file.sync_all().map_err(StorageError::io(path))?;
    let (parent, new_name) = folder.make_parent(path)?;
    rustix::fs::renameat(uploads, name, &parent, new_name).map_err(StorageError::system(path))?;
    rustix::fs::fsync(&parent).map_err(StorageError::system(path))
}

pub fn drop_upload(uploads: &Directory, name: &str) -> Result<()> {
    match rustix::fs::unlinkat(uploads, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(StorageError::system(".")(errno)),
    }
}

pub fn open(folder: &Directory, path: &FolderPath) -> Result<OpenFile> {
    let (file, stat) = folder.open_to_read(path)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(StorageError::system(path)(Errno::ISDIR)),
        _ => return Err(StorageError::Path { path: path.to_string(), why: "is not a file" }),
    }
    let name = path.name().unwrap_or_default().to_owned();
    Ok(OpenFile { entry: files::entry(name, &stat), file: File::from(file) })
}

pub fn chunks(file: File, mut offset: u64, length: u64) -> Chunks {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let mut left = length;
        while left > 0 {
            let chunk = read(&file, offset, left);
            let length = chunk.as_ref().map_or(0, Bytes::len);
            if sender.blocking_send(chunk).is_err() || length == 0 {
                return;
            }
            offset += length as u64;
            left -= length as u64;
        }
    });
    receiver
}

fn read(file: &File, offset: u64, left: u64) -> Result<Bytes> {
    let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
    let mut chunk = BytesMut::zeroed(size);
    let length = file.read_at(&mut chunk, offset).map_err(StorageError::io("."))?;
    if length == 0 {
        return Err(StorageError::Broken("the file became shorter while it was read".into()));
    }
    chunk.truncate(length);
    Ok(chunk.freeze())
}
