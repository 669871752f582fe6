//! Attributes of files, as they travel and as they are set.

use std::fs::Metadata;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid};

use super::wire::{Failure, Put, Reader};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 1 << 31;

/// Attributes that a client sends; `None` are to stay what they are.
#[derive(Debug, Default)]
pub struct Attributes {
    /// In bytes.
    pub size: Option<u64>,
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Permission bits, perhaps with the type.
    pub permissions: Option<u32>,
    /// Of the last access and modification, in seconds since 1970.
    pub times: Option<(u32, u32)>,
}

impl Attributes {
    /// Takes them from a packet.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Failure> {
        let flags = reader.u32()?;
        let has = |flag| flags & flag != 0;
        let attributes = Self {
            size: if has(SIZE) { Some(reader.u64()?) } else { None },
            owner: if has(OWNER) { Some((reader.u32()?, reader.u32()?)) } else { None },
            permissions: if has(PERMISSIONS) { Some(reader.u32()?) } else { None },
            times: if has(TIMES) { Some((reader.u32()?, reader.u32()?)) } else { None },
        };
        if has(EXTENDED) {
            for _ in 0..reader.u32()? {
                reader.bytes()?;
                reader.bytes()?;
            }
        }
        Ok(attributes)
    }

    /// The permission bits, or those of a new file.
    pub fn mode_or(&self, default: u32) -> Mode {
        Mode::from_raw_mode(self.permissions.unwrap_or(default) & 0o7777)
    }

    /// Sets those of an open file.
    pub fn apply_to(&self, file: impl AsFd) -> Result<(), Failure> {
        if let Some(size) = self.size {
            rustix::fs::ftruncate(&file, size)?;
        }
        if let Some(permissions) = self.permissions {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(permissions & 0o7777))?;
        }
        if let Some(times) = self.timestamps() {
            rustix::fs::futimens(&file, &times)?;
        }
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(())
    }

    /// Sets those of a path: of a link itself where `follow` is false, which has neither a
    /// size nor permissions.
    pub fn apply_to_path(&self, path: &Path, follow: bool) -> Result<(), Failure> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        if let Some(size) = self.size.filter(|_| follow) {
            std::fs::OpenOptions::new().write(true).open(path)?.set_len(size)?;
        }
        if let Some(permissions) = self.permissions.filter(|_| follow) {
            rustix::fs::chmod(path, Mode::from_raw_mode(permissions & 0o7777))?;
        }
        if let Some(times) = self.timestamps() {
            rustix::fs::utimensat(CWD, path, &times, flags)?;
        }
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(CWD, path, uid, gid, flags)?;
        }
        Ok(())
    }

    fn timestamps(&self) -> Option<Timestamps> {
        let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        let (accessed, modified) = self.times?;
        Some(Timestamps { last_access: at(accessed), last_modification: at(modified) })
    }
}

/// Appends what the system says of a file.
pub fn put(metadata: &Metadata, answer: &mut Vec<u8>) {
    // The protocol counts seconds in 32 bits without a sign.
    let seconds = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
    answer.put_u32(SIZE | OWNER | PERMISSIONS | TIMES);
    answer.put_u64(metadata.len());
    answer.put_u32(metadata.uid());
    answer.put_u32(metadata.gid());
    answer.put_u32(metadata.mode());
    answer.put_u32(seconds(metadata.atime()));
    answer.put_u32(seconds(metadata.mtime()));
}
