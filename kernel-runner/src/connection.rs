//! The connection to the agent: made again whenever it is lost.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use backendai_rpc::runner::{FrameCodec, FrameError, FromRunner, ToRunner};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::codec::{Decoder, Encoder};

use crate::outbox::Outbox;

/// First pause between attempts. An agent that restarts is back within a second.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause: what a kernel waits for its agent at most, and little enough work for a
/// machine whose agent is stopped for a day.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Bytes written at once.
const WRITE_SIZE: usize = 64 << 10;

/// What the connection needs of the rest.
pub trait Handler {
    /// The messages that begin a connection.
    fn greeting(&self) -> Vec<FromRunner>;
    /// Takes a message. It does not wait: acknowledgements come this way.
    fn handle(&self, message: ToRunner);
}

/// Keeps a connection to the socket at `path`, for ever.
pub async fn run(path: &Path, outbox: Rc<Outbox>, handler: &impl Handler) {
    let mut pause = FIRST_PAUSE;
    loop {
        if let Ok(mut stream) = UnixStream::connect(path).await {
            outbox.connected(handler.greeting());
            let (mut reader, mut writer) = stream.split();
            let mut heard = false;
            // Either end fails when the agent is gone, and nothing is to be done but to
            // connect again: what was not acknowledged is kept.
            tokio::select! {
                _ = read(&mut reader, handler, &mut heard) => {}
                _ = write(&mut writer, &outbox) => {}
            }
            if heard {
                pause = FIRST_PAUSE;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn read(
    reader: &mut (impl AsyncReadExt + Unpin),
    handler: &impl Handler,
    heard: &mut bool,
) -> Result<(), FrameError> {
    let mut codec = FrameCodec::<ToRunner>::default();
    let mut buffer = BytesMut::new();
    loop {
        while let Some(message) = codec.decode(&mut buffer)? {
            *heard = true;
            handler.handle(message);
        }
        if buffer.is_empty() {
            // Lets go of the room that a large message took.
            buffer = BytesMut::new();
        }
        if reader.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn write(
    writer: &mut (impl AsyncWriteExt + Unpin),
    outbox: &Outbox,
) -> Result<(), FrameError> {
    let mut codec = FrameCodec::<ToRunner>::default();
    let mut buffer = BytesMut::new();
    loop {
        while buffer.len() < WRITE_SIZE && outbox.send_next(|m| codec.encode(m, &mut buffer))? {}
        if buffer.is_empty() {
            buffer = BytesMut::new();
            outbox.sendable().await;
            continue;
        }
        writer.write_all(&buffer).await?;
        buffer.clear();
    }
}
