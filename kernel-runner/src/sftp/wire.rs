//! Packets: numbers in big endian, and byte strings behind their length.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest packet taken, as OpenSSH's server does.
pub const MAX_PACKET: usize = 256 << 10;
/// Bytes of a file in one packet: what remains beside the other fields.
pub const MAX_DATA: usize = MAX_PACKET - 1024;

/// What a packet asks, by its first byte.
pub mod request {
    pub const INIT: u8 = 1;
    pub const OPEN: u8 = 3;
    pub const CLOSE: u8 = 4;
    pub const READ: u8 = 5;
    pub const WRITE: u8 = 6;
    pub const LSTAT: u8 = 7;
    pub const FSTAT: u8 = 8;
    pub const SETSTAT: u8 = 9;
    pub const FSETSTAT: u8 = 10;
    pub const OPENDIR: u8 = 11;
    pub const READDIR: u8 = 12;
    pub const REMOVE: u8 = 13;
    pub const MKDIR: u8 = 14;
    pub const RMDIR: u8 = 15;
    pub const REALPATH: u8 = 16;
    pub const STAT: u8 = 17;
    pub const RENAME: u8 = 18;
    pub const READLINK: u8 = 19;
    pub const SYMLINK: u8 = 20;
    pub const EXTENDED: u8 = 200;
}

/// What a packet answers, by its first byte.
pub mod answer {
    pub const VERSION: u8 = 2;
    pub const STATUS: u8 = 101;
    pub const HANDLE: u8 = 102;
    pub const DATA: u8 = 103;
    pub const NAME: u8 = 104;
    pub const ATTRS: u8 = 105;
    pub const EXTENDED: u8 = 201;
}

/// Why a request was not carried out; the client shows it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing follows: of a file or a folder.
    #[error("end of file")]
    End,
    /// The packet is not what its type promises.
    #[error("malformed request")]
    Malformed,
    /// No handle of that number is open.
    #[error("no such handle")]
    BadHandle,
    /// Not one of the operations above.
    #[error("operation not supported")]
    Unsupported,
    /// The system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Failure {
    /// The protocol's number.
    pub fn code(&self) -> u32 {
        match self {
            Self::End => 1,
            Self::Io(error) => match error.kind() {
                io::ErrorKind::NotFound => 2,
                io::ErrorKind::PermissionDenied => 3,
                _ => 4,
            },
            Self::BadHandle => 4,
            Self::Malformed => 5,
            Self::Unsupported => 8,
        }
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

/// Takes the fields of a packet.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(packet: &'a [u8]) -> Self {
        Self(packet)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Failure> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Failure::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        self.take(N)?.try_into().map_err(|_| Failure::Malformed)
    }

    pub fn u8(&mut self) -> Result<u8, Failure> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Failure> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Failure> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Failure> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    /// A path; the empty one is the working directory.
    pub fn path(&mut self) -> Result<&'a Path, Failure> {
        let bytes = self.bytes()?;
        Ok(Path::new(OsStr::from_bytes(if bytes.is_empty() { b"." } else { bytes })))
    }
}

/// Appends the fields of a packet.
pub trait Put {
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_bytes(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put_u32(&mut self, value: u32) {
        self.extend(value.to_be_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend(value.to_be_bytes());
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        // Nothing here is longer than a packet.
        self.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.extend(bytes);
    }
}
