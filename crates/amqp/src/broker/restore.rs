//! What was on disk, taken in again before anybody connects.

use alloc::sync::Arc;

use mainstay_ids::Instant;

use super::Broker;
use super::contract::{Now, Record};
use super::queues::Slot;
use crate::code::Fault;
use crate::message::Message;
use crate::queue::{Arguments, Durability, Queue, QueueId};

impl Broker {
    /// Takes a change in that was recorded, in the order of the records. An error means that what is on disk was not
    /// written by this broker, or by one that knows more.
    pub fn restore(&mut self, now: Now, record: Record) -> Result<(), Fault> {
        match record {
            Record::Exchange(exchange) => self.vhost.declare(exchange),
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
                self.set_timer(id);
            }
            Record::NoQueue(id) => {
                if let Some(slot) = self.queues.remove(&id) {
                    self.names.remove(&slot.name);
                    self.timers.remove(&(slot.deadline, id));
                    self.memory.here -= slot.counted;
                    self.vhost.delete_queue(&slot.name);
                }
            }
            Record::Binding(binding) => {
                self.vhost.bind(binding)?;
            }
            Record::NoBinding(binding) => {
                self.vhost.unbind(&binding);
            }
        }
        Ok(())
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
        slot.queue.restore(now.instant, position, message, 0);
        self.account(queue);
        self.relieve(queue);
        self.set_timer(queue);
        true
    }
}

impl Slot {
    fn restored(durable: super::DurableQueue, queue: Queue) -> Self {
        Self {
            name: durable.name,
            queue,
            owner: None,
            durability: Durability::Durable,
            auto_delete: durable.auto_delete,
            arguments: durable.arguments,
            was_consumed: false,
            deadline: Instant::NEVER,
            counted: 0,
            runs: false,
        }
    }
}
