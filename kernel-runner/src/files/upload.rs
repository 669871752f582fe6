//! Writing a file: under another name in the same folder until it is whole.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use backendai_rpc::runner::files::{FilesError, FilesErrorKind, FilesMessage};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Stop;
use super::channel::Channel;
use super::work::{Work, failed, failure, kind, stat_in};

/// Writes what the channel brings. A failure is told once all has been brought, because
/// nobody listens before.
pub fn upload(work: &Work, path: &[u8], mode: u32, channel: &mut Channel) -> Result<(), Stop> {
    let mut upload = Upload::begin(work, path, mode);
    loop {
        match channel.receive()? {
            Some(FilesMessage::Data(bytes)) => {
                if let Ok(running) = &mut upload
                    && let Err(error) = running.write(&bytes)
                {
                    upload = Err(error);
                }
            }
            Some(FilesMessage::End) => return Ok(upload?.finish()?),
            Some(_) => return Err(std::io::Error::other("an upload is data").into()),
            // Given up: what was written goes with `upload`.
            None => return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into()),
        }
    }
}

/// A file that is not whole. Dropped, it is removed.
struct Upload<'a> {
    path: &'a [u8],
    folder: OwnedFd,
    name: &'a [u8],
    file: File,
    /// In the same folder; `None` once the file has its own name.
    temporary: Option<String>,
}

impl<'a> Upload<'a> {
    fn begin(work: &Work, path: &'a [u8], mode: u32) -> Result<Self, FilesError> {
        let (folder, name) = work.open_parent(path)?;
        let mut mode = Mode::from_raw_mode(mode & 0o777);
        let mut replaces = false;
        match stat_in(&folder, name) {
            Ok(old) if kind(&old) == FileType::Directory => {
                return Err(failed(path, FilesErrorKind::NotAFile));
            }
            Ok(old) if kind(&old) == FileType::RegularFile => {
                mode = Mode::from_raw_mode(old.st_mode & 0o777);
                replaces = true;
            }
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failure(path)(error)),
        }
        let (file, temporary) = create_temporary(&folder, mode).map_err(failure(path))?;
        let upload = Self { path, folder, name, file: file.into(), temporary: Some(temporary) };
        if replaces {
            // The user's umask is for new files.
            rustix::fs::fchmod(&upload.file, mode).map_err(failure(path))?;
        }
        Ok(upload)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        self.file.write_all(bytes).map_err(failure(self.path))
    }

    fn finish(mut self) -> Result<(), FilesError> {
        if let Some(temporary) = &self.temporary {
            rustix::fs::renameat(&self.folder, temporary, &self.folder, self.name)
                .map_err(failure(self.path))?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Somebody may have removed it already.
            let _ = rustix::fs::unlinkat(&self.folder, temporary, AtFlags::empty());
        }
    }
}

/// A new file under a name that nobody else writes to. A folder may be mounted in several
/// containers, so that the process's id alone does not suffice.
fn create_temporary(folder: &OwnedFd, mode: Mode) -> Result<(OwnedFd, String), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut number = 0_u32;
    loop {
        let name = format!(".upload-{}-{number}", std::process::id());
        match rustix::fs::openat(folder, &name, flags, mode) {
            Ok(file) => return Ok((file, name)),
            Err(Errno::EXIST) if number < u32::MAX => number += 1,
            Err(error) => return Err(error),
        }
    }
}
