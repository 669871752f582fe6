//! What each request does.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, ReadDir};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, StatVfs};
use rustix::io::Errno;

use super::attributes::{self, Attributes};
use super::listing;
use super::wire::{Failure, MAX_DATA, MAX_PACKET, Put, Reader, answer, request};

const VERSION: u32 = 3;
/// Extensions, each with its version.
const EXTENSIONS: [(&str, &str); 7] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
];
/// Files and folders that a client may have open: below the usual limit of descriptors.
const MAX_HANDLES: usize = 512;
/// Entries of a folder in one answer; a name is at most 255 bytes and sent twice.
const ENTRIES: u32 = 100;

/// The state of one client.
#[derive(Default)]
pub struct Server {
    open: HashMap<u32, Open>,
    /// Handle of the next file or folder.
    next: u32,
}

enum Open {
    File(File),
    Folder { path: PathBuf, entries: ReadDir },
}

type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl Server {
    /// Carries out one request and appends the answer, without its length.
    pub fn answer(&mut self, mut packet: Reader<'_>, answer: &mut Vec<u8>) {
        let kind = packet.u8().unwrap_or_default();
        if kind == request::INIT {
            answer.push(answer::VERSION);
            answer.put_u32(VERSION);
            for (name, version) in EXTENSIONS {
                answer.put_bytes(name.as_bytes());
                answer.put_bytes(version.as_bytes());
            }
            return;
        }
        let id = packet.u32().unwrap_or_default();
        // The answer's type and the request's number; the rest depends.
        answer.push(0);
        answer.put_u32(id);
        let body = answer.len();
        let (kind, status) = match self.carry_out(kind, &mut packet, answer) {
            Ok(Some(kind)) => (kind, None),
            Ok(None) => (answer::STATUS, Some((0, String::new()))),
            Err(failure) => (answer::STATUS, Some((failure.code(), failure.to_string()))),
        };
        answer[0] = kind;
        if let Some((code, message)) = status {
            answer.truncate(body);
            answer.put_u32(code);
            answer.put_bytes(message.as_bytes());
            answer.put_bytes(b"en");
        }
    }

    /// Appends the body of the answer and returns its type; `None` for plain success.
    fn carry_out(
        &mut self,
        kind: u8,
        packet: &mut Reader<'_>,
        answer: &mut Vec<u8>,
    ) -> Result<Option<u8>> {
        match kind {
            request::OPEN => {
                let (path, flags) = (packet.path()?, packet.u32()?);
                let file = open(path, flags, &Attributes::read(packet)?)?;
                return self.handle(Open::File(file), answer).map(Some);
            }
            request::OPENDIR => {
                let path = packet.path()?.to_owned();
                let entries = fs::read_dir(&path)?;
                return self.handle(Open::Folder { path, entries }, answer).map(Some);
            }
            request::CLOSE => {
                let number = handle_number(packet)?;
                self.open.remove(&number).ok_or(Failure::BadHandle)?;
            }
            request::READ => {
                let file = self.file(packet)?;
                read(file, packet.u64()?, packet.u32()?, answer)?;
                return Ok(Some(answer::DATA));
            }
            request::WRITE => {
                let file = self.file(packet)?;
                let (offset, data) = (packet.u64()?, packet.bytes()?);
                file.write_all_at(data, offset)?;
            }
            request::READDIR => {
                self.read_dir(packet, answer)?;
                return Ok(Some(answer::NAME));
            }
            request::STAT => {
                attributes::put(&fs::metadata(packet.path()?)?, answer);
                return Ok(Some(answer::ATTRS));
            }
            request::LSTAT => {
                attributes::put(&fs::symlink_metadata(packet.path()?)?, answer);
                return Ok(Some(answer::ATTRS));
            }
            request::FSTAT => {
                attributes::put(&self.file(packet)?.metadata()?, answer);
                return Ok(Some(answer::ATTRS));
            }
            request::SETSTAT => {
                let path = packet.path()?;
                Attributes::read(packet)?.apply_to_path(path, true)?;
            }
            request::FSETSTAT => {
                let file = self.file(packet)?;
                Attributes::read(packet)?.apply_to(file)?;
            }
            request::REMOVE => fs::remove_file(packet.path()?)?,
            request::MKDIR => {
                let path = packet.path()?;
                let mode = Attributes::read(packet)?.mode_or(0o777);
                rustix::fs::mkdir(path, mode)?;
            }
            request::RMDIR => fs::remove_dir(packet.path()?)?,
            request::REALPATH => {
                put_name(&real_path(packet.path()?)?, answer);
                return Ok(Some(answer::NAME));
            }
            request::READLINK => {
                put_name(&fs::read_link(packet.path()?)?, answer);
                return Ok(Some(answer::NAME));
            }
            request::RENAME => rename_new(packet.path()?, packet.path()?)?,
            // OpenSSH has the two the other way round than the draft, and all follow it.
            request::SYMLINK => std::os::unix::fs::symlink(packet.path()?, packet.path()?)?,
            request::EXTENDED => return self.extended(packet, answer),
            _ => return Err(Failure::Unsupported),
        }
        Ok(None)
    }

    fn extended(&mut self, packet: &mut Reader<'_>, answer: &mut Vec<u8>) -> Result<Option<u8>> {
        match packet.bytes()? {
            b"posix-rename@openssh.com" => fs::rename(packet.path()?, packet.path()?)?,
            b"hardlink@openssh.com" => fs::hard_link(packet.path()?, packet.path()?)?,
            b"fsync@openssh.com" => self.file(packet)?.sync_all()?,
            b"lsetstat@openssh.com" => {
                let path = packet.path()?;
                Attributes::read(packet)?.apply_to_path(path, false)?;
            }
            b"statvfs@openssh.com" => {
                put_statvfs(&rustix::fs::statvfs(packet.path()?)?, answer);
                return Ok(Some(answer::EXTENDED));
            }
            b"fstatvfs@openssh.com" => {
                put_statvfs(&rustix::fs::fstatvfs(self.file(packet)?)?, answer);
                return Ok(Some(answer::EXTENDED));
            }
            b"limits@openssh.com" => {
                for limit in [MAX_PACKET, MAX_DATA, MAX_DATA, MAX_HANDLES] {
                    answer.put_u64(limit as u64);
                }
                return Ok(Some(answer::EXTENDED));
            }
            _ => return Err(Failure::Unsupported),
        }
        Ok(None)
    }

    /// Keeps what was opened and appends its handle.
    fn handle(&mut self, opened: Open, answer: &mut Vec<u8>) -> Result<u8> {
        if self.open.len() >= MAX_HANDLES {
            return Err(Errno::MFILE.into());
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.open.insert(number, opened);
        answer.put_bytes(&number.to_be_bytes());
        Ok(answer::HANDLE)
    }

    fn file(&self, packet: &mut Reader<'_>) -> Result<&File> {
        match self.open.get(&handle_number(packet)?) {
            Some(Open::File(file)) => Ok(file),
            _ => Err(Failure::BadHandle),
        }
    }

    fn read_dir(&mut self, packet: &mut Reader<'_>, answer: &mut Vec<u8>) -> Result {
        let Some(Open::Folder { path, entries }) = self.open.get_mut(&handle_number(packet)?)
        else {
            return Err(Failure::BadHandle);
        };
        let start = answer.len();
        answer.put_u32(0);
        let mut count = 0;
        while count < ENTRIES {
            let Some(entry) = entries.next() else { break };
            let name = entry?.file_name();
            // One that was removed meanwhile is not there.
            let Ok(metadata) = fs::symlink_metadata(path.join(&name)) else { continue };
            answer.put_bytes(name.as_bytes());
            answer.put_bytes(&listing::line(&name, &metadata));
            attributes::put(&metadata, answer);
            count += 1;
        }
        if count == 0 {
            return Err(Failure::End);
        }
        answer[start..start + 4].copy_from_slice(&u32::to_be_bytes(count));
        Ok(())
    }
}

fn handle_number(packet: &mut Reader<'_>) -> Result<u32> {
    packet.bytes()?.try_into().map(u32::from_be_bytes).map_err(|_| Failure::BadHandle)
}

fn open(path: &Path, flags: u32, attributes: &Attributes) -> Result<File> {
    let has = |flag: u32| flags & flag != 0;
    let mut how = match (has(1), has(2)) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (true, false) => OFlags::RDONLY,
        (false, false) => return Err(Failure::Malformed),
    };
    how.set(OFlags::APPEND, has(4));
    how.set(OFlags::CREATE, has(8));
    how.set(OFlags::TRUNC, has(16));
    how.set(OFlags::EXCL, has(32));
    how |= OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, how, attributes.mode_or(0o666))?.into())
}

/// Appends at most `length` bytes of a file, as many as there are.
fn read(file: &File, offset: u64, length: u32, answer: &mut Vec<u8>) -> Result {
    let start = answer.len() + 4;
    answer.resize(start + MAX_DATA.min(length as usize), 0);
    let mut filled = start;
    while filled < answer.len() {
        match file.read_at(&mut answer[filled..], offset.saturating_add((filled - start) as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    if filled == start && length > 0 {
        return Err(Failure::End);
    }
    answer.truncate(filled);
    let length = u32::try_from(filled - start).unwrap_or(u32::MAX);
    answer[start - 4..start].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Renames to a name that nothing has yet.
fn rename_new(from: &Path, to: &Path) -> Result {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems cannot do it at once.
        Err(Errno::INVAL) if fs::symlink_metadata(to).is_ok() => Err(Errno::EXIST.into()),
        Err(Errno::INVAL) => Ok(fs::rename(from, to)?),
        result => Ok(result?),
    }
}

/// The absolute path without links; its last part need not exist.
fn real_path(path: &Path) -> Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(error.into());
            };
            let folder = if folder == Path::new("") { Path::new(".") } else { folder };
            Ok(fs::canonicalize(folder)?.join(name))
        }
        result => Ok(result?),
    }
}

/// One name without attributes.
fn put_name(path: &Path, answer: &mut Vec<u8>) {
    let name: &OsStr = path.as_os_str();
    answer.put_u32(1);
    answer.put_bytes(name.as_bytes());
    answer.put_bytes(name.as_bytes());
    answer.put_u32(0);
}

fn put_statvfs(stat: &StatVfs, answer: &mut Vec<u8>) {
    const READ_ONLY: u64 = 1;
    const NO_SETUID: u64 = 2;
    let flags = stat.f_flag.bits() & (READ_ONLY | NO_SETUID);
    for value in [
        stat.f_bsize,
        stat.f_frsize,
        stat.f_blocks,
        stat.f_bfree,
        stat.f_bavail,
        stat.f_files,
        stat.f_ffree,
        stat.f_favail,
        stat.f_fsid,
        flags,
        stat.f_namemax,
    ] {
        answer.put_u64(value);
    }
}
