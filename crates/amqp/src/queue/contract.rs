//! What goes into a queue and what comes out.

use alloc::sync::Arc;

use crate::message::Message;
use crate::text::ShortString;

/// A queue, numbered by the broker; a number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

/// A connection, numbered by the driver; a number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A channel of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its number there.
    pub channel: u16,
}

/// A consumer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConsumerKey {
    /// Its channel.
    pub channel: ChannelKey,
    /// Its tag there.
    pub tag: ShortString,
}

impl ConsumerKey {
    pub(crate) fn first_of(channel: ChannelKey) -> Self {
        let tag = ShortString::default();
        Self { channel, tag }
    }
}

/// Somebody wants messages.
#[derive(Debug, Clone)]
pub struct NewConsumer {
    /// Who.
    pub key: ConsumerKey,
    /// A delivery is an acknowledgement.
    pub no_ack: bool,
    /// Nobody else may consume.
    pub exclusive: bool,
    /// Unacknowledged deliveries at most; 0 is without limit.
    pub prefetch: u32,
    /// Higher ones are served first.
    pub priority: i64,
}

/// How a consumer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerState {
    /// A delivery is an acknowledgement.
    pub no_ack: bool,
    /// Nobody else may consume.
    pub exclusive: bool,
    /// Unacknowledged deliveries at most; 0 is without limit.
    pub prefetch: u32,
    /// Higher ones are served first.
    pub priority: i64,
    /// Deliveries that it has and did not settle.
    pub unacked: u32,
    /// Whether it is its turn, where one at a time is served.
    pub active: bool,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Peeked {
    /// Its place in the queue's order.
    pub position: u64,
    /// The message; a body that is on disk alone is to be looked up before the broker does anything else.
    pub message: Arc<Message>,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// How often it came back from a consumer.
    pub returns: u32,
}

/// A message that leaves for another queue.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) message: Arc<Message>,
    /// Who waits for a word.
    pub(crate) origin: Option<Origin>,
    /// What is to be done once the other queue has it.
    pub(crate) forget: Option<Effect>,
}

/// Which publish waits for a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The publisher.
    pub channel: ChannelKey,
    /// Which of the channels that had this number one after another.
    pub life: u64,
    /// The number of the publish on its channel.
    pub number: u64,
}

/// Why a message left its queue without being acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Its time was over.
    Expired,
    /// A consumer refused it.
    Rejected,
    /// The queue was full.
    MaxLength,
    /// It came back too often.
    DeliveryLimit,
}

impl Death {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [
        Self::Expired,
        Self::Rejected,
        Self::MaxLength,
        Self::DeliveryLimit,
    ];

    /// The word in `x-death`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// A message for a consumer or for a `basic.get`.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its place in the queue, by which it is settled.
    pub position: u64,
    /// The message.
    pub message: Arc<Message>,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// How often it came back, for the queues that say so.
    pub returns: u32,
    /// Whether the delivery is its acknowledgement.
    pub no_ack: bool,
}

/// What is to be done after an input, in order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// A consumer gets a message.
    Deliver(ConsumerKey, Delivery),
    /// The message is to be on disk; [`super::Queue::stored`] says when it is.
    Store(u64, Arc<Message>),
    /// It need not be kept any more.
    Forget(u64),
    /// A publish is taken care of.
    Confirm(Origin),
    /// A publish was refused.
    Refuse(Origin),
    /// A message died; the queue has a dead-letter exchange.
    DeadLetter(Arc<Message>, Death),
}
