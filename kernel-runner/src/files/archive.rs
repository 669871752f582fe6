//! A file, or a folder with all in it, as a tar archive.
//!
//! What will be in the archive is found out first, so that its length is known and kept:
//! one that would be too long is refused before it begins.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use backendai_rpc::runner::files::{FilesError, FilesErrorKind, FilesMessage};
use rustix::fs::{Dir, FileType, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use tar::{EntryType, Header};

use super::Stop;
use super::channel::{Channel, DataWriter};
use super::content::Exact;
use super::work::{Work, beneath, failed, failure, kind, size, stat_in};

const BLOCK: u64 = 512;
/// Two blocks of zeros.
const END: u64 = 2 * BLOCK;
/// Longer names and targets of links stand in an entry of their own before.
const SHORT_NAME: usize = 100;
/// The name that GNU's tar gives such an entry.
const LONG_NAME: &[u8] = b"././@LongLink";
/// What the work folder is called in an archive of all of it.
const WORK_NAME: &[u8] = b"work";

/// Sends the archive of a file or folder.
pub fn download(
    work: &Work,
    path: &[u8],
    max_bytes: u64,
    channel: &mut Channel,
) -> Result<(), Stop> {
    let archive = Archive::plan(work, path, max_bytes)?;
    channel.send(FilesMessage::Begin(archive.length))?;
    let mut output = DataWriter::new(channel);
    for item in &archive.items {
        archive.write(item, &mut output)?;
    }
    output.write_all(&[0; END as usize])?;
    Ok(output.flush()?)
}

/// What will be written.
struct Archive<'a> {
    /// As it was asked for.
    path: &'a [u8],
    /// Its last name, with which all names in the archive begin.
    name: &'a [u8],
    /// The file or folder.
    top: OwnedFd,
    items: Vec<Item>,
    length: u64,
    max_bytes: u64,
}

struct Item {
    /// Seen from the top; empty for the top itself.
    path: Vec<u8>,
    stat: Stat,
    /// Of a link.
    target: Vec<u8>,
}

impl<'a> Archive<'a> {
    fn plan(work: &Work, path: &'a [u8], max_bytes: u64) -> Result<Self, FilesError> {
        let name = last_name(path).ok_or_else(|| {
            failed(path, FilesErrorKind::InvalidPath("ends in `..`, which is no name".to_owned()))
        })?;
        let (top, stat) = work.open_to_read(path)?;
        let mut archive = Self { path, name, top, items: Vec::new(), length: END, max_bytes };
        match kind(&stat) {
            FileType::RegularFile => archive.add(Vec::new(), stat, Vec::new())?,
            FileType::Directory => {
                archive.add(Vec::new(), stat, Vec::new())?;
                let mut folders = vec![Vec::new()];
                while let Some(folder) = folders.pop() {
                    archive.add_folder(&folder, &mut folders)?;
                }
            }
            _ => return Err(failed(path, FilesErrorKind::NotAFile)),
        }
        Ok(archive)
    }

    /// Adds what is in a folder, and the folders in it to `folders`.
    fn add_folder(&mut self, folder: &[u8], folders: &mut Vec<Vec<u8>>) -> Result<(), FilesError> {
        let shown = self.shown(folder);
        let opened = self.open(folder, OFlags::DIRECTORY).map_err(failure(&shown))?;
        for name in self.names(&opened).map_err(failure(&shown))? {
            let path = join(folder, &name);
            let shown = self.shown(&path);
            let stat = match stat_in(&opened, &name) {
                Ok(stat) => stat,
                // Removed meanwhile.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failure(&shown)(error)),
            };
            match kind(&stat) {
                FileType::RegularFile => self.add(path, stat, Vec::new())?,
                FileType::Directory => {
                    folders.push(path.clone());
                    self.add(path, stat, Vec::new())?;
                }
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&opened, &name[..], Vec::new());
                    let target = target.map_err(failure(&shown))?;
                    self.add(path, stat, target.into_bytes())?;
                }
                // What is no file cannot be unpacked as one.
                _ => {}
            }
        }
        Ok(())
    }

    /// The names in a folder, sorted; only as many as could fit.
    fn names(&self, folder: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
        let mut names = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.to_vec());
            }
            if names.len() as u64 > self.max_bytes / BLOCK {
                break;
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn add(&mut self, path: Vec<u8>, stat: Stat, target: Vec<u8>) -> Result<(), FilesError> {
        let item = Item { path, stat, target };
        let name = self.entry_name(&item);
        let length = BLOCK + extension(&name) + extension(&item.target);
        let content = size(&stat).div_ceil(BLOCK).saturating_mul(BLOCK);
        let content = if kind(&stat) == FileType::RegularFile { content } else { 0 };
        self.length = self.length.saturating_add(length).saturating_add(content);
        if self.length > self.max_bytes {
            let kind = FilesErrorKind::TooLarge { limit: self.max_bytes };
            return Err(failed(self.path, kind));
        }
        self.items.push(item);
        Ok(())
    }

    fn write(&self, item: &Item, output: &mut impl Write) -> Result<(), Stop> {
        let name = self.entry_name(item);
        write_long(EntryType::GNULongName, &name, output)?;
        write_long(EntryType::GNULongLink, &item.target, output)?;
        let mut header = Header::new_gnu();
        put_name(&mut header, &name, &item.target);
        header.set_mode(item.stat.st_mode & 0o7777);
        header.set_uid(item.stat.st_uid.into());
        header.set_gid(item.stat.st_gid.into());
        header.set_mtime(u64::try_from(item.stat.st_mtime).unwrap_or_default());
        let entry_type = match kind(&item.stat) {
            FileType::Directory => EntryType::Directory,
            FileType::Symlink => EntryType::Symlink,
            _ => EntryType::Regular,
        };
        header.set_entry_type(entry_type);
        if entry_type != EntryType::Regular {
            header.set_size(0);
            header.set_cksum();
            return Ok(output.write_all(header.as_bytes())?);
        }
        let shown = self.shown(&item.path);
        let length = size(&item.stat);
        let file = self.open(&item.path, OFlags::empty()).map_err(failure(&shown))?;
        let now = rustix::fs::fstat(&file).map_err(failure(&shown))?;
        if kind(&now) != FileType::RegularFile {
            return Err(failed(&shown, FilesErrorKind::NotAFile).into());
        }
        header.set_size(length);
        header.set_cksum();
        output.write_all(header.as_bytes())?;
        let mut content = Exact::new(File::from(file), length);
        io::copy(&mut content, output)?;
        if let Some(error) = content.failure {
            return Err(failure(&shown)(error).into());
        }
        Ok(write_padding(length, output)?)
    }

    /// Opens the top or something beneath, without following a link.
    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        match path {
            b"" => Ok(self
                .top
                .try_clone()
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?),
            _ => beneath(&self.top, path, flags, ResolveFlags::NO_SYMLINKS),
        }
    }

    fn entry_name(&self, item: &Item) -> Vec<u8> {
        let mut name = join(self.name, &item.path);
        if kind(&item.stat) == FileType::Directory && !name.ends_with(b"/") {
            name.push(b'/');
        }
        name
    }

    /// A path for messages.
    fn shown(&self, path: &[u8]) -> Vec<u8> {
        join(self.path, path)
    }
}

/// The last name of a path; `None` if it is `..`.
fn last_name(path: &[u8]) -> Option<&[u8]> {
    let mut names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    match names.next_back() {
        None => Some(WORK_NAME),
        Some(b"..") => None,
        Some(name) => Some(name),
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() || name.is_empty() {
        [folder, name].concat()
    } else {
        [folder, b"/", name].concat()
    }
}

/// The length of the entry that a long name takes before its own.
fn extension(name: &[u8]) -> u64 {
    if name.len() <= SHORT_NAME {
        return 0;
    }
    BLOCK + (name.len() as u64 + 1).div_ceil(BLOCK) * BLOCK
}

fn write_long(entry_type: EntryType, name: &[u8], output: &mut impl Write) -> io::Result<()> {
    if name.len() <= SHORT_NAME {
        return Ok(());
    }
    let length = name.len() as u64 + 1;
    let mut header = Header::new_gnu();
    put_name(&mut header, LONG_NAME, b"");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(length);
    header.set_entry_type(entry_type);
    header.set_cksum();
    output.write_all(header.as_bytes())?;
    output.write_all(name)?;
    output.write_all(b"\0")?;
    write_padding(length, output)
}

/// Writes names as the bytes they are, as far as they fit.
fn put_name(header: &mut Header, name: &[u8], target: &[u8]) {
    let fields = header.as_old_mut();
    let length = name.len().min(SHORT_NAME);
    fields.name[..length].copy_from_slice(&name[..length]);
    let length = target.len().min(SHORT_NAME);
    fields.linkname[..length].copy_from_slice(&target[..length]);
}

fn write_padding(length: u64, output: &mut impl Write) -> io::Result<()> {
    let padding = length.next_multiple_of(BLOCK) - length;
    output.write_all(&[0; BLOCK as usize][..padding as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_begin_with_the_last_name() {
        let name = |path: &'static str| last_name(path.as_bytes());
        assert_eq!(name("a"), Some(&b"a"[..]));
        assert_eq!(name("/home/work/a/b//"), Some(&b"b"[..]));
        assert_eq!(name("a/."), Some(&b"a"[..]));
        assert_eq!(name("."), Some(&b"work"[..]));
        assert_eq!(name("/home/work"), Some(&b"work"[..]));
        assert_eq!(name("a/.."), None);
    }
}
