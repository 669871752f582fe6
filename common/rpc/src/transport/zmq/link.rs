//! The thread of a connector: one DEALER socket per peer.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::context::{self, SharedContext};
use super::inbox::Mailroom;
use super::{
    Address, HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS, HEARTBEAT_TTL_MS, RECONNECT_MAX_MS, RECONNECT_MS,
    TransportError, set_common_options,
};
use crate::call::{CallError, ErrorKind, RemoteError};
use crate::transport::CurveKeypair;
use crate::transport::header::{Header, Kind, decode_error};

/// Calls that may wait for one connection to be made. Callers have deadlines, so more than
/// this means that they ask faster than they give up.
const MAX_WAITING: usize = 1024;
/// A call that finds no connection starts a new attempt if the last socket is older.
/// Younger ones are about to try by themselves.
const FRESH: Duration = Duration::from_millis(200);
/// While calls wait, a socket without success is replaced after this long: some handshake
/// failures make libzmq give up for good.
const REPLACE_AFTER: Duration = Duration::from_secs(5);
/// Messages taken from one socket before others get their turn.
const RECEIVE_BATCH: usize = 256;

type Answer = Result<Vec<u8>, CallError>;

/// What connections tell the thread.
pub(super) enum ToLinks {
    /// Connect.
    Open { link: usize, address: Address, server_key: Option<String> },
    /// Make a call.
    Call { link: usize, call: Waiting },
    /// The caller waits no longer.
    Cancel { link: usize, id: u64 },
    /// Disconnect.
    Close { link: usize },
    /// End.
    Stop,
}

/// A call that has not been sent.
pub(super) struct Waiting {
    pub id: u64,
    pub header: Vec<u8>,
    pub body: Vec<u8>,
    pub answer: oneshot::Sender<Answer>,
}

/// The thread's state.
pub(super) struct LinkLoop {
    keypair: Option<CurveKeypair>,
    mailroom: Mailroom<ToLinks>,
    links: HashMap<usize, Link>,
    /// Links on which calls wait for a connection.
    stalled: HashSet<usize>,
}

/// One peer.
struct Link {
    address: Address,
    server_key: Option<String>,
    /// `None` when a socket could not be made; the next call tries again.
    open: Option<OpenSocket>,
    connected: bool,
    /// When the socket was made, or lost its connection.
    since: Instant,
    /// A warning was given since the last connection.
    warned: bool,
    waiting: VecDeque<Waiting>,
    in_flight: HashMap<u64, oneshot::Sender<Answer>>,
    /// Cancellations and goodbyes, sent after everything before them.
    notices: Vec<Header>,
}

/// Fields in this order: the socket is closed before its context may end.
struct OpenSocket {
    socket: zmq::Socket,
    _context: Arc<SharedContext>,
}

impl LinkLoop {
    pub fn new(keypair: Option<CurveKeypair>, mailroom: Mailroom<ToLinks>) -> Self {
        Self { keypair, mailroom, links: HashMap::new(), stalled: HashSet::new() }
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        if let Err(error) = self.work() {
            tracing::error!(%error, "the RPC client has failed; every call will");
        }
        for link in self.links.values_mut() {
            link.unwatch(&self.mailroom);
        }
    }

    fn work(&mut self) -> io::Result<()> {
        let mut messages = Vec::new();
        // Links to look at; those in it twice are looked at once.
        let mut dirty = BTreeSet::new();
        loop {
            self.mailroom.take(&mut messages);
            for message in messages.drain(..) {
                match message {
                    ToLinks::Stop => return Ok(()),
                    other => dirty.extend(self.note(other)),
                }
            }
            // What still has messages after its turn.
            let mut busy = BTreeSet::new();
            for token in std::mem::take(&mut dirty) {
                if let Some(link) = self.links.get_mut(&token) {
                    if link.process()? {
                        busy.insert(token);
                    }
                    if link.waiting.is_empty() {
                        self.stalled.remove(&token);
                    } else {
                        self.stalled.insert(token);
                    }
                }
            }
            let timeout = if busy.is_empty() { self.replace_stalled(&mut busy) } else { None };
            dirty = busy;
            let timeout = if dirty.is_empty() { timeout } else { Some(Duration::ZERO) };
            dirty.extend(self.mailroom.wait(timeout)?);
        }
    }

    /// Takes a message in; gives the link it concerns.
    fn note(&mut self, message: ToLinks) -> Option<usize> {
        match message {
            ToLinks::Open { link: token, address, server_key } => {
                let mut link = Link {
                    address,
                    server_key,
                    open: None,
                    connected: false,
                    since: Instant::now(),
                    warned: false,
                    waiting: VecDeque::new(),
                    in_flight: HashMap::new(),
                    notices: Vec::new(),
                };
                link.reopen(token, self.keypair.as_ref(), &self.mailroom);
                self.links.insert(token, link);
                Some(token)
            }
            ToLinks::Call { link: token, call } => {
                let Some(link) = self.links.get_mut(&token) else {
                    finish(call.answer, Err(CallError::Closed));
                    return None;
                };
                let is_first = link.waiting.is_empty() && !link.connected;
                if is_first && (link.open.is_none() || link.since.elapsed() >= FRESH) {
                    link.reopen(token, self.keypair.as_ref(), &self.mailroom);
                }
                link.queue(call);
                Some(token)
            }
            ToLinks::Cancel { link: token, id } => {
                self.links.get_mut(&token)?.cancel(id);
                Some(token)
            }
            ToLinks::Close { link: token } => {
                let mut link = self.links.remove(&token)?;
                link.unwatch(&self.mailroom);
                self.stalled.remove(&token);
                None
            }
            ToLinks::Stop => None,
        }
    }

    /// Replaces the sockets that should have had success by now, adding them to `dirty`;
    /// gives the time until the next is due.
    fn replace_stalled(&mut self, dirty: &mut BTreeSet<usize>) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        for &token in &self.stalled {
            let Some(link) = self.links.get_mut(&token) else { continue };
            let age = link.since.elapsed();
            if age >= REPLACE_AFTER {
                link.warn_once(age);
                link.reopen(token, self.keypair.as_ref(), &self.mailroom);
                dirty.insert(token);
            } else {
                let left = REPLACE_AFTER - age;
                next = Some(next.map_or(left, |next| next.min(left)));
            }
        }
        next
    }
}

impl Link {
    /// Makes a new socket in place of the old one.
    fn reopen(
        &mut self,
        token: usize,
        keypair: Option<&CurveKeypair>,
        mailroom: &Mailroom<ToLinks>,
    ) {
        self.unwatch(mailroom);
        self.lose();
        match open_socket(&self.address, self.server_key.as_deref(), keypair) {
            Ok(open) => match mailroom.watch(&open.socket, token) {
                Ok(()) => self.open = Some(open),
                Err(error) => self.fail(&error),
            },
            Err(error) => self.fail(&error),
        }
    }

    /// Closes the socket.
    fn unwatch(&mut self, mailroom: &Mailroom<ToLinks>) {
        if let Some(open) = self.open.take()
            && let Err(error) = mailroom.forget(&open.socket)
        {
            tracing::debug!(%error, "a closing socket was not watched");
        }
    }

    /// Gives up on what was sent: its answers were addressed to a connection that is gone.
    fn lose(&mut self) {
        self.connected = false;
        self.since = Instant::now();
        self.notices.clear();
        for (_, answer) in self.in_flight.drain() {
            finish(answer, Err(CallError::Closed));
        }
    }

    fn fail(&mut self, error: &dyn std::error::Error) {
        let reason = error.source().map(ToString::to_string);
        tracing::error!(%error, reason, address = %self.address.text, "cannot connect");
        for call in self.waiting.drain(..) {
            finish(call.answer, Err(CallError::Closed));
        }
    }

    fn warn_once(&mut self, age: Duration) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                address = %self.address.text,
                encrypted = self.server_key.is_some(),
                seconds = age.as_secs(),
                calls = self.waiting.len(),
                "calls wait for a connection: the peer is down or unreachable, or one side \
                 does not know the other's public key (the peer's log tells)"
            );
        }
    }

    fn queue(&mut self, call: Waiting) {
        if self.open.is_none() {
            finish(call.answer, Err(CallError::Closed));
        } else if self.waiting.len() < MAX_WAITING || self.connected {
            self.waiting.push_back(call);
        } else {
            let text = format!("{MAX_WAITING} calls wait for {} already", self.address.text);
            let error = RemoteError::new(ErrorKind::EngineUnavailable, text);
            finish(call.answer, Err(error.into()));
        }
    }

    fn cancel(&mut self, id: u64) {
        if self.in_flight.remove(&id).is_some() {
            self.notices.push(Header::plain(id, Kind::Cancel));
        } else {
            // Never sent, so the far side need not know. Or answered a moment ago.
            self.waiting.retain(|call| call.id != id);
        }
    }

    /// Receives and sends what there is; true if there may be more to receive.
    fn process(&mut self) -> io::Result<bool> {
        let failed = |error: zmq::Error| io::Error::other(error.message());
        for _ in 0..RECEIVE_BATCH {
            let Some(open) = &self.open else { return Ok(false) };
            if let Some(frames) = receive(&open.socket).map_err(failed)? {
                self.dispatch(&frames);
                continue;
            }
            // Asking for the events also makes libzmq look at what its I/O thread did.
            let events = open.socket.get_events().map_err(failed)?;
            if events.contains(zmq::POLLIN) {
                continue;
            }
            let connected = events.contains(zmq::POLLOUT);
            if self.connected && !connected {
                tracing::debug!(address = %self.address.text, "RPC connection lost");
                self.lose();
            }
            if connected && !self.connected {
                tracing::debug!(address = %self.address.text, "RPC connection made");
                self.warned = false;
            }
            self.connected = connected;
            if !connected || !self.send_next() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends what is queued; false if there was nothing. The socket must be connected.
    fn send_next(&mut self) -> bool {
        let Some(OpenSocket { socket, .. }) = &self.open else { return false };
        let mut any = false;
        while let Some(Waiting { id, header, body, answer }) = self.waiting.pop_front() {
            any = true;
            match send(socket, header, body) {
                Ok(()) => drop(self.in_flight.insert(id, answer)),
                // Lost this very moment; the next look at the events tells.
                Err(_) => finish(answer, Err(CallError::Closed)),
            }
        }
        for notice in self.notices.drain(..) {
            any = true;
            if send(socket, notice.encode(), Vec::new()).is_err() {
                tracing::debug!(kind = ?notice.kind, "a notice is lost with its connection");
            }
        }
        any
    }

    fn dispatch(&mut self, frames: &[zmq::Message]) {
        let [header, body] = frames else {
            tracing::debug!(frames = frames.len(), "an RPC answer has other than two frames");
            return;
        };
        match Header::decode(header) {
            // After all that came before it.
            Ok(header) if header.kind == Kind::Bye => self.notices.push(header),
            Ok(header) => {
                // Absent when the caller waits no longer.
                let Some(answer) = self.in_flight.remove(&header.id) else { return };
                let result = match header.kind {
                    Kind::Reply => Ok(body.to_vec()),
                    Kind::Error => Err(decode_error(body)),
                    Kind::Request | Kind::Cancel | Kind::Bye => {
                        Err(CallError::Malformed("a server sent a request".into()))
                    }
                };
                finish(answer, result);
            }
            Err(error) => tracing::debug!(%error, "an RPC answer has no readable header"),
        }
    }
}

/// Gives a caller its result. One that went away meanwhile needs none.
fn finish(answer: oneshot::Sender<Answer>, result: Answer) {
    let _gone = answer.send(result);
}

fn open_socket(
    address: &Address,
    server_key: Option<&str>,
    keypair: Option<&CurveKeypair>,
) -> Result<OpenSocket, TransportError> {
    let (context, socket) = context::socket(zmq::DEALER)?;
    let configure = || {
        set_common_options(&socket, address)?;
        // See the module's documentation: writable means connected.
        socket.set_immediate(true)?;
        socket.set_sndhwm(0)?;
        socket.set_rcvhwm(0)?;
        socket.set_reconnect_ivl(RECONNECT_MS)?;
        socket.set_reconnect_ivl_max(RECONNECT_MAX_MS)?;
        socket.set_connect_timeout(super::HANDSHAKE_MS)?;
        socket.set_heartbeat_ivl(HEARTBEAT_MS)?;
        socket.set_heartbeat_timeout(HEARTBEAT_TIMEOUT_MS)?;
        socket.set_heartbeat_ttl(HEARTBEAT_TTL_MS)?;
        if let Some(server_key) = server_key {
            let stranger;
            let keypair = match keypair {
                Some(keypair) => keypair,
                None => {
                    stranger = CurveKeypair::generate();
                    &stranger
                }
            };
            socket.set_curve_serverkey(server_key.as_bytes())?;
            socket.set_curve_publickey(keypair.public_key.as_bytes())?;
            socket.set_curve_secretkey(keypair.secret_key().as_bytes())?;
        }
        socket.connect(&address.text)
    };
    configure()
        .map_err(|source| TransportError::Zmq { doing: "configure an RPC client", source })?;
    Ok(OpenSocket { socket, _context: context })
}

fn send(socket: &zmq::Socket, header: Vec<u8>, body: Vec<u8>) -> zmq::Result<()> {
    socket.send(header, zmq::DONTWAIT | zmq::SNDMORE)?;
    socket.send(body, zmq::DONTWAIT)
}

/// The next message, `None` if there is no more for now.
fn receive(socket: &zmq::Socket) -> zmq::Result<Option<Vec<zmq::Message>>> {
    let mut frames = Vec::with_capacity(2);
    loop {
        match socket.recv_msg(zmq::DONTWAIT) {
            Ok(frame) => {
                let more = frame.get_more();
                frames.push(frame);
                if !more {
                    return Ok(Some(frames));
                }
            }
            Err(zmq::Error::EAGAIN) => return Ok(None),
            Err(zmq::Error::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}
