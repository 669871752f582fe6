//! The last output of a terminal, by the numbers of its bytes.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes kept: some ten thousand lines, enough to paint any screen again.
pub const CAPACITY: usize = 1 << 20;
/// Where a whole line is looked for, at the beginning of what is kept.
const LINE_SEARCH: usize = 4 << 10;

/// Keeps at most [`CAPACITY`] bytes, and takes memory only as it fills.
pub struct Ring {
    bytes: VecDeque<u8>,
    first: u64,
    end: u64,
}

impl Ring {
    /// An empty one, whose first byte will have the number `first`.
    pub fn new(first: u64) -> Self {
        Self { bytes: VecDeque::new(), first, end: first }
    }

    /// Number of the first byte there ever was.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Number of the oldest byte that is kept.
    pub fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Number that the next byte will have.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Where to begin to show all that is kept: after what may be the rest of a line or of a
    /// control sequence.
    pub fn first_line(&self) -> u64 {
        let start = self.start();
        if start == self.first {
            return start;
        }
        let newline = self.bytes.iter().take(LINE_SEARCH).position(|byte| *byte == b'\n');
        newline.map_or(start, |at| start + at as u64 + 1)
    }

    /// Adds output, and forgets as much of the oldest.
    pub fn push(&mut self, output: &[u8]) {
        self.end += output.len() as u64;
        let output = &output[output.len().saturating_sub(CAPACITY)..];
        let excess = (self.bytes.len() + output.len()).saturating_sub(CAPACITY);
        self.bytes.drain(..excess);
        self.bytes.extend(output);
    }

    /// Up to `limit` bytes from number `from` on; empty if there is nothing after it, `None`
    /// if it has been forgotten.
    pub fn piece(&self, from: u64, limit: usize) -> Option<Bytes> {
        let offset = from.checked_sub(self.start())? as usize;
        let end = self.bytes.len().min(offset.saturating_add(limit));
        let (head, tail) = self.bytes.as_slices();
        Some(match offset.checked_sub(head.len()) {
            Some(_) if offset >= end => Bytes::new(),
            Some(in_tail) => Bytes::copy_from_slice(&tail[in_tail..end - head.len()]),
            None => Bytes::copy_from_slice(&head[offset..end.min(head.len())]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ring: &Ring, mut from: u64) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let piece = ring.piece(from, 1000).unwrap();
            if piece.is_empty() {
                return all;
            }
            from += piece.len() as u64;
            all.extend_from_slice(&piece);
        }
    }

    #[test]
    fn bytes_are_found_by_their_numbers_until_they_are_forgotten() {
        let mut ring = Ring::new(100);
        assert_eq!(ring.piece(100, 10).unwrap(), "");
        ring.push(b"0123456789");
        assert_eq!((ring.start(), ring.end()), (100, 110));
        assert_eq!(ring.piece(104, 3).unwrap(), "456");
        assert_eq!(ring.piece(104, 100).unwrap(), "456789");
        assert_eq!(ring.piece(110, 100).unwrap(), "");
        assert_eq!(ring.piece(99, 1), None);
    }

    #[test]
    fn a_full_ring_keeps_the_newest_in_order() {
        let mut ring = Ring::new(0);
        let all: Vec<u8> = (0..3 * CAPACITY + 12_345).map(|i| (i % 251) as u8).collect();
        for piece in all.chunks(7_001) {
            ring.push(piece);
        }
        assert_eq!(ring.end(), all.len() as u64);
        assert_eq!(ring.start(), (all.len() - CAPACITY) as u64);
        assert!(read(&ring, ring.start()) == all[all.len() - CAPACITY..]);
        ring.push(&all);
        assert!(read(&ring, ring.start()) == all[all.len() - CAPACITY..]);
    }

    #[test]
    fn what_is_shown_begins_with_a_whole_line_once_something_is_forgotten() {
        let mut ring = Ring::new(0);
        ring.push(b"a\nb\n");
        assert_eq!(ring.first_line(), 0);
        ring.push(&vec![b'x'; CAPACITY - 3]);
        assert_eq!(ring.start(), 1);
        assert_eq!(ring.first_line(), 2);
    }
}
