//! Who consumes a queue, and whose turn it is.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::contract::{ChannelKey, ConsumerKey, ConsumerState, NewConsumer};
use crate::planted::{Bug, Planted};

#[derive(Debug)]
struct Consumer {
    no_ack: bool,
    /// Unacknowledged deliveries at most; 0 is without limit.
    prefetch: u32,
    priority: i64,
    unacked: u32,
    turn: Turn,
}

/// Whether it stands in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Waits,
    /// It has all that it may have, or its channel has.
    Blocked,
}

impl Consumer {
    fn has_room(&self, planted: Planted) -> bool {
        self.no_ack
            || self.prefetch == 0
            || self.unacked < self.prefetch
            || planted.has(Bug::IgnoresPrefetch)
    }
}

/// How the queue is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Everybody in turn.
    Everybody,
    /// One has it alone, and no second may come.
    Exclusive,
    /// One at a time, the next when it leaves.
    SingleActive,
}

#[derive(Debug)]
pub(crate) struct Consumers {
    all: BTreeMap<ConsumerKey, Consumer>,
    /// Those that wait, the highest priority first; within one, whose turn is next stands first.
    line: BTreeMap<Reverse<i64>, VecDeque<ConsumerKey>>,
    sharing: Sharing,
    /// In the order of their coming, for a single active consumer.
    arrivals: VecDeque<ConsumerKey>,
    planted: Planted,
}

/// Somebody may not consume: the queue belongs to one consumer alone.
#[derive(Debug)]
pub(crate) struct InExclusiveUse;

impl Consumers {
    pub(crate) fn new(sharing: Sharing, planted: Planted) -> Self {
        Self {
            all: BTreeMap::new(),
            line: BTreeMap::new(),
            sharing,
            arrivals: VecDeque::new(),
            planted,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn add(&mut self, new: NewConsumer) -> Result<(), InExclusiveUse> {
        match (self.sharing, new.exclusive) {
            (Sharing::Exclusive, _) | (Sharing::SingleActive, true) => return Err(InExclusiveUse),
            (Sharing::Everybody, true) if !self.all.is_empty() => return Err(InExclusiveUse),
            (Sharing::Everybody, true) => self.sharing = Sharing::Exclusive,
            (Sharing::Everybody | Sharing::SingleActive, false) => {}
        }
        self.arrivals.push_back(new.key.clone());
        let line = self.line.entry(Reverse(new.priority)).or_default();
        line.push_back(new.key.clone());
        let consumer = Consumer {
            no_ack: new.no_ack,
            prefetch: new.prefetch,
            priority: new.priority,
            unacked: 0,
            turn: Turn::Waits,
        };
        self.all.insert(new.key, consumer);
        Ok(())
    }

    /// It goes; whether it was there.
    pub(crate) fn remove(&mut self, key: &ConsumerKey) -> bool {
        let Some(consumer) = self.all.remove(key) else {
            return false;
        };
        if consumer.turn == Turn::Waits {
            self.leave_line(consumer.priority, key);
        }
        self.arrivals.retain(|known| known != key);
        if self.sharing == Sharing::Exclusive {
            self.sharing = Sharing::Everybody;
        }
        true
    }

    fn leave_line(&mut self, priority: i64, key: &ConsumerKey) {
        if let Some(line) = self.line.get_mut(&Reverse(priority)) {
            line.retain(|known| known != key);
            if line.is_empty() {
                self.line.remove(&Reverse(priority));
            }
        }
    }

    /// Who gets the next message, and whether it acknowledges: the one whose turn it is of those that have room and
    /// whose channel admits it. Who has no room leaves the line until it has some again.
    pub(crate) fn next(
        &mut self,
        admit: &mut impl FnMut(ChannelKey, bool) -> bool,
    ) -> Option<(ConsumerKey, bool)> {
        if self.sharing == Sharing::SingleActive {
            return self.next_active(admit);
        }
        while let Some(mut line) = self.line.first_entry() {
            let Some(key) = line.get_mut().pop_front() else {
                line.remove();
                continue;
            };
            let consumer = self.all.get_mut(&key).expect("who waits is known");
            if consumer.has_room(self.planted) && admit(key.channel, consumer.no_ack) {
                line.get_mut().push_back(key.clone());
                consumer.unacked += u32::from(!consumer.no_ack);
                return Some((key, consumer.no_ack));
            }
            consumer.turn = Turn::Blocked;
        }
        None
    }

    fn next_active(
        &mut self,
        admit: &mut impl FnMut(ChannelKey, bool) -> bool,
    ) -> Option<(ConsumerKey, bool)> {
        let key = self.arrivals.front()?.clone();
        let consumer = self.all.get_mut(&key).expect("who came is known");
        let (priority, no_ack) = (consumer.priority, consumer.no_ack);
        if consumer.turn == Turn::Blocked {
            return None;
        }
        if consumer.has_room(self.planted) && admit(key.channel, no_ack) {
            consumer.unacked += u32::from(!no_ack);
            return Some((key, no_ack));
        }
        consumer.turn = Turn::Blocked;
        self.leave_line(priority, &key);
        None
    }

    /// One of its deliveries is settled.
    pub(crate) fn settled(&mut self, key: &ConsumerKey) {
        if let Some(consumer) = self.all.get_mut(key) {
            debug_assert!(consumer.unacked > 0, "settled more than delivered: {key:?}");
            consumer.unacked = consumer.unacked.saturating_sub(1);
            self.try_again(key);
        }
    }

    /// Its channel may admit more now.
    pub(crate) fn wake(&mut self, channel: ChannelKey) {
        let blocked = |(key, one): &(&ConsumerKey, &Consumer)| {
            key.channel == channel && one.turn == Turn::Blocked
        };
        let keys: Vec<ConsumerKey> = self
            .of(channel)
            .filter(blocked)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.try_again(&key);
        }
    }

    fn of(&self, channel: ChannelKey) -> impl Iterator<Item = (&ConsumerKey, &Consumer)> {
        let first = ConsumerKey::first_of(channel);
        let range = self.all.range(first..);
        range.take_while(move |(key, _)| key.channel == channel)
    }

    fn try_again(&mut self, key: &ConsumerKey) {
        let Some(consumer) = self.all.get_mut(key) else {
            return;
        };
        if consumer.turn == Turn::Blocked && consumer.has_room(self.planted) {
            consumer.turn = Turn::Waits;
            let line = self.line.entry(Reverse(consumer.priority)).or_default();
            line.push_back(key.clone());
        }
    }

    /// All of them.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &ConsumerKey> {
        self.all.keys()
    }

    /// All of them, and how they stand.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&ConsumerKey, ConsumerState)> {
        self.all.iter().map(|(key, one)| {
            let state = ConsumerState {
                no_ack: one.no_ack,
                exclusive: self.sharing == Sharing::Exclusive,
                prefetch: one.prefetch,
                priority: one.priority,
                unacked: one.unacked,
                active: match self.sharing {
                    Sharing::SingleActive => self.arrivals.front() == Some(key),
                    Sharing::Everybody | Sharing::Exclusive => true,
                },
            };
            (key, state)
        })
    }

    pub(crate) fn check(&self) {
        let waits = self.all.iter().filter(|(_, one)| one.turn == Turn::Waits);
        let lined: usize = self.line.values().map(VecDeque::len).sum();
        debug_assert_eq!(waits.count(), lined, "who waits stands in line, once");
        debug_assert_eq!(self.arrivals.len(), self.all.len());
    }
}
