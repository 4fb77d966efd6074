//! The messages of one priority that wait, in the order in which they were published.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;

use mainstay_ids::Instant;

use crate::message::Message;

/// A message in a queue.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its place in the queue's order; never given twice.
    pub(crate) position: u64,
    pub(crate) message: Arc<Message>,
    /// When its time is over.
    pub(crate) expires: Instant,
    /// Whether it was delivered before.
    pub(crate) redelivered: bool,
    /// How often it came back from a consumer.
    pub(crate) returns: u32,
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
}
