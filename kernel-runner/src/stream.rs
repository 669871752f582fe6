//! Streams: sockets that the runner opens for the agent and hands over.
//!
//! Each is delivered on a connection of its own, with the descriptor beside the message;
//! from then on the agent has the far end of whatever was opened, and its bytes do not
//! pass through the runner unless the runner itself serves them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use backendai_rpc::runner::{
    FrameError, FromRunner, SSHD_PORT, StreamError, StreamOpened, StreamTarget, TTYD_PORT, handover,
};
use rustix::fd::OwnedFd;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::TaskTracker;

use crate::files::Files;
use crate::log::log;
use crate::ssh::Sshd;
use crate::terminal::Terminal;
use crate::ttyd;

/// How long a port of this container may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens streams.
pub struct Streams {
    /// The agent's socket.
    pub socket: PathBuf,
    /// The kernel's id.
    pub kernel_id: String,
    /// Owns what is being opened, and what is served here.
    pub tasks: TaskTracker,
    /// The kernel's terminal.
    pub terminal: Rc<Terminal>,
    /// Begins ssh connections.
    pub sshd: Rc<Sshd>,
    /// Begins operations on files.
    pub files: Files,
}

impl Streams {
    /// Opens a stream and hands it to the agent, in the background.
    pub fn open(self: &Rc<Self>, id: u64, target: StreamTarget) {
        let streams = Rc::clone(self);
        self.tasks.spawn_local(async move {
            let (result, socket) = match streams.reach(target).await {
                Ok(socket) => (Ok(()), Some(socket)),
                Err(error) => (Err(error), None),
            };
            if let Err(error) = streams.deliver(id, result, socket).await {
                log!("hand a stream to the agent: {error}");
            }
        });
    }

    async fn reach(&self, target: StreamTarget) -> Result<OwnedFd, StreamError> {
        match target {
            StreamTarget::Port(TTYD_PORT) => {
                let terminal = Rc::clone(&self.terminal);
                self.serve(|stream| ttyd::serve(stream, terminal))
            }
            StreamTarget::Port(SSHD_PORT) => {
                self.sshd.open().map_err(|error| StreamError::Failed(error.to_string()))
            }
            StreamTarget::Port(port) => connect(port).await,
            StreamTarget::Terminal { from } => {
                let terminal = Rc::clone(&self.terminal);
                let viewer = terminal.view(from)?;
                self.serve(async move |stream| terminal.attach(stream, viewer).await)
            }
            StreamTarget::Files => {
                self.files.open().map_err(|error| StreamError::Failed(error.to_string()))
            }
        }
    }

    /// The far end of a socket pair, whose near end is served here.
    fn serve<F>(&self, serve: impl FnOnce(UnixStream) -> F) -> Result<OwnedFd, StreamError>
    where
        F: Future<Output = ()> + 'static,
    {
        let failed = |error: io::Error| StreamError::Failed(error.to_string());
        let (near, far) = UnixStream::pair().map_err(failed)?;
        self.tasks.spawn_local(serve(near));
        far.into_std().map(OwnedFd::from).map_err(failed)
    }

    async fn deliver(
        &self,
        id: u64,
        result: Result<(), StreamError>,
        socket: Option<OwnedFd>,
    ) -> Result<(), FrameError> {
        let opened = StreamOpened { id, kernel_id: self.kernel_id.clone(), result };
        let agent = UnixStream::connect(&self.socket).await?;
        handover::send(&agent, FromRunner::StreamOpened(opened), socket).await
    }
}

/// Connects to a port of this container, over IPv4 or else IPv6.
///
/// # Errors
/// Nothing listens there.
pub async fn connect(port: u16) -> Result<OwnedFd, StreamError> {
    let mut refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    for host in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port)));
        match connected.await {
            Ok(Ok(stream)) => {
                let stream = stream.into_std();
                return stream.map(OwnedFd::from).map_err(|e| StreamError::Failed(e.to_string()));
            }
            Ok(Err(error)) if host.is_ipv4() => refused = error,
            Ok(Err(_)) => {}
            Err(_) => refused = io::ErrorKind::TimedOut.into(),
        }
    }
    match refused.kind() {
        io::ErrorKind::ConnectionRefused => Err(StreamError::Refused(port)),
        _ => Err(StreamError::Failed(format!("connect to port {port}: {refused}"))),
    }
}
