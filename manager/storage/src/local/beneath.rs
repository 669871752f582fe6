//! The one way to a path: beneath a directory, whatever the links on the way say, also while
//! somebody changes them (`openat2(2)`).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Result, StorageError};
use crate::path::FolderPath;

/// Tries while others rename what is on the way: the system asks for another when it cannot
/// tell whether a path leads out.
const ATTEMPTS: usize = 100;
/// Others than the manager use folders, under the ids of their containers. Nobody gets to a
/// folder who may not pass the volume's own directory.
pub const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);
pub const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

/// A directory that is open, and beneath which paths are looked up.
pub struct Directory(pub OwnedFd);

impl Directory {
    /// Opens something beneath.
    pub fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        let mut attempt = 1;
        loop {
            match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    /// Opens a directory beneath, to read what is in it.
    pub fn open_directory(&self, path: &str) -> Result<Self, Errno> {
        self.open(path, OFlags::RDONLY | OFlags::DIRECTORY).map(Self)
    }

    /// Opens something beneath for reading; never waits for anybody else.
    pub fn open_to_read(&self, path: &FolderPath) -> Result<(OwnedFd, Stat)> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match self.open(path.as_str(), flags) {
            // Sockets, and devices without a driver.
            Err(Errno::NXIO | Errno::NODEV) => Err(Errno::INVAL),
            file => file,
        };
        let file = file.map_err(StorageError::system(path))?;
        let stat = rustix::fs::fstat(&file).map_err(StorageError::system(path))?;
        Ok((file, stat))
    }

    /// The directory that a path's last component lies in, and that component.
    pub fn open_parent<'a>(&self, path: &'a FolderPath) -> Result<(Self, &'a str)> {
        let (parent, name) = split(path)?;
        let parent = if parent.is_empty() { "." } else { parent };
        let directory = self.open_directory(parent).map_err(StorageError::system(path))?;
        Ok((directory, name))
    }

    /// The same, made if it does not exist.
    pub fn make_parent<'a>(&self, path: &'a FolderPath) -> Result<(Self, &'a str)> {
        let (parent, name) = split(path)?;
        let parent = FolderPath::new(parent)?;
        Ok((self.make_directories(&parent)?, name))
    }

    /// Opens a directory beneath, made with those above it if it does not exist.
    pub fn make_directories(&self, path: &FolderPath) -> Result<Self> {
        let failed = |errno| StorageError::system(path)(errno);
        let mut directory = self.open_directory(".").map_err(failed)?;
        let mut above = String::new();
        for name in path.components() {
            if !above.is_empty() {
                above.push('/');
            }
            above.push_str(name);
            // From the top each time, so that the system sees the whole path.
            directory = match self.open_directory(&above) {
                Err(Errno::NOENT) => {
                    match make(&directory, name) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(failed(errno)),
                    }
                    self.open_directory(&above).map_err(failed)?
                }
                opened => opened.map_err(failed)?,
            };
        }
        Ok(directory)
    }

    /// What a name in this very directory is; a link is a link.
    pub fn stat(&self, name: impl rustix::path::Arg) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes a directory that all may use, whatever our umask says.
pub fn make(parent: &Directory, name: impl rustix::path::Arg + Copy) -> Result<(), Errno> {
    rustix::fs::mkdirat(parent, name, DIRECTORY_MODE)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    rustix::fs::fchmod(made, DIRECTORY_MODE)
}

fn split(path: &FolderPath) -> Result<(&str, &str)> {
    path.split()
        .ok_or_else(|| StorageError::Path { path: path.to_string(), why: "is the folder itself" })
}
