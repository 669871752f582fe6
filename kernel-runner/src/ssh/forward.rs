//! Ports and sockets for the client, and the client's agent for programs here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinSet;

use super::input::{self, Feeder, Input};

/// How long a port may take to accept.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Bytes passed on at once: those of a full packet.
const PIECE: usize = 32 << 10;

/// A connection to a port or socket.
pub struct Forward {
    feeder: Feeder,
    task: JoinSet<()>,
}

impl Forward {
    /// Connects, tells the client how it went, and passes on what either side sends.
    pub fn start<S: AsyncRead + AsyncWrite + Send + 'static>(
        channel: Channel<Msg>,
        connect: impl Future<Output = io::Result<S>> + Send + 'static,
        reply: ChannelOpenHandle,
    ) -> Self {
        let (feeder, input) = input::channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_TIME, connect).await else {
                return reply.reject(ChannelOpenFailure::ConnectFailed).await;
            };
            reply.accept().await;
            let (_, output) = channel.split();
            let (from, to) = tokio::io::split(stream);
            let answer = async {
                let _ = pass_on(from, output.make_writer()).await;
                // It fails if the client has left.
                let _ = output.eof().await;
            };
            tokio::join!(feed(input, to), answer);
            let _ = output.close().await;
        });
        Self { feeder, task }
    }

    /// Takes what the client sends.
    pub fn feeder(&self) -> &Feeder {
        &self.feeder
    }

    /// True once nothing is passed on any more.
    pub fn is_over(&mut self) -> bool {
        self.task.try_join_next();
        self.task.is_empty()
    }
}

/// Passes on what is read, until the end.
pub async fn pass_on(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&piece[..length]).await?;
    }
}

/// Writes what the client sends, until it sends no more or the receiver takes no more.
pub async fn feed(input: Input, mut to: impl AsyncWrite + Unpin) {
    while let Some(piece) = input.next().await {
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Connects to a port, from inside the container and as the user.
///
/// # Errors
/// If the host has no address or does not accept.
pub async fn connect(host: String, port: u16) -> io::Result<TcpStream> {
    let hosts = tokio::fs::read_to_string("/etc/hosts").await.unwrap_or_default();
    let mut refused = io::Error::new(io::ErrorKind::NotFound, "unknown host");
    for address in addresses(&host, &hosts) {
        match TcpStream::connect((address, port)).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Addresses of a host: it is one, or `localhost`, or named in `hosts`, which is where the
/// kernels of a cluster are. The system's own way to ask for more would load modules of the
/// image into this program.
fn addresses(host: &str, hosts: &str) -> Vec<IpAddr> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return vec![address];
    }
    if host == "localhost" {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let named = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    });
    named.collect()
}

/// A socket here that leads to the client's agent, which keeps the client's keys.
pub struct AgentSocket {
    folder: PathBuf,
    path: PathBuf,
    _task: JoinSet<()>,
}

impl AgentSocket {
    /// Makes the socket, in a folder that only the user may enter, below the folder for
    /// temporary files or else below `work`.
    ///
    /// # Errors
    /// If neither takes a socket.
    pub fn listen(client: Handle, work: &Path) -> io::Result<Self> {
        let folder = make_folder(&std::env::temp_dir()).or_else(|_| make_folder(work))?;
        let path = folder.join("agent");
        let listener = match UnixListener::bind(&path) {
            Ok(listener) => listener,
            Err(error) => {
                let _ = std::fs::remove_dir(&folder);
                return Err(error);
            }
        };
        let mut task = JoinSet::new();
        task.spawn(serve_agent(listener, client));
        Ok(Self { folder, path, _task: task })
    }

    /// Where programs connect.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn serve_agent(listener: UnixListener, client: Handle) {
    let mut programs = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((mut program, _)) = accepted else { return };
                let client = client.clone();
                programs.spawn(async move {
                    // A client that does not want it any more closes the program's end.
                    if let Ok(channel) = client.channel_open_agent().await {
                        let mut agent = channel.into_stream();
                        let _ = tokio::io::copy_bidirectional(&mut program, &mut agent).await;
                    }
                });
            }
            Some(_) = programs.join_next() => {}
        }
    }
}

fn make_folder(parent: &Path) -> io::Result<PathBuf> {
    // No other process has this number, but a folder of one that was killed may be left.
    let name = |attempt: u32| parent.join(format!(".ssh-agent-{}-{attempt}", std::process::id()));
    let mut made = Err(io::ErrorKind::AlreadyExists.into());
    for folder in (0..100).map(name) {
        made = std::fs::DirBuilder::new().mode(0o700).create(&folder).map(|()| folder);
        if !matches!(&made, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
            break;
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_or_names_of_the_cluster() {
        let hosts =
            "127.0.0.1 localhost\n10.0.0.2\tmain1 # first\n#10.0.0.9 sub1\n10.0.0.3 x sub1\n";
        let found =
            |host| addresses(host, hosts).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("sub1"), ["10.0.0.3"]);
        assert_eq!(found("MAIN1"), ["10.0.0.2"]);
        assert_eq!(found("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(found("[::1]"), ["::1"]);
        assert_eq!(found("10.1.1.1"), ["10.1.1.1"]);
        assert!(found("first").is_empty());
    }
}
