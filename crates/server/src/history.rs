//! The newest events in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use mainstay_model::Event;

/// How many events are kept in memory, the newest; also those that wait for a disk that refuses.
pub(crate) const EVENTS_KEPT: usize = 1000;

/// The newest [`EVENTS_KEPT`] events, by their growing numbers: some 300 kB, and enough to see
/// what happened around an incident of a few services.
#[derive(Debug, Default)]
pub(crate) struct History {
    events: VecDeque<Arc<Event>>,
    /// The number of the newest event, whether it is among them or not.
    last: u64,
    /// The number of the newest event that was given out to be recorded.
    recorded: u64,
}

/// A part of the history.
pub(crate) struct Page {
    /// The number of the oldest event in memory; what is older is on disk, if anywhere.
    pub(crate) oldest: u64,
    /// The number of the newest event.
    pub(crate) last: u64,
    /// The events that were asked for, the oldest first.
    pub(crate) events: Vec<Arc<Event>>,
}

impl History {
    /// The events that were read back; `last` is the number of the last that ever was, which may
    /// be missing among them.
    pub(crate) fn new(past: Vec<Event>, last: u64) -> Self {
        let mut history = Self::default();
        for event in past {
            history.push(Arc::new(event));
        }
        history.last = history.last.max(last);
        history.recorded = history.last;
        history
    }

    /// Adds an event; the oldest makes room for it. One whose number does not grow is dropped: it
    /// was read from a file that somebody edited.
    pub(crate) fn push(&mut self, event: Arc<Event>) {
        if event.number <= self.last() {
            return;
        }
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.last = event.number;
        self.events.push_back(event);
    }

    /// The number of the newest event, 0 if there is none.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Whether there are events that were not given out to be recorded.
    pub(crate) fn has_unrecorded(&self) -> bool {
        self.last() > self.recorded
    }

    /// The events that were not given out to be recorded; from now on they count as such.
    pub(crate) fn take_unrecorded(&mut self) -> Vec<Arc<Event>> {
        let events = self.after(self.recorded);
        self.recorded = self.last();
        events
    }

    /// What memory has behind number `after`.
    pub(crate) fn page(&self, after: u64) -> Page {
        let last = self.last();
        let oldest = self.events.front().map_or(last + 1, |event| event.number);
        let events = self.after(after);
        Page {
            oldest,
            last,
            events,
        }
    }

    /// The events behind number `after`, the oldest first.
    fn after(&self, after: u64) -> Vec<Arc<Event>> {
        let seen = self.events.partition_point(|event| event.number <= after);
        self.events.iter().skip(seen).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_ids::Timestamp;
    use mainstay_model::EventKind;

    #[test]
    fn the_oldest_events_make_room_and_a_reader_resumes_behind_what_it_saw() {
        let mut history = History::default();
        assert_eq!(history.last(), 0);
        for number in 1..=EVENTS_KEPT as u64 + 5 {
            history.push(Arc::new(Event {
                number,
                at: Timestamp(0),
                service: None,
                kind: EventKind::Removed,
            }));
        }
        let numbers = |after| -> Vec<u64> {
            let events = history.after(after);
            events.iter().map(|event| event.number).collect()
        };
        assert_eq!(numbers(0).len(), EVENTS_KEPT);
        assert_eq!(numbers(0).first(), Some(&6));
        assert_eq!(numbers(1003), [1004, 1005]);
        assert_eq!(numbers(9999), [] as [u64; 0]);
    }
}
