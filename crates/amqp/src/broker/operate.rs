//! What operators do. They need no channel, and rights are the driver's: here they may everything. What comes out is
//! what comes out for clients, records before what depends on them.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use super::Broker;
use super::contract::{Now, Record, Rights};
use super::definitions::is_standard;
use super::exchanges::not_default;
use crate::code::{Code, Fault};
use crate::limits::MOVE_MAX;
use crate::queue::{Leaving, QueueId};
use crate::text::ShortString;
use crate::vhost::{Binding, Exchange};

impl Broker {
    /// How many queues clients may declare, if not any number (RabbitMQ's limit `max-queues` of a virtual host). What is
    /// there stays, and definitions are not asked.
    pub fn set_queues_max(&mut self, max: Option<usize>) {
        self.queues_max = max;
    }

    /// What a user may from now on, on connections that are there, too: their next methods are judged by it. Consumers that
    /// are there go on, as in RabbitMQ. How many connections of that user there are.
    pub fn permit(
        &mut self,
        user: &ShortString,
        mut rights: impl FnMut() -> Box<dyn Rights>,
    ) -> usize {
        let connections = self.connections.values_mut();
        let own = connections.filter(|connection| connection.user.name == *user);
        own.map(|connection| connection.user.rights = rights())
            .count()
    }

    /// Throws away all messages of a queue that wait; how many they were.
    pub fn purge(&mut self, now: Now, name: &ShortString) -> Result<usize, Fault> {
        let (id, _) = self.queue(name)?;
        Ok(self.purge_all(now, id))
    }

    pub(super) fn purge_all(&mut self, now: Now, id: QueueId) -> usize {
        let mut effects = Vec::new();
        let slot = self.queues.get_mut(&id);
        let count = slot.map_or(0, |slot| slot.queue.purge(&mut effects));
        self.apply(now, id, effects);
        self.set_timer(id);
        count
    }

    /// Deletes a queue, whoever uses it; how many messages waited.
    pub fn remove_queue(&mut self, now: Now, name: &ShortString) -> Result<usize, Fault> {
        let (id, slot) = self.queue(name)?;
        let count = slot.queue.ready();
        self.delete_queue(now, id);
        Ok(count)
    }

    /// What undoes all that was recorded and stored of it: who records that has ended it. It is not to be asked for anything
    /// after that.
    pub fn undone(&self) -> Vec<Record> {
        let queues = self.queues.keys().copied().map(Record::NoQueue);
        let is_durable = |binding: &Binding| {
            let source = self.vhost.exchange(&binding.source);
            source.is_ok_and(|source| source.durable)
                && self.end_is_durable(&binding.destination).unwrap_or(false)
        };
        let bindings = self.vhost.bindings().filter(is_durable);
        let recorded = |one: &&Exchange| one.durable && !is_standard(&one.name);
        let exchanges = self.vhost.exchanges().filter(recorded);
        let exchanges = exchanges.map(|one| Record::NoExchange(one.name.clone()));
        let policies = self
            .policies()
            .map(|one| Record::NoPolicy(one.name.clone()));
        queues
            .chain(bindings.map(Record::NoBinding))
            .chain(exchanges)
            .chain(policies)
            .collect()
    }

    /// Deletes an exchange with its bindings; none of those that are always there.
    pub fn remove_exchange(&mut self, now: Now, name: &ShortString) -> Result<(), Fault> {
        not_default(name)?;
        self.vhost.exchange(name)?;
        self.not_of_the_system(name)?;
        self.drop_exchange(now, name);
        Ok(())
    }

    /// Moves messages from the head of a queue to the end of another one, at most [`MOVE_MAX`] at once; how many. Each
    /// is to be stored there before it is forgotten here. It ends early when the other queue would refuse one. Who
    /// published it and waits for a word waits for the other queue's. Everything of a message stays as it was, but its
    /// time to live begins anew.
    pub fn move_messages(
        &mut self,
        now: Now,
        from: &ShortString,
        to: &ShortString,
        count: usize,
    ) -> Result<usize, Fault> {
        let (source, _) = self.queue(from)?;
        let (target, _) = self.queue(to)?;
        if source == target {
            let what = self.vhost.queue_words(from);
            let text = format!("messages of {what} cannot be moved to the same queue");
            return Err(Fault::new(Code::PreconditionFailed, text));
        }
        let mut moved = 0;
        while moved < count.min(MOVE_MAX) && self.move_one(now, source, target) {
            moved += 1;
        }
        self.set_timer(source);
        Ok(moved)
    }

    /// Moves the first one; whether there was one and the other queue took it.
    fn move_one(&mut self, now: Now, source: QueueId, target: QueueId) -> bool {
        let mut dead = Vec::new();
        if let Some(slot) = self.queues.get_mut(&source) {
            slot.queue.expire(now.instant, &mut dead);
        }
        self.apply(now, source, dead);
        let first = self
            .queues
            .get(&source)
            .and_then(|slot| slot.queue.first_len());
        let target_slot = self.queues.get(&target);
        let fits = first
            .zip(target_slot)
            .is_some_and(|(len, slot)| !slot.queue.would_overflow(len));
        let slot = self.queues.get_mut(&source).filter(|_| fits);
        let Some(Leaving {
            message,
            origin,
            forget,
        }) = slot.and_then(|slot| slot.queue.leave())
        else {
            return false;
        };
        self.put(now, target, message, origin);
        self.apply(now, source, forget.into_iter().collect());
        true
    }
}
