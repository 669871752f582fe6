//! What the runner brings for the image's Python: the package `ai.backend.helpers`, and what
//! lets programs of batch runs ask the user.
//!
//! The files are part of this binary and written at start. They are found by `PYTHONPATH`, where
//! they come last, so that they hide nothing of the image's or the user's. The package's parents
//! are namespaces, so others may have packages below `ai.backend` too.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use crate::environ::Environ;

/// The variable that both parts are found by.
pub const PYTHONPATH: &str = "PYTHONPATH";

/// Each file below the library's folder.
const FILES: [(&str, &str); 2] = [
    (
        "python/ai/backend/helpers/__init__.py",
        include_str!("../python/lib/ai/backend/helpers/__init__.py"),
    ),
    ("python-batch/sitecustomize.py", include_str!("../python/batch/sitecustomize.py")),
];

/// Writes the library to `folder` and makes programs find it.
///
/// # Errors
/// A file cannot be written; programs then do without.
pub fn install(folder: &Path, environ: &mut Environ) -> io::Result<()> {
    for (name, text) in FILES {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        std::fs::write(&path, text)?;
    }
    let last = folder.join("python");
    let present = environ.get(PYTHONPATH).filter(|value| !value.is_empty());
    let joined = match present {
        Some(present) => join(present, last.as_os_str()),
        None => last.into_os_string(),
    };
    environ.set(PYTHONPATH, joined);
    Ok(())
}

/// `PYTHONPATH` of programs that may ask the user.
pub fn batch_path(folder: &Path, environ: &Environ) -> String {
    let first = folder.join("python-batch");
    let path = match environ.get(PYTHONPATH).filter(|value| !value.is_empty()) {
        Some(present) => join(first.as_os_str(), present),
        None => first.into_os_string(),
    };
    path.to_string_lossy().into_owned()
}

fn join(first: &OsStr, then: &OsStr) -> OsString {
    let mut joined = first.to_owned();
    joined.push(":");
    joined.push(then);
    joined
}
