//! One queue: its messages, its consumers, and what becomes of them. It knows no exchange, no channel and no disk: what
//! they are to do is an [`Effect`].

mod arguments;
mod consumers;
mod contract;
mod lane;
#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use mainstay_ids::Instant;

pub use self::arguments::{Arguments, Overflow, QueueKind};
pub(crate) use self::arguments::{COMPARED, assert_equal, inequivalent};
pub(crate) use self::consumers::InExclusiveUse;
use self::consumers::{Consumers, Sharing};
pub use self::contract::{
    ChannelKey, ConnectionId, ConsumerKey, Death, Delivery, Effect, NewConsumer, Origin,
};
use self::lane::{Entry, Lane};
use crate::limits::TURN_MAX;
use crate::message::Message;
use crate::planted::{Bug, Planted};

/// Whether a queue outlives the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It and its persistent messages do.
    Durable,
    /// It does not.
    Transient,
}

/// What becomes of a message that a consumer gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// It is done with.
    Ack,
    /// It goes back to its place.
    Requeue,
    /// It is refused, and dies.
    Discard,
}

/// Whether there is more to deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nobody can take anything more now.
    Done,
    /// The turn was over first.
    More,
}

#[derive(Debug)]
struct Held {
    entry: Entry,
    /// Absent for a `basic.get`.
    consumer: Option<ConsumerKey>,
}

/// A queue.
#[derive(Debug)]
pub struct Queue {
    arguments: Arguments,
    durability: Durability,
    /// By priority, the highest last.
    lanes: Vec<Lane>,
    ready: usize,
    ready_bytes: u64,
    /// Delivered and not settled.
    held: BTreeMap<u64, Held>,
    next: u64,
    /// To be on disk and not known to be, with the publish that waits for it.
    unstored: BTreeMap<u64, Option<Origin>>,
    consumers: Consumers,
    /// Since when nobody used it.
    unused: Instant,
    planted: Planted,
}

impl Queue {
    /// An empty one.
    pub fn new(now: Instant, arguments: Arguments, durability: Durability) -> Self {
        Self::with(now, arguments, durability, Planted::default())
    }

    pub(crate) fn with(
        now: Instant,
        arguments: Arguments,
        durability: Durability,
        planted: Planted,
    ) -> Self {
        let sharing = if arguments.single_active {
            Sharing::SingleActive
        } else {
            Sharing::Everybody
        };
        let mut lanes = Vec::new();
        lanes.resize_with(usize::from(arguments.priority_max) + 1, Lane::default);
        Self {
            arguments,
            durability,
            lanes,
            ready: 0,
            ready_bytes: 0,
            held: BTreeMap::new(),
            next: 0,
            unstored: BTreeMap::new(),
            consumers: Consumers::new(sharing, planted),
            unused: now,
            planted,
        }
    }

    /// Messages that wait.
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// Bytes of their bodies.
    pub fn ready_bytes(&self) -> u64 {
        self.ready_bytes
    }

    /// Messages that are delivered and not settled.
    pub fn unacked(&self) -> usize {
        self.held.len()
    }

    /// Consumers.
    pub fn consumers(&self) -> usize {
        self.consumers.len()
    }

    /// Each consumer.
    pub fn consumer_keys(&self) -> impl Iterator<Item = &ConsumerKey> {
        self.consumers.keys()
    }

    /// What it was declared with.
    pub fn arguments(&self) -> &Arguments {
        &self.arguments
    }

    /// Takes a message in. Who published it hears [`Effect::Confirm`] once it is as safe as it can be, or
    /// [`Effect::Refuse`].
    pub fn publish(
        &mut self,
        now: Instant,
        message: Arc<Message>,
        origin: Option<Origin>,
        effects: &mut Vec<Effect>,
    ) {
        if self.would_overflow(&message) {
            effects.extend(origin.map(Effect::Refuse));
            if self.arguments.overflow == Overflow::RejectPublishDeadLetter {
                self.bury(&message, Death::MaxLength, effects);
            }
            return;
        }
        let position = self.next;
        self.next += 1;
        if message.persistent && self.durability == Durability::Durable {
            effects.push(Effect::Store(position, Arc::clone(&message)));
            if self.planted.has(Bug::ConfirmsUnstored) {
                effects.extend(origin.map(Effect::Confirm));
            } else {
                self.unstored.insert(position, origin);
            }
        } else {
            effects.extend(origin.map(Effect::Confirm));
        }
        self.enter(self.entry(now, position, message));
    }

    /// Puts a message in that was on disk. Positions come in rising order.
    pub fn restore(&mut self, now: Instant, position: u64, message: Arc<Message>, returns: u32) {
        self.next = self.next.max(position + 1);
        let mut entry = self.entry(now, position, message);
        entry.returns = returns;
        // It may have been delivered before we ended; a consumer must be ready for that.
        entry.redelivered = true;
        self.enter(entry);
    }

    fn entry(&self, now: Instant, position: u64, message: Arc<Message>) -> Entry {
        let expires = match (self.arguments.message_ttl, message.expiration) {
            (None, None) => Instant::NEVER,
            (Some(ttl), None) | (None, Some(ttl)) => now.after(ttl),
            (Some(one), Some(other)) => now.after(one.min(other)),
        };
        Entry {
            position,
            message,
            expires,
            redelivered: false,
            returns: 0,
        }
    }

    fn enter(&mut self, entry: Entry) {
        let lane = self.lane_of(&entry.message);
        self.count(&entry);
        self.lanes[lane].push(entry);
    }

    fn lane_of(&self, message: &Message) -> usize {
        usize::from(message.priority.min(self.arguments.priority_max))
    }

    fn count(&mut self, entry: &Entry) {
        self.ready += 1;
        self.ready_bytes += length(&entry.message);
    }

    fn would_overflow(&self, message: &Message) -> bool {
        match self.arguments.overflow {
            Overflow::DropHead => false,
            Overflow::RejectPublish | Overflow::RejectPublishDeadLetter => {
                self.is_over(self.ready + 1, self.ready_bytes + length(message))
            }
        }
    }

    fn is_over(&self, ready: usize, bytes: u64) -> bool {
        let ready = u64::try_from(ready).unwrap_or(u64::MAX);
        self.arguments.length_max.is_some_and(|max| ready > max)
            || self.arguments.bytes_max.is_some_and(|max| bytes > max)
    }

    /// Delivers to whoever can take something, for one turn; lets die what is too old or too much. `admit` says
    /// whether a channel takes a delivery, and counts it if it does (it is told whether it needs no acknowledgement).
    pub fn turn(
        &mut self,
        now: Instant,
        admit: &mut impl FnMut(ChannelKey, bool) -> bool,
        effects: &mut Vec<Effect>,
    ) -> Turn {
        let mut turn = Turn::Done;
        for left in (0..=TURN_MAX).rev() {
            self.expire(now, effects);
            if self.ready == 0 {
                break;
            }
            if left == 0 {
                turn = Turn::More;
                break;
            }
            let Some((key, no_ack)) = self.consumers.next(admit) else {
                break;
            };
            let entry = self.pop().expect("something is ready");
            let delivery = self.hand_out(entry, Some(key.clone()), no_ack, effects);
            effects.push(Effect::Deliver(key, delivery));
        }
        while self.is_over(self.ready, self.ready_bytes)
            && self.arguments.overflow == Overflow::DropHead
        {
            let Some(entry) = self.pop() else { break };
            self.die(&entry, Death::MaxLength, effects);
        }
        self.check();
        turn
    }

    fn hand_out(
        &mut self,
        entry: Entry,
        consumer: Option<ConsumerKey>,
        no_ack: bool,
        effects: &mut Vec<Effect>,
    ) -> Delivery {
        let delivery = Delivery {
            position: entry.position,
            message: Arc::clone(&entry.message),
            redelivered: entry.redelivered && !self.planted.has(Bug::HidesRedelivery),
            returns: entry.returns,
            no_ack,
        };
        if no_ack {
            self.forget(&entry, effects);
        } else {
            self.held.insert(entry.position, Held { entry, consumer });
        }
        delivery
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.lanes.iter_mut().rev().find_map(Lane::pop)?;
        self.ready -= 1;
        self.ready_bytes -= length(&entry.message);
        Some(entry)
    }

    /// Lets die what stands first and is too old. What stands behind something younger waits, as RabbitMQ's does.
    fn expire(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for lane in 0..self.lanes.len() {
            while let Some(front) = self.lanes[lane].front()
                && front.expires <= now
            {
                let entry = self.lanes[lane].pop().expect("it stands first");
                self.ready -= 1;
                self.ready_bytes -= length(&entry.message);
                self.die(&entry, Death::Expired, effects);
            }
        }
    }

    fn die(&mut self, entry: &Entry, death: Death, effects: &mut Vec<Effect>) {
        // The letter is stored before its message is forgotten: a crash between the two leaves one too many, not none.
        self.bury(&entry.message, death, effects);
        self.forget(entry, effects);
    }

    fn bury(&self, message: &Arc<Message>, death: Death, effects: &mut Vec<Effect>) {
        if self.arguments.dead_letter_exchange.is_some() {
            effects.push(Effect::DeadLetter(Arc::clone(message), death));
        }
    }

    /// It left for good. Who still waits for it to be on disk need not wait any longer.
    fn forget(&mut self, entry: &Entry, effects: &mut Vec<Effect>) {
        if !entry.message.persistent || self.durability == Durability::Transient {
            return;
        }
        effects.push(Effect::Forget(entry.position));
        if let Some(Some(origin)) = self.unstored.remove(&entry.position) {
            effects.push(Effect::Confirm(origin));
        }
    }

    /// Everything up to this position that was to be stored is on disk.
    pub fn stored(&mut self, through: u64, effects: &mut Vec<Effect>) {
        while let Some(first) = self.unstored.first_entry()
            && *first.key() <= through
        {
            let origin = first.remove();
            effects.extend(origin.map(Effect::Confirm));
        }
    }

    /// It is deleted: who waits for something to be stored need not wait any longer.
    pub fn close(&mut self, effects: &mut Vec<Effect>) {
        self.stored(u64::MAX, effects);
    }

    /// Adds a consumer.
    pub(crate) fn consume(&mut self, new: NewConsumer) -> Result<(), InExclusiveUse> {
        self.consumers.add(new)
    }

    /// A consumer goes; what it holds stays held until its channel settles it. Whether it was there.
    pub fn cancel(&mut self, now: Instant, key: &ConsumerKey) -> bool {
        let was = self.consumers.remove(key);
        if was && self.consumers.len() == 0 {
            self.unused = now;
        }
        was
    }

    /// Its channel admits more than before.
    pub fn wake(&mut self, channel: ChannelKey) {
        self.consumers.wake(channel);
    }

    /// The next message for a `basic.get`, and how many wait after it.
    pub fn get(
        &mut self,
        now: Instant,
        no_ack: bool,
        effects: &mut Vec<Effect>,
    ) -> Option<(Delivery, usize)> {
        self.unused = now;
        self.expire(now, effects);
        let entry = self.pop()?;
        let delivery = self.hand_out(entry, None, no_ack, effects);
        Some((delivery, self.ready))
    }

    /// Settles a delivery; whether it was held.
    pub fn settle(&mut self, position: u64, how: Settle, effects: &mut Vec<Effect>) -> bool {
        let Some(Held {
            mut entry,
            consumer,
        }) = self.held.remove(&position)
        else {
            return false;
        };
        if let Some(consumer) = &consumer {
            self.consumers.settled(consumer);
        }
        match how {
            Settle::Ack => self.forget(&entry, effects),
            Settle::Discard => self.die(&entry, Death::Rejected, effects),
            Settle::Requeue => {
                entry.returns += 1;
                entry.redelivered = true;
                let limit = self.arguments.delivery_limit;
                if limit.is_some_and(|limit| entry.returns > limit) {
                    self.die(&entry, Death::DeliveryLimit, effects);
                } else {
                    self.put_back(entry);
                }
            }
        }
        true
    }

    fn put_back(&mut self, mut entry: Entry) {
        if self.planted.has(Bug::RequeuesLast) {
            entry.position = self.next;
            self.next += 1;
        }
        let lane = self.lane_of(&entry.message);
        self.count(&entry);
        self.lanes[lane].put_back(entry);
    }

    /// Throws away all that wait; how many they were.
    pub fn purge(&mut self, effects: &mut Vec<Effect>) -> usize {
        let count = self.ready;
        while let Some(entry) = self.pop() {
            self.forget(&entry, effects);
        }
        count
    }

    /// Somebody declared it: it is in use.
    pub fn touch(&mut self, now: Instant) {
        self.unused = now;
    }

    /// When [`Queue::turn`] and [`Queue::is_abandoned`] are to be asked again, if nothing happens before.
    pub fn deadline(&self) -> Instant {
        let fronts = self.lanes.iter().filter_map(Lane::front);
        let expiry = fronts.map(|entry| entry.expires).min();
        expiry.unwrap_or(Instant::NEVER).min(self.abandoned_at())
    }

    /// Whether `x-expires` is over.
    pub fn is_abandoned(&self, now: Instant) -> bool {
        self.abandoned_at() <= now
    }

    fn abandoned_at(&self) -> Instant {
        match self.arguments.expires {
            Some(expires) if self.consumers.len() == 0 => self.unused.after(expires),
            Some(_) | None => Instant::NEVER,
        }
    }

    fn check(&self) {
        if cfg!(debug_assertions) && self.ready < 64 {
            let ready: usize = self.lanes.iter().map(Lane::len).sum();
            debug_assert_eq!(ready, self.ready, "what waits is counted");
            self.consumers.check();
        }
    }
}

fn length(message: &Message) -> u64 {
    u64::try_from(message.body.len()).expect("64 bits")
}
