//! The bytes of files, as many as were promised.

use std::fs::File;
use std::io::{self, Read, Write};

use backendai_rpc::runner::files::{FilesErrorKind, FilesMessage};
use rustix::fs::FileType;

use super::Stop;
use super::channel::{Channel, DataWriter};
use super::work::{Work, failed, failure, kind, size};

/// Sends the content of a file.
pub fn read(work: &Work, path: &[u8], max_bytes: u64, channel: &mut Channel) -> Result<(), Stop> {
    let (file, stat) = work.open_to_read(path)?;
    if kind(&stat) != FileType::RegularFile {
        return Err(failed(path, FilesErrorKind::NotAFile).into());
    }
    let length = size(&stat);
    if length > max_bytes {
        return Err(failed(path, FilesErrorKind::TooLarge { limit: max_bytes }).into());
    }
    channel.send(FilesMessage::Begin(length))?;
    let mut exact = Exact::new(File::from(file), length);
    let mut output = DataWriter::new(channel);
    io::copy(&mut exact, &mut output)?;
    output.flush()?;
    match exact.failure {
        Some(error) => Err(failure(path)(error).into()),
        None => Ok(()),
    }
}

/// Reads as many bytes as a file had, whatever happens to it meanwhile: of one that grew
/// the first, and zeros for what is missing.
pub struct Exact<R> {
    inner: R,
    left: u64,
    /// Why the rest is zeros, if it is not that the file has become shorter.
    pub failure: Option<io::Error>,
    ended: bool,
}

impl<R: Read> Exact<R> {
    /// Reads `length` bytes.
    pub fn new(inner: R, length: u64) -> Self {
        Self { inner, left: length, failure: None, ended: false }
    }
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..wanted];
        let mut length = 0;
        while length == 0 && !buffer.is_empty() && !self.ended {
            match self.inner.read(buffer) {
                Ok(0) => self.ended = true,
                Ok(read) => length = read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure = Some(error);
                    self.ended = true;
                }
            }
        }
        if self.ended {
            buffer.fill(0);
            length = buffer.len();
        }
        self.left -= length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(content: impl Read, length: u64) -> (Vec<u8>, bool) {
        let mut exact = Exact::new(content, length);
        let mut read = Vec::new();
        exact.read_to_end(&mut read).unwrap();
        (read, exact.failure.is_some())
    }

    #[test]
    fn a_file_has_the_length_it_had() {
        assert_eq!(all(&b"abc"[..], 3), (b"abc".to_vec(), false));
        assert_eq!(all(&b"abcdef"[..], 3), (b"abc".to_vec(), false));
        assert_eq!(all(&b"a"[..], 3), (b"a\0\0".to_vec(), false));
        assert_eq!(all(io::empty(), 0), (Vec::new(), false));
    }

    #[test]
    fn a_disk_that_fails_is_told() {
        struct Bad;
        impl Read for Bad {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("bad sector"))
            }
        }
        assert_eq!(all((&b"a"[..]).chain(Bad), 2), (b"a\0".to_vec(), true));
    }
}
