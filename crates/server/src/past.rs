//! Events that are older than those in memory, read from the history on threads that may block.

use std::error::Error;

use mainstay_ids::Timestamp;
use mainstay_journal::{Outline, ReadError, Reader};
use mainstay_model::Event;

use crate::chronicle::decode;

/// How many events are read at a time: some 250 kB for each stream that looks far back.
pub(crate) const PAGE_LEN: usize = 1000;

/// Which events are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Behind this number.
    pub(crate) after: u64,
    /// Before this number.
    pub(crate) before: u64,
    /// Not before this time.
    pub(crate) since: Timestamp,
}

/// A place in the history.
pub(crate) struct Past {
    reader: Reader,
}

impl Past {
    /// Finds the segment with the first event of `span`. It blocks.
    pub(crate) fn find(outline: &Outline, span: Span) -> Self {
        let mut from = outline.first();
        for beginning in outline.beginnings() {
            let mut reader = outline.reader(beginning);
            let first = reader.next().ok().flatten();
            let Some(event) = first.and_then(|record| decode(record.body)) else {
                continue;
            };
            // Then the first one that is looked for is in the segment before, if not this one.
            if event.number > span.after.saturating_add(1) && event.at >= span.since {
                break;
            }
            from = beginning;
        }
        Self {
            reader: outline.reader(from),
        }
    }

    /// The next events of `span`, the oldest first; none when there are no more. It blocks.
    pub(crate) fn page(&mut self, span: Span) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < PAGE_LEN {
            let body = match self.reader.next() {
                Ok(Some(record)) => record.body,
                // What is forgotten is told by the numbers.
                Ok(None) | Err(ReadError::Forgotten { .. }) => break,
                Err(error @ (ReadError::Damaged { .. } | ReadError::Disk { .. })) => {
                    let error = &error as &dyn Error;
                    tracing::warn!(error, "a part of the history cannot be read");
                    break;
                }
            };
            // Another version may have written something that this one does not know.
            let Some(event) = decode(body).filter(|event| event.number > span.after) else {
                continue;
            };
            if event.number >= span.before {
                break;
            }
            events.push(event);
        }
        events
    }
}
