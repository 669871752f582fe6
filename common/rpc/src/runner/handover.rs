//! How an open stream's socket crosses from runner to agent: its descriptor travels beside
//! the first frame of a connection (`SCM_RIGHTS`, see `unix(7)`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

use bytes::BytesMut;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio_util::codec::{Decoder, Encoder};

use super::{FrameCodec, FrameError, FromRunner};

/// Bytes read at once; the first frame of a connection is smaller.
const READ_SIZE: usize = 4096;

/// How a runner's connection begins.
#[derive(Debug)]
pub struct First {
    /// The first message.
    pub message: FromRunner,
    /// What came behind it.
    pub rest: BytesMut,
    /// The descriptor that came with it.
    pub socket: Option<OwnedFd>,
}

/// Sends the only message of a connection made for a stream.
///
/// # Errors
/// The agent has gone.
pub async fn send(
    agent: &UnixStream,
    message: FromRunner,
    socket: Option<OwnedFd>,
) -> Result<(), FrameError> {
    let mut frame = BytesMut::new();
    FrameCodec::<FromRunner>::default().encode(message, &mut frame)?;
    let write = || send_with_descriptor(agent, &frame, socket.as_ref().map(AsFd::as_fd));
    let sent = agent.async_io(Interest::WRITABLE, write).await?;
    // So small a message fits an empty socket as a whole.
    if sent == frame.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero).into()) }
}

/// Receives the first message of a connection.
///
/// # Errors
/// The runner has gone, or speaks another language.
pub async fn receive(runner: &UnixStream) -> Result<First, FrameError> {
    let (mut rest, mut socket) = (BytesMut::new(), None);
    loop {
        let mut bytes = [0; READ_SIZE];
        let read = || receive_with_descriptor(runner, &mut bytes);
        let (count, descriptor) = runner.async_io(Interest::READABLE, read).await?;
        socket = descriptor.or(socket);
        rest.extend_from_slice(&bytes[..count]);
        if let Some(message) = FrameCodec::<FromRunner>::default().decode(&mut rest)? {
            return Ok(First { message, rest, socket });
        }
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

fn send_with_descriptor(
    to: &UnixStream,
    frame: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        // There is room for one.
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    Ok(rustix::net::sendmsg(to, &[IoSlice::new(frame)], &mut control, SendFlags::NOSIGNAL)?)
}

fn receive_with_descriptor(
    from: &UnixStream,
    bytes: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(from, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            descriptor = descriptors.next();
        }
    }
    Ok((received.bytes, descriptor))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::runner::{StreamError, StreamOpened};

    #[tokio::test]
    async fn a_socket_crosses_with_its_message() {
        let (here, there) = UnixStream::pair().expect("pair");
        let (mut near, far) = std::os::unix::net::UnixStream::pair().expect("pair");
        let opened = StreamOpened { id: 7, kernel_id: "k".into(), result: Ok(()) };
        let message = FromRunner::StreamOpened(opened);
        send(&here, message.clone(), Some(far.into())).await.expect("send");
        let first = receive(&there).await.expect("receive");
        assert_eq!(first.message, message);
        let mut far = std::os::unix::net::UnixStream::from(first.socket.expect("a socket"));
        near.write_all(b"x").expect("write");
        let mut byte = [0];
        far.read_exact(&mut byte).expect("read");
        assert_eq!(&byte, b"x");
    }

    #[tokio::test]
    async fn a_failure_crosses_without_one() {
        let (here, there) = UnixStream::pair().expect("pair");
        let result = Err(StreamError::Refused(80));
        let message =
            FromRunner::StreamOpened(StreamOpened { id: 1, kernel_id: "k".into(), result });
        send(&here, message.clone(), None).await.expect("send");
        let first = receive(&there).await.expect("receive");
        assert_eq!(first.message, message);
        assert!(first.socket.is_none());
        drop(here);
        assert!(receive(&there).await.is_err());
    }
}
