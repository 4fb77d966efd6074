//! What is to be written to a connection, in order.

use alloc::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces for a vectored write: what was copied together, and large bodies as they are.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Bytes>,
    pub(super) tail: BytesMut,
    len: usize,
}

impl Outbox {
    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.len == 0 && self.tail.is_empty()
    }

    /// Bytes to be written. The driver pauses a connection's deliveries and reads nothing more from it while this is
    /// more than it wants to hold.
    pub fn len(&self) -> usize {
        self.len + self.tail.len()
    }

    /// The next piece.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.pieces.is_empty() && !self.tail.is_empty() {
            return Some(self.tail.split().freeze());
        }
        let piece = self.pieces.pop_front()?;
        self.len -= piece.len();
        Some(piece)
    }

    /// A large piece goes behind what was written into the tail so far.
    pub(super) fn push(&mut self, tail: &mut BytesMut, piece: Bytes) {
        let before = tail.split().freeze();
        self.len += before.len() + piece.len();
        self.pieces.push_back(before);
        self.pieces.push_back(piece);
    }
}
