//! What can go wrong with files.

use rustix::io::Errno;

/// Result of an operation on storage.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// An operation could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The system refused it.
    #[error("{path:?}: {}", message(*errno))]
    System {
        /// The path within the folder.
        path: String,
        /// The system's number of the error.
        errno: i32,
    },
    /// A path that cannot be one within a folder.
    #[error("{path:?} {why}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no such upload, or not any more.
    #[error("no such upload")]
    NoUpload,
    /// The upload has another size than the one who goes on with it believes.
    #[error("the upload has {actual} bytes")]
    Offset {
        /// Its bytes.
        actual: u64,
    },
    /// Somebody else writes to the upload at this moment.
    #[error("the upload is being written to")]
    Busy,
    /// More bytes came than were announced.
    #[error("the file has more than the {limit} bytes that were announced")]
    TooLong {
        /// What was announced.
        limit: u64,
    },
    /// Directories are nested more deeply than we follow.
    #[error("directories are nested too deeply")]
    TooDeep,
    /// Volumes of this kind cannot do it.
    #[error("a volume of the kind {kind} has no {what}")]
    Unsupported {
        /// The kind.
        kind: &'static str,
        /// What it cannot do.
        what: &'static str,
    },
    /// A bug.
    #[error("{0}")]
    Broken(String),
}

impl StorageError {
    pub(crate) fn system(path: impl std::fmt::Display) -> impl FnOnce(Errno) -> Self {
        move |errno| match errno {
            // What the system says of a path that leads out when it must not.
            Errno::XDEV => Self::Path { path: path.to_string(), why: "leads out of the folder" },
            errno => Self::System { path: path.to_string(), errno: errno.raw_os_error() },
        }
    }

    pub(crate) fn io(path: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::system(path)(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// True when there is nothing at the path.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::System { errno, .. } if *errno == Errno::NOENT.raw_os_error()
            || *errno == Errno::NOTDIR.raw_os_error())
    }
}

/// What the system calls an error, without its number.
pub fn message(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
