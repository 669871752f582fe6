//! Pseudo terminals: the end that a program has for its terminal, and ours.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Gid, OFlags, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::net::unix::pipe;

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

/// Our end of a terminal: reads what its programs print, and writes what is typed.
/// Dropping it hangs the terminal up, which ends the programs in its foreground.
pub struct Pty {
    // The system's one descriptor twice, as the runtime watches one direction of each. They
    // are no pipes, but are waited for, read and written in the same way.
    reader: pipe::Receiver,
    writer: pipe::Sender,
}

impl Pty {
    /// Makes a terminal of this size that belongs to the user `ids`; returns the program's
    /// end too.
    ///
    /// # Errors
    /// If the system has no terminal left, or the container no `/dev/ptmx`.
    pub fn open(ids: Option<(u32, u32)>, size: Size) -> io::Result<(Self, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = rustix::pty::openpt(flags)?;
        rustix::pty::unlockpt(&ours)?;
        // By descriptor: the terminal need not have a name that the container can see.
        let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
        if let Some((uid, gid)) = ids {
            // Without it programs cannot open their terminal by name, and that is all.
            let _ = rustix::fs::fchown(&theirs, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
        rustix::termios::tcsetwinsize(&ours, winsize(size))?;
        rustix::fs::fcntl_setfl(&ours, rustix::fs::fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
        let pty = Self {
            writer: pipe::Sender::from_owned_fd_unchecked(ours.try_clone()?)?,
            reader: pipe::Receiver::from_owned_fd_unchecked(ours)?,
        };
        Ok((pty, theirs))
    }

    /// Adds what has been printed to `buffer`, up to its capacity; false when every program
    /// has left the terminal. Dropping the future loses nothing.
    pub async fn read(&self, buffer: &mut Vec<u8>) -> bool {
        loop {
            let ready = self.reader.readable().await;
            match ready.map(|()| self.read_now(buffer)) {
                Ok(true) if buffer.is_empty() => {}
                result => return result.unwrap_or(false),
            }
        }
    }

    /// Like [`Self::read`], of what has been printed already.
    pub fn read_now(&self, buffer: &mut Vec<u8>) -> bool {
        // The system gives a page at a time.
        while buffer.len() < buffer.capacity() {
            match self.reader.try_read_buf(buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// Types some bytes; waits while the terminal takes no more.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.writer.try_write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writer.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Changes the size, and tells the program in the foreground if it is another.
    pub fn resize(&self, size: Size) {
        // It fails only for a terminal that is gone.
        let _ = rustix::termios::tcsetwinsize(&self.reader, winsize(size));
    }
}

fn winsize(size: Size) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}
