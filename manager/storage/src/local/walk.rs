//! Everything in a directory, from directory to directory without ever following a link.

use std::ffi::CString;

use rustix::fs::{Dir, FileType, OFlags, Stat};
use rustix::io::Errno;

use super::beneath::Directory;
use crate::Usage;
use crate::error::{Result, StorageError};

/// Directories within directories that are followed. Each takes a descriptor while a walk is
/// in it.
const MAX_DEPTH: usize = 200;

/// The names in a directory, sorted; without `.` and `..`.
pub fn names(directory: &Directory) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What a walk comes by.
pub struct Visit<'a> {
    /// The directory it lies in.
    pub parent: &'a Directory,
    /// Its name there.
    pub name: &'a CString,
    /// Names of the directories above it, from the walk's first.
    pub above: &'a [CString],
    /// What it is; of a directory, the one that the walk goes into.
    pub stat: &'a Stat,
}

/// What visits report.
pub trait Visitor {
    /// A file, link or special file.
    fn file(&mut self, visit: &Visit<'_>) -> Result<()>;
    /// A directory, before what is in it.
    fn enter(&mut self, visit: &Visit<'_>) -> Result<()>;
    /// That directory, after what is in it.
    fn leave(&mut self) -> Result<()>;
}

/// Shows a visitor everything in a directory. What vanishes meanwhile is passed by.
pub fn walk(root: Directory, visitor: &mut dyn Visitor) -> Result<()> {
    let failed = |errno| StorageError::system(".")(errno);
    let mut above: Vec<CString> = Vec::new();
    let root_names = names(&root).map_err(failed)?;
    let mut open = vec![(root, root_names.into_iter())];
    while let Some((directory, left)) = open.last_mut() {
        let Some(name) = left.next() else {
            open.pop();
            if above.pop().is_some() {
                visitor.leave()?;
            }
            continue;
        };
        let stat = match directory.stat(&*name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(failed(errno)),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let visit = Visit { parent: directory, name: &name, above: &above, stat: &stat };
            visitor.file(&visit)?;
            continue;
        }
        if open.len() > MAX_DEPTH {
            return Err(StorageError::TooDeep);
        }
        let Some((directory, _)) = open.last() else { break };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = match rustix::fs::openat(directory, &*name, flags, rustix::fs::Mode::empty()) {
            Ok(inner) => Directory(inner),
            // Something else has its name now.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(errno) => return Err(failed(errno)),
        };
        visitor.enter(&Visit { parent: directory, name: &name, above: &above, stat: &stat })?;
        let inner_names = names(&inner).map_err(failed)?;
        above.push(name);
        open.push((inner, inner_names.into_iter()));
    }
    Ok(())
}

/// What a directory holds.
pub fn usage(root: Directory) -> Result<Usage> {
    struct Count(Usage);
    impl Visitor for Count {
        fn file(&mut self, visit: &Visit<'_>) -> Result<()> {
            self.0.files += 1;
            self.0.bytes += occupied(visit.stat);
            Ok(())
        }
        fn enter(&mut self, _: &Visit<'_>) -> Result<()> {
            Ok(())
        }
        fn leave(&mut self) -> Result<()> {
            Ok(())
        }
    }
    let mut count = Count(Usage::default());
    walk(root, &mut count)?;
    Ok(count.0)
}

/// The bytes of a file without its holes.
pub fn occupied(stat: &Stat) -> u64 {
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    // The unit of `st_blocks`, whatever the file system's own blocks are.
    let blocks = u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512);
    size.min(blocks)
}
