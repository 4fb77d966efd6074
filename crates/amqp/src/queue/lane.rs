//! The messages of one priority that wait, in the order in which they were published.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;

use mainstay_ids::Instant;

use super::packed::Packed;
use crate::message::{Message, Place};

/// A message in a queue.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its place in the queue's order; never given twice.
    pub(crate) position: u64,
    /// When its time is over.
    pub(crate) expires: Instant,
    pub(crate) kept: Kept,
    /// How often it came back from a consumer.
    pub(crate) returns: u32,
    /// Whether it was delivered before.
    pub(crate) redelivered: bool,
    pub(crate) medium: Medium,
    /// The priority by which it stands in its lane.
    pub(crate) lane: u8,
}

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// In memory alone, and gone with the broker.
    Memory,
    /// On disk, now or soon.
    Disk,
}

/// A message that waits, or what is left of it in memory.
#[derive(Debug)]
pub(crate) enum Kept {
    Here(Arc<Message>),
    /// Its body is on disk alone.
    Away(Packed),
}

impl Entry {
    /// Bytes of its body.
    pub(crate) fn len(&self) -> u64 {
        match &self.kept {
            Kept::Here(message) => message.body.len(),
            Kept::Away(packed) => packed.body_len(),
        }
    }

    /// Bytes of its body that are in memory and could be on disk alone.
    pub(crate) fn here(&self) -> u64 {
        match (&self.kept, self.medium) {
            (Kept::Here(message), Medium::Disk) => message.body.len(),
            (Kept::Here(_), Medium::Memory) | (Kept::Away(_), _) => 0,
        }
    }

    /// The message; a body that is on disk alone is at `place`.
    pub(crate) fn message(&self, place: Place) -> Arc<Message> {
        match &self.kept {
            Kept::Here(message) => Arc::clone(message),
            Kept::Away(packed) => Arc::new(packed.unpack(place)),
        }
    }

    /// Lets its body go, which must be on disk; how many bytes of memory that were. What is in memory alone stays.
    pub(crate) fn unload(&mut self) -> u64 {
        let bytes = self.here();
        if let Kept::Here(message) = &self.kept
            && self.medium == Medium::Disk
            && let Some(packed) = Packed::of(message)
        {
            self.kept = Kept::Away(packed);
        }
        bytes - self.here()
    }
}

/// What came back lies before what never left, by place.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    returned: BTreeMap<u64, Entry>,
    fresh: VecDeque<Entry>,
}

impl Lane {
    pub(crate) fn push(&mut self, entry: Entry) {
        self.fresh.push_back(entry);
    }

    /// Puts one back where it was.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        self.returned.insert(entry.position, entry);
    }

    fn returned_is_next(&self) -> Option<bool> {
        match (self.returned.first_key_value(), self.fresh.front()) {
            (None, None) => None,
            (Some(_), None) => Some(true),
            (None, Some(_)) => Some(false),
            (Some((position, _)), Some(fresh)) => Some(*position < fresh.position),
        }
    }

    pub(crate) fn front(&self) -> Option<&Entry> {
        if self.returned_is_next()? {
            self.returned.first_key_value().map(|(_, entry)| entry)
        } else {
            self.fresh.front()
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Entry> {
        if self.returned_is_next()? {
            self.returned.pop_first().map(|(_, entry)| entry)
        } else {
            self.fresh.pop_front()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.returned.len() + self.fresh.len()
    }

    /// The one at this position.
    pub(crate) fn at(&mut self, position: u64) -> Option<&mut Entry> {
        if let Some(entry) = self.returned.get_mut(&position) {
            return Some(entry);
        }
        let at = self.fresh.partition_point(|one| one.position < position);
        self.fresh
            .get_mut(at)
            .filter(|one| one.position == position)
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.returned.values().chain(&self.fresh)
    }

    /// All of them, in the order in which they would leave.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Entry> {
        let mut returned = self.returned.values().peekable();
        let mut fresh = self.fresh.iter().peekable();
        core::iter::from_fn(move || match (returned.peek(), fresh.peek()) {
            (Some(one), Some(other)) if one.position < other.position => returned.next(),
            (Some(_), None) => returned.next(),
            (_, Some(_)) => fresh.next(),
            (None, None) => None,
        })
    }

    /// All of them, those that are delivered last first.
    pub(crate) fn last_first(&mut self) -> impl Iterator<Item = &mut Entry> {
        let returned = self.returned.values_mut().rev();
        self.fresh.iter_mut().rev().chain(returned)
    }
}
