//! The ZAP handler: libzmq asks it who a client is, before any message passes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::context::Directories;
use super::inbox::{Inbox, Mailroom};
use crate::transport::TransportError;

/// Set by RFC 27.
const ENDPOINT: &str = "inproc://zeromq.zap.01";
/// A refused client tries again every 2 s or less; more lines say no more.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Refused keys remembered for [`LOG_INTERVAL`]; a stranger can make any number of them.
const LOGGED_KEYS: usize = 256;

/// The running handler; dropping it ends its thread.
pub(super) struct ZapHandler {
    inbox: Arc<Inbox<Stop>>,
    thread: Option<JoinHandle<()>>,
}

struct Stop;

impl Drop for ZapHandler {
    fn drop(&mut self) {
        // An error means that the thread has ended already.
        let _ended = self.inbox.push(Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that checks RPC keys has panicked");
        }
    }
}

/// Starts the handler of a context. Must come before the first server with keys.
pub(super) fn start(
    context: &zmq::Context,
    directories: Directories,
) -> Result<ZapHandler, TransportError> {
    let failed = |source| TransportError::Zmq { doing: "start the check of RPC keys", source };
    let system = |source| TransportError::System { doing: "start the check of RPC keys", source };
    let socket = context.socket(zmq::REP).map_err(failed)?;
    socket.set_linger(0).map_err(failed)?;
    socket.bind(ENDPOINT).map_err(failed)?;
    let mailroom = Mailroom::new().map_err(system)?;
    mailroom.watch(&socket, 0).map_err(system)?;
    let inbox = mailroom.inbox();
    let thread = std::thread::Builder::new()
        .name("rpc-keys".into())
        .spawn(move || {
            let mut handler = Handler { socket, directories, logged: Vec::new() };
            if let Err(error) = handler.run(mailroom) {
                tracing::error!(%error, "the check of RPC keys has ended: nobody can connect");
            }
        })
        .map_err(system)?;
    Ok(ZapHandler { inbox, thread: Some(thread) })
}

struct Handler {
    socket: zmq::Socket,
    directories: Directories,
    logged: Vec<(String, Instant)>,
}

impl Handler {
    fn run(&mut self, mut mailroom: Mailroom<Stop>) -> std::io::Result<()> {
        let mut stop = Vec::new();
        loop {
            loop {
                let request = match self.socket.recv_multipart(zmq::DONTWAIT) {
                    Ok(request) => request,
                    Err(zmq::Error::EAGAIN) => break,
                    Err(zmq::Error::EINTR) => continue,
                    Err(error) => return Err(std::io::Error::other(error.message())),
                };
                let answer = self.answer(&request);
                if let Err(error) = self.socket.send_multipart(answer, 0) {
                    return Err(std::io::Error::other(error.message()));
                }
            }
            let _only_one_socket = mailroom.wait(None)?.count();
            mailroom.take(&mut stop);
            if !stop.is_empty() {
                return Ok(());
            }
        }
    }

    /// The reply's frames: version, request id, status, text, user id, metadata.
    fn answer(&mut self, request: &[Vec<u8>]) -> [Vec<u8>; 6] {
        let request_id = request.get(1).cloned().unwrap_or_default();
        let reply = |status: &str, text: &str, user: String| {
            [b"1.0".into(), request_id, status.into(), text.into(), user.into(), Vec::new()]
        };
        match self.user_id(request) {
            Ok(user) => reply("200", "OK", user),
            // 300, not 400: after a 400 libzmq's client never tries again.
            Err(reason) => reply("300", reason, String::new()),
        }
    }

    /// See [`split_user_id`] for what it looks like.
    fn user_id(&mut self, request: &[Vec<u8>]) -> Result<String, &'static str> {
        let [_version, _request_id, domain, address, _identity, mechanism, rest @ ..] = request
        else {
            return Err("malformed request");
        };
        if mechanism != b"CURVE" {
            return Err("only CURVE is spoken here");
        }
        let key = rest.first().and_then(|key| zmq::z85_encode(key).ok()).unwrap_or_default();
        let directory = self.directories.lock().get(&*String::from_utf8_lossy(domain)).cloned();
        let directory = directory.ok_or("the server is closing")?;
        // A directory that panics refuses, instead of locking everybody out for good.
        match catch_unwind(AssertUnwindSafe(|| directory.peer_of(&key))) {
            Ok(Some(name)) if !name.contains('\0') => Ok(format!("{key} {name}")),
            _ => {
                self.log_refusal(&key, &String::from_utf8_lossy(address));
                Err("unknown key")
            }
        }
    }

    fn log_refusal(&mut self, key: &str, address: &str) {
        let now = Instant::now();
        self.logged.retain(|(_, at)| now.duration_since(*at) < LOG_INTERVAL);
        if self.logged.len() >= LOGGED_KEYS || self.logged.iter().any(|(known, _)| known == key) {
            return;
        }
        self.logged.push((key.to_owned(), now));
        let key = key.get(..8).unwrap_or(key);
        tracing::warn!(
            key,
            address,
            "refused an RPC client: no peer with this public key is known here"
        );
    }
}

/// Takes apart the `User-Id` of a message: the proven key (which has no space) and the name.
pub(super) fn split_user_id(user_id: &str) -> Option<(&str, &str)> {
    user_id.split_once(' ')
}
