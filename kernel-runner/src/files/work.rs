//! The one way to a path: beneath the work folder, whatever the path says and whatever the
//! links on the way say, also while somebody changes them (`openat2(2)`).

use std::os::fd::OwnedFd;
use std::path::Path;

use backendai_rpc::runner::WORK_DIR;
use backendai_rpc::runner::files::{FilesError, FilesErrorKind, display_name};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Tries while others rename what is on the way: the system asks for another when it cannot
/// tell whether a `..` led out.
const ATTEMPTS: usize = 100;

/// The work folder.
pub struct Work {
    folder: OwnedFd,
}

impl Work {
    /// The folder at `path`.
    ///
    /// # Errors
    /// The user cannot open it.
    pub fn open(path: &Path) -> Result<Self, FilesError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty());
        folder.map(|folder| Self { folder }).map_err(failure(WORK_DIR.as_bytes()))
    }

    /// Opens something for reading; it never waits for anybody else. Links are followed as
    /// long as they stay in the work folder.
    ///
    /// # Errors
    /// There is nothing that the user may read.
    pub fn open_to_read(&self, path: &[u8]) -> Result<(OwnedFd, Stat), FilesError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.resolve(relative(path)?, flags).map_err(failure(path))?;
        let stat = rustix::fs::fstat(&file).map_err(failure(path))?;
        Ok((file, stat))
    }

    /// The folder in which a file is to be written, made if need be, and the file's name.
    ///
    /// # Errors
    /// The path names no file, or the folder cannot be opened or made.
    pub fn open_parent<'a>(&self, path: &'a [u8]) -> Result<(OwnedFd, &'a [u8]), FilesError> {
        let inner = relative(path)?;
        let (parent, name) = match inner.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&inner[..slash], &inner[slash + 1..]),
            None => (&b"."[..], inner),
        };
        if matches!(name, b"" | b"." | b"..") {
            return Err(invalid(path, "not the name of a file"));
        }
        let folder = match self.resolve(parent, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => self.make(parent),
            opened => opened,
        };
        Ok((folder.map_err(failure(path))?, name))
    }

    /// Makes the folders of a path, one after the other, and opens the last.
    fn make(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut folder = self.resolve(b".", flags)?;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let mut start = 0;
        for end in ends.chain([path.len()]) {
            let name = &path[start..end];
            start = end + 1;
            if name.is_empty() {
                continue;
            }
            // From the top each time, so that the system sees the whole path.
            folder = match self.resolve(&path[..end], flags) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o777)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error),
                    }
                    self.resolve(&path[..end], flags)?
                }
                opened => opened?,
            };
        }
        Ok(folder)
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        beneath(&self.folder, path, flags, ResolveFlags::empty())
    }
}

/// Opens something beneath a folder.
pub fn beneath(
    folder: &OwnedFd,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = resolve | ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut attempt = 1;
    loop {
        let flags = flags | OFlags::CLOEXEC;
        match rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

/// What a name in a folder is; a link is a link.
pub fn stat_in(folder: &OwnedFd, name: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// What kind of thing it is.
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Its size in bytes.
pub fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

/// A path as seen from the work folder.
fn relative(path: &[u8]) -> Result<&[u8], FilesError> {
    if path.contains(&0) {
        return Err(invalid(path, "a NUL byte cannot be in a path"));
    }
    let inner = if path.starts_with(b"/") {
        let rest = path.strip_prefix(WORK_DIR.as_bytes());
        let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with(b"/"));
        let rest = rest.ok_or_else(|| failed(path, FilesErrorKind::Outside))?;
        &rest[rest.iter().position(|byte| *byte != b'/').unwrap_or(rest.len())..]
    } else {
        path
    };
    Ok(if inner.is_empty() { b"." } else { inner })
}

/// The error of a path.
pub fn failed(path: &[u8], kind: FilesErrorKind) -> FilesError {
    FilesError { path: display_name(path), kind }
}

fn invalid(path: &[u8], why: &str) -> FilesError {
    failed(path, FilesErrorKind::InvalidPath(why.to_owned()))
}

/// What the system's error means for a path.
pub fn failure<E: Into<std::io::Error>>(path: &[u8]) -> impl Fn(E) -> FilesError {
    move |error| {
        let error = error.into();
        let kind = match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => FilesErrorKind::NotFound,
            Some(Errno::NOTDIR) => FilesErrorKind::NotAFolder,
            // Of a socket or a device without a driver the system says the latter.
            Some(Errno::ISDIR | Errno::NXIO | Errno::NODEV) => FilesErrorKind::NotAFile,
            Some(Errno::XDEV) => FilesErrorKind::Outside,
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => FilesErrorKind::Permission,
            Some(Errno::NAMETOOLONG) => FilesErrorKind::InvalidPath("too long a name".to_owned()),
            Some(Errno::LOOP) => FilesErrorKind::InvalidPath("too many links".to_owned()),
            _ => FilesErrorKind::Failed(error.to_string()),
        };
        failed(path, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_work_folder() {
        let ok = |path: &'static str| relative(path.as_bytes()).ok().map(<[u8]>::to_vec);
        for (path, inner) in [
            ("", "."),
            (".", "."),
            ("a/b", "a/b"),
            ("../x", "../x"),
            ("/home/work", "."),
            ("/home/work///", "."),
            ("/home/work/a", "a"),
            ("/home/work/../x", "../x"),
        ] {
            assert_eq!(ok(path), Some(inner.into()), "{path}");
        }
        for path in ["/", "/etc/passwd", "/home/worker", "/home", "//home/work/a", "a\0b"] {
            assert_eq!(ok(path), None, "{path}");
        }
    }
}
