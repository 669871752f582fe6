//! Websockets of the API, opened by the client that signs by itself.

use std::io::Cursor;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BytesMut};
use chrono::Utc;
use futures::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::SignedClient;

/// Bytes read at once.
const READ_SIZE: usize = 128 << 10;

/// An open websocket. Dropping it leaves without a word.
#[derive(Debug)]
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl SignedClient {
    /// Opens a websocket.
    ///
    /// # Errors
    /// The server does not let it.
    pub async fn socket(&self, target: &str) -> Result<Socket> {
        let url = format!("{}{target}", self.endpoint()).replacen("http", "ws", 1);
        let mut request = url.into_client_request()?;
        // The stock client sends no content type with a handshake, and signs this one.
        let mut headers = self.sign(&Method::GET, target, "application/octet-stream", Utc::now());
        headers.remove("content-type");
        request.headers_mut().extend(headers);
        let (socket, _) =
            tokio_tungstenite::connect_async(request).await.with_context(|| target.to_owned())?;
        Ok(Socket(socket))
    }

    /// Opens a websocket and counts the bytes of the frames that come, to the end. Nothing is
    /// kept and nothing copied: what the server can give is measured, not what a library takes.
    ///
    /// # Errors
    /// The server does not let it, or the connection breaks.
    pub async fn count_bytes(&self, target: &str) -> Result<usize> {
        let host = self.endpoint().trim_start_matches("http://");
        let mut headers = self.sign(&Method::GET, target, "application/octet-stream", Utc::now());
        headers.remove("content-type");
        let mut head = format!(
            "GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {}\r\n",
            generate_key()
        );
        for (name, value) in &headers {
            head.push_str(&format!("{name}: {}\r\n", value.to_str()?));
        }
        let mut stream = TcpStream::connect(host).await?;
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        let mut buffer = BytesMut::with_capacity(READ_SIZE);
        let answered = loop {
            ensure!(stream.read_buf(&mut buffer).await? > 0, "no answer to the handshake");
            if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break buffer.split_to(end + 4);
            }
        };
        let answer = String::from_utf8_lossy(&answered);
        ensure!(answer.starts_with("HTTP/1.1 101"), "{target} is answered {answer}");
        let mut counted = 0;
        loop {
            let mut cursor = Cursor::new(&buffer);
            match FrameHeader::parse(&mut cursor)? {
                None => {}
                Some((header, len)) if matches!(header.opcode, OpCode::Data(_)) => {
                    let len = usize::try_from(len)?;
                    counted += len;
                    buffer.advance(cursor.position() as usize);
                    let mut left = len.saturating_sub(buffer.len());
                    buffer.advance(len - left);
                    while left > 0 {
                        buffer.clear();
                        buffer.reserve(READ_SIZE);
                        let read = stream.read_buf(&mut buffer).await?;
                        ensure!(read > 0, "the connection ends within a frame");
                        buffer.advance(read.min(left));
                        left = left.saturating_sub(read);
                    }
                    continue;
                }
                // The server says goodbye; it sends no pings.
                Some(_) => return Ok(counted),
            }
            buffer.reserve(READ_SIZE);
            ensure!(stream.read_buf(&mut buffer).await? > 0, "no goodbye at the end");
        }
    }
}

impl Socket {
    /// Sends text as it is.
    ///
    /// # Errors
    /// The server has hung up.
    pub async fn send(&mut self, text: impl Into<String>) -> Result<()> {
        Ok(self.0.send(Message::text(text.into())).await?)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The server has hung up.
    pub async fn send_bytes(&mut self, bytes: Vec<u8>) -> Result<()> {
        Ok(self.0.send(Message::binary(bytes)).await?)
    }

    /// The next bytes; `None` after a clean close.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn next_bytes(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            match self.0.next().await.transpose()? {
                Some(Message::Binary(bytes)) => return Ok(Some(bytes.to_vec())),
                Some(Message::Close(_)) | None => return Ok(None),
                // The library answers pings.
                Some(_) => {}
            }
        }
    }

    /// The next text, as JSON; `None` after a clean close.
    ///
    /// # Errors
    /// The connection breaks, or what comes is not JSON.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            match self.0.next().await.transpose()? {
                Some(Message::Text(text)) => return Ok(Some(serde_json::from_str(&text)?)),
                Some(Message::Close(_)) | None => return Ok(None),
                // The library answers pings.
                Some(_) => {}
            }
        }
    }
}
