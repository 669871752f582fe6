//! The user's copy of what batch commands print, in the `.logs` folder if there is one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::as_user;
use crate::log::log;

/// A file that grows.
pub struct TaskLog(Arc<File>);

impl TaskLog {
    /// Opens the kernel's log below `work/.logs`, as the user: the folder is the user's and
    /// may hold links to anywhere. `None` if there is no such folder or it cannot be used.
    ///
    /// The folder may be on a slow network disk, so this happens on another thread.
    pub async fn open(work: &Path, kernel_id: &str, ids: Option<(u32, u32)>) -> Option<Self> {
        let logs = work.join(".logs");
        let path = logs.join("task").join(relative_path(kernel_id)?);
        let opened = tokio::task::spawn_blocking(move || {
            if !logs.is_dir() {
                return Ok(None);
            }
            as_user(ids, || {
                std::fs::create_dir_all(path.parent().unwrap_or(&logs))?;
                OpenOptions::new().append(true).create(true).mode(0o644).open(&path).map(Some)
            })
        });
        match opened.await.map_err(io::Error::other).flatten() {
            Ok(file) => file.map(|file| Self(Arc::new(file))),
            Err(error) => {
                log!("open the task log: {error}");
                None
            }
        }
    }

    /// Appends a piece; returns when it is written.
    pub async fn append(&self, piece: &[u8]) {
        let (file, piece) = (Arc::clone(&self.0), piece.to_vec());
        let written = tokio::task::spawn_blocking(move || (&*file).write_all(&piece)).await;
        if let Err(error) = written.map_err(io::Error::other).flatten() {
            log!("write the task log: {error}");
        }
    }
}

/// `ab/cd/ef…` of the id's hexadecimal digits, as the manager looks for it. `None` if the
/// id is none.
fn relative_path(kernel_id: &str) -> Option<PathBuf> {
    let digits: String = kernel_id.chars().filter(char::is_ascii_hexdigit).collect();
    let (first, rest) = digits.split_at_checked(2)?;
    let (second, rest) = rest.split_at_checked(2)?;
    (!rest.is_empty()).then(|| PathBuf::from(format!("{first}/{second}/{rest}.log")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_made_of_the_ids_digits() {
        let path = relative_path("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0").unwrap();
        assert_eq!(path, Path::new("0f/1e/2d3c4b5a69788796a5b4c3d2e1f0.log"));
        assert_eq!(relative_path("../.."), None);
    }
}
