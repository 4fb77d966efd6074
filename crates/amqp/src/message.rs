//! A message as the broker holds it.

use alloc::string::String;

use bytes::{BufMut as _, Bytes, BytesMut};
use core::time::Duration;

use crate::code::{Code, Fault};
use crate::field::{Table, Value};
use crate::limits::{COPIED_BODY_MAX, EXPIRY_MAX_MS};
use crate::properties::Properties;
use crate::queue::QueueId;
use crate::text::ShortString;
use crate::wire::Malformed;

/// What was published: header and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Flags and properties, as they came.
    pub properties: Bytes,
    /// The body.
    pub body: Bytes,
}

/// Where a message is on disk: under the name of a queue that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The queue.
    pub queue: QueueId,
    /// Its position there.
    pub position: u64,
}

/// A body, or where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// In memory.
    Here(Bytes),
    /// On disk alone. Whoever meets this looks it up before it goes on: what comes after may give the place away.
    Stored {
        /// Where.
        place: Place,
        /// Its bytes.
        len: u64,
    },
}

impl Body {
    /// Its bytes, wherever they are.
    pub fn len(&self) -> u64 {
        match self {
            Self::Here(bytes) => u64::try_from(bytes.len()).expect("64 bits"),
            Self::Stored { len, .. } => *len,
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are in memory.
    pub const fn here(&self) -> Option<&Bytes> {
        match self {
            Self::Here(bytes) => Some(bytes),
            Self::Stored { .. } => None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Here(bytes)
    }
}

/// A published message, shared by all queues that hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub exchange: ShortString,
    /// With which key.
    pub routing_key: ShortString,
    /// Flags and properties.
    pub properties: Bytes,
    /// The body.
    pub body: Body,
    /// Whether it is to outlive the broker: delivery mode 2.
    pub persistent: bool,
    /// Its priority, 0 without one.
    pub priority: u8,
    /// How long it may wait in a queue, if it says so itself.
    pub expiration: Option<Duration>,
}

impl Message {
    /// A message to be kept. What is small becomes one copy, so that it does not hold the buffer in which it came;
    /// a large body stays where it is.
    pub fn new(
        exchange: &ShortString,
        routing_key: &ShortString,
        content: Content,
        properties: &Properties,
    ) -> Result<Self, Fault> {
        let Content {
            properties: raw,
            body,
        } = content;
        Self::with_body(exchange, routing_key, &raw, body.into(), properties)
    }

    /// The same of a body that may be on disk alone; `raw` is what `properties` were read from.
    pub fn with_body(
        exchange: &ShortString,
        routing_key: &ShortString,
        raw: &Bytes,
        body: Body,
        properties: &Properties,
    ) -> Result<Self, Fault> {
        let expiration = properties.expiration.as_ref().map(expiration).transpose()?;
        let small = body.here().filter(|body| body.len() <= COPIED_BODY_MAX);
        let empty = Bytes::new();
        let parts = [
            exchange.bytes(),
            routing_key.bytes(),
            raw,
            small.unwrap_or(&empty),
        ];
        let mut kept = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            kept.put_slice(part);
        }
        let mut kept = kept.freeze();
        let mut next = |part: &Bytes| kept.split_to(part.len());
        let short = |bytes| ShortString::new(bytes).expect("a copy of a short string");
        Ok(Self {
            exchange: short(next(exchange.bytes())),
            routing_key: short(next(routing_key.bytes())),
            properties: next(raw),
            body: match small {
                Some(small) => Body::Here(next(small)),
                None => body,
            },
            persistent: properties.delivery_mode == Some(2),
            priority: properties.priority.unwrap_or(0),
            expiration,
        })
    }

    /// All of its properties.
    pub fn read_properties(&self) -> Result<Properties, Malformed> {
        Properties::read(&self.properties)
    }
}

/// Milliseconds in digits, with RabbitMQ's words for anything else.
fn expiration(text: &ShortString) -> Result<Duration, Fault> {
    let wrong = |why: String| {
        let what = alloc::format!("invalid expiration '{text}': {why}");
        Fault::new(Code::PreconditionFailed, what)
    };
    let shown = text.text();
    // Erlang's string:to_integer: a sign, digits, and what is left over.
    let unsigned = shown.strip_prefix(['+', '-']).unwrap_or(&shown);
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let sign = shown.len() - unsigned.len();
    if digits == 0 {
        return Err(wrong("no_integer".into()));
    }
    let (number, rest) = shown.split_at(sign + digits);
    if !rest.is_empty() {
        return Err(wrong(alloc::format!("{{leftover_string,{rest:?}}}")));
    }
    match number.parse::<i64>() {
        Ok(ms) if ms < 0 => Err(wrong(alloc::format!("{{value_negative,{ms}}}"))),
        Ok(ms) if ms <= EXPIRY_MAX_MS => Ok(Duration::from_millis(ms.unsigned_abs())),
        Ok(_) | Err(_) => {
            let shown = number.trim_start_matches(['+', '0']);
            Err(wrong(alloc::format!("{{value_too_large,{shown}}}")))
        }
    }
}

/// The further keys that a publisher lists in `CC` or `BCC`.
pub(crate) fn carbon_copies(
    headers: &Table,
    name: &str,
) -> Result<alloc::vec::Vec<ShortString>, Fault> {
    let mut keys = alloc::vec::Vec::new();
    let Some(value) = headers.get(name) else {
        return Ok(keys);
    };
    let Value::Array(values) = value else {
        let kind = value.type_name();
        let what =
            alloc::format!("invalid message: {{unacceptable_type_in_header,\"{name}\",{kind}}}");
        return Err(Fault::new(Code::PreconditionFailed, what));
    };
    for value in values {
        if let Value::String(bytes) = value
            && let Some(key) = ShortString::new(bytes.clone())
        {
            keys.push(key);
        }
    }
    Ok(keys)
}
