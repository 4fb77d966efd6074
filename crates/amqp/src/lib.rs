//! AMQP 0-9-1 as RabbitMQ speaks it, from the server's side: frames, connections, and the broker behind them.
//!
//! Pure: no sockets, no files, no clock, no threads; time is an argument. It is not the program that listens, nor the
//! journal that keeps messages: those carry out what is said here, and say when something is on disk.
//!
//! ```text
//!   bytes ─► Session ── Request ─► driver ── Input ─► Broker ── Output ─► driver ─► Session ─► bytes
//!            one per connection                       one per virtual host     └──► journal
//!                                                     Vhost: exchanges, bindings
//!                                                     Queue: messages, consumers
//! ```
//!
//! Start reading at [`Session`] and [`Broker`]; [`Queue`] is where messages are. `tests/conformance` holds what RabbitMQ
//! itself answered, byte for byte; `src/simulation` proves the broker against clients that die and disks that are slow.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod broker;
mod code;
mod erlang;
mod field;
pub mod frame;
pub mod limits;
mod message;
pub mod method;
mod planted;
mod policy;
mod properties;
mod queue;
pub mod rates;
mod session;
#[cfg(test)]
mod simulation;
mod text;
mod vhost;
mod wire;

pub use broker::{
    Broker, ChannelMode, ChannelView, ConsumerView, Definitions, DurableQueue, Everything, Input,
    Now, Output, QueueDefinition, QueueState, QueueView, Record, Right, Rights, User, Work,
};
pub use code::{Code, Fault, Scope};
pub use field::{Table, Value};
pub use message::{Body, Content, Message, Place};
pub use method::{Method, MethodId};
pub use policy::{AppliesTo, Policy};
pub use properties::Properties;
pub use queue::{
    Arguments, ChannelKey, ConnectionId, ConsumerKey, ConsumerState, Death, Delivery, Durability,
    Effect, NewConsumer, Origin, Overflow, Peeked, Queue, QueueId, QueueKind, Settle, Turn,
};
pub use session::{
    Capabilities, Credentials, Entry, Mechanism, Options, Outbox, Reply, Request, Session,
    VhostEntry,
};
pub use text::ShortString;
pub use vhost::{Binding, Destination, Exchange, ExchangeKind, Removed, Route, Routed, Vhost};
pub use wire::{Malformed, Reserved};
