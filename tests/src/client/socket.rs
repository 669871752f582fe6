//! Websockets of the API, opened by the client that signs by itself.

use anyhow::{Context, Result};
use chrono::Utc;
use futures::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::SignedClient;

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
