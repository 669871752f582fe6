//! Bytes from socket to socket without a copy through this process (`splice(2)`).
//!
//! The kernel moves the pages that arrived from one socket's queue to the other's by way of
//! a pipe. Each side is read only as fast as the other takes it.

use std::future::Future;
use std::io;

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::Shutdown;
use rustix::pipe::{PipeFlags, SpliceFlags};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// Bytes taken at once. A pipe holds 16 pieces, each as large as what arrived together, and
/// so may hold more than the 64 KiB of ordinary writers.
pub const PIECE: usize = 256 << 10;

/// A stream socket on tokio's reactor.
pub trait Socket: AsFd + Sync {
    /// Does `io` when the socket is ready for it, again whenever that would block.
    fn when_ready(
        &self,
        interest: Interest,
        io: impl FnMut() -> io::Result<usize> + Send,
    ) -> impl Future<Output = io::Result<usize>> + Send;
}

impl Socket for TcpStream {
    async fn when_ready(
        &self,
        interest: Interest,
        io: impl FnMut() -> io::Result<usize> + Send,
    ) -> io::Result<usize> {
        self.async_io(interest, io).await
    }
}

impl Socket for UnixStream {
    async fn when_ready(
        &self,
        interest: Interest,
        io: impl FnMut() -> io::Result<usize> + Send,
    ) -> io::Result<usize> {
        self.async_io(interest, io).await
    }
}

/// Where bytes lie between two sockets.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    len: usize,
}

impl Pipe {
    /// An empty pipe.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { reader, writer, len: 0 })
    }

    /// Takes what has arrived at a socket, waiting for the first byte; how much, 0 at its end.
    /// The pipe must be empty. Cancel-safe.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn fill(&mut self, from: &impl Socket) -> io::Result<usize> {
        let (fd, pipe) = (from.as_fd(), self.writer.as_fd());
        let len = from.when_ready(Interest::READABLE, || splice(fd, pipe, PIECE)).await?;
        self.len += len;
        Ok(len)
    }

    /// Gives all it holds to a socket.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn drain(&mut self, to: &impl Socket) -> io::Result<()> {
        let (fd, pipe) = (to.as_fd(), self.reader.as_fd());
        while self.len > 0 {
            let len = self.len;
            match to.when_ready(Interest::WRITABLE, || splice(pipe, fd, len)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                given => self.len -= given,
            }
        }
        Ok(())
    }
}

/// Carries bytes both ways until both sides have ended. The end of one is passed on to the
/// other, which may still have something to say.
///
/// # Errors
/// One of the sockets failed, or no file descriptor is left.
pub async fn join(one: &impl Socket, other: &impl Socket) -> io::Result<()> {
    tokio::try_join!(carry(one, other), carry(other, one)).map(|_| ())
}

async fn carry(from: &impl Socket, to: &impl Socket) -> io::Result<()> {
    let mut pipe = Pipe::new()?;
    while pipe.fill(from).await? > 0 {
        pipe.drain(to).await?;
    }
    match rustix::net::shutdown(to, Shutdown::Write) {
        // The far end has gone meanwhile.
        Ok(()) | Err(Errno::NOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn splice(from: impl AsFd, to: impl AsFd, len: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        match rustix::pipe::splice(&from, None, &to, None, len, flags) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn much_is_carried_both_ways_and_ends_are_passed_on() {
        let (mut caller, inner) = tcp_pair().await;
        let (outer, mut service) = UnixStream::pair().unwrap();
        let sent: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
        let carried = async move { join(&inner, &outer).await.unwrap() };
        let echo = async move {
            let mut heard = Vec::new();
            service.read_to_end(&mut heard).await.unwrap();
            // The caller has ended its half, and still listens.
            service.write_all(&heard).await.unwrap();
        };
        let speak = async {
            caller.write_all(&sent).await.unwrap();
            caller.shutdown().await.unwrap();
            let mut answer = Vec::new();
            caller.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let ((), (), answer) = tokio::join!(carried, echo, speak);
        assert!(answer == sent);
    }

    #[tokio::test]
    async fn a_far_end_that_breaks_off_ends_the_carrying() {
        let (mut caller, inner) = tcp_pair().await;
        let (outer, service) = UnixStream::pair().unwrap();
        drop(service);
        let leave = async {
            assert_eq!(caller.read(&mut [0; 1]).await.unwrap(), 0);
            drop(caller);
        };
        // Whether its end was seen first or its failure, nothing waits for ever.
        let (_, ()) = tokio::join!(join(&inner, &outer), leave);
    }
}
