//! The thread of a server: moves frames between the ROUTER socket and tokio tasks.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::inbox::{Inbox, Mailroom};
use super::zap::split_user_id;
use crate::call::{ErrorKind, RemoteError, Service};
use crate::transport::header::{Header, Kind, encode_answer};
use crate::transport::{MAX_BODY, PeerDirectory, reply_too_large};

/// How long clients may take to read their answers at a shutdown.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long what is sent may take to leave a closed socket, milliseconds.
const LINGER_MS: i32 = 100;
/// Fewest clients of which those answered long ago are looked for to be forgotten.
const FORGET_AT: usize = 256;

/// Requests taken before answers get their turn.
const RECEIVE_BATCH: usize = 256;

/// What tasks and the owner tell the thread.
pub(super) enum ToServer {
    /// A call has an answer.
    Answer(CallKey, Result<Vec<u8>, RemoteError>),
    /// A call ended without one, as nobody waits for it.
    Gone(CallKey),
    /// Take no new calls.
    Drain,
    /// End; with `flush`, answers given so far are still sent.
    Stop { flush: bool },
}

/// Names a call: the client's routing id, and the id the client gave the call.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct CallKey {
    client: Arc<[u8]>,
    id: u64,
}

/// The thread's state.
pub(super) struct ServerLoop {
    socket: zmq::Socket,
    endpoint: String,
    directory: Option<Arc<dyn PeerDirectory>>,
    service: Arc<dyn Service>,
    max_in_flight: usize,
    runtime: Handle,
    tracker: TaskTracker,
    inbox: Arc<Inbox<ToServer>>,
    calls: HashMap<CallKey, AbortHandle>,
    draining: bool,
    /// When each client was last sent an answer; those of long ago may be missing.
    answered: HashMap<Arc<[u8]>, Instant>,
    /// At how many of them some are forgotten; doubles with those that must stay, so that
    /// an answer costs the same however many clients there are.
    forget_at: usize,
}

/// One message as it arrived.
struct Incoming {
    client: Arc<[u8]>,
    header: Header,
    body: Vec<u8>,
    /// Proven key and name, as the ZAP handler put them together.
    user_id: Option<String>,
}

impl ServerLoop {
    #[expect(clippy::too_many_arguments, reason = "called once; a struct would repeat this one")]
    pub fn new(
        socket: zmq::Socket,
        endpoint: String,
        directory: Option<Arc<dyn PeerDirectory>>,
        service: Arc<dyn Service>,
        max_in_flight: usize,
        runtime: Handle,
        tracker: TaskTracker,
        inbox: Arc<Inbox<ToServer>>,
    ) -> Self {
        Self {
            socket,
            endpoint,
            directory,
            service,
            max_in_flight,
            runtime,
            tracker,
            inbox,
            calls: HashMap::new(),
            draining: false,
            answered: HashMap::new(),
            forget_at: FORGET_AT,
        }
    }

    /// Works until told to stop.
    pub fn run(mut self, mut mailroom: Mailroom<ToServer>) {
        let ended = self.work(&mut mailroom);
        for call in self.calls.values() {
            call.abort();
        }
        let flush = match ended {
            Ok(flush) => flush,
            Err(error) => {
                tracing::error!(%error, endpoint = %self.endpoint, "the RPC server has failed");
                false
            }
        };
        if flush {
            let said = self.say_goodbye(&mut mailroom).and_then(|()| {
                self.socket.set_linger(LINGER_MS).map_err(|e| io::Error::other(e.message()))
            });
            if let Err(error) = said {
                tracing::warn!(%error, "the last RPC answers may be lost");
            }
        }
        if let Err(error) = mailroom.forget(&self.socket) {
            tracing::debug!(%error, "a closing socket was not watched");
        }
    }

    fn work(&mut self, mailroom: &mut Mailroom<ToServer>) -> io::Result<bool> {
        let mut messages = Vec::new();
        loop {
            mailroom.take(&mut messages);
            for message in messages.drain(..) {
                match message {
                    ToServer::Answer(key, result) => self.answer(&key, result),
                    ToServer::Gone(key) => drop(self.calls.remove(&key)),
                    // Not unbound yet: that would close the connections, too.
                    ToServer::Drain => self.draining = true,
                    ToServer::Stop { flush } => return Ok(flush),
                }
            }
            // After everything sent: see `Mailroom::watch`. Refusals are sent from within,
            // but receiving goes on until nothing is left after them, too.
            let mut room = RECEIVE_BATCH;
            while room > 0
                && let Some(incoming) = self.receive()?
            {
                self.accept(incoming);
                room -= 1;
            }
            if room > 0 {
                let _only_one_socket = mailroom.wait(None)?.count();
            }
        }
    }

    /// Waits until the clients have read their last answers: closing would take from them
    /// what they have not.
    fn say_goodbye(&mut self, mailroom: &mut Mailroom<ToServer>) -> io::Result<()> {
        let deadline = Instant::now() + FAREWELL;
        self.draining = true;
        self.answered.retain(|_, at| at.elapsed() < FAREWELL);
        let bye = Header::plain(0, Kind::Bye).encode();
        let mut silent: HashSet<_> = std::mem::take(&mut self.answered).into_keys().collect();
        silent.retain(|client| self.send_frames(client, bye.clone(), Vec::new()).is_ok());
        while !silent.is_empty() {
            while let Some(incoming) = self.receive()? {
                if incoming.header.kind == Kind::Bye {
                    silent.remove(&incoming.client);
                } else {
                    self.accept(incoming);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::debug!(clients = silent.len(), "clients did not answer the goodbye");
                break;
            }
            if !silent.is_empty() {
                let _only_one_socket = mailroom.wait(Some(left))?.count();
            }
        }
        Ok(())
    }

    /// The next message that makes sense, `None` if there is no more for now.
    fn receive(&self) -> io::Result<Option<Incoming>> {
        loop {
            let mut frames = match receive_frames(&self.socket) {
                Ok(frames) => frames,
                Err(zmq::Error::EAGAIN) => return Ok(None),
                Err(zmq::Error::EINTR) => continue,
                Err(error) => return Err(io::Error::other(error.message())),
            };
            let [client, header, body] = frames.as_mut_slice() else {
                tracing::debug!(frames = frames.len(), "an RPC message has other than two frames");
                continue;
            };
            let user_id = header.gets("User-Id").map(str::to_owned);
            match Header::decode(header) {
                Ok(header) => {
                    let (client, body) = (Arc::from(&**client), body.to_vec());
                    return Ok(Some(Incoming { client, header, body, user_id }));
                }
                Err(error) => tracing::debug!(%error, "an RPC message has no readable header"),
            }
        }
    }

    fn accept(&mut self, incoming: Incoming) {
        let key = CallKey { client: Arc::clone(&incoming.client), id: incoming.header.id };
        match incoming.header.kind {
            Kind::Request => {
                let started = match self.admit(&key, &incoming) {
                    Ok(peer) => self.start(key.clone(), incoming, peer),
                    Err(error) => Err(error),
                };
                if let Err(error) = started {
                    self.send(&key, Err(error));
                }
            }
            Kind::Cancel => {
                if let Some(call) = self.calls.remove(&key) {
                    call.abort();
                }
            }
            Kind::Bye => {}
            Kind::Reply | Kind::Error => tracing::debug!("an RPC client sent an answer"),
        }
    }

    /// Decides whether a call may be carried out; gives the caller's name.
    fn admit(&self, key: &CallKey, incoming: &Incoming) -> Result<Option<String>, RemoteError> {
        let busy = |text: String| Err(RemoteError::new(ErrorKind::EngineUnavailable, text));
        let peer = match &self.directory {
            None => None,
            Some(directory) => {
                let user = incoming.user_id.as_deref().and_then(split_user_id);
                let known = user
                    .filter(|(public, name)| directory.peer_of(public).as_deref() == Some(*name));
                let Some((_, name)) = known else {
                    return Err(RemoteError::new(
                        ErrorKind::InvalidInput,
                        "the caller's public key is not known here any more",
                    ));
                };
                Some(name.to_owned())
            }
        };
        if self.draining {
            return busy("the server is shutting down".into());
        }
        if self.calls.len() >= self.max_in_flight {
            return busy(format!("the server is busy with {} calls already", self.calls.len()));
        }
        if self.calls.contains_key(key) {
            return Err(RemoteError::new(
                ErrorKind::InvalidInput,
                format!("there is already a call {} on this connection", key.id),
            ));
        }
        Ok(peer)
    }

    fn start(
        &mut self,
        key: CallKey,
        incoming: Incoming,
        peer: Option<String>,
    ) -> Result<(), RemoteError> {
        let service = Arc::clone(&self.service);
        let mut pending = PendingCall { inbox: Arc::clone(&self.inbox), key: Some(key.clone()) };
        let span = tracing::info_span!(
            "rpc",
            method = %incoming.header.method,
            peer = peer.as_deref(),
            request_id = incoming.header.request_id.as_deref(),
            epoch = incoming.header.epoch,
        );
        let work = async move {
            let Incoming { header, body, .. } = incoming;
            let serving = service.serve(header.context(peer), &header.method, &body);
            // The caller's own deadline: its cancellation may get lost.
            let result = match header.timeout() {
                None => serving.await,
                Some(limit) => match tokio::time::timeout(limit, serving).await {
                    Ok(result) => result,
                    Err(_) => {
                        tracing::debug!(?limit, "a call is abandoned, its caller waits no longer");
                        return;
                    }
                },
            };
            pending.answer(result.and_then(|reply| match reply.len() {
                bytes if bytes > MAX_BODY => Err(reply_too_large(&header.method, bytes)),
                _ => Ok(reply),
            }));
        };
        let task = self.tracker.spawn_on(work.instrument(span), &self.runtime);
        self.calls.insert(key, task.abort_handle());
        Ok(())
    }

    fn answer(&mut self, key: &CallKey, result: Result<Vec<u8>, RemoteError>) {
        // Absent when the caller has cancelled meanwhile.
        if self.calls.remove(key).is_some() {
            self.send(key, result);
        }
    }

    fn send(&mut self, key: &CallKey, result: Result<Vec<u8>, RemoteError>) {
        let (header, body) = encode_answer(key.id, result);
        match self.send_frames(&key.client, header, body) {
            Ok(()) => {
                if self.answered.len() >= self.forget_at {
                    self.answered.retain(|_, at| at.elapsed() < FAREWELL);
                    self.forget_at = FORGET_AT.max(2 * self.answered.len());
                }
                self.answered.insert(Arc::clone(&key.client), Instant::now());
            }
            Err(zmq::Error::EHOSTUNREACH) => {
                tracing::debug!("an RPC answer is dropped, its client is gone");
            }
            Err(error) => tracing::warn!(%error, "an RPC answer is dropped"),
        }
    }

    fn send_frames(&self, client: &[u8], header: Vec<u8>, body: Vec<u8>) -> zmq::Result<()> {
        let flags = zmq::DONTWAIT | zmq::SNDMORE;
        self.socket.send(client, flags)?;
        self.socket.send(header, flags)?;
        self.socket.send(body, zmq::DONTWAIT)
    }
}

/// Sees to it that the thread hears of a call's end however its task ends: answered,
/// out of time, aborted or in a panic.
struct PendingCall {
    inbox: Arc<Inbox<ToServer>>,
    key: Option<CallKey>,
}

impl PendingCall {
    fn answer(&mut self, result: Result<Vec<u8>, RemoteError>) {
        if let Some(key) = self.key.take() {
            // An error means that the server has ended: nobody can be answered.
            let _ended = self.inbox.push(ToServer::Answer(key, result));
        }
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.answer(Err(RemoteError::new(
                ErrorKind::Internal,
                "the call panicked; see the server's log",
            )));
        } else if let Some(key) = self.key.take() {
            let _ended = self.inbox.push(ToServer::Gone(key));
        }
    }
}

fn receive_frames(socket: &zmq::Socket) -> zmq::Result<Vec<zmq::Message>> {
    let mut frames = Vec::with_capacity(3);
    loop {
        let frame = socket.recv_msg(zmq::DONTWAIT)?;
        let more = frame.get_more();
        frames.push(frame);
        if !more {
            return Ok(frames);
        }
    }
}
