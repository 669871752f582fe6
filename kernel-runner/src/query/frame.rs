//! The language between the runner and its Python driver: JSON frames over two sockets.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use bytes::{Buf, BufMut, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// A frame larger than this is garbage: the driver sends none, but the user's code may
/// write to the sockets.
const MAX_FRAME: usize = 16 << 20;

/// What came is not of the driver.
#[derive(Debug, PartialEq, Eq)]
pub struct Garbage;

/// To the driver, over the socket for commands.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Command<'a> {
    /// Runs a piece of code.
    Run {
        /// Source text.
        code: &'a str,
    },
    /// Answers [`Shown::Input`].
    Input {
        /// Without a newline.
        text: &'a str,
    },
    /// Asks for completions.
    Complete {
        /// Names the question.
        id: u64,
        /// All of the code.
        code: &'a str,
        /// The cursor; both from 0, both or neither.
        row: Option<u32>,
        /// In characters.
        column: Option<u32>,
    },
}

/// From the driver, over the socket for commands.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// It takes commands.
    Ready,
    /// The code runs: from now on it can be interrupted.
    Started,
    /// The code ended, and its output is in the pipes.
    Done,
    /// Answers [`Command::Complete`].
    Completions {
        /// The question.
        id: u64,
        /// Candidates.
        matches: Vec<String>,
    },
}

/// From the driver, over the socket for output. Answered with an [`Answer`].
#[derive(Debug, Deserialize)]
pub struct Numbered {
    /// Counts up.
    pub number: u64,
    /// What to show.
    #[serde(flatten)]
    pub shown: Shown,
}

/// Something to show.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Shown {
    /// Nothing, after all that is in the pipes.
    Sync,
    /// Text for standard error.
    Stderr {
        /// The text.
        text: String,
    },
    /// HTML.
    Html {
        /// The fragment.
        text: String,
    },
    /// A picture.
    Media {
        /// Its type.
        mime: String,
        /// As the public API shows it.
        data: String,
    },
    /// The code waits for a line.
    Input {
        /// Not to be echoed.
        is_password: bool,
    },
}

/// Tells the driver that everything up to a number has its place.
#[derive(Serialize)]
pub struct Answer {
    /// The number.
    pub number: u64,
}

/// The runner's end of one of the sockets.
pub struct Channel {
    socket: UnixStream,
    received: BytesMut,
}

impl Channel {
    /// A new socket, and the descriptor for the driver.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = UnixStream::from_std(ours)?;
        Ok((Self { socket, received: BytesMut::new() }, theirs.into()))
    }

    /// Sends a frame.
    pub async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let body = serde_json::to_vec(message).map_err(io::Error::other)?;
        self.send_bytes(&body).await
    }

    /// Sends a frame that is not JSON.
    pub async fn send_bytes(&mut self, body: &[u8]) -> io::Result<()> {
        let mut frame = BytesMut::with_capacity(4 + body.len());
        frame.put_u32(u32::try_from(body.len()).map_err(io::Error::other)?);
        frame.extend_from_slice(body);
        self.socket.write_all(&frame).await
    }

    /// The next frame; never resolves after the driver's end is closed, because the end of
    /// the driver itself is seen elsewhere. Dropping the future loses nothing.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, Garbage> {
        loop {
            if let Some(message) = self.take_frame()? {
                return Ok(message);
            }
            match self.socket.read_buf(&mut self.received).await {
                Ok(length) if length > 0 => {}
                _ => return std::future::pending().await,
            }
        }
    }

    fn take_frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Garbage> {
        let Some(prefix) = self.received.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > MAX_FRAME {
            return Err(Garbage);
        }
        if self.received.len() < 4 + length {
            self.received.reserve(4 + length - self.received.len());
            return Ok(None);
        }
        self.received.advance(4);
        let frame = self.received.split_to(length);
        if self.received.is_empty() {
            // Lets go of the room that a large picture took.
            self.received = BytesMut::new();
        }
        serde_json::from_slice(&frame).map(Some).map_err(|_| Garbage)
    }
}
