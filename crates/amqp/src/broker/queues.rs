//! Methods of class queue, and how queues come and go.

use alloc::format;
use alloc::vec::Vec;

use mainstay_ids::Instant;

use super::Broker;
use super::contract::{DurableQueue, Now, Record, Right};
use super::exchanges::free_name;
use crate::code::{Code, Fault};
use crate::field::Table;
use crate::method::{
    BasicCancel, QueueDeclare, QueueDeclareOk, QueueDelete, QueueDeleteOk, QueuePurge, QueuePurgeOk,
};
use crate::queue::{
    Arguments, COMPARED, ChannelKey, ConnectionId, ConsumerKey, Durability, Queue, QueueId,
    QueueKind, assert_equal, inequivalent,
};
use crate::text::ShortString;
use crate::vhost::name_argument;

/// A queue with what the virtual host knows of it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: ShortString,
    pub(super) queue: Queue,
    /// The connection that it belongs to and goes with.
    pub(super) owner: Option<ConnectionId>,
    pub(super) durability: Durability,
    pub(super) auto_delete: bool,
    pub(super) arguments: Table,
    /// The same, read; what is in force is with the queue.
    pub(super) read: Arguments,
    /// The policy that is in force.
    pub(super) policy: Option<ShortString>,
    /// Somebody consumed it: from then on it may be done.
    pub(super) was_consumed: bool,
    pub(super) deadline: Instant,
    /// Bytes of it that count for the budget.
    pub(super) counted: u64,
    /// It stands among those that go on.
    pub(super) runs: bool,
    pub(super) purpose: Purpose,
}

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It was declared, and has a name.
    Clients,
    /// What waits for its time at the exchange of this name; nobody sees it.
    Delays,
}

impl Slot {
    /// One that was declared without anything.
    pub(super) fn new(
        name: ShortString,
        queue: Queue,
        durability: Durability,
        purpose: Purpose,
    ) -> Self {
        Self {
            name,
            read: queue.arguments().clone(),
            queue,
            owner: None,
            durability,
            auto_delete: false,
            arguments: Table::EMPTY,
            policy: None,
            was_consumed: false,
            deadline: Instant::NEVER,
            counted: 0,
            runs: false,
            purpose,
        }
    }

    pub(super) fn is_durable(&self) -> bool {
        self.durability == Durability::Durable
    }

    pub(super) fn check_owner(&self, key: ChannelKey, what: &str) -> Result<(), Fault> {
        match self.owner {
            Some(owner) if owner != key.connection => Err(locked(what)),
            Some(_) | None => Ok(()),
        }
    }
}

fn locked(what: &str) -> Fault {
    let text = format!(
        "cannot obtain exclusive access to locked {what}. It could be originally declared on another \
         connection or the exclusive property value does not match that of the original declaration."
    );
    Fault::new(Code::ResourceLocked, text)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Queues of this name are for direct replies.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

impl Broker {
    /// The queue of this name.
    pub(super) fn queue(&self, name: &ShortString) -> Result<(QueueId, &Slot), Fault> {
        let found = self
            .names
            .get(name)
            .and_then(|id| Some((*id, self.queues.get(id)?)));
        found.ok_or_else(|| {
            let what = format!("no {}", self.vhost.queue_words(name));
            Fault::new(Code::NotFound, what)
        })
    }

    /// A queue's name, or that of the one that was declared last on the channel.
    pub(super) fn short_queue(
        &self,
        key: ChannelKey,
        name: &ShortString,
    ) -> Result<ShortString, Fault> {
        if !name.is_empty() {
            return Ok(name.clone());
        }
        let last = self
            .channels
            .get(&key)
            .and_then(|one| one.last_queue.clone());
        last.ok_or_else(|| Fault::new(Code::NotFound, "no previously declared queue"))
    }

    /// Without a queue's name, no key means its name, too.
    pub(super) fn short_key(
        &self,
        key: ChannelKey,
        queue: &ShortString,
        routing_key: &ShortString,
    ) -> Result<ShortString, Fault> {
        if queue.is_empty() && routing_key.is_empty() {
            return self.short_queue(key, queue);
        }
        Ok(routing_key.clone())
    }

    pub(super) fn declare_queue(
        &mut self,
        now: Now,
        key: ChannelKey,
        method: &QueueDeclare,
    ) -> Result<(), Fault> {
        let mut name = method.queue.without_line_ends().compact();
        if name.as_bytes().starts_with(REPLY_TO.as_bytes()) {
            return self.declare_reply_queue(key, name, method.nowait);
        }
        if method.passive {
            let (_, slot) = self.queue(&name)?;
            slot.check_owner(key, &self.vhost.queue_words(&name))?;
        } else {
            if name.is_empty() {
                name = self.names_given.next("amq.gen");
            } else {
                free_name("queue", &name)?;
            }
            self.check_queue(key, Right::Configure, &name)?;
            match self.queue(&name) {
                Ok((_, slot)) => self.compare_queue(key, &name, slot, method)?,
                Err(_) => self.new_queue(now, key, &name, method)?,
            }
        }
        let (id, slot) = self.queue(&name)?;
        let answer = QueueDeclareOk {
            queue: name.clone(),
            message_count: count(slot.queue.ready()),
            consumer_count: count(slot.queue.consumers()),
        };
        self.touch(now, id);
        self.channel(key).last_queue = Some(name);
        if !method.nowait {
            self.answer(key, answer.into());
        }
        Ok(())
    }

    /// A client asks whether somebody still waits for its direct reply.
    fn declare_reply_queue(
        &mut self,
        key: ChannelKey,
        name: ShortString,
        nowait: bool,
    ) -> Result<(), Fault> {
        if name != REPLY_TO && !self.replies.contains_key(&name) {
            let what = format!("no {}", self.vhost.queue_words(&name));
            return Err(Fault::new(Code::NotFound, what));
        }
        self.channel(key).last_queue = Some(name.clone());
        if !nowait {
            let answer = QueueDeclareOk {
                queue: name,
                message_count: 0,
                consumer_count: 1,
            };
            self.answer(key, answer.into());
        }
        Ok(())
    }

    fn touch(&mut self, now: Now, id: QueueId) {
        if let Some(slot) = self.queues.get_mut(&id) {
            slot.queue.touch(now.instant);
            self.set_timer(id);
        }
    }

    fn compare_queue(
        &self,
        key: ChannelKey,
        name: &ShortString,
        slot: &Slot,
        method: &QueueDeclare,
    ) -> Result<(), Fault> {
        let what = self.vhost.queue_words(name);
        let owner = method.exclusive.then_some(key.connection);
        // An exclusive queue is declared again as one, and another one is not.
        if slot.owner != owner {
            return Err(locked(&what));
        }
        let flags = [
            (
                "durable",
                method.durable && !method.exclusive,
                slot.is_durable(),
            ),
            ("auto_delete", method.auto_delete, slot.auto_delete),
        ];
        for (argument, received, current) in flags {
            if received != current {
                let quoted = |flag: bool| format!("'{flag}'");
                return Err(inequivalent(
                    argument,
                    &what,
                    &quoted(received),
                    &quoted(current),
                ));
            }
        }
        assert_equal(&slot.arguments, &method.arguments, &what, COMPARED)
    }

    fn new_queue(
        &mut self,
        now: Now,
        key: ChannelKey,
        name: &ShortString,
        method: &QueueDeclare,
    ) -> Result<(), Fault> {
        let what = self.vhost.queue_words(name);
        if let Some(max) = self.queues_max.filter(|max| self.names.len() >= *max) {
            let vhost = self.vhost.name();
            let text = format!(
                "cannot declare queue '{name}': queue limit in vhost '{vhost}' ({max}) is reached"
            );
            return Err(Fault::new(Code::PreconditionFailed, text));
        }
        let dead_letters = name_argument(&method.arguments, "x-dead-letter-exchange", &what)?;
        if let Some(exchange) = &dead_letters {
            self.check_queue(key, Right::Read, name)?;
            self.check_exchange(key, Right::Write, exchange)?;
        }
        let new = NewQueue {
            name: name.clone(),
            durable: method.durable,
            auto_delete: method.auto_delete,
            owner: method.exclusive.then_some(key.connection),
            arguments: method.arguments.clone(),
        };
        self.add_queue(now, new)
    }

    /// Adds a queue under a name that is free.
    pub(super) fn add_queue(&mut self, now: Now, new: NewQueue) -> Result<(), Fault> {
        let arguments = new.check(&self.vhost.queue_words(&new.name))?;
        let NewQueue {
            name,
            durable,
            auto_delete,
            owner,
            arguments: declared,
        } = new;
        let id = QueueId(self.next_queue);
        self.next_queue += 1;
        // What goes with its connection cannot outlive the broker.
        let durability = if durable && owner.is_none() {
            let queue = DurableQueue {
                name: name.clone(),
                auto_delete,
                arguments: declared.clone(),
            };
            self.record(Record::Queue(id, queue));
            Durability::Durable
        } else {
            Durability::Transient
        };
        if let Some(connection) = owner.and_then(|one| self.connections.get_mut(&one)) {
            connection.exclusive.insert(id);
        }
        let queue = Queue::with(id, now.instant, arguments, durability, self.planted);
        let slot = Slot {
            owner,
            auto_delete,
            arguments: declared,
            ..Slot::new(name.clone(), queue, durability, Purpose::Clients)
        };
        self.names.insert(name, id);
        self.queues.insert(id, slot);
        self.rule_queue(now, id);
        Ok(())
    }

    pub(super) fn delete_queue_method(
        &mut self,
        now: Now,
        key: ChannelKey,
        method: &QueueDelete,
    ) -> Result<(), Fault> {
        let name = self.short_queue(key, &method.queue)?.without_line_ends();
        self.check_queue(key, Right::Configure, &name)?;
        let mut message_count = 0;
        // To delete what is not there does no harm.
        if let Ok((id, slot)) = self.queue(&name) {
            let what = self.vhost.queue_words(&name);
            slot.check_owner(key, &what)?;
            let refuse = |why| {
                Err(Fault::new(
                    Code::PreconditionFailed,
                    format!("{what} {why}"),
                ))
            };
            if method.if_unused && slot.queue.consumers() > 0 {
                return refuse("in use");
            }
            if method.if_empty && slot.queue.ready() > 0 {
                return refuse("not empty");
            }
            message_count = count(slot.queue.ready());
            self.delete_queue(now, id);
        }
        if !method.nowait {
            self.answer(key, QueueDeleteOk { message_count }.into());
        }
        Ok(())
    }

    pub(super) fn purge_queue(
        &mut self,
        now: Now,
        key: ChannelKey,
        method: &QueuePurge,
    ) -> Result<(), Fault> {
        let name = self.short_queue(key, &method.queue)?;
        self.check_queue(key, Right::Read, &name)?;
        let (id, slot) = self.queue(&name)?;
        slot.check_owner(key, &self.vhost.queue_words(&name))?;
        let message_count = count(self.purge_all(now, id));
        if !method.nowait {
            self.answer(key, QueuePurgeOk { message_count }.into());
        }
        Ok(())
    }

    /// A queue goes with all that it holds; its consumers are told.
    pub(super) fn delete_queue(&mut self, now: Now, id: QueueId) {
        let Some(mut slot) = self.queues.remove(&id) else {
            return;
        };
        self.names.remove(&slot.name);
        self.timers.remove(&(slot.deadline, id));
        self.memory.here -= slot.counted;
        self.meters.remove(id, &slot.queue);
        if let Some(connection) = slot.owner.and_then(|one| self.connections.get_mut(&one)) {
            connection.exclusive.remove(&id);
        }
        let consumers: Vec<ConsumerKey> = slot.queue.consumer_keys().cloned().collect();
        let removed = self.vhost.delete_queue(&slot.name);
        self.record_removed(now, removed);
        if slot.is_durable() {
            self.record(Record::NoQueue(id));
        }
        // After the record: a consumer hears of it once it is so for ever, together with who deleted the queue.
        for consumer in consumers {
            self.cancelled(consumer);
        }
        let mut effects = Vec::new();
        slot.queue.close(&mut effects);
        self.apply(now, id, effects);
    }

    /// Tells a consumer that it gets nothing more.
    fn cancelled(&mut self, consumer: ConsumerKey) {
        let key = consumer.channel;
        if let Some(channel) = self.channels.get_mut(&key) {
            channel.consumers.remove(&consumer.tag);
        }
        let hears = self.connections.get(&key.connection);
        if hears.is_some_and(|connection| connection.user.hears_cancel) {
            let cancel = BasicCancel {
                consumer_tag: consumer.tag,
                nowait: true,
            };
            self.answer(key, cancel.into());
        }
    }

    /// A queue that is to go with its last consumer goes; whether it did.
    pub(super) fn delete_if_done(&mut self, now: Now, id: QueueId) -> bool {
        let done = self.queues.get(&id).is_some_and(|slot| {
            slot.auto_delete && slot.was_consumed && slot.queue.consumers() == 0
        });
        if done {
            self.delete_queue(now, id);
        }
        done
    }

    pub(super) fn remove_consumer(&mut self, now: Now, id: QueueId, consumer: &ConsumerKey) {
        if let Some(slot) = self.queues.get_mut(&id) {
            slot.queue.cancel(now.instant, consumer);
            self.set_timer(id);
        }
    }
}

/// A queue that is to be.
#[derive(Debug)]
pub(super) struct NewQueue {
    pub(super) name: ShortString,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) owner: Option<ConnectionId>,
    pub(super) arguments: Table,
}

impl NewQueue {
    /// Its arguments, checked; of a quorum queue also what RabbitMQ asks of one, so that what is accepted here is
    /// accepted there. `what` is how errors call it.
    pub(super) fn check(&self, what: &str) -> Result<Arguments, Fault> {
        let arguments = Arguments::read(&self.arguments, what)?;
        let wrong = [
            ("non-durable", !self.durable),
            ("exclusive-owner", self.owner.is_some()),
            ("auto-delete", self.auto_delete),
        ];
        match wrong.iter().find(|(_, wrong)| *wrong) {
            Some((property, _)) if arguments.kind == QueueKind::Quorum => {
                let text = format!("invalid property '{property}' for {what}");
                Err(Fault::new(Code::PreconditionFailed, text))
            }
            Some(_) | None => Ok(arguments),
        }
    }
}
