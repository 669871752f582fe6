//! The ssh server.
//!
//! ```text
//!   agent ── stream to port 2200 ──┐
//!   cluster's kernels ── TCP 2200 ─┴── Sshd ── connection (a process) ──┬── shell, command
//!                                                                       └── sftp (a process)
//! ```
//!
//! As with OpenSSH, each connection is a process of its own that runs as the user. So all
//! it does (reading keys, opening files and ports) is what the user may do, what a stranger
//! sends meets neither root nor PID 1, and a kernel without connections pays nothing.
//!
//! - [`Sshd`] is PID 1's part: it keeps the host key and starts connections.
//! - `connection` is that process's life, `client` what its client asks for, `keys` who may
//!   come in.
//! - `session` is one shell, command or sftp, which `programs` finds; `terminal` its
//!   terminal; `forward` ports and the client's agent; `input` what waits to be taken by any
//!   of them.
//!
//! What a session started lives on after the connection as far as it does with any sshd: a
//! terminal hangs up, a program without one notices when it reads or writes, and one that
//! has detached itself stays.

mod client;
mod connection;
mod forward;
mod input;
mod keys;
mod programs;
mod session;
mod terminal;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use backendai_rpc::runner::SSHD_PORT;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use self::connection::main;
use crate::log::log;
use crate::process::{OURSELVES, Program, Spawner};

/// The only name to log in with.
pub const USER: &str = "work";
/// The runner's argument that makes it the process of a connection.
pub const MODE: &str = "ssh-connection";
/// The runner's argument that makes it an sftp server.
pub const SFTP_MODE: &str = "sftp-server";
/// What the agent calls the key of a cluster's kernels.
const CLUSTER_KEY: &str = "id_cluster.pub";
/// Between an accept that failed and the next.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Connections at once. Each is a process of a few megabytes.
const MAX_CONNECTIONS: usize = 64;

/// What a connection is told, as JSON on its standard input.
#[derive(Serialize, Deserialize)]
struct Settings {
    /// Of the host's Ed25519 key.
    host_key_seed: [u8; 32],
    /// The user's home.
    work: PathBuf,
    /// Folder of public keys (`*.pub`) that the platform lets in.
    keys: PathBuf,
    /// Addresses of client and server, where the connection has some.
    addresses: Option<(SocketAddr, SocketAddr)>,
}

/// Starts connections.
pub struct Sshd {
    spawner: Rc<Spawner>,
    host_key_seed: [u8; 32],
    keys: PathBuf,
    free: Arc<Semaphore>,
}

impl Sshd {
    /// A server with a new host key, which lives as long as the container. `keys` is the
    /// folder of the platform's keys.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn new(spawner: Rc<Spawner>, keys: PathBuf) -> io::Result<Self> {
        let mut host_key_seed = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut host_key_seed)?;
        Ok(Self { spawner, host_key_seed, keys, free: Arc::new(Semaphore::new(MAX_CONNECTIONS)) })
    }

    /// Begins a connection and returns the client's end.
    ///
    /// # Errors
    /// See [`Self::serve`].
    pub fn open(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        self.serve(theirs, None)?;
        Ok(ours)
    }

    /// Serves one connection, in a process that ends with it.
    ///
    /// # Errors
    /// If there are too many connections already, or the system has no room for a process.
    fn serve(
        &self,
        socket: OwnedFd,
        addresses: Option<(SocketAddr, SocketAddr)>,
    ) -> io::Result<()> {
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            return Err(io::Error::other("too many ssh connections"));
        };
        let settings = Settings {
            host_key_seed: self.host_key_seed,
            work: self.spawner.work().to_owned(),
            keys: self.keys.clone(),
            addresses,
        };
        // A pipe holds more than this, so nobody needs to read it yet.
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(&serde_json::to_vec(&settings)?)?;
        let program = Program {
            path: Path::new(OURSELVES),
            args: vec![MODE.into()],
            variables: Vec::new(),
            inherit: Vec::new(),
        };
        let ended = self.spawner.start_connected(&program, reader.into(), socket)?;
        tokio::task::spawn_local(async move {
            let _ = ended.await;
            drop(permit);
        });
        Ok(())
    }

    /// True if this kernel is one of a cluster, whose kernels come in with its key.
    pub fn has_peers(&self) -> bool {
        self.keys.join(CLUSTER_KEY).exists()
    }

    /// Accepts connections of the cluster's other kernels on every address, for ever.
    ///
    /// # Errors
    /// If the port is taken.
    pub async fn listen(&self) -> io::Result<()> {
        let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, SSHD_PORT)).await {
            Ok(listener) => listener,
            // A container without IPv6.
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, SSHD_PORT)).await?,
        };
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // The client left, or descriptors have run out for a while.
                    log!("accept an ssh connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let served = stream.set_nodelay(true).and_then(|()| {
                let local = stream.local_addr()?;
                self.serve(stream.into_std()?.into(), Some((peer, local)))
            });
            if let Err(error) = served {
                log!("serve an ssh connection: {error}");
            }
        }
    }
}
