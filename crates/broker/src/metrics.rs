//! What is counted.

use std::cell::Cell;

/// A number of one thread.
#[derive(Debug, Default)]
pub(crate) struct Count(Cell<u64>);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.set(self.0.get() + more);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Counters of the whole broker; those of queues are the queues' own.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) connections: Count,
    pub(crate) logins_refused: Count,
    pub(crate) published: Count,
    pub(crate) confirmed: Count,
    pub(crate) delivered: Count,
    pub(crate) acknowledged: Count,
    pub(crate) returned: Count,
    pub(crate) bodies_read: Count,
    /// Of these, for which a thread waited.
    pub(crate) bodies_waited_for: Count,
    pub(crate) read_bytes: Count,
    pub(crate) written_bytes: Count,
}
