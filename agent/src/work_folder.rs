//! Writing into a kernel's work folder.
//!
//! The kernel's user may fill that folder with anything, symbolic links out of it included,
//! while this process may be root: so every path is opened component by component beneath
//! the folder, and no link is followed.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

/// Folders that are made on the way to a file.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);
/// What a path may lead through: folders beneath the one it starts in.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// An open work folder.
pub struct WorkFolder {
    dir: OwnedFd,
    owner: Option<(Uid, Gid)>,
}

impl WorkFolder {
    /// Opens a folder; what is written into it will belong to `owner`, if there is one.
    ///
    /// # Errors
    /// It is not there, or no folder.
    pub fn open(path: &Path, owner: Option<(u32, u32)>) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = fs::open(path, flags, Mode::empty())?;
        let owner = owner.map(|(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid)));
        Ok(Self { dir, owner })
    }

    /// Makes a folder, and those it lies in, unless they exist.
    ///
    /// # Errors
    /// The path leaves the work folder or leads through something that is no folder.
    pub fn make_dir(&self, path: &str, mode: u32) -> io::Result<()> {
        let (parent, name) = self.parent_of(path)?;
        self.enter(parent.as_fd(), name, Mode::from_raw_mode(mode)).map(drop)
    }

    /// Writes a file in place of what is there, with exactly these permissions; makes the
    /// folders it lies in.
    ///
    /// # Errors
    /// The path leaves the work folder or leads through something that is no folder, or a
    /// folder has its name.
    pub fn write(&self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let (parent, name) = self.parent_of(path)?;
        // What is there may be a link or a pipe; only a file of our own making is written.
        match fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = fs::openat2(&parent, name, flags, Mode::from_raw_mode(0o600), INSIDE)?;
        let mut file = File::from(file);
        file.write_all(content)?;
        self.give(file.as_fd())?;
        fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))?;
        Ok(())
    }

    /// The folder a path lies in, made if need be, and the path's last component.
    fn parent_of<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        let mut dir = self.dir.try_clone()?;
        let mut name = path;
        while let Some((folder, rest)) = name.split_once('/') {
            dir = self.enter(dir.as_fd(), folder, FOLDER_MODE)?;
            name = rest;
        }
        check_name(name)?;
        Ok((dir, name))
    }

    /// Opens a folder within another, making it if need be.
    fn enter(&self, parent: BorrowedFd<'_>, name: &str, mode: Mode) -> io::Result<OwnedFd> {
        check_name(name)?;
        let is_new = match fs::mkdirat(parent, name, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = fs::openat2(parent, name, flags, Mode::empty(), INSIDE)?;
        if is_new {
            self.give(dir.as_fd())?;
            fs::fchmod(&dir, mode)?;
        }
        Ok(dir)
    }

    fn give(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            fs::fchown(file, Some(uid), Some(gid))?;
        }
        Ok(())
    }
}

fn check_name(name: &str) -> io::Result<()> {
    match name {
        "" | "." | ".." => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is not a name within the work folder"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn files_get_their_folders_permissions_and_content() {
        let root = tempfile::tempdir().unwrap();
        let folder = WorkFolder::open(root.path(), None).unwrap();
        folder.write(".config/app/rc", 0o640, b"one").unwrap();
        folder.write(".config/app/rc", 0o400, b"two").unwrap();
        let path = root.path().join(".config/app/rc");
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o400);
        folder.make_dir(".ssh", 0o700).unwrap();
        folder.make_dir(".ssh", 0o700).unwrap();
        let mode = root.path().join(".ssh").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("link")).unwrap();
        symlink(outside.path().join("target"), root.path().join("file")).unwrap();
        let folder = WorkFolder::open(root.path(), None).unwrap();
        for path in ["link/x", "../x", "a/../../x", "/x", "", ".", "a//b", "a/"] {
            assert!(folder.write(path, 0o644, b"x").is_err(), "{path:?}");
        }
        assert!(folder.make_dir("link/x", 0o755).is_err());
        assert!(folder.make_dir("..", 0o755).is_err());
        // A link in the place of the file is replaced, not followed.
        folder.write("file", 0o644, b"x").unwrap();
        assert_eq!(std::fs::read(root.path().join("file")).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_is_not_replaced_by_a_file_nor_a_file_by_a_folder() {
        let root = tempfile::tempdir().unwrap();
        let folder = WorkFolder::open(root.path(), None).unwrap();
        folder.write("a/b", 0o644, b"x").unwrap();
        assert!(folder.write("a", 0o644, b"x").is_err());
        assert!(folder.write("a/b/c", 0o644, b"x").is_err());
    }
}
