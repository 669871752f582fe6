//! The reading end of a program's output.

use std::io;
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use tokio::net::unix::pipe;

use super::Stream;
use crate::outbox::RunOutput;
use crate::text::{Utf8Decoder, worst_case};

/// Bytes taken from a pipe at once: half of what a pipe holds, so that the program goes
/// on while we work.
pub const CHUNK: usize = 32 << 10;

/// A pipe that a program writes to.
pub struct Capture {
    stream: Stream,
    /// `None` after its end.
    pipe: Option<pipe::Receiver>,
    decoder: Utf8Decoder,
}

impl Capture {
    /// Takes over the reading end of a pipe.
    ///
    /// # Errors
    /// If it is no pipe.
    pub fn new(stream: Stream, pipe: OwnedFd) -> io::Result<Self> {
        let pipe = pipe::Receiver::from_owned_fd(pipe)?;
        Ok(Self { stream, pipe: Some(pipe), decoder: Utf8Decoder::default() })
    }

    /// Which stream this is.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// True after the last writer closed it.
    pub fn is_closed(&self) -> bool {
        self.pipe.is_none()
    }

    /// The next piece, of at most [`CHUNK`] bytes. If it is for a run, the run has room for
    /// it until the next `await`. Never resolves after the end, which is the first empty
    /// piece. Dropping the future loses nothing.
    pub async fn next(&mut self, run: Option<&RunOutput>) -> Vec<u8> {
        let Some(pipe) = &self.pipe else { return std::future::pending().await };
        loop {
            let ready = pipe.readable().await;
            if let Some(run) = run {
                run.room(worst_case(CHUNK)).await;
            }
            let mut piece = Vec::with_capacity(CHUNK);
            match ready.and_then(|()| pipe.try_read_buf(&mut piece)) {
                Ok(length) if length > 0 => return piece,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The end; and nothing else that happens to a pipe heals.
                _ => {
                    self.pipe = None;
                    return Vec::new();
                }
            }
        }
    }

    /// The number of bytes that can be read now.
    pub fn pending(&self) -> usize {
        let pending = self.pipe.as_ref().map(rustix::io::ioctl_fionread);
        pending.and_then(Result::ok).unwrap_or(0) as usize
    }

    /// Up to `limit` bytes of what can be read now. `None` if there is nothing.
    ///
    /// Asks the system itself: the runtime may not have noticed yet that there is
    /// something to read.
    pub fn take_now(&mut self, limit: usize) -> Option<Vec<u8>> {
        let pipe = self.pipe.as_ref()?;
        let mut piece = Vec::with_capacity(limit.min(CHUNK));
        let length = rustix::io::read(pipe, spare_capacity(&mut piece)).unwrap_or(0);
        (length > 0).then_some(piece)
    }

    /// Text of a piece; sequences may be cut at its end.
    pub fn decode(&mut self, piece: &[u8]) -> String {
        self.decoder.push(piece)
    }

    /// Text of what remains when a run ends.
    pub fn finish(&mut self) -> String {
        self.decoder.finish()
    }
}
