//! Directories as one stream.

use std::fs::File;
use std::io::{self, Read, Write};

use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::beneath::Directory;
use super::walk::{self, Visit, Visitor};
use super::zip::ZipWriter;
use crate::error::{Result, StorageError};
use crate::{Archive, Chunks};

/// Bytes gathered before they are sent.
const CHUNK: usize = 256 << 10;
/// Chunks that wait for a slow reader.
const WAITING: usize = 4;

/// Packs a directory while the chunks are taken.
pub fn stream(directory: Directory, format: Archive) -> Chunks {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let out = io::BufWriter::with_capacity(CHUNK, Sink(sender.clone()));
        let packed = match format {
            Archive::Zip => pack(directory, Pack(ZipWriter::new(out)), |pack| pack.0.finish()),
            Archive::Tar => {
                pack(directory, Pack(tar::Builder::new(out)), |pack| pack.0.into_inner())
            }
        };
        if let Err(error) = packed {
            // A reader that has left needs to hear nothing.
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

struct Pack<T>(T);

fn pack<T, W: Write>(
    directory: Directory,
    mut pack: Pack<T>,
    finish: impl FnOnce(Pack<T>) -> io::Result<W>,
) -> Result<()>
where
    Pack<T>: Visitor,
{
    walk::walk(directory, &mut pack)?;
    let mut out = finish(pack).map_err(StorageError::io("."))?;
    out.flush().map_err(StorageError::io("."))
}

/// Sends what is written.
struct Sink(mpsc::Sender<Result<Bytes>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The path of something in an archive. Names come from whoever used the folder: on no
/// reader's system shall one of them be more than a name.
fn path(visit: &Visit<'_>) -> String {
    let safe = |name: &std::ffi::CString| -> String {
        let odd = |c: char| c.is_control() || matches!(c, '\\' | ':');
        name.to_string_lossy().chars().map(|c| if odd(c) { '_' } else { c }).collect()
    };
    let names: Vec<String> = visit.above.iter().chain([visit.name]).map(safe).collect();
    names.join("/")
}

/// A regular file, its bytes and its permissions; `None` for anything else.
fn open(visit: &Visit<'_>) -> Result<Option<(File, u64, u32, i64)>> {
    if FileType::from_raw_mode(visit.stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(visit.parent, &**visit.name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // It went away, or became something else.
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(StorageError::system(visit.name.to_string_lossy())(errno)),
    };
    let stat = rustix::fs::fstat(&file).map_err(StorageError::system("."))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    Ok(Some((file, size, stat.st_mode & 0o777, stat.st_mtime)))
}

impl<W: Write> Visitor for Pack<ZipWriter<W>> {
    fn file(&mut self, visit: &Visit<'_>) -> Result<()> {
        let Some((file, size, mode, modified)) = open(visit)? else { return Ok(()) };
        let path = path(visit);
        let mut content = file.take(size);
        self.0.file(&path, mode, modified, &mut content).map_err(StorageError::io(path))
    }

    fn enter(&mut self, visit: &Visit<'_>) -> Result<()> {
        let path = path(visit);
        self.0.directory(&path, visit.stat.st_mtime).map_err(StorageError::io(path))
    }

    fn leave(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<W: Write> Visitor for Pack<tar::Builder<W>> {
    fn file(&mut self, visit: &Visit<'_>) -> Result<()> {
        let Some((file, size, mode, modified)) = open(visit)? else { return Ok(()) };
        let path = path(visit);
        let mut header = header(tar::EntryType::Regular, size, mode, modified);
        // The header has promised this many bytes.
        let content = file.chain(io::repeat(0)).take(size);
        self.0.append_data(&mut header, &path, content).map_err(StorageError::io(path))
    }

    fn enter(&mut self, visit: &Visit<'_>) -> Result<()> {
        let path = path(visit);
        let mut header = header(tar::EntryType::Directory, 0, 0o755, visit.stat.st_mtime);
        let appended = self.0.append_data(&mut header, format!("{path}/"), io::empty());
        appended.map_err(StorageError::io(path))
    }

    fn leave(&mut self) -> Result<()> {
        Ok(())
    }
}

fn header(kind: tar::EntryType, size: u64, mode: u32, modified: i64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(u64::try_from(modified).unwrap_or_default());
    header
}
