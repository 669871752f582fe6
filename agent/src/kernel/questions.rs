//! Questions to a runner whose answers come when they come.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use tokio::sync::oneshot;

use backendai_rpc::runner::{ServiceStart, StreamError};

/// What a runner answers.
pub enum Answer {
    /// Candidates, best first.
    Completions(Vec<String>),
    /// What came of starting a service.
    Service(ServiceStart),
    /// An open stream.
    Stream(Result<OwnedFd, StreamError>),
}

/// The questions that wait for an answer.
#[derive(Default)]
pub struct Questions {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next: AtomicU64,
}

/// One question; forgotten when dropped.
pub struct Question<'a> {
    /// Names it.
    pub id: u64,
    answered: oneshot::Receiver<Answer>,
    all: &'a Questions,
}

impl Questions {
    /// A new one.
    pub fn ask(&self) -> Question<'_> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().insert(id, answer);
        Question { id, answered, all: self }
    }

    /// Hands an answer to who asked. Late ones are dropped.
    pub fn answer(&self, id: u64, answer: Answer) {
        if let Some(asker) = self.waiting.lock().remove(&id) {
            // Whoever asked may have given up this very moment.
            let _gone = asker.send(answer);
        }
    }

    /// Nobody will answer any more.
    pub fn close(&self) {
        self.waiting.lock().clear();
    }
}

impl Question<'_> {
    /// The answer; `None` if there will be none.
    pub async fn answer(&mut self) -> Option<Answer> {
        (&mut self.answered).await.ok()
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.all.waiting.lock().remove(&self.id);
    }
}
