//! How fast queues fill and empty: a meter for each in which something happens.

use alloc::collections::BTreeMap;

use mainstay_ids::Instant;

use super::Broker;
use crate::queue::{Queue, QueueId};
use crate::rates::{Counts, Meter, Rates};

/// The meters, and what was counted in queues that are gone.
#[derive(Debug, Default)]
pub(super) struct Meters {
    meters: BTreeMap<QueueId, Meter>,
    gone: Counts,
}

impl Meters {
    /// Something is about to happen in a queue. It costs a look at a bool if it has a meter.
    pub(super) fn stir(&mut self, now: Instant, id: QueueId, queue: &mut Queue) {
        if !queue.metered {
            queue.metered = true;
            self.meters.insert(id, Meter::new(now, queue.counts()));
        }
    }

    pub(super) fn remove(&mut self, id: QueueId, queue: &Queue) {
        self.meters.remove(&id);
        self.gone = self.gone.plus(*queue.counts());
    }

    pub(super) fn rates(&self, id: QueueId) -> Rates {
        self.meters.get(&id).map(Meter::rates).unwrap_or_default()
    }
}

impl Broker {
    /// Looks what was counted; to be called each [`crate::rates::SAMPLE_EVERY`]. It costs nothing for queues in which nothing
    /// happens.
    pub fn sample(&mut self, now: Instant) {
        let queues = &mut self.queues;
        self.meters.meters.retain(|id, meter| {
            let Some(slot) = queues.get_mut(id) else {
                return false;
            };
            meter.mark(now, slot.queue.counts());
            slot.queue.metered = !meter.is_still();
            slot.queue.metered
        });
    }

    /// What was counted in all queues, those that are gone included.
    pub fn counts(&self) -> Counts {
        let queues = self.queues.values().map(|slot| *slot.queue.counts());
        queues.fold(self.meters.gone, Counts::plus)
    }
}
