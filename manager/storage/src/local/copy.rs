//! Copies of whole folders.

use std::fs::File;

use rustix::fs::{FileType, Mode, OFlags, RenameFlags, SeekFrom};
use rustix::io::Errno;
use uuid::Uuid;

use super::beneath::{self, Directory, FILE_MODE};
use super::walk::{self, Visit, Visitor};
use super::{Inner, name, remove};
use crate::Usage;
use crate::error::{Result, StorageError};

/// Bytes copied between two reports of progress.
const STEP: u64 = 8 << 20;
/// Bytes copied by ourselves at once, where the system cannot.
const BUFFER: usize = 1 << 20;

pub fn folder(
    source: &Inner,
    from: Uuid,
    inner: &Inner,
    to: Uuid,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<Usage> {
    let failed = |errno| StorageError::system(".")(errno);
    // Complete already: whoever copied it died before saying so.
    if let Ok(there) = inner.folders.open_directory(&name(to)) {
        return walk::usage(there);
    }
    remove::tree(&inner.copies, &name(to), &inner.removed)?;
    let source = source.folder(from)?;
    beneath::make(&inner.copies, name(to).as_str()).map_err(failed)?;
    let target = inner.copies.open_directory(&name(to)).map_err(failed)?;
    let mut copy = Copy { into: vec![target], done: Usage::default(), progress };
    walk::walk(source, &mut copy)?;
    let Copy { done, into, .. } = copy;
    for directory in into {
        rustix::fs::syncfs(directory).map_err(failed)?;
    }
    let (copies, folders) = (&inner.copies, &inner.folders);
    let name = name(to);
    let renamed = rustix::fs::renameat_with(
        copies,
        name.as_str(),
        folders,
        name.as_str(),
        RenameFlags::empty(),
    );
    renamed.map_err(failed)?;
    rustix::fs::fsync(folders).map_err(failed)?;
    Ok(done)
}

struct Copy<'a> {
    /// The copies of the directories that the walk is in.
    into: Vec<Directory>,
    done: Usage,
    progress: &'a (dyn Fn(u64) + Send + Sync),
}

impl Copy<'_> {
    fn target(&self) -> Result<&Directory> {
        self.into.last().ok_or_else(|| StorageError::Broken("a copy without a target".into()))
    }
}

impl Visitor for Copy<'_> {
    fn file(&mut self, visit: &Visit<'_>) -> Result<()> {
        let shown = visit.name.to_string_lossy();
        let failed = |errno| StorageError::system(&shown)(errno);
        let target = self.target()?;
        match FileType::from_raw_mode(visit.stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(visit.parent, &**visit.name, Vec::new());
                let link = link.map_err(failed)?;
                rustix::fs::symlinkat(&*link, target, &**visit.name).map_err(failed)?;
                self.done.files += 1;
                return Ok(());
            }
            // Sockets and pipes mean nothing without whoever holds their other end.
            _ => return Ok(()),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = match rustix::fs::openat(visit.parent, &**visit.name, flags, Mode::empty()) {
            Ok(source) => File::from(source),
            // It went away, or became something else.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&source).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let copy = rustix::fs::openat(target, &**visit.name, flags, FILE_MODE).map_err(failed)?;
        // A file that can be run shall still be so; more than that nobody inherits.
        let mode = Mode::from_raw_mode(stat.st_mode & 0o777) | FILE_MODE;
        rustix::fs::fchmod(&copy, mode).map_err(failed)?;
        let before = self.done.bytes;
        content(&source, &File::from(copy), |bytes| (self.progress)(before + bytes))
            .map_err(failed)?;
        self.done.files += 1;
        self.done.bytes += walk::occupied(&stat);
        (self.progress)(self.done.bytes);
        Ok(())
    }

    fn enter(&mut self, visit: &Visit<'_>) -> Result<()> {
        let failed = |errno| StorageError::system(visit.name.to_string_lossy())(errno);
        let target = self.target()?;
        beneath::make(target, &**visit.name).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = rustix::fs::openat(target, &**visit.name, flags, Mode::empty());
        self.into.push(Directory(inner.map_err(failed)?));
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        self.into.pop();
        Ok(())
    }
}

/// Copies what is in a file; holes stay holes.
fn content(from: &File, to: &File, progress: impl Fn(u64)) -> Result<(), Errno> {
    let size = rustix::fs::fstat(from)?.st_size;
    let size = u64::try_from(size).unwrap_or_default();
    rustix::fs::ftruncate(to, size)?;
    let (mut position, mut copied) = (0, 0);
    while position < size {
        let begin = match rustix::fs::seek(from, SeekFrom::Data(position)) {
            Ok(begin) => begin,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(begin))?.min(size);
        position = begin;
        while position < end {
            let step = usize::try_from((end - position).min(STEP)).unwrap_or(usize::MAX);
            let length = part(from, to, position, step)?;
            if length == 0 {
                // It became shorter meanwhile.
                return rustix::fs::ftruncate(to, position);
            }
            position += length as u64;
            copied += length as u64;
            progress(copied);
        }
    }
    Ok(())
}

/// Copies bytes from one place to the same place, at most so many; says how many.
fn part(from: &File, to: &File, position: u64, step: usize) -> Result<usize, Errno> {
    let (mut read, mut write) = (position, position);
    match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), step) {
        // Not between these file systems, or not on this one.
        Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        copied => return copied,
    }
    let mut buffer = vec![0; step.min(BUFFER)];
    let length = rustix::io::pread(from, &mut buffer, position)?;
    let mut left = &buffer[..length];
    while !left.is_empty() {
        let at = position + (length - left.len()) as u64;
        left = &left[rustix::io::pwrite(to, left, at)?..];
    }
    Ok(length)
}
