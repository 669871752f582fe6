//! One look at the terminal.

use std::rc::Rc;

use bytes::Bytes;

use super::life::Life;

/// Bytes given at once.
const PIECE: usize = 32 << 10;

/// Sees a terminal's output in order, from some byte on, and types. Dropping it leaves.
pub struct Viewer {
    life: Rc<Life>,
    id: u64,
}

/// What a viewer sees next.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// What was printed.
    Piece(Bytes),
    /// The viewer was too slow, and what would be next is forgotten. What follows is the
    /// oldest that is kept.
    Skipped,
    /// The shell has ended and everything was seen.
    End,
}

impl Viewer {
    /// Enters a terminal's life where its output has the number `from`; without one at the
    /// oldest that is kept. A number that was never reached is none.
    pub(super) fn new(life: Rc<Life>, from: Option<u64>) -> Self {
        let position = {
            let ring = life.ring();
            match from.filter(|from| *from <= ring.end()) {
                Some(from) => from.max(ring.start()),
                None => ring.first_line(),
            }
        };
        let id = life.enter(position);
        Self { life, id }
    }

    /// Number of the byte that comes next.
    pub fn position(&self) -> u64 {
        self.life.position(self.id)
    }

    /// Waits for output. Dropping the future loses nothing.
    pub async fn output(&self) -> Output {
        loop {
            let changed = self.life.changed();
            let position = self.position();
            // The guard must not live on in the `await`.
            let (piece, oldest) = {
                let ring = self.life.ring();
                (ring.piece(position, PIECE), ring.first_line())
            };
            match piece {
                None => {
                    self.life.advance(self.id, oldest);
                    return Output::Skipped;
                }
                Some(piece) if !piece.is_empty() => {
                    self.life.advance(self.id, position + piece.len() as u64);
                    return Output::Piece(piece);
                }
                Some(_) if self.life.has_ended() => return Output::End,
                Some(_) => changed.await,
            }
        }
    }

    /// Types; waits while the terminal takes no more. What is typed after its end is lost.
    pub async fn input(&self, bytes: &[u8]) {
        self.life.input(bytes).await;
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.life.leave(self.id);
    }
}
