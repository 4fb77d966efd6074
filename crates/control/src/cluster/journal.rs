//! The record of decisions, numbered without gaps over all starts of the control centre.

use alloc::vec::Vec;

use mainstay_ids::ServiceName;
use mainstay_model::{Event, EventKind};

use super::contract::Clock;

/// Events that the driver has not taken yet, and whether the durable state differs from the last
/// snapshot: nothing durable changes without being marked here.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    last: u64,
    pending: Vec<Event>,
    durable: Durable,
    changes: u64,
}

/// Whether the last snapshot still says everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Durable {
    #[default]
    Changed,
    Kept,
}

impl Journal {
    pub(super) fn resumed(last: u64) -> Self {
        Self {
            last,
            ..Self::default()
        }
    }

    pub(super) fn record(&mut self, clock: Clock, service: Option<&ServiceName>, kind: EventKind) {
        self.last += 1;
        self.pending.push(Event {
            number: self.last,
            at: clock.at,
            service: service.cloned(),
            kind,
        });
        self.mark_changed();
    }

    /// Something durable changed that is no event.
    pub(super) fn mark_changed(&mut self) {
        self.durable = Durable::Changed;
        self.changes += 1;
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Grows with each change, to be compared with an earlier value.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn take(&mut self) -> Vec<Event> {
        core::mem::take(&mut self.pending)
    }

    /// Whether something durable changed since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        core::mem::replace(&mut self.durable, Durable::Kept) == Durable::Changed
    }
}
