//! The process of one connection.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::{Config, run_stream};
use russh::{MethodKind, MethodSet, SshId};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::Settings;
use super::client::Client;
use super::input::WINDOW;
use super::keys::Keys;
use super::programs::Programs;
use crate::environ::Environ;

/// How long a client may take to log in.
const LOGIN_TIME: Duration = Duration::from_secs(120);
/// A client that is silent for so long is asked whether it is there, …
const KEEPALIVE: Duration = Duration::from_secs(30);
/// … and so many times before it is given up.
const KEEPALIVE_TRIES: usize = 4;
/// Keys a client may offer; OpenSSH's clients offer all that their agent has.
const MAX_ATTEMPTS: usize = 20;

/// Serves the connection on standard output, as standard input tells, and returns the exit
/// code of the process.
pub fn main() -> i32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve())) {
        Ok(()) => 0,
        Err(error) => {
            crate::log::line(format_args!("ssh: {error}"));
            1
        }
    }
}

async fn serve() -> io::Result<()> {
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text)?;
    let settings: Settings = serde_json::from_slice(&text)?;

    let host_key = PrivateKey::from(Ed25519Keypair::from_seed(&settings.host_key_seed));
    let config = Config {
        server_id: SshId::Standard("SSH-2.0-BackendAI".into()),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // A key cannot be guessed, so nothing is gained by making a client wait.
        auth_rejection_time: Duration::ZERO,
        keys: vec![host_key],
        window_size: WINDOW,
        max_auth_attempts: MAX_ATTEMPTS,
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVE_TRIES,
        ..Config::default()
    };
    let logged_in = Arc::new(Notify::new());
    let client = Client::new(
        Keys::read(&settings.work, &settings.keys),
        Programs::new(Environ::inherited(), settings.work, settings.addresses),
        Arc::clone(&logged_in),
    );
    // It may be a TCP socket as well: reading and writing are the same.
    let socket = StdUnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    let socket = UnixStream::from_std(socket)?;

    let connection = async {
        // How a connection ends is the client's business; there is nobody to tell.
        if let Ok(session) = run_stream(Arc::new(config), socket, client).await {
            let _ = session.await;
        }
    };
    let too_late = async {
        if tokio::time::timeout(LOGIN_TIME, logged_in.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = connection => {}
        () = too_late => {}
    }
    Ok(())
}
