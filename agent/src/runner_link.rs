//! The unix socket between the agent and one kernel's runner.
//!
//! The socket lies in a folder of its own that is mounted into the container; folder and
//! socket belong to root alone, and a peer that is not root is turned away. The runner
//! connects, and connects again whenever the agent was away; the newest connection counts.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_util::codec::{Framed, FramedParts};

use backendai_rpc::runner::{
    FrameCodec, FromRunner, PROTOCOL_VERSION, SOCKET_NAME, StreamOpened, ToRunner, handover,
};

/// A runner speaks first; one that does not within this time is no runner.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// What the agent has to say to a runner; read by [`serve`].
pub struct Outbox {
    /// Messages in order. They wait while there is no connection.
    pub messages: mpsc::Receiver<ToRunner>,
    /// Number of the last record that has been taken.
    pub taken: watch::Receiver<u64>,
}

/// What hears a runner.
pub trait RunnerListener: Send + Sync {
    /// A runner has connected (again).
    fn hello(&self, hello: Hello);
    /// It said something else.
    fn message(&self, message: FromRunner);
    /// A stream was opened, or not; its socket comes with a success.
    fn stream(&self, opened: StreamOpened, socket: Option<OwnedFd>);
    /// The connection is gone.
    fn disconnected(&self);
    /// Something connected that is not this kernel's runner, or one of another version.
    fn refused(&self, why: String);
}

/// The first message of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Runs that are executing or waiting.
    pub runs: Vec<String>,
    /// Whether the first of them waits for input that was asked for before this connection:
    /// true for a password.
    pub waiting_input: Option<bool>,
    /// Exit code of the startup command, once it has ended.
    pub startup_exit_code: Option<i32>,
}

/// Listens in a folder, replacing a socket that an earlier process left there.
///
/// # Errors
/// The folder does not exist, or the socket cannot be made.
pub fn bind(dir: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(dir.join(SOCKET_NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (_folder, short) = short_path(dir)?;
    let listener = UnixListener::bind(short)?;
    std::fs::set_permissions(dir.join(SOCKET_NAME), Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to the socket in a folder, as a runner does.
///
/// # Errors
/// Nobody listens there.
pub async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let (_folder, short) = short_path(dir)?;
    UnixStream::connect(short).await
}

/// A socket's address has 108 bytes at most, and folders may lie deep: so it is named
/// through a descriptor of the folder, which must live until the name has been used.
fn short_path(dir: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(dir, flags, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_NAME}", folder.as_raw_fd()));
    Ok((folder, path))
}

type Link = Framed<UnixStream, FrameCodec<FromRunner>>;

/// Serves one kernel's runner until dropped.
pub async fn serve(
    listener: UnixListener,
    kernel_id: &str,
    mut outbox: Outbox,
    runner: &dyn RunnerListener,
) {
    let mut link: Option<Link> = None;
    loop {
        let has_link = link.is_some();
        let alive = tokio::select! {
            accepted = listener.accept() => {
                match accepted {
                    Ok((stream, _)) => {
                        if let Some((fresh, hello)) = greet(stream, kernel_id, runner).await {
                            link = Some(fresh);
                            runner.hello(hello);
                            // What was taken before counts for this connection as well.
                            outbox.taken.mark_changed();
                        }
                    }
                    Err(error) => {
                        tracing::error!(kernel.id = kernel_id, %error, "accept a kernel runner");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                true
            }
            message = next(&mut link) => match message {
                Some(message) => {
                    runner.message(message);
                    true
                }
                None => false,
            },
            Some(message) = outbox.messages.recv(), if has_link => send(&mut link, message).await,
            Ok(()) = outbox.taken.changed(), if has_link => {
                let seq = *outbox.taken.borrow_and_update();
                seq == 0 || send(&mut link, ToRunner::Ack { seq }).await
            }
        };
        if !alive && link.take().is_some() {
            runner.disconnected();
        }
    }
}

/// The next message; `None` when the connection has ended. Never resolves without one.
async fn next(link: &mut Option<Link>) -> Option<FromRunner> {
    match link {
        None => std::future::pending().await,
        Some(link) => match link.next().await {
            Some(Ok(message)) => Some(message),
            Some(Err(error)) => {
                tracing::warn!(%error, "a kernel runner's connection is broken");
                None
            }
            None => None,
        },
    }
}

/// False when the connection has ended.
async fn send(link: &mut Option<Link>, message: ToRunner) -> bool {
    match link {
        Some(link) => link.send(message).await.is_ok(),
        None => true,
    }
}

async fn greet(
    stream: UnixStream,
    kernel_id: &str,
    runner: &dyn RunnerListener,
) -> Option<(Link, Hello)> {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw() => {}
        _ => {
            runner.refused("a process that is not root connected to the runner's socket".into());
            return None;
        }
    }
    let first = tokio::time::timeout(HELLO_TIMEOUT, handover::receive(&stream)).await;
    let Ok(Ok(handover::First { message, rest, socket })) = first else {
        runner.refused("the kernel runner did not say hello".into());
        return None;
    };
    let (protocol, whose, running, queued, waiting_input, startup_exit_code) = match message {
        FromRunner::Hello {
            protocol,
            kernel_id,
            running,
            queued,
            waiting_input,
            startup_exit_code,
        } => (protocol, kernel_id, running, queued, waiting_input, startup_exit_code),
        FromRunner::StreamOpened(opened) if opened.kernel_id == kernel_id => {
            runner.stream(opened, socket);
            return None;
        }
        _ => {
            runner.refused("the kernel runner did not say hello".into());
            return None;
        }
    };
    if protocol != PROTOCOL_VERSION {
        runner.refused(format!(
            "the kernel runner speaks protocol {protocol}, this agent {PROTOCOL_VERSION}"
        ));
        return None;
    }
    if whose != kernel_id {
        runner.refused(format!("the runner of kernel {whose} called in the place of {kernel_id}"));
        return None;
    }
    let runs = running.into_iter().chain(queued).collect();
    let mut parts = FramedParts::new::<ToRunner>(stream, FrameCodec::default());
    parts.read_buf = rest;
    let link = Link::from_parts(parts);
    Some((link, Hello { runs, waiting_input, startup_exit_code }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_in_deep_folders_can_be_bound_again() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        drop(bind(&deep).unwrap());
        let listener = bind(&deep).unwrap();
        let (accepted, connected) = tokio::join!(listener.accept(), connect(&deep));
        assert!(accepted.is_ok() && connected.is_ok());
        let mode = std::fs::metadata(deep.join(SOCKET_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
