//! What was on disk, taken in again before anybody connects.

use alloc::sync::Arc;

use super::Broker;
use super::contract::{Now, Record};
use super::queues::{Purpose, Slot};
use crate::code::Fault;
use crate::message::Message;
use crate::policy::Checked;
use crate::queue::{Arguments, Durability, Queue, QueueId};

impl Broker {
    /// Takes a change in that was recorded, in the order of the records. An error means that what is on disk was not
    /// written by this broker, or by one that knows more.
    pub fn restore(&mut self, now: Now, record: Record) -> Result<(), Fault> {
        match record {
            Record::Exchange(exchange) => {
                let name = exchange.name.clone();
                self.vhost.declare(exchange);
                self.rule_exchange(&name);
            }
            Record::NoExchange(name) => {
                self.vhost.delete_exchange(&name);
            }
            Record::Queue(id, durable) => {
                let what = self.vhost.queue_words(&durable.name);
                let arguments = Arguments::read(&durable.arguments, &what)?;
                let queue = Queue::with(
                    id,
                    now.instant,
                    arguments,
                    Durability::Durable,
                    self.planted,
                );
                let slot = Slot::restored(durable.clone(), queue);
                self.next_queue = self.next_queue.max(id.0 + 1);
                self.names.insert(durable.name, id);
                self.queues.insert(id, slot);
                self.rule_queue(now, id);
                self.set_timer(id);
            }
            Record::NoQueue(id) => {
                self.restore_no_queue(id);
            }
            Record::Delays(id, exchange) => {
                self.put_shelf(now, id, exchange, Durability::Durable);
            }
            Record::Binding(binding) => {
                self.vhost.bind(binding)?;
            }
            Record::Policy(policy) => {
                self.policies.set(Checked::new(policy)?)?;
                self.put_in_force(now);
            }
            Record::NoPolicy(name) => {
                self.policies.clear(&name);
                self.put_in_force(now);
            }
            Record::NoBinding(binding) => {
                self.vhost.unbind(&binding);
            }
        }
        Ok(())
    }

    fn restore_no_queue(&mut self, id: QueueId) {
        let Some(slot) = self.queues.remove(&id) else {
            return;
        };
        self.timers.remove(&(slot.deadline, id));
        self.memory.here -= slot.counted;
        match slot.purpose {
            Purpose::Clients => {
                self.names.remove(&slot.name);
                self.vhost.delete_queue(&slot.name);
            }
            Purpose::Delays => {
                self.shelves.remove(&slot.name);
            }
        }
    }

    /// Takes a message in that was stored and not forgotten, in rising order of positions per queue; whether its queue
    /// is there. Its time to live begins anew, since nobody knows how long the broker was away. It counts as delivered
    /// before: nobody knows that it was not. Its body may be on disk alone, and is from then on asked for by this
    /// queue and position.
    pub fn restore_message(
        &mut self,
        now: Now,
        queue: QueueId,
        position: u64,
        message: &Arc<Message>,
    ) -> bool {
        // The number of a queue that did not outlive the broker is not given again while messages bear it.
        self.next_queue = self.next_queue.max(queue.0 + 1);
        let Some(slot) = self.queues.get_mut(&queue) else {
            return false;
        };
        match slot.purpose {
            Purpose::Clients => slot.queue.restore(now.instant, position, message, 0),
            Purpose::Delays => self.shelve_again(now, queue, position, message),
        }
        self.account(queue);
        self.relieve(queue);
        self.set_timer(queue);
        true
    }
}

impl Slot {
    fn restored(durable: super::DurableQueue, queue: Queue) -> Self {
        Self {
            auto_delete: durable.auto_delete,
            arguments: durable.arguments,
            ..Self::new(durable.name, queue, Durability::Durable, Purpose::Clients)
        }
    }
}
