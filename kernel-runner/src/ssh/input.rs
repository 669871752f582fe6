//! What the client has sent on one channel and its receiver has not taken yet.
//!
//! The library reads a connection packet by packet and waits for whoever handles one, and
//! it allows the client to send more as soon as something has *arrived*. To wait for a
//! program that does not read would stop the whole connection, even the messages that the
//! program's own output waits for: `ssh host cat < large` would never end. Not to wait
//! would take memory without end.
//!
//! So nothing waits for a receiver, but while one is behind, the client is allowed
//! [`HELD_WINDOW`] bytes at a time. It then sends as little as that, and each such packet
//! is an occasion to look again, which [`PAUSE`] makes a rare one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes that a client may send before it must be allowed more.
pub const WINDOW: u32 = 1 << 20;
/// The same while the receiver is behind. The library allows more once less than half of
/// it is left.
pub const HELD_WINDOW: u32 = 2;
/// A receiver with so many bytes before it is behind.
const BEHIND: usize = WINDOW as usize / 4;
/// How long a receiver that is behind holds up the connection at each occasion.
const PAUSE: Duration = Duration::from_millis(20);
/// With so many bytes the connection waits after all. A client that keeps to what it is
/// allowed comes near it only with several channels.
const FULL: usize = 16 * WINDOW as usize;

/// A channel for the input of one receiver.
pub fn channel() -> (Feeder, Input) {
    let shared = Arc::new(Shared::default());
    (Feeder(Arc::clone(&shared)), Input(shared))
}

/// The end at which pieces arrive.
pub struct Feeder(Arc<Shared>);

/// The end at which pieces are taken. Without it, they are thrown away.
pub struct Input(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Notify,
    taken: Notify,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// Nothing more will arrive.
    ended: bool,
    /// Nobody takes anything any more.
    abandoned: bool,
}

impl Shared {
    fn with<T>(&self, action: impl FnOnce(&mut Queue) -> T) -> T {
        action(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Feeder {
    /// Adds a piece, and holds up its sender if it must be.
    pub async fn give(&self, piece: &[u8]) {
        let held = piece.len() <= HELD_WINDOW as usize;
        self.0.with(|queue| {
            if !queue.abandoned {
                queue.bytes += piece.len();
                queue.pieces.push_back(Bytes::copy_from_slice(piece));
            }
        });
        self.0.arrived.notify_one();
        if held && self.is_behind() {
            // Whether it has caught up or not, the connection must go on.
            let _ = tokio::time::timeout(PAUSE, self.below(BEHIND)).await;
        }
        self.below(FULL).await;
    }

    /// No more will be added.
    pub fn end(&self) {
        self.0.with(|queue| queue.ended = true);
        self.0.arrived.notify_one();
    }

    /// True while there is much to take.
    pub fn is_behind(&self) -> bool {
        self.0.with(|queue| queue.bytes >= BEHIND)
    }

    async fn below(&self, limit: usize) {
        while self.0.with(|queue| queue.bytes >= limit) {
            self.0.taken.notified().await;
        }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.end();
    }
}

impl Input {
    /// The next piece; `None` after the last.
    pub async fn next(&self) -> Option<Bytes> {
        loop {
            let next = self.0.with(|queue| match queue.pieces.pop_front() {
                Some(piece) => {
                    queue.bytes -= piece.len();
                    Some(Some(piece))
                }
                None => queue.ended.then_some(None),
            });
            if let Some(next) = next {
                self.0.taken.notify_one();
                return next;
            }
            self.0.arrived.notified().await;
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.0.with(|queue| *queue = Queue { abandoned: true, ..Queue::default() });
        self.0.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_arrive_in_order_and_the_end_after_them() {
        let (feeder, input) = channel();
        feeder.give(b"one").await;
        feeder.give(b"two").await;
        feeder.end();
        assert_eq!(input.next().await.unwrap(), "one");
        assert_eq!(input.next().await.unwrap(), "two");
        assert_eq!(input.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_is_behind_holds_up_small_pieces_only_and_for_a_while_only() {
        let (feeder, input) = channel();
        let large = vec![0; BEHIND];
        let start = tokio::time::Instant::now();
        feeder.give(&large).await;
        feeder.give(&large).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(feeder.is_behind());
        feeder.give(b"x").await;
        assert_eq!(start.elapsed(), PAUSE);
        input.next().await;
        input.next().await;
        assert!(!feeder.is_behind());
        feeder.give(b"x").await;
        assert_eq!(start.elapsed(), PAUSE);
    }

    #[tokio::test]
    async fn what_nobody_takes_is_thrown_away() {
        let (feeder, input) = channel();
        feeder.give(&vec![0; FULL - 1]).await;
        drop(input);
        feeder.give(&vec![0; FULL]).await;
        assert!(!feeder.is_behind());
    }
}
