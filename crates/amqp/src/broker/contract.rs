//! What goes into a broker and what comes out.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use mainstay_ids::{Instant, Timestamp};

use crate::code::Fault;
use crate::field::Table;
use crate::message::{Content, Message};
use crate::method::Method;
use crate::queue::{ChannelKey, ConnectionId, QueueId};
use crate::session::Reply;
use crate::text::ShortString;
use crate::vhost::{Binding, Exchange};

/// What time it is.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// By which everything is decided.
    pub instant: Instant,
    /// For `x-death` alone.
    pub wall: Timestamp,
}

/// What a permission is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To declare and delete.
    Configure,
    /// To publish, and to bind to.
    Write,
    /// To consume, and to bind from.
    Read,
}

/// What a user may. The default exchange is asked for as `amq.default`.
pub trait Rights: fmt::Debug + Send {
    /// Whether the user may do this with the exchange or queue of this name.
    fn allows(&self, right: Right, name: &str) -> bool;
}

/// May everything.
#[derive(Debug, Clone, Copy)]
pub struct Everything;

impl Rights for Everything {
    fn allows(&self, _: Right, _: &str) -> bool {
        true
    }
}

/// Who stands behind a connection.
#[derive(Debug)]
pub struct User {
    /// The name.
    pub name: ShortString,
    /// What the user may.
    pub rights: Box<dyn Rights>,
    /// Whether the client hears `basic.cancel`.
    pub hears_cancel: bool,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A connection uses this virtual host from now on.
    Opened(ConnectionId, User),
    /// A connection is gone, with all its channels.
    Gone(ConnectionId),
    /// A channel was opened.
    OpenChannel(ChannelKey),
    /// A channel was closed.
    CloseChannel(ChannelKey),
    /// A method of a client, for a publish with its content.
    Method(ChannelKey, Method, Option<Content>),
    /// Everything that was to be stored of a queue, up to this position, is on disk.
    Stored(QueueId, u64),
    /// A connection has enough to write: no deliveries.
    Pause(ConnectionId),
    /// It has not any more.
    Resume(ConnectionId),
}

/// Something to be done, in the order in which it is given. A place on disk is named before it is forgotten: whoever
/// looks each place up when it takes the output that names it finds it.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A client gets this. What follows a [`Output::Record`] waits until that is on disk.
    Reply(ChannelKey, Reply),
    /// A channel is there: what comes before it on the same number was of an older one.
    Opened(ChannelKey),
    /// A violation; the broker has let go of the channel, or, by the fault's code, of the connection.
    Fault(ChannelKey, Fault),
    /// A message is to be on disk; [`Input::Stored`] says when it is. From here on it has this place: if its body is
    /// on disk alone, at another place, both are the same body until that one is forgotten. A queue that does not
    /// outlive the broker stores nothing but such messages, which are to be forgotten when it is not restored.
    Store(QueueId, u64, Arc<Message>),
    /// A message need not be kept any more.
    Forget(QueueId, u64),
    /// What is durable changed.
    Record(Record),
}

/// A change of what is durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// There is an exchange.
    Exchange(Exchange),
    /// There is not any more.
    NoExchange(ShortString),
    /// There is a queue.
    Queue(QueueId, DurableQueue),
    /// There is not any more, nor what it held.
    NoQueue(QueueId),
    /// There is a binding.
    Binding(Binding),
    /// There is not any more.
    NoBinding(Binding),
}

/// A queue that outlives the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct DurableQueue {
    /// Its name.
    pub name: ShortString,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// What it was declared with.
    pub arguments: Table,
}

/// Whether the broker has more to do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It has.
    More,
    /// It waits for an input or for its deadline.
    Idle,
}
