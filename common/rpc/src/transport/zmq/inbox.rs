//! How the tokio side reaches a socket's thread, and how that thread sleeps.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;

/// Token of the waker; sockets count up from 0.
const WAKE: Token = Token(usize::MAX);
/// Events taken from the system at a time; more only take another turn.
const EVENTS: usize = 256;

/// A queue into a thread that sleeps on sockets. Never blocks the sender. It has no bound
/// of its own: what is in it is bounded by the calls in flight.
pub(super) struct Inbox<T> {
    /// `None` once the thread is gone.
    queue: Mutex<Option<Vec<T>>>,
    /// Spares the system call while the thread is awake anyway.
    asleep: AtomicBool,
    waker: Waker,
}

impl<T> Inbox<T> {
    /// Hands a message to the thread.
    ///
    /// # Errors
    /// The thread has ended; the message comes back.
    pub fn push(&self, message: T) -> Result<(), T> {
        match self.queue.lock().as_mut() {
            Some(queue) => queue.push(message),
            None => return Err(message),
        }
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "an RPC thread cannot be woken");
        }
        Ok(())
    }
}

/// The thread's end: its inbox, and the sockets it sleeps on.
pub(super) struct Mailroom<T> {
    inbox: Arc<Inbox<T>>,
    poll: Poll,
    events: Events,
}

impl<T> Mailroom<T> {
    /// A new inbox with its reading end.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let inbox =
            Inbox { queue: Mutex::new(Some(Vec::new())), asleep: AtomicBool::new(false), waker };
        Ok(Self { inbox: Arc::new(inbox), poll, events: Events::with_capacity(EVENTS) })
    }

    /// The senders' end.
    pub fn inbox(&self) -> Arc<Inbox<T>> {
        Arc::clone(&self.inbox)
    }

    /// Watches a socket. Readiness is reported once per change, as libzmq's own descriptor
    /// works: before sleeping again the thread must have received until there is nothing
    /// left, *after* anything it sent.
    pub fn watch(&self, socket: &zmq::Socket, token: usize) -> io::Result<()> {
        let fd = socket.get_fd().map_err(|error| io::Error::other(error.message()))?;
        self.poll.registry().register(&mut SourceFd(&fd), Token(token), Interest::READABLE)
    }

    /// Stops watching a socket; to be done before closing it, as libzmq closes the
    /// descriptor whenever it likes.
    pub fn forget(&self, socket: &zmq::Socket) -> io::Result<()> {
        let fd = socket.get_fd().map_err(|error| io::Error::other(error.message()))?;
        self.poll.registry().deregister(&mut SourceFd(&fd))
    }

    /// Appends to `messages` what has arrived.
    pub fn take(&self, messages: &mut Vec<T>) {
        if let Some(queue) = self.inbox.queue.lock().as_mut() {
            messages.append(queue);
        }
    }

    /// Sleeps until a message or a socket is there or the time is over, and gives the tokens
    /// of the sockets to look at.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = usize>> {
        self.inbox.asleep.store(true, Ordering::SeqCst);
        // Looked at after announcing the sleep: a sender that came before sees no need
        // to wake anybody, one that comes after does.
        let has_mail = self.inbox.queue.lock().as_ref().is_some_and(|queue| !queue.is_empty());
        let timeout = if has_mail { Some(Duration::ZERO) } else { timeout };
        let polled = self.poll.poll(&mut self.events, timeout);
        self.inbox.asleep.store(false, Ordering::SeqCst);
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            other => other?,
        }
        Ok(self.events.iter().map(|event| event.token()).filter(|t| *t != WAKE).map(|t| t.0))
    }
}

impl<T> Drop for Mailroom<T> {
    fn drop(&mut self) {
        // What is left is dropped outside of the lock: messages may push on being dropped.
        let rest = self.inbox.queue.lock().take();
        drop(rest);
    }
}
