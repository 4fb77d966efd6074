//! What every decision of one input has at hand.

use mainstay_ids::{Generation, ServiceName};
use mainstay_model::EventKind;

use super::consumers::Consumers;
use super::contract::{AcknowledgedDrain, Clock};
use super::journal::Journal;
use super::supply::Supply;

/// One input's decisions: their time, the number that a changed state will have, and the record.
pub(super) struct Step<'a> {
    pub(super) clock: Clock,
    pub(super) acknowledged_drain: AcknowledgedDrain,
    /// The generation of the routing and of the plan if this input changes them.
    pub(super) upcoming: Generation,
    /// The generation of the newest routing.
    pub(super) routed_in: Generation,
    pub(super) consumers: &'a Consumers,
    /// What instances may wait for, as it was when the input came.
    pub(super) supply: &'a Supply,
    pub(super) journal: &'a mut Journal,
}

impl Step<'_> {
    /// The same step with another look at what is there.
    pub(super) fn with_supply<'b>(&'b mut self, supply: &'b Supply) -> Step<'b> {
        Step {
            clock: self.clock,
            acknowledged_drain: self.acknowledged_drain,
            upcoming: self.upcoming,
            routed_in: self.routed_in,
            consumers: self.consumers,
            supply,
            journal: self.journal,
        }
    }

    /// Records a decision about a service.
    pub(super) fn record(&mut self, service: &ServiceName, kind: EventKind) {
        self.journal.record(self.clock, Some(service), kind);
    }

    /// Something durable changed that is no event.
    pub(super) fn mark_changed(&mut self) {
        self.journal.mark_changed();
    }
}
