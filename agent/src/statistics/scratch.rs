//! How large kernels' folders are.
//!
//! Neither quotas nor the file system tell that of a plain folder, so the files are counted,
//! sparingly: a kernel's folders once a minute, one kernel after another, so many files at
//! most (beyond that the size is a lower bound), and with pauses that are long against the
//! counting. So it takes at most one core's fiftieth however many files there are.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use tokio::time::Instant;

use crate::core::Core;
use crate::kernel::registry::blocking;

/// A kernel's folders are counted so often.
const INTERVAL: Duration = Duration::from_secs(60);
/// The pause after counting, as a multiple of the time that it took.
const PAUSE_FACTOR: u32 = 50;
/// Files counted of one kernel.
const MAX_FILES: usize = 100_000;
/// Folders below each other: each holds a descriptor while it is counted.
const MAX_DEPTH: usize = 32;
/// Blocks of `st_blocks`, whatever the file system's own are.
const BLOCK_BYTES: u64 = 512;

/// Measures kernels' folders until the shutdown.
pub async fn follow(core: Arc<Core>, look: Duration) {
    loop {
        for kernel in core.statistics.scratch_due(INTERVAL) {
            let folder = core.scratch.paths(kernel).work;
            let begun = Instant::now();
            match blocking(move || size(&folder)).await {
                Ok(bytes) => core.statistics.note_scratch(kernel, bytes),
                // It has been removed meanwhile, or there never was one.
                Err(error) => {
                    tracing::debug!(kernel.id = %kernel, %error, "measure its folder");
                    core.statistics.note_scratch(kernel, 0);
                }
            }
            if !core.lifecycle.sleep(begun.elapsed() * PAUSE_FACTOR).await {
                return;
            }
        }
        if !core.lifecycle.sleep(look).await {
            return;
        }
    }
}

/// Bytes that the files of a folder take on its disk. Does not follow links: what they
/// point to is the user's choice. Blocks.
///
/// # Errors
/// The folder cannot be read.
fn size(folder: &Path) -> io::Result<u64> {
    let root: OwnedFd = File::open(folder)?.into();
    let mut count = Count { bytes: 0, files: 0 };
    count.add(&root, 0)?;
    Ok(count.bytes)
}

struct Count {
    bytes: u64,
    files: usize,
}

impl Count {
    fn add(&mut self, folder: &OwnedFd, depth: usize) -> io::Result<()> {
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_self_or_parent(name) {
                continue;
            }
            if self.files == MAX_FILES {
                return Ok(());
            }
            self.files += 1;
            // Files come and go while they are counted.
            let Ok(about) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            self.bytes += u64::try_from(about.st_blocks).unwrap_or(0) * BLOCK_BYTES;
            let is_folder = FileType::from_raw_mode(about.st_mode) == FileType::Directory;
            if is_folder && depth < MAX_DEPTH {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(below) = openat(folder.as_fd(), name, flags, Mode::empty()) {
                    self.add(&below, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

fn is_self_or_parent(name: &CStr) -> bool {
    name == c"." || name == c".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_all_folders_count_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        let before = size(dir.path()).unwrap();
        std::fs::write(deep.join("file"), vec![7; 100_000]).unwrap();
        std::os::unix::fs::symlink("/usr", deep.join("link")).unwrap();
        let grown = size(dir.path()).unwrap() - before;
        assert!((100_000..200_000).contains(&grown), "{grown}");
        assert!(size(&dir.path().join("absent")).is_err());
    }
}
