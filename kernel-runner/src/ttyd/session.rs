//! One websocket of the web terminal.
//!
//! A message begins with a character that says what it is. The first message of the client
//! is JSON alone, with the size of its screen.

use std::cell::Cell;
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, Stream, StreamExt};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::process::Size;
use crate::terminal::{Output, Terminal, Viewer};

/// Client to server.
const INPUT: u8 = b'0';
const RESIZE: u8 = b'1';
const PAUSE: u8 = b'2';
const RESUME: u8 = b'3';
/// Server to client.
const OUTPUT: u8 = b'0';
const TITLE: u8 = b'1';
const PREFERENCES: u8 = b'2';

/// Longest message of a client: a large paste.
const MAX_MESSAGE: usize = 4 << 20;
/// A screen that begins anew, for a viewer that missed something.
const RESET: &[u8] = b"\x1bc";

/// What the first message says, and each that resizes.
#[derive(Deserialize)]
struct Columns {
    columns: u16,
    rows: u16,
}

/// Serves it to its end.
pub async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, terminal: &Rc<Terminal>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let close = match talk(&mut socket, terminal).await {
        Ok(close) => close,
        // The peer is gone or speaks no websocket.
        Err(_) => return,
    };
    let _ = socket.close(Some(close)).await;
}

async fn talk<S>(
    socket: &mut WebSocketStream<S>,
    terminal: &Rc<Terminal>,
) -> Result<CloseFrame, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(first) = next(socket).await? else { return Ok(close(CloseCode::Normal, "")) };
    let Some(size) = size(&first) else {
        return Ok(close(CloseCode::Policy, "the first message must say the size of the screen"));
    };
    terminal.resize(size);
    let viewer = match terminal.view(None) {
        Ok(viewer) => viewer,
        Err(error) => {
            socket.send(message_of(OUTPUT, format!("{error}\r\n").as_bytes())).await?;
            return Ok(close(CloseCode::Normal, "no terminal"));
        }
    };
    let title = rustix::system::uname().nodename().to_string_lossy().into_owned();
    socket.send(message_of(TITLE, title.as_bytes())).await?;
    socket.send(message_of(PREFERENCES, b"{}")).await?;

    let flow = Flow::default();
    let (mut sink, mut stream) = socket.split();
    let output = async {
        loop {
            flow.open().await;
            let piece = match viewer.output().await {
                Output::Piece(piece) => message_of(OUTPUT, &piece),
                Output::Skipped => message_of(OUTPUT, RESET),
                Output::End => return Ok(close(CloseCode::Normal, "the shell has ended")),
            };
            sink.send(piece).await?;
        }
    };
    let input = async {
        while let Some(message) = next(&mut stream).await? {
            take(&message, &viewer, terminal, &flow).await;
        }
        Ok(close(CloseCode::Normal, ""))
    };
    tokio::select! {
        close = output => close,
        close = input => close,
    }
}

/// Carries out a message; one that is not understood is for a newer server.
async fn take(message: &[u8], viewer: &Viewer, terminal: &Terminal, flow: &Flow) {
    match message.split_first() {
        Some((&INPUT, typed)) => viewer.input(typed).await,
        Some((&RESIZE, rest)) => {
            if let Some(size) = size(rest) {
                terminal.resize(size);
            }
        }
        Some((&PAUSE, _)) => flow.pause(),
        Some((&RESUME, _)) => flow.resume(),
        _ => {}
    }
}

fn size(message: &[u8]) -> Option<Size> {
    let Columns { columns, rows } = serde_json::from_slice(message).ok()?;
    Some(Size { rows, cols: columns })
}

/// The client's next message, text or not; `None` at the end.
async fn next<S>(stream: &mut S) -> Result<Option<Bytes>, Error>
where
    S: Stream<Item = Result<Message, Error>> + Unpin,
{
    loop {
        match stream.next().await.transpose()? {
            Some(Message::Binary(bytes)) => return Ok(Some(bytes)),
            Some(Message::Text(text)) => return Ok(Some(text.into())),
            Some(Message::Close(_)) | None => return Ok(None),
            // Pings are answered on the way.
            Some(_) => {}
        }
    }
}

fn message_of(kind: u8, content: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(1 + content.len());
    message.put_u8(kind);
    message.put_slice(content);
    Message::Binary(message.freeze())
}

fn close(code: CloseCode, reason: &'static str) -> CloseFrame {
    CloseFrame { code, reason: Utf8Bytes::from_static(reason) }
}

/// Whether the client wants output.
#[derive(Default)]
struct Flow {
    paused: Cell<bool>,
    resumed: Notify,
}

impl Flow {
    fn pause(&self) {
        self.paused.set(true);
    }

    fn resume(&self) {
        self.paused.set(false);
        self.resumed.notify_waiters();
    }

    async fn open(&self) {
        while self.paused.get() {
            self.resumed.notified().await;
        }
    }
}
