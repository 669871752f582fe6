//! The life of a terminal: from the start of its shell to the shell's end.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};

use super::ring::{CAPACITY, Ring};
use crate::process::{Exit, Program, Pty, Reaper, Size, Spawner};

/// What the fastest viewer may lag behind before the programs wait for it.
const PACE: u64 = CAPACITY as u64 / 4;
/// How long programs wait for viewers that take nothing: those that are gone without a word
/// must not stop a computation.
const STALL_TIME: Duration = Duration::from_secs(10);
/// Bytes read at once.
const CHUNK: usize = 32 << 10;
/// Chunks that the system may hold back when the shell ends; it holds 64 KiB.
const LAST_CHUNKS: usize = 4;
/// Shells, best first.
const SHELLS: [&str; 3] = ["bash", "ash", "sh"];
/// What every viewer is expected to understand.
const TERM: &str = "xterm-256color";

/// A terminal with its shell, and after the shell's end what it printed.
pub struct Life {
    /// `None` after the end.
    pty: RefCell<Option<Rc<Pty>>>,
    pid: Pid,
    ring: RefCell<Ring>,
    viewers: RefCell<BTreeMap<u64, Position>>,
    next_id: Cell<u64>,
    /// There is more output, or none any more.
    output: Notify,
    /// A viewer took something, came or left.
    taken: Notify,
}

/// How far a viewer is.
struct Position {
    next: u64,
    /// It took nothing for [`STALL_TIME`], and is waited for no more until it does.
    stalled: bool,
}

impl Life {
    /// Starts a shell; its output has the numbers from `first` on.
    ///
    /// # Errors
    /// A message for the user, if the image has no shell or the system refuses.
    pub fn start(
        spawner: &Spawner,
        first: u64,
        size: Size,
    ) -> Result<(Self, oneshot::Receiver<Exit>), String> {
        let shell = find_shell(spawner).ok_or("this image has no shell")?;
        let failed = |error: io::Error| format!("start {}: {error}", shell.display());
        let (pty, terminal) = Pty::open(spawner.ids(), size).map_err(failed)?;
        let started = spawner.start_on_terminal(
            &Program {
                path: &shell,
                // Not as a login shell: `/etc/profile` would forget the image's PATH.
                args: Vec::new(),
                variables: vec![("TERM", TERM), ("SHELL", shell.to_str().unwrap_or("/bin/sh"))],
                inherit: Vec::new(),
            },
            terminal,
        );
        let started = started.map_err(failed)?;
        let life = Self {
            pty: RefCell::new(Some(Rc::new(pty))),
            pid: started.pid,
            ring: RefCell::new(Ring::new(first)),
            viewers: RefCell::default(),
            next_id: Cell::new(0),
            output: Notify::new(),
            taken: Notify::new(),
        };
        Ok((life, started.exit))
    }

    /// Keeps what is printed until the shell ends.
    pub async fn run(&self, mut exit: oneshot::Receiver<Exit>) {
        let Some(pty) = self.pty() else { return };
        let mut chunk = Vec::with_capacity(CHUNK);
        loop {
            let read = async {
                self.room().await;
                pty.read(&mut chunk).await
            };
            let open = tokio::select! {
                biased;
                _ = &mut exit => break,
                open = read => open,
            };
            self.keep(&mut chunk);
            if !open {
                // Nobody has the terminal open; the shell may have closed it, and goes on.
                let _ = exit.await;
                break;
            }
        }
        // What was printed until now: programs in the background may go on for ever.
        for _ in 0..LAST_CHUNKS {
            pty.read_now(&mut chunk);
            self.keep(&mut chunk);
        }
        self.pty.replace(None);
        self.output.notify_waiters();
    }

    fn keep(&self, chunk: &mut Vec<u8>) {
        if !chunk.is_empty() {
            self.ring.borrow_mut().push(chunk);
            chunk.clear();
            self.output.notify_waiters();
        }
    }

    /// Waits until the fastest viewer is near enough, or nobody is waited for. Slower ones
    /// find what they miss in the ring, or skip it.
    async fn room(&self) {
        loop {
            let taken = self.taken.notified();
            let end = self.ring.borrow().end();
            let fastest = {
                let viewers = self.viewers.borrow();
                viewers.values().filter(|viewer| !viewer.stalled).map(|viewer| viewer.next).max()
            };
            if fastest.is_none_or(|next| end - next <= PACE) {
                return;
            }
            if tokio::time::timeout(STALL_TIME, taken).await.is_err() {
                for viewer in self.viewers.borrow_mut().values_mut() {
                    viewer.stalled = true;
                }
            }
        }
    }

    /// Types.
    pub async fn input(&self, bytes: &[u8]) {
        if let Some(pty) = self.pty() {
            // A terminal that is gone ends its viewers, and nothing else is to be done.
            let _ = pty.write(bytes).await;
        }
    }

    /// Changes the size.
    pub fn resize(&self, size: Size) {
        if let Some(pty) = self.pty() {
            pty.resize(size);
        }
    }

    fn pty(&self) -> Option<Rc<Pty>> {
        self.pty.borrow().clone()
    }

    /// Ends the shell and what it runs, as if the line to the terminal was cut: shells ignore
    /// SIGTERM.
    pub fn hang_up(&self, reaper: &Reaper) {
        reaper.signal_group(self.pid, Signal::HUP);
    }

    /// True after the last output.
    pub fn has_ended(&self) -> bool {
        self.pty.borrow().is_none()
    }

    /// What was printed.
    pub fn ring(&self) -> Ref<'_, Ring> {
        self.ring.borrow()
    }

    /// Resolves when there is more in [`Self::ring`] or it has ended, after this call.
    pub fn changed(&self) -> Notified<'_> {
        self.output.notified()
    }

    /// Another viewer; returns its id.
    pub fn enter(&self, next: u64) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        self.viewers.borrow_mut().insert(id, Position { next, stalled: false });
        self.taken.notify_waiters();
        id
    }

    /// How far a viewer is.
    pub fn position(&self, id: u64) -> u64 {
        self.viewers.borrow().get(&id).map_or(0, |viewer| viewer.next)
    }

    /// A viewer has taken what is before `next`.
    pub fn advance(&self, id: u64, next: u64) {
        self.viewers.borrow_mut().insert(id, Position { next, stalled: false });
        self.taken.notify_waiters();
    }

    /// A viewer is gone.
    pub fn leave(&self, id: u64) {
        self.viewers.borrow_mut().remove(&id);
        self.taken.notify_waiters();
    }
}

fn find_shell(spawner: &Spawner) -> Option<PathBuf> {
    let find = |name| spawner.environ().find_program(name, spawner.work()).ok();
    SHELLS.into_iter().find_map(find)
}
