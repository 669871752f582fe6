//! The container's console: the runner's own output, which the engine keeps as its log.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use tokio::net::unix::pipe;

use super::Stream;

/// Both streams of the console.
pub struct Console {
    stdout: Port,
    stderr: Port,
}

/// The engine gives pipes. Waiting for one must not stop the rest of the runner, so it is
/// written without blocking; files and terminals are always ready.
enum Port {
    Pipe(pipe::Sender),
    File(RefCell<File>),
}

impl Console {
    /// The console of this process.
    ///
    /// # Errors
    /// If the process has no standard output or error.
    pub fn new() -> io::Result<Self> {
        use std::os::fd::AsFd;
        Ok(Self {
            stdout: Port::new(io::stdout().as_fd().try_clone_to_owned()?),
            stderr: Port::new(io::stderr().as_fd().try_clone_to_owned()?),
        })
    }

    /// Writes a piece; returns when it is taken. A console that is gone takes everything.
    pub async fn write(&self, stream: Stream, mut piece: &[u8]) {
        let port = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        match port {
            Port::Pipe(pipe) => {
                while !piece.is_empty() {
                    let written = match pipe.writable().await {
                        Ok(()) => pipe.try_write(piece),
                        Err(error) => Err(error),
                    };
                    match written {
                        Ok(length) => piece = &piece[length..],
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
            }
            // A full disk or a closed terminal must not end the program that prints.
            Port::File(file) => drop(file.borrow_mut().write_all(piece)),
        }
    }
}

impl Port {
    fn new(fd: OwnedFd) -> Self {
        match fd.try_clone().and_then(pipe::Sender::from_owned_fd) {
            Ok(pipe) => Self::Pipe(pipe),
            Err(_) => Self::File(RefCell::new(fd.into())),
        }
    }
}
