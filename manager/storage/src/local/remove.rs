//! Removal that is over for others at once, however much there is.

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;
use uuid::Uuid;

use super::beneath::Directory;
use super::walk;
use crate::error::{Result, StorageError};

/// Removes a directory or file with all in it; it vanishes first, by one rename into
/// `removed`. What is not there counts as removed.
pub fn tree(parent: &Directory, name: &str, removed: &Directory) -> Result<()> {
    let hidden = Uuid::new_v4().simple().to_string();
    match rustix::fs::renameat(parent, name, removed, hidden.as_str()) {
        Ok(()) => empty(removed, hidden),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(StorageError::system(name)(errno)),
    }
}

/// Removes all that lies in `removed`.
pub fn everything(removed: &Directory) -> Result<()> {
    for name in walk::names(removed).map_err(StorageError::system("."))? {
        if let Ok(name) = name.into_string() {
            empty(removed, name)?;
        }
    }
    Ok(())
}

/// Removes a name in `removed`. Directories within it are moved up beside it, so that no
/// nesting is too deep. Somebody else may do the same at the same time.
fn empty(removed: &Directory, first: String) -> Result<()> {
    let failed = |errno| StorageError::system(".")(errno);
    let mut left = vec![first];
    while let Some(name) = left.pop() {
        match rustix::fs::unlinkat(removed, name.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let directory = match removed.open_directory(&name) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(failed(errno)),
        };
        for inner in walk::names(&directory).map_err(failed)? {
            match rustix::fs::unlinkat(&directory, &*inner, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(errno) => return Err(failed(errno)),
            }
            match rustix::fs::unlinkat(&directory, &*inner, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
            let beside = Uuid::new_v4().simple().to_string();
            let flags = RenameFlags::empty();
            match rustix::fs::renameat_with(&directory, &*inner, removed, beside.as_str(), flags) {
                Ok(()) => left.push(beside),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        match rustix::fs::unlinkat(removed, name.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}
