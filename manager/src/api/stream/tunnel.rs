//! A TCP connection in the binary frames of a websocket, on the sockets themselves.
//!
//! What a service sends may be gigabytes: its bytes go from its socket to the client's
//! without passing through this process, which writes only the heads of the frames. What a
//! client sends is masked, and so must be read.

use std::io::{self, Cursor};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex as Cell;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Mutex, MutexGuard};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

use backendai_service::splice::Pipe;

use super::socket::{CLOSE_TIMEOUT, GOING_AWAY, NORMAL};

/// Bytes read from the client at once.
const READ_SIZE: usize = 64 << 10;
/// Close code for a client that breaks the protocol.
const PROTOCOL_ERROR: u16 = 1002;
/// Largest payload of a control frame (RFC 6455 §5.5).
const MAX_CONTROL: u64 = 125;

/// Why the carrying ended: close code and reason.
pub type End = (u16, String);

/// The client's side: an open websocket.
pub struct Tunnel {
    client: TcpStream,
    frames: Frames,
    /// False while only a part of a frame has been written: nothing may follow it.
    at_boundary: bool,
}

/// Who writes to the client: the service's bytes, and answers to pings between them.
struct Writer<'a> {
    half: Mutex<(WriteHalf<'a>, &'a mut bool)>,
    pong: Cell<Option<Frame>>,
}

impl Tunnel {
    /// A tunnel on a socket whose handshake is done; `early` is what was read beyond it.
    pub fn new(client: TcpStream, early: impl Into<BytesMut>) -> Self {
        Self { client, frames: Frames::new(early.into()), at_boundary: true }
    }

    /// Carries bytes both ways until one side ends; why.
    pub async fn carry(&mut self, service: &mut TcpStream) -> End {
        let (mut from_client, to_client) = self.client.split();
        let (from_service, mut to_service) = service.split();
        let writer =
            Writer { half: Mutex::new((to_client, &mut self.at_boundary)), pong: Cell::default() };
        tokio::select! {
            end = outward(from_service.as_ref(), &writer) => end,
            end = inward(&mut self.frames, &mut from_client, &mut to_service, &writer) => end,
        }
    }

    /// Says goodbye and waits a moment for the answer, so that the client sees a clean close.
    pub async fn close(mut self, (code, reason): End) {
        if !self.at_boundary {
            return;
        }
        let frame = Frame::close(Some(CloseFrame { code: code.into(), reason: reason.into() }));
        let answered = async {
            let (mut reader, mut writer) = self.client.split();
            writer.write_all(&bytes_of(frame)?).await?;
            while !self.frames.ended {
                self.frames.next(&mut reader).await?;
            }
            Ok::<_, io::Error>(())
        };
        match tokio::time::timeout(CLOSE_TIMEOUT, answered).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a client was gone before its goodbye"),
            Err(_) => tracing::debug!("a client did not answer the close of its websocket"),
        }
    }
}

/// From the service to the client.
async fn outward(service: &TcpStream, writer: &Writer<'_>) -> End {
    let carried = async {
        let mut pipe = Pipe::new()?;
        loop {
            let len = pipe.fill(service).await?;
            if len == 0 {
                return Ok("the service closed the connection".to_owned());
            }
            let mut half = writer.half.lock().await;
            let (socket, at_boundary) = &mut *half;
            **at_boundary = false;
            socket.write_all(&binary_head(len)).await?;
            pipe.drain(socket.as_ref()).await?;
            **at_boundary = true;
            drop(half);
            if writer.pong.lock().is_some() {
                writer.send_pong(writer.half.lock().await).await?;
            }
        }
    };
    match carried.await {
        Ok(reason) => (GOING_AWAY, reason),
        Err(error) => (GOING_AWAY, io::Error::to_string(&error)),
    }
}

/// From the client to the service.
async fn inward(
    frames: &mut Frames,
    client: &mut ReadHalf<'_>,
    service: &mut WriteHalf<'_>,
    writer: &Writer<'_>,
) -> End {
    loop {
        match frames.next(client).await {
            Ok(Piece::Data(bytes)) => {
                if let Err(error) = service.write_all(&bytes).await {
                    return (GOING_AWAY, error.to_string());
                }
            }
            Ok(Piece::Ping(payload)) => {
                *writer.pong.lock() = Some(Frame::pong(payload.freeze()));
                // A frame that is being written is followed by the pong.
                if let Ok(half) = writer.half.try_lock()
                    && writer.send_pong(half).await.is_err()
                {
                    return (NORMAL, String::new());
                }
            }
            Ok(Piece::Ignored) => {}
            Ok(Piece::Broken(why)) => return (PROTOCOL_ERROR, why.to_owned()),
            Ok(Piece::Close | Piece::End) | Err(_) => return (NORMAL, String::new()),
        }
    }
}

impl Writer<'_> {
    async fn send_pong(
        &self,
        mut half: MutexGuard<'_, (WriteHalf<'_>, &mut bool)>,
    ) -> io::Result<()> {
        let Some(pong) = self.pong.lock().take() else { return Ok(()) };
        let bytes = bytes_of(pong)?;
        let (socket, at_boundary) = &mut *half;
        **at_boundary = false;
        socket.write_all(&bytes).await?;
        **at_boundary = true;
        Ok(())
    }
}

fn bytes_of(frame: Frame) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(frame.len());
    frame.format(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// The head of an unmasked binary frame.
fn binary_head(len: usize) -> Vec<u8> {
    let header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() };
    let mut head = Vec::with_capacity(10);
    // Writing to memory does not fail.
    let _: Result<(), _> = header.format(len as u64, &mut head);
    head
}

/// What a client sends, piece by piece as it arrives: frames of any length need no memory.
struct Frames {
    buffer: BytesMut,
    open: Option<OpenFrame>,
    /// Continuation frames go on with text.
    is_text: bool,
    /// Nothing that matters follows: the client said goodbye, or nonsense, or nothing more.
    ended: bool,
}

/// A data frame of which a part has not arrived.
struct OpenFrame {
    left: u64,
    mask: [u8; 4],
}

#[derive(Debug, PartialEq)]
enum Piece {
    /// Bytes for the service.
    Data(BytesMut),
    /// To be answered with the same payload.
    Ping(BytesMut),
    /// A pong, or text, which is not ours to pass on.
    Ignored,
    /// The client says goodbye.
    Close,
    /// The connection ended.
    End,
    /// The client breaks the protocol.
    Broken(&'static str),
}

impl Frames {
    fn new(buffer: BytesMut) -> Self {
        Self { buffer, open: None, is_text: false, ended: false }
    }

    /// The next piece, read when needed. Cancel-safe.
    async fn next(&mut self, from: &mut ReadHalf<'_>) -> io::Result<Piece> {
        loop {
            if let Some(piece) = self.take() {
                self.ended |= matches!(piece, Piece::Close | Piece::Broken(_));
                return Ok(piece);
            }
            self.buffer.reserve(READ_SIZE);
            if from.read_buf(&mut self.buffer).await? == 0 {
                self.ended = true;
                return Ok(Piece::End);
            }
        }
    }

    /// The next piece of what has arrived.
    fn take(&mut self) -> Option<Piece> {
        if let Some(open) = &mut self.open {
            if self.buffer.is_empty() {
                return None;
            }
            let len = usize::try_from(open.left).unwrap_or(usize::MAX).min(self.buffer.len());
            let mut bytes = self.buffer.split_to(len);
            unmask(&mut bytes, open.mask);
            open.mask.rotate_left(len % 4);
            open.left -= len as u64;
            if open.left == 0 {
                self.open = None;
            }
            return Some(if self.is_text { Piece::Ignored } else { Piece::Data(bytes) });
        }
        let mut cursor = Cursor::new(&self.buffer);
        let (header, len) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(found)) => found,
            Ok(None) => return None,
            Err(_) => return Some(Piece::Broken("a frame of an unknown kind")),
        };
        // The head has at most 14 bytes.
        let head = cursor.position() as usize;
        let Some(mask) = header.mask else {
            return Some(Piece::Broken("a frame that is not masked"));
        };
        match header.opcode {
            OpCode::Control(control) => {
                if len > MAX_CONTROL {
                    return Some(Piece::Broken("a control frame that is too long"));
                }
                let len = len as usize;
                if self.buffer.len() < head + len {
                    return None;
                }
                self.buffer.advance(head);
                let mut payload = self.buffer.split_to(len);
                unmask(&mut payload, mask);
                Some(match control {
                    Control::Close => Piece::Close,
                    Control::Ping => Piece::Ping(payload),
                    Control::Pong | Control::Reserved(_) => Piece::Ignored,
                })
            }
            OpCode::Data(data) => {
                self.buffer.advance(head);
                if data != Data::Continue {
                    self.is_text = data == Data::Text;
                }
                if len == 0 {
                    return Some(Piece::Ignored);
                }
                self.open = Some(OpenFrame { left: len, mask });
                self.take()
            }
        }
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let mut words = bytes.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, key) in word.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};
    use tokio::net::TcpListener;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    /// A client's websocket, the service's socket, and what carries between them.
    async fn world() -> (WebSocketStream<TcpStream>, TcpStream, impl Future<Output = End>) {
        let (client, near) = pair().await;
        let (mut far, service) = pair().await;
        let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let carried = async move {
            let mut tunnel = Tunnel::new(near, BytesMut::new());
            let end = tunnel.carry(&mut far).await;
            tunnel.close(end.clone()).await;
            end
        };
        (client, service, carried)
    }

    #[tokio::test]
    async fn bytes_and_pings_pass_both_ways() {
        let (client, mut service, carried) = world().await;
        let (mut sink, mut stream) = client.split();
        let sent: Vec<u8> = (0..3_000_003_u32).map(|n| (n % 251) as u8).collect();
        let echo = async {
            let mut heard = vec![0; sent.len()];
            service.read_exact(&mut heard).await.unwrap();
            assert!(heard == sent);
            service.write_all(&heard).await.unwrap();
            drop(service);
        };
        let speak = async {
            for (index, piece) in sent.chunks(700_001).enumerate() {
                sink.send(Message::binary(piece.to_vec())).await.unwrap();
                sink.send(Message::Ping(vec![index as u8].into())).await.unwrap();
                sink.send(Message::text("not for the service")).await.unwrap();
            }
        };
        let hear = async {
            let (mut heard, mut pongs) = (Vec::new(), 0);
            loop {
                match stream.next().await.unwrap().unwrap() {
                    Message::Binary(bytes) => heard.extend_from_slice(&bytes),
                    Message::Pong(_) => pongs += 1,
                    Message::Close(frame) => {
                        // The client's own end answers the close as it is read on.
                        assert!(stream.next().await.is_none_or(|message| message.is_err()));
                        return (heard, pongs, frame.unwrap());
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        let ((), (), (heard, pongs, close), end) = tokio::join!(echo, speak, hear, carried);
        assert!(heard == sent && pongs > 0, "{} bytes, {pongs} pongs", heard.len());
        assert_eq!(u16::from(close.code), GOING_AWAY);
        assert_eq!(end.1, "the service closed the connection");
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_it() {
        let (mut client, mut service, carried) = world().await;
        let speak = async {
            client.send(Message::binary(b"hello".to_vec())).await.unwrap();
            client.close(None).await.unwrap();
        };
        let ((), end) = tokio::join!(speak, carried);
        assert_eq!(end, (NORMAL, String::new()));
        // The goodbye is answered, or the client would wait for that.
        assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
        let mut heard = Vec::new();
        service.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
    }

    #[tokio::test]
    async fn a_client_that_breaks_the_protocol_is_told() {
        for (bytes, why) in [
            (&[0x82, 1, b'x'][..], "a frame that is not masked"),
            (&[0x83, 0x80, 0, 0, 0, 0], "a frame of an unknown kind"),
            (&[0x89, 0xfe, 0, 200, 0, 0, 0, 0], "a control frame that is too long"),
        ] {
            let (mut client, near) = pair().await;
            let (mut far, _service) = pair().await;
            client.write_all(bytes).await.unwrap();
            let end = Tunnel::new(near, BytesMut::new()).carry(&mut far).await;
            assert_eq!(end, (PROTOCOL_ERROR, why.to_owned()));
        }
    }

    #[test]
    fn a_frame_is_passed_on_as_it_arrives() {
        let mask = [1, 2, 3, 4];
        let mut payload: Vec<u8> = (0..10).collect();
        unmask(&mut payload, mask);
        let mut frames = Frames::new(BytesMut::from(&[0x02, 0x80 | 10, 1, 2, 3, 4][..]));
        let mut heard = Vec::new();
        for piece in payload.chunks(3) {
            assert_eq!(frames.take(), None);
            frames.buffer.extend_from_slice(piece);
            match frames.take() {
                Some(Piece::Data(bytes)) => heard.extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(heard, (0..10).collect::<Vec<u8>>());
    }
}
