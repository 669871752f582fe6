//! The port where open streams are fetched.
//!
//! A manager asks for a stream by RPC and gets a ticket; whoever connects to the port and
//! shows the ticket's token within a few seconds is joined with the stream's socket. So
//! nothing in a container is reachable by whoever merely reaches the port, and the bytes
//! of apps and terminals stay out of the RPC.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt;
use rustix::fd::OwnedFd;
use rustix::net::AddressFamily;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use backendai_rpc::agent_api::{STREAM_TOKEN_LEN, StreamTicket};
use backendai_service::{Lifecycle, splice};

use crate::metrics::OpenStream;

/// How long a ticket is good: a manager fetches at once.
const TICKET_LIFE: Duration = Duration::from_secs(10);
/// A caller shows its token at once.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(5);

type Token = [u8; STREAM_TOKEN_LEN];

/// Hands out tickets and joins who shows them.
pub struct StreamGate {
    host: String,
    ports: (u16, u16),
    lifecycle: Lifecycle,
    /// Once the first ticket was given.
    port: tokio::sync::OnceCell<u16>,
    waiting: Arc<Mutex<HashMap<Token, Waiting>>>,
}

/// An open stream that has not been fetched.
struct Waiting {
    socket: OwnedFd,
    until: Instant,
}

impl StreamGate {
    /// A gate that will listen at `host` (any address if empty) on the first port of the
    /// range, ends included, that is free.
    pub fn new(host: &str, ports: (u16, u16), lifecycle: Lifecycle) -> Self {
        let host = if host.is_empty() { Ipv4Addr::UNSPECIFIED.to_string() } else { host.into() };
        Self { host, ports, lifecycle, port: tokio::sync::OnceCell::new(), waiting: Arc::default() }
    }

    /// A ticket for a stream. The first one opens the port.
    ///
    /// # Errors
    /// No port of the range is free.
    pub async fn ticket(&self, socket: OwnedFd) -> io::Result<StreamTicket> {
        let port = *self.port.get_or_try_init(|| self.listen()).await?;
        let token: Token = rand::rng().random();
        let now = Instant::now();
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, stream| stream.until > now);
        waiting.insert(token, Waiting { socket, until: now + TICKET_LIFE });
        Ok(StreamTicket { port, token })
    }

    async fn listen(&self) -> io::Result<u16> {
        let listener = self.bind().await?;
        let port = listener.local_addr()?.port();
        tracing::info!(port, "streams are fetched here");
        let (waiting, lifecycle) = (Arc::clone(&self.waiting), self.lifecycle.clone());
        self.lifecycle.spawn("streams", async move {
            tokio::select! {
                () = serve(listener, waiting) => {}
                () = lifecycle.stopping() => {}
            }
        });
        Ok(port)
    }

    async fn bind(&self) -> io::Result<TcpListener> {
        let (first, last) = self.ports;
        let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
        let host = tokio::net::lookup_host((self.host.as_str(), 0)).await?.next();
        let host = host.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        for port in first..=last {
            match StdListener::bind(SocketAddr::new(host.ip(), port)) {
                Ok(listener) => {
                    listener.set_nonblocking(true)?;
                    return TcpListener::from_std(listener);
                }
                Err(error) => failure = error,
            }
        }
        let why = format!("no port of container.port-range ({first} to {last}) is free");
        Err(io::Error::new(failure.kind(), format!("{why}: {failure}")))
    }
}

async fn serve(listener: TcpListener, waiting: Arc<Mutex<HashMap<Token, Waiting>>>) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((caller, _)) => {
                    let waiting = Arc::clone(&waiting);
                    streams.spawn(async move {
                        if let Err(error) = admit(caller, &waiting).await {
                            tracing::debug!(%error, "a stream ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "accept the caller of a stream");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = streams.join_next(), if !streams.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a stream's task failed");
                }
            }
        }
    }
}

async fn admit(mut caller: TcpStream, waiting: &Mutex<HashMap<Token, Waiting>>) -> io::Result<()> {
    let mut token: Token = [0; STREAM_TOKEN_LEN];
    tokio::time::timeout(TOKEN_TIMEOUT, caller.read_exact(&mut token)).await??;
    let Some(stream) = waiting.lock().remove(&token) else {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "an unknown stream token"));
    };
    let _open = OpenStream::count();
    caller.set_nodelay(true)?;
    match rustix::net::getsockname(&stream.socket)?.address_family() {
        AddressFamily::UNIX => {
            let socket = std::os::unix::net::UnixStream::from(stream.socket);
            socket.set_nonblocking(true)?;
            splice::join(&caller, &UnixStream::from_std(socket)?).await
        }
        _ => {
            let socket = std::net::TcpStream::from(stream.socket);
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            splice::join(&caller, &TcpStream::from_std(socket)?).await
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_token_opens_its_stream_once_and_no_other_does() {
        let lifecycle = Lifecycle::new();
        let gate = StreamGate::new("127.0.0.1", (0, 0), lifecycle.clone());
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let ticket = gate.ticket(far.into()).await.unwrap();
        near.set_nonblocking(true).unwrap();
        let mut near = UnixStream::from_std(near).unwrap();

        let show = async |token: &Token| {
            let mut caller = TcpStream::connect(("127.0.0.1", ticket.port)).await.unwrap();
            caller.write_all(token).await.unwrap();
            caller
        };
        let mut stranger = show(&[0; STREAM_TOKEN_LEN]).await;
        assert_eq!(stranger.read(&mut [0; 1]).await.unwrap_or(0), 0);

        let mut caller = show(&ticket.token).await;
        caller.write_all(b"there").await.unwrap();
        let mut heard = [0; 5];
        near.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"there");
        near.write_all(b"and back").await.unwrap();
        drop(near);
        let mut answer = Vec::new();
        caller.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"and back");

        let mut again = show(&ticket.token).await;
        assert_eq!(again.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}
