//! What a session is told with and what it wants.

use alloc::vec;
use bytes::Bytes;

use crate::field::{Table, Value};
use crate::limits;
use crate::message::{Body, Content, Place};
use crate::method::Method;
use crate::text::ShortString;

/// What a connection is offered.
#[derive(Debug, Clone)]
pub struct Options {
    /// What we say of ourselves in `connection.start`.
    pub server_properties: Table,
    /// The largest frame, in bytes; at least [`limits::FRAME_MIN`].
    pub frame_max: u32,
    /// Channels at most.
    pub channel_max: u16,
    /// The interval of heartbeats that is proposed, in seconds; a client may choose another one, or 0 for none.
    pub heartbeat: u16,
}

impl Options {
    /// RabbitMQ's values, and the capabilities that this crate keeps. Some clients choose their ways by product and
    /// version: say RabbitMQ's where ours agree.
    pub fn new(product: &'static str, version: &'static str) -> Self {
        let on = |name| (ShortString::literal(name), Value::Bool(true));
        let capabilities = Table::new(vec![
            on("publisher_confirms"),
            on("exchange_exchange_bindings"),
            on("basic.nack"),
            on("consumer_cancel_notify"),
            on("connection.blocked"),
            on("consumer_priorities"),
            on("authentication_failure_close"),
            on("per_consumer_qos"),
            on("direct_reply_to"),
        ]);
        let server_properties = Table::new(vec![
            (
                ShortString::literal("capabilities"),
                Value::Table(capabilities),
            ),
            (ShortString::literal("product"), Value::literal(product)),
            (ShortString::literal("version"), Value::literal(version)),
        ]);
        Self {
            server_properties,
            frame_max: limits::FRAME_MAX,
            channel_max: limits::CHANNEL_MAX,
            heartbeat: limits::HEARTBEAT,
        }
    }
}

/// A way to prove who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// RabbitMQ's, a table in place of zeros.
    AmqPlain,
}

impl Mechanism {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::AmqPlain => "AMQPLAIN",
        }
    }
}

/// Who somebody says to be. The password is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: ShortString,
    /// The password.
    pub password: Bytes,
}

impl core::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} with a password", self.user)
    }
}

/// What a session wants of the broker.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// An answer with [`super::Session::authenticated`]; nothing is read before.
    Authenticate(Credentials),
    /// An answer with [`super::Session::opened`]; nothing is read before.
    OpenVhost(ShortString),
    /// A new channel; an answer with [`super::Session::channel_opened`].
    OpenChannel(u16),
    /// The client closed it, or a violation did; an answer with [`super::Session::channel_closed`], after all that it
    /// asked for before.
    CloseChannel(u16),
    /// A method on an open channel, for a publish with its content.
    Method(u16, Method, Option<Content>),
    /// The credentials are new ones: an answer with [`super::Session::secret_updated`].
    UpdateSecret(Bytes),
    /// The connection uses nothing any more: its channels are gone. The session may still have something to write.
    Gone,
}

/// Whether somebody may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Yes.
    Granted,
    /// No.
    Refused,
}

/// Whether a virtual host may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VhostEntry {
    /// Yes.
    Granted,
    /// There is none of this name.
    Missing,
    /// This user may not.
    Refused,
    /// So many connections are all that there may be.
    Full(usize),
}

/// What goes to a client on a channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// A method.
    Method(Method),
    /// A method with flags, properties and a body.
    Content(Method, Bytes, Body),
}

impl Reply {
    /// Where its body is, if on disk alone.
    pub const fn place(&self) -> Option<Place> {
        match self {
            Self::Content(_, _, Body::Stored { place, .. }) => Some(*place),
            Self::Content(_, _, Body::Here(_)) | Self::Method(_) => None,
        }
    }

    /// The same with the body that was read from its place.
    #[must_use]
    pub fn loaded(self, bytes: Bytes) -> Self {
        match self {
            Self::Content(method, properties, body) => {
                debug_assert_eq!(body.len(), Body::Here(bytes.clone()).len());
                Self::Content(method, properties, Body::Here(bytes))
            }
            Self::Method(method) => Self::Method(method),
        }
    }
}
