//! Frames over the process's socket. Blocking: nobody but the one client waits for it.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use backendai_rpc::runner::FrameError;
use backendai_rpc::runner::files::{FilesCodec, FilesMessage, MAX_DATA};
use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// The other side.
pub struct Channel {
    stream: UnixStream,
    received: BytesMut,
}

impl Channel {
    /// Speaks over a stream socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self { stream: UnixStream::from(socket), received: BytesMut::new() }
    }

    /// The next frame; `None` when the other side has hung up.
    ///
    /// # Errors
    /// The other side has gone in the middle of a frame, or sends none.
    pub fn receive(&mut self) -> io::Result<Option<FilesMessage>> {
        loop {
            if let Some(message) = FilesCodec.decode(&mut self.received).map_err(failed)? {
                return Ok(Some(message));
            }
            let start = self.received.len();
            self.received.resize(start + MAX_DATA, 0);
            let length = self.stream.read(&mut self.received[start..])?;
            self.received.truncate(start + length);
            match (length, start) {
                (0, 0) => return Ok(None),
                (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }

    /// Sends a frame, and waits until there is room for it.
    ///
    /// # Errors
    /// The other side has gone.
    pub fn send(&mut self, message: FilesMessage) -> io::Result<()> {
        let mut frame = BytesMut::new();
        FilesCodec.encode(message, &mut frame).map_err(failed)?;
        self.stream.write_all(&frame)
    }
}

/// Bytes as `Data` frames, for whatever writes: the full ones at once, the last one on flush.
pub struct DataWriter<'a> {
    channel: &'a mut Channel,
    waiting: BytesMut,
}

impl<'a> DataWriter<'a> {
    /// Writes to this channel.
    pub fn new(channel: &'a mut Channel) -> Self {
        Self { channel, waiting: BytesMut::with_capacity(MAX_DATA) }
    }
}

impl Write for DataWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(MAX_DATA - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..taken]);
        if self.waiting.len() == MAX_DATA {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let data = Bytes::copy_from_slice(&self.waiting);
        self.waiting.clear();
        self.channel.send(FilesMessage::Data(data))
    }
}

fn failed(error: FrameError) -> io::Error {
    match error {
        FrameError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}
