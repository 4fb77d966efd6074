//! What is there, for people and for programs that watch. Nothing is copied: a view lives as long as the broker is not
//! changed. Exchanges and bindings are in [`Broker::vhost`].

use alloc::vec::Vec;

use super::Broker;
use super::channel::{Channel, Mode};
use super::contract::Now;
use super::queues::Slot;
use crate::code::Fault;
use crate::field::Table;
use crate::limits::PEEK_MAX;
use crate::queue::{
    Arguments, ChannelKey, ConnectionId, ConsumerKey, ConsumerState, Durability, Peeked, QueueId,
};
use crate::rates::{Counts, Rates};
use crate::text::ShortString;

/// Whether a queue does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueState {
    /// It has more to deliver than it could in its last turn.
    Busy,
    /// It waits for messages, or for consumers.
    Idle,
}

/// A queue.
#[derive(Debug, Clone)]
pub struct QueueView<'a> {
    /// Its number.
    pub id: QueueId,
    /// Its name.
    pub name: &'a ShortString,
    /// Whether it outlives the broker.
    pub durability: Durability,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// The connection that it belongs to.
    pub exclusive: Option<ConnectionId>,
    /// What it was declared with.
    pub declared: &'a Table,
    /// The policy that is in force.
    pub policy: Option<&'a ShortString>,
    /// What both together say.
    pub arguments: &'a Arguments,
    /// Messages that wait.
    pub ready: usize,
    /// Bytes of their bodies.
    pub ready_bytes: u64,
    /// Bytes of bodies, waiting or delivered, that are in memory and could be on disk alone.
    pub here: u64,
    /// Messages that are delivered and not settled.
    pub unacked: usize,
    /// Consumers.
    pub consumers: usize,
    /// What it does.
    pub state: QueueState,
    /// What happened to its messages.
    pub counts: &'a Counts,
    /// And how fast.
    pub rates: Rates,
}

/// How publishes on a channel are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelMode {
    /// Not at all.
    Plain,
    /// With confirms.
    Confirm,
    /// Together, by a commit.
    Transaction,
}

/// A channel.
#[derive(Debug, Clone)]
pub struct ChannelView<'a> {
    /// Which.
    pub key: ChannelKey,
    /// Who uses it.
    pub user: &'a ShortString,
    /// How its publishes are answered.
    pub mode: ChannelMode,
    /// Unacknowledged deliveries at most for a consumer to come; 0 is without limit.
    pub prefetch: u32,
    /// The same for all of the channel together.
    pub limit: u32,
    /// Deliveries that are not settled.
    pub unacked: usize,
    /// Publishes that wait for a word.
    pub unconfirmed: usize,
    /// Publishes and acknowledgements that wait for a commit.
    pub uncommitted: usize,
    /// Consumers, without one for direct replies.
    pub consumers: usize,
}

/// A consumer.
#[derive(Debug, Clone)]
pub struct ConsumerView<'a> {
    /// Its channel and tag.
    pub key: &'a ConsumerKey,
    /// The queue that it consumes.
    pub queue: &'a ShortString,
    /// What the queue knows of it.
    pub state: ConsumerState,
}

impl Slot {
    fn view(&self, id: QueueId, rates: Rates) -> QueueView<'_> {
        QueueView {
            id,
            name: &self.name,
            durability: self.durability,
            auto_delete: self.auto_delete,
            exclusive: self.owner,
            declared: &self.arguments,
            policy: self.policy.as_ref(),
            arguments: self.queue.arguments(),
            ready: self.queue.ready(),
            ready_bytes: self.queue.ready_bytes(),
            here: self.queue.here(),
            unacked: self.queue.unacked(),
            consumers: self.queue.consumers(),
            state: if self.runs {
                QueueState::Busy
            } else {
                QueueState::Idle
            },
            counts: self.queue.counts(),
            rates,
        }
    }
}

fn view_channel<'a>(key: ChannelKey, channel: &Channel, user: &'a ShortString) -> ChannelView<'a> {
    let (mode, unconfirmed, uncommitted) = match &channel.mode {
        Mode::Plain => (ChannelMode::Plain, 0, 0),
        Mode::Confirm(confirms) => (ChannelMode::Confirm, confirms.open(), 0),
        Mode::Transaction(transaction) => {
            let open = transaction.confirms.open();
            (ChannelMode::Transaction, open, transaction.len())
        }
    };
    ChannelView {
        key,
        user,
        mode,
        prefetch: channel.prefetch,
        limit: channel.limit,
        unacked: channel.unacked.len(),
        unconfirmed,
        uncommitted,
        consumers: channel.consumers.len(),
    }
}

impl Broker {
    /// Each queue, by name.
    pub fn queues(&self) -> impl Iterator<Item = QueueView<'_>> {
        let slots = self
            .names
            .values()
            .filter_map(|id| Some((*id, self.queues.get(id)?)));
        slots.map(|(id, slot)| slot.view(id, self.meters.rates(id)))
    }

    /// The queue of this name.
    pub fn view_queue(&self, name: &ShortString) -> Result<QueueView<'_>, Fault> {
        let (id, slot) = self.queue(name)?;
        Ok(slot.view(id, self.meters.rates(id)))
    }

    /// Each channel, by connection and number.
    pub fn channels(&self) -> impl Iterator<Item = ChannelView<'_>> {
        self.channels
            .iter()
            .map(|(key, channel)| view_channel(*key, channel, &self.user(*key).name))
    }

    /// Each consumer, by the number of its queue.
    pub fn consumers(&self) -> impl Iterator<Item = ConsumerView<'_>> {
        self.queues.values().flat_map(|slot| {
            let states = slot.queue.consumer_states();
            states.map(|(key, state)| ConsumerView {
                key,
                queue: &slot.name,
                state,
            })
        })
    }

    /// The next messages of a queue, in the order in which they would be delivered, at most [`PEEK_MAX`]. They stay.
    pub fn peek(&self, now: Now, name: &ShortString, count: usize) -> Result<Vec<Peeked>, Fault> {
        let (_, slot) = self.queue(name)?;
        Ok(slot.queue.peek(now.instant, count.min(PEEK_MAX)))
    }
}
