//! Collects every child that ends: our own, and orphans that PID 1 inherits.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Exit {
    /// The code as a shell shows it: 128 + signal if a signal ended the process.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// The children that were started here and have not ended.
#[derive(Default)]
pub struct Reaper {
    waiting: RefCell<HashMap<Pid, oneshot::Sender<Exit>>>,
    changed: Notify,
}

impl Reaper {
    /// Registers a child right after it was started, before the next `await`: so its end
    /// cannot be seen first.
    pub fn register(&self, pid: Pid) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(pid, sender);
        receiver
    }

    /// Collects what ends, for ever.
    ///
    /// # Errors
    /// If the signal cannot be watched; nothing works then.
    pub async fn run(self: Rc<Self>) -> std::io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        loop {
            self.collect();
            ended.recv().await;
        }
    }

    /// Collects what has ended. True if no child is left.
    fn collect(&self) -> bool {
        loop {
            let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(ended)) => ended,
                Ok(None) => return false,
                Err(error) => return error == Errno::CHILD,
            };
            if let Some(exit) = exit(status) {
                if let Some(sender) = self.waiting.borrow_mut().remove(&pid) {
                    // Whoever started it may have lost interest.
                    let _ = sender.send(exit);
                }
                self.changed.notify_waiters();
            }
        }
    }

    /// Sends a signal to a child's process group. Nothing happens once the child has been
    /// collected, because the number may belong to another process then.
    pub fn signal_group(&self, pid: Pid, signal: Signal) {
        if self.waiting.borrow().contains_key(&pid) {
            // It fails if the child has ended this moment.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }

    /// Sends a signal to the groups of all children.
    pub fn signal_all_groups(&self, signal: Signal) {
        for pid in self.waiting.borrow().keys() {
            let _ = rustix::process::kill_process_group(*pid, signal);
        }
    }

    /// Waits until there is no child left, inherited ones included.
    pub async fn all_gone(&self) {
        loop {
            let changed = self.changed.notified();
            if self.collect() {
                return;
            }
            changed.await;
        }
    }
}

/// `None` if the process only stopped or went on.
fn exit(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}
