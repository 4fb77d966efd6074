//! One queue: its messages, its consumers, and what becomes of them. It knows no exchange, no channel and no disk: what
//! they are to do is an [`Effect`].

mod arguments;
mod consumers;
mod contract;
mod lane;
mod packed;
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
pub(crate) use self::contract::Leaving;
pub use self::contract::{
    ChannelKey, ConnectionId, ConsumerKey, ConsumerState, Death, Delivery, Effect, NewConsumer,
    Origin, Peeked, QueueId,
};
use self::lane::{Entry, Kept, Lane, Medium};
use self::packed::Packed;
use crate::limits::TURN_MAX;
use crate::message::{Message, Place};
use crate::planted::{Bug, Planted};
use crate::rates::Counts;

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

/// Who waits for a message to be on disk, if anybody, and in which lane it stands.
#[derive(Debug)]
struct Unstored {
    origin: Option<Origin>,
    lane: u8,
}

/// A queue.
#[derive(Debug)]
pub struct Queue {
    id: QueueId,
    arguments: Arguments,
    durability: Durability,
    /// By priority, the highest last.
    lanes: Vec<Lane>,
    ready: usize,
    ready_bytes: u64,
    /// Bytes of bodies, waiting or delivered, that are in memory and could be on disk alone.
    here: u64,
    /// Delivered and not settled.
    held: BTreeMap<u64, Held>,
    next: u64,
    /// To be on disk and not known to be, with the publish that waits for it.
    unstored: BTreeMap<u64, Unstored>,
    consumers: Consumers,
    /// Since when nobody used it.
    unused: Instant,
    counts: Counts,
    /// Whether its broker has a meter for it.
    pub(crate) metered: bool,
    planted: Planted,
}

impl Queue {
    /// An empty one.
    pub fn new(id: QueueId, now: Instant, arguments: Arguments, durability: Durability) -> Self {
        Self::with(id, now, arguments, durability, Planted::default())
    }

    pub(crate) fn with(
        id: QueueId,
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
            id,
            arguments,
            durability,
            lanes,
            ready: 0,
            ready_bytes: 0,
            here: 0,
            held: BTreeMap::new(),
            next: 0,
            unstored: BTreeMap::new(),
            consumers: Consumers::new(sharing, planted),
            unused: now,
            counts: Counts::default(),
            metered: false,
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

    /// Bytes of bodies, waiting or delivered, that are in memory and could be on disk alone.
    pub fn here(&self) -> u64 {
        self.here
    }

    /// Messages that are delivered and not settled.
    pub fn unacked(&self) -> usize {
        self.held.len()
    }

    /// What happened to its messages.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether this one is delivered and not settled, or waits for its time.
    pub(crate) fn is_held(&self, position: u64) -> bool {
        self.held.contains_key(&position)
    }

    /// Consumers.
    pub fn consumers(&self) -> usize {
        self.consumers.len()
    }

    /// Each consumer.
    pub fn consumer_keys(&self) -> impl Iterator<Item = &ConsumerKey> {
        self.consumers.keys()
    }

    /// Each consumer, and how it stands.
    pub fn consumer_states(&self) -> impl Iterator<Item = (&ConsumerKey, ConsumerState)> {
        self.consumers.states()
    }

    /// The next messages, in the order in which they would be delivered. They stay.
    pub fn peek(&self, now: Instant, count: usize) -> Vec<Peeked> {
        let lanes = self.lanes.iter().rev().flat_map(Lane::in_order);
        let young = lanes.filter(|entry| entry.expires > now);
        let peeked = young.take(count).map(|entry| Peeked {
            position: entry.position,
            message: entry.message(self.place(entry.position)),
            redelivered: entry.redelivered,
            returns: entry.returns,
        });
        peeked.collect()
    }

    /// Bytes of the body that is delivered next.
    pub(crate) fn first_len(&self) -> Option<u64> {
        let first = self.lanes.iter().rev().find_map(Lane::front);
        first.map(Entry::len)
    }

    /// The first message leaves for another queue.
    pub(crate) fn leave(&mut self) -> Option<Leaving> {
        let entry = self.pop()?;
        self.here -= entry.here();
        let waits = self.unstored.remove(&entry.position);
        let on_disk = entry.medium == Medium::Disk;
        Some(Leaving {
            message: entry.message(self.place(entry.position)),
            origin: waits.and_then(|one| one.origin),
            forget: on_disk.then_some(Effect::Forget(entry.position)),
        })
    }

    /// What it was declared with.
    pub fn arguments(&self) -> &Arguments {
        &self.arguments
    }

    /// Other arguments are in force from now on; a turn carries out what follows from it.
    pub(crate) fn rule(&mut self, arguments: Arguments) {
        debug_assert_eq!(self.arguments.priority_max, arguments.priority_max);
        self.arguments = arguments;
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
        if self.would_overflow(message.body.len()) {
            effects.extend(origin.map(Effect::Refuse));
            if self.arguments.overflow == Overflow::RejectPublishDeadLetter {
                self.bury(&message, Death::MaxLength, effects);
            }
            return;
        }
        let entry = self.admit(now, message, origin, effects);
        self.counts.published += 1;
        self.enter(entry);
    }

    /// Takes a message in that waits for its time, and for no consumer. Its position.
    pub(crate) fn shelve(
        &mut self,
        now: Instant,
        message: Arc<Message>,
        origin: Option<Origin>,
        effects: &mut Vec<Effect>,
    ) -> u64 {
        let entry = self.admit(now, message, origin, effects);
        let position = entry.position;
        self.put_on_shelf(entry);
        position
    }

    fn put_on_shelf(&mut self, entry: Entry) {
        let consumer = None;
        self.held.insert(entry.position, Held { entry, consumer });
    }

    /// Its time has come: the message, and what is to be done once it is elsewhere. Who waits for it to be on disk here
    /// waits on, as with what dies.
    pub(crate) fn unshelve(&mut self, position: u64) -> Option<(Arc<Message>, Option<Effect>)> {
        let Held { entry, .. } = self.held.remove(&position)?;
        let mut forget = Vec::new();
        let message = entry.message(self.place(position));
        self.let_go(&entry, &mut forget);
        Some((message, forget.pop()))
    }

    /// Puts a message in that was on disk and waits for its time.
    pub(crate) fn restore_shelved(&mut self, now: Instant, position: u64, message: &Arc<Message>) {
        self.next = self.next.max(position + 1);
        let entry = self.entry(now, position, message);
        self.here += entry.here();
        self.put_on_shelf(entry);
    }

    fn admit(
        &mut self,
        now: Instant,
        message: Arc<Message>,
        origin: Option<Origin>,
        effects: &mut Vec<Effect>,
    ) -> Entry {
        let position = self.next;
        self.next += 1;
        let mut entry = self.entry(now, position, &message);
        if self.planted.has(Bug::UnloadsUnstored) {
            entry.unload();
        }
        match entry.medium {
            Medium::Disk => {
                effects.push(Effect::Store(position, message));
                if self.planted.has(Bug::ConfirmsUnstored) {
                    effects.extend(origin.map(Effect::Confirm));
                } else {
                    let lane = entry.lane;
                    self.unstored.insert(position, Unstored { origin, lane });
                }
            }
            Medium::Memory => effects.extend(origin.map(Effect::Confirm)),
        }
        self.here += entry.here();
        entry
    }

    /// Puts a message in that was on disk. Positions come in rising order.
    pub fn restore(&mut self, now: Instant, position: u64, message: &Arc<Message>, returns: u32) {
        self.next = self.next.max(position + 1);
        let mut entry = self.entry(now, position, message);
        self.here += entry.here();
        entry.returns = returns;
        // It may have been delivered before we ended; a consumer must be ready for that.
        entry.redelivered = true;
        self.enter(entry);
    }

    fn entry(&self, now: Instant, position: u64, message: &Arc<Message>) -> Entry {
        let expires = match (self.arguments.message_ttl, message.expiration) {
            (None, None) => Instant::NEVER,
            (Some(ttl), None) | (None, Some(ttl)) => now.after(ttl),
            (Some(one), Some(other)) => now.after(one.min(other)),
        };
        let away = message.body.here().is_none();
        let stored = message.persistent && self.durability == Durability::Durable;
        let packed = away.then(|| Packed::of(message)).flatten();
        let here = || Kept::Here(Arc::clone(message));
        let kept = packed.map_or_else(here, Kept::Away);
        Entry {
            position,
            expires,
            kept,
            returns: 0,
            redelivered: false,
            // What is on disk alone must stay there, whose it ever is.
            medium: if stored || away {
                Medium::Disk
            } else {
                Medium::Memory
            },
            lane: message.priority.min(self.arguments.priority_max),
        }
    }

    fn enter(&mut self, entry: Entry) {
        self.count(&entry);
        self.lanes[usize::from(entry.lane)].push(entry);
    }

    fn count(&mut self, entry: &Entry) {
        self.ready += 1;
        self.ready_bytes += entry.len();
    }

    fn place(&self, position: u64) -> Place {
        let queue = self.id;
        Place { queue, position }
    }

    /// Whether it would refuse a message with a body of so many bytes.
    pub(crate) fn would_overflow(&self, len: u64) -> bool {
        match self.arguments.overflow {
            Overflow::DropHead => false,
            Overflow::RejectPublish | Overflow::RejectPublishDeadLetter => {
                self.is_over(self.ready + 1, self.ready_bytes + len)
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
            // Whose time is over just now may still be taken by who waits: a life of zero is enough for that.
            self.expire_if(effects, |expires| expires < now);
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
            let delivery = self.delivery(&entry, no_ack);
            effects.push(Effect::Deliver(key.clone(), delivery));
            self.hand_out(entry, Some(key), no_ack, effects);
        }
        self.expire(now, effects);
        while self.is_over(self.ready, self.ready_bytes)
            && self.arguments.overflow == Overflow::DropHead
        {
            let Some(entry) = self.pop() else { break };
            self.die(&entry, Death::MaxLength, effects);
        }
        self.check();
        turn
    }

    fn delivery(&self, entry: &Entry, no_ack: bool) -> Delivery {
        Delivery {
            position: entry.position,
            message: entry.message(self.place(entry.position)),
            redelivered: entry.redelivered && !self.planted.has(Bug::HidesRedelivery),
            returns: entry.returns,
            no_ack,
        }
    }

    /// It is delivered: it is held, or gone.
    fn hand_out(
        &mut self,
        entry: Entry,
        consumer: Option<ConsumerKey>,
        no_ack: bool,
        effects: &mut Vec<Effect>,
    ) {
        self.counts.delivered += 1;
        self.counts.redelivered += u64::from(entry.redelivered);
        if no_ack {
            self.counts.auto_acknowledged += 1;
            self.let_go(&entry, effects);
        } else {
            self.held.insert(entry.position, Held { entry, consumer });
        }
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.lanes.iter_mut().rev().find_map(Lane::pop)?;
        self.ready -= 1;
        self.ready_bytes -= entry.len();
        Some(entry)
    }

    /// Lets die what stands first and is too old. What stands behind something younger waits, as RabbitMQ's does.
    pub(crate) fn expire(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.expire_if(effects, |expires| expires <= now);
    }

    fn expire_if(&mut self, effects: &mut Vec<Effect>, is_over: impl Fn(Instant) -> bool) {
        for lane in 0..self.lanes.len() {
            while let Some(front) = self.lanes[lane].front()
                && is_over(front.expires)
            {
                let entry = self.lanes[lane].pop().expect("it stands first");
                self.ready -= 1;
                self.ready_bytes -= entry.len();
                self.die(&entry, Death::Expired, effects);
            }
        }
    }

    fn let_go(&mut self, entry: &Entry, effects: &mut Vec<Effect>) {
        self.here -= entry.here();
        match entry.medium {
            Medium::Memory => {}
            Medium::Disk => effects.push(Effect::Forget(entry.position)),
        }
    }

    fn die(&mut self, entry: &Entry, death: Death, effects: &mut Vec<Effect>) {
        if self.arguments.dead_letter_exchange.is_none() {
            return self.let_go(entry, effects);
        }
        self.counts.die(death);
        // The letter is stored before its message is forgotten: a crash between the two leaves one too many, not none,
        // and a letter whose body is on disk alone finds it there.
        // Who waits for a word waits on: until it was on disk here, its letter may not be, either.
        let message = entry.message(self.place(entry.position));
        if self.planted.has(Bug::ConfirmsDead) {
            effects.push(Effect::DeadLetter(message, death));
            self.let_go(entry, effects);
            let waits = self.unstored.remove(&entry.position);
            effects.extend(waits.and_then(|one| one.origin).map(Effect::Confirm));
        } else if self.planted.has(Bug::ForgetsFirst) {
            self.let_go(entry, effects);
            effects.push(Effect::DeadLetter(message, death));
        } else {
            effects.push(Effect::DeadLetter(message, death));
            self.let_go(entry, effects);
        }
    }

    fn bury(&mut self, message: &Arc<Message>, death: Death, effects: &mut Vec<Effect>) {
        if self.arguments.dead_letter_exchange.is_some() {
            self.counts.die(death);
            effects.push(Effect::DeadLetter(Arc::clone(message), death));
        }
    }

    /// Everything up to this position that was to be stored is on disk. So many bytes of it leave memory, those that
    /// are delivered last first.
    pub fn stored(&mut self, through: u64, excess: u64, effects: &mut Vec<Effect>) {
        let mut there = Vec::new();
        while let Some(first) = self.unstored.first_entry()
            && *first.key() <= through
        {
            if excess > 0 {
                there.push((*first.key(), first.get().lane));
            }
            effects.extend(first.remove().origin.map(Effect::Confirm));
        }
        let mut unloaded = 0;
        for (position, lane) in there.into_iter().rev() {
            if unloaded >= excess {
                break;
            }
            let held = self.held.get_mut(&position).map(|held| &mut held.entry);
            let entry = held.or_else(|| self.lanes[usize::from(lane)].at(position));
            unloaded += entry.map_or(0, Entry::unload);
        }
        self.here -= unloaded;
    }

    /// Lets go of so many bytes of bodies that are on disk, or of what there is, those that are delivered last first;
    /// those that are delivered already before them.
    pub fn unload(&mut self, excess: u64) {
        let unstored = &self.unstored;
        let held = self.held.values_mut().map(|held| &mut held.entry);
        let lanes = self.lanes.iter_mut().flat_map(Lane::last_first);
        let stored = |entry: &&mut Entry| !unstored.contains_key(&entry.position);
        let mut unloaded = 0;
        for entry in held.chain(lanes).filter(stored) {
            if unloaded >= excess {
                break;
            }
            unloaded += entry.unload();
        }
        self.here -= unloaded;
    }

    /// It is deleted: who waits for something to be stored need not wait any longer. What a queue that does not outlive
    /// the broker has on disk is forgotten one by one, since nobody records that it is gone.
    pub fn close(&mut self, effects: &mut Vec<Effect>) {
        self.stored(u64::MAX, 0, effects);
        if self.durability == Durability::Transient {
            let held = self.held.values().map(|held| &held.entry);
            let waiting = self.lanes.iter().flat_map(Lane::iter);
            let on_disk = held.chain(waiting).filter(|one| one.medium == Medium::Disk);
            effects.extend(on_disk.map(|one| Effect::Forget(one.position)));
        }
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
        let delivery = self.delivery(&entry, no_ack);
        self.hand_out(entry, None, no_ack, effects);
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
            Settle::Ack => {
                self.counts.acknowledged += 1;
                self.let_go(&entry, effects);
            }
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
        self.count(&entry);
        self.lanes[usize::from(entry.lane)].put_back(entry);
    }

    /// Throws away all that wait; how many they were.
    pub fn purge(&mut self, effects: &mut Vec<Effect>) -> usize {
        let count = self.ready;
        while let Some(entry) = self.pop() {
            self.let_go(&entry, effects);
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
            let held = self.held.values().map(|held| held.entry.here());
            let waiting = self.lanes.iter().flat_map(Lane::iter).map(Entry::here);
            let here: u64 = waiting.chain(held).sum();
            debug_assert!(
                self.held.len() > 64 || here == self.here,
                "bodies are counted"
            );
        }
    }
}
