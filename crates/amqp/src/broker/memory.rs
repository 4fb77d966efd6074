//! Which bodies stay in memory. What is on disk need not: a driver that has a budget gets all beyond it back as places.

use super::Broker;
use crate::queue::QueueId;

/// Bodies that are in memory and could be on disk alone.
#[derive(Debug)]
pub(super) struct Memory {
    /// What they may take together, in bytes.
    budget: u64,
    /// What they take.
    pub(super) here: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            budget: u64::MAX,
            here: 0,
        }
    }
}

impl Broker {
    /// So many bytes of bodies that wait may be in memory; without a word of it, all are. Those above it leave memory
    /// as soon as they are on disk, in each queue those that are delivered last before the others: one half of the
    /// budget belongs to whoever was first, the other one is shared by all queues, so that the next ones of each are at
    /// hand. What is not persistent, and what is not on disk yet, does not count: the driver bounds it by pausing who
    /// publishes.
    pub fn set_budget(&mut self, bytes: u64) {
        self.memory.budget = bytes;
        let ids: alloc::vec::Vec<QueueId> = self.queues.keys().copied().collect();
        for id in ids {
            self.relieve(id);
        }
    }

    /// Bytes of bodies in memory that could be on disk alone.
    pub fn bodies_in_memory(&self) -> u64 {
        self.memory.here
    }

    /// How many bytes too much a queue has in memory.
    pub(super) fn excess(&self, id: QueueId) -> u64 {
        let half = self.memory.budget / 2;
        let excess = self.memory.here.saturating_sub(half);
        let Some(slot) = self.queues.get(&id).filter(|_| excess > 0) else {
            return 0;
        };
        let queues = u64::try_from(self.queues.len()).unwrap_or(u64::MAX);
        excess.min(slot.queue.here().saturating_sub(half / queues))
    }

    /// Lets a queue unload what it has too much.
    pub(super) fn relieve(&mut self, id: QueueId) {
        let excess = self.excess(id);
        if let Some(slot) = self.queues.get_mut(&id).filter(|_| excess > 0) {
            slot.queue.unload(excess);
            self.account(id);
        }
    }

    /// Counts what a queue has in memory.
    pub(super) fn account(&mut self, id: QueueId) {
        if let Some(slot) = self.queues.get_mut(&id) {
            let here = slot.queue.here();
            self.memory.here = self.memory.here - slot.counted + here;
            slot.counted = here;
        }
    }
}
