//! What a queue is declared with, checked as RabbitMQ checks it, with its words.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use crate::code::{Code, Fault};
use crate::erlang;
use crate::field::{Table, Value};
use crate::limits::{EXPIRY_MAX_MS, PRIORITY_MAX};
use crate::policy::Saying;
use crate::text::ShortString;

/// What happens to a publish that finds the queue full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The oldest dies.
    #[default]
    DropHead,
    /// It is refused.
    RejectPublish,
    /// It is refused, and dies.
    RejectPublishDeadLetter,
}

/// What was asked for with `x-queue-type`. All have one copy here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueKind {
    /// The usual one.
    #[default]
    Classic,
    /// Accepted, so that the same declaration works on a cluster of RabbitMQ.
    Quorum,
}

/// The arguments of a queue that mean something here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arguments {
    /// `x-queue-type`
    pub kind: QueueKind,
    /// `x-message-ttl`
    pub message_ttl: Option<Duration>,
    /// `x-expires`
    pub expires: Option<Duration>,
    /// `x-max-length`
    pub length_max: Option<u64>,
    /// `x-max-length-bytes`
    pub bytes_max: Option<u64>,
    /// `x-overflow`
    pub overflow: Overflow,
    /// `x-dead-letter-exchange`
    pub dead_letter_exchange: Option<ShortString>,
    /// `x-dead-letter-routing-key`
    pub dead_letter_key: Option<ShortString>,
    /// `x-max-priority`, 0 without.
    pub priority_max: u8,
    /// `x-single-active-consumer`
    pub single_active: bool,
    /// `x-delivery-limit`
    pub delivery_limit: Option<u32>,
}

/// What both kinds compare when a queue is declared again, and in which order.
pub(crate) const COMPARED: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-delivery-limit",
];

/// In the order in which RabbitMQ checks them; the kinds that have them.
const CHECKED: &[(&str, Check, Has)] = &[
    ("x-expires", Check::Expires, Has::Both),
    ("x-message-ttl", Check::Ttl, Has::Both),
    ("x-dead-letter-exchange", Check::Text, Has::Both),
    ("x-dead-letter-routing-key", Check::DeadLetterKey, Has::Both),
    ("x-max-length", Check::Count, Has::Both),
    ("x-max-length-bytes", Check::Count, Has::Both),
    ("x-max-priority", Check::Priority, Has::Classic),
    ("x-overflow", Check::Overflow, Has::Both),
    ("x-queue-mode", Check::Mode, Has::Classic),
    ("x-queue-version", Check::Version, Has::Classic),
    ("x-single-active-consumer", Check::Flag, Has::Both),
    ("x-delivery-limit", Check::Count, Has::Quorum),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Has {
    Both,
    Classic,
    Quorum,
}

#[derive(Clone, Copy)]
enum Check {
    Expires,
    Ttl,
    Text,
    DeadLetterKey,
    Count,
    Priority,
    Overflow,
    Mode,
    Version,
    Flag,
}

impl Arguments {
    /// Reads and checks them; `queue` is how errors call it.
    pub fn read(table: &Table, queue: &str) -> Result<Self, Fault> {
        let kind = kind(table, queue)?;
        for (name, check, has) in CHECKED {
            let fits = match has {
                Has::Both => true,
                Has::Classic => kind == QueueKind::Classic,
                Has::Quorum => kind == QueueKind::Quorum,
            };
            let Some(value) = table.get(name) else {
                continue;
            };
            // RabbitMQ leaves an argument of quorum queues alone on a classic one, and refuses the opposite.
            if !fits && *has == Has::Classic {
                let what =
                    format!("invalid arg '{name}' for {queue} of queue type rabbit_quorum_queue");
                return Err(Fault::new(Code::PreconditionFailed, what));
            }
            if fits {
                check
                    .refusal(value, table)
                    .map_or(Ok(()), |why| Err(invalid(name, queue, &why)))?;
            }
        }
        let number = |name: &str| table.get(name).and_then(Value::integer);
        let count = |name: &str| number(name).map(i64::unsigned_abs);
        let short = |name: &str| {
            let bytes = table.get(name).and_then(Value::string)?;
            Some(ShortString::new(bytes.clone())?.compact())
        };
        Ok(Self {
            kind,
            message_ttl: count("x-message-ttl").map(Duration::from_millis),
            expires: count("x-expires").map(Duration::from_millis),
            length_max: count("x-max-length"),
            bytes_max: count("x-max-length-bytes"),
            overflow: table
                .get("x-overflow")
                .map(Overflow::of)
                .unwrap_or_default(),
            dead_letter_exchange: short("x-dead-letter-exchange"),
            dead_letter_key: short("x-dead-letter-routing-key"),
            priority_max: number("x-max-priority")
                .and_then(|n| u8::try_from(n).ok())
                .unwrap_or(0),
            single_active: table.is_true("x-single-active-consumer"),
            delivery_limit: match kind {
                QueueKind::Quorum => count("x-delivery-limit").and_then(|n| u32::try_from(n).ok()),
                QueueKind::Classic => None,
            },
        })
    }
}

impl Arguments {
    /// What is in force under a policy: of two numbers the smaller one, of two names that of the declaration (RabbitMQ's
    /// `res_min` and `res_arg`). Whether the declaration had an overflow, its value cannot say.
    pub(crate) fn under(&self, has_overflow: bool, policy: Option<&Saying>) -> Self {
        let Some(policy) = policy else {
            return self.clone();
        };
        let limit = policy
            .delivery_limit
            .filter(|_| self.kind == QueueKind::Quorum);
        let exchange = self.dead_letter_exchange.clone();
        let key = self.dead_letter_key.clone();
        Self {
            message_ttl: least(self.message_ttl, policy.message_ttl),
            expires: least(self.expires, policy.expires),
            length_max: least(self.length_max, policy.length_max),
            bytes_max: least(self.bytes_max, policy.bytes_max),
            overflow: match policy.overflow {
                Some(overflow) if !has_overflow => overflow,
                Some(_) | None => self.overflow,
            },
            dead_letter_exchange: exchange.or_else(|| policy.dead_letter_exchange.clone()),
            dead_letter_key: key.or_else(|| policy.dead_letter_key.clone()),
            delivery_limit: least(self.delivery_limit, limit),
            kind: self.kind,
            priority_max: self.priority_max,
            single_active: self.single_active,
        }
    }
}

fn invalid(name: &str, queue: &str, why: &str) -> Fault {
    let what = format!("invalid arg '{name}' for {queue}: {why}");
    Fault::new(Code::PreconditionFailed, what)
}

fn kind(table: &Table, queue: &str) -> Result<QueueKind, Fault> {
    let refuse = |why: &str| Err(invalid("x-queue-type", queue, why));
    let Some(value) = table.get("x-queue-type") else {
        return Ok(QueueKind::Classic);
    };
    let Value::String(name) = value else {
        return refuse(&unacceptable(value));
    };
    match &name[..] {
        b"classic" => Ok(QueueKind::Classic),
        b"quorum" => Ok(QueueKind::Quorum),
        b"stream" => Err(Fault::new(
            Code::PreconditionFailed,
            format!("streams are not served here: {queue} may be declared as classic or quorum"),
        )),
        other => {
            let shown = String::from_utf8_lossy(other);
            refuse(&format!("\"unsupported queue type '{shown}'\""))
        }
    }
}

impl Overflow {
    /// What a word means that was checked.
    pub(crate) fn of(value: &Value) -> Self {
        match value.string() {
            Some(word) if word == "reject-publish" => Self::RejectPublish,
            Some(word) if word == "reject-publish-dlx" => Self::RejectPublishDeadLetter,
            Some(_) | None => Self::DropHead,
        }
    }
}

/// The smaller of two that may be there.
fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn unacceptable(value: &Value) -> String {
    format!("{{unacceptable_type,{}}}", value.type_name())
}

impl Check {
    /// RabbitMQ's term for what is wrong with the value, if anything is.
    fn refusal(self, value: &Value, table: &Table) -> Option<String> {
        match self {
            Self::Expires => whole(value).map_or_else(Some, |n| match n {
                0 => Some("{value_zero,0}".into()),
                n => expiry(n),
            }),
            Self::Ttl => whole(value).map_or_else(Some, expiry),
            Self::Count => whole(value).map_or_else(Some, negative),
            Self::Priority => whole(value).map_or_else(Some, |n| {
                let most = i64::from(PRIORITY_MAX);
                negative(n).or_else(|| (n > most).then(|| format!("{{max_value_exceeded,{n}}}")))
            }),
            Self::Version => whole(value).map_or_else(Some, |n| {
                let known = matches!(n, 1 | 2);
                let unsupported =
                    || (!known).then(|| format!("\"unsupported queue version '{n}'\""));
                negative(n).or_else(unsupported)
            }),
            Self::Flag => match value {
                Value::Bool(_) => None,
                other => Some(unacceptable(other)),
            },
            Self::Text | Self::DeadLetterKey | Self::Overflow | Self::Mode => match value {
                Value::String(word) => self.text_refusal(word, table),
                other => Some(unacceptable(other)),
            },
        }
    }

    fn text_refusal(self, word: &[u8], table: &Table) -> Option<String> {
        match self {
            Self::DeadLetterKey => table
                .get("x-dead-letter-exchange")
                .is_none()
                .then(|| "routing_key_but_no_dlx_defined".into()),
            Self::Overflow => {
                let known: [&[u8]; 3] = [b"drop-head", b"reject-publish", b"reject-publish-dlx"];
                (!known.contains(&word)).then(|| "invalid_overflow".into())
            }
            Self::Mode => {
                let known: [&[u8]; 2] = [b"default", b"lazy"];
                let shown = String::from_utf8_lossy(word);
                (!known.contains(&word)).then(|| format!("\"unsupported queue mode '{shown}'\""))
            }
            Self::Text
            | Self::Expires
            | Self::Ttl
            | Self::Count
            | Self::Priority
            | Self::Version
            | Self::Flag => None,
        }
    }
}

fn whole(value: &Value) -> Result<i64, String> {
    let wrong = || format!("\"expected integer, got {}\"", value.type_name());
    value.integer().ok_or_else(wrong)
}

fn negative(n: i64) -> Option<String> {
    (n < 0).then(|| format!("{{value_negative,{n}}}"))
}

fn expiry(n: i64) -> Option<String> {
    negative(n).or_else(|| (n > EXPIRY_MAX_MS).then(|| format!("{{value_too_large,{n}}}")))
}

/// Whether two values of an argument are the same to RabbitMQ: whole numbers of any width are of one class.
fn same(one: &Value, other: &Value) -> bool {
    match (one.integer(), other.integer()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// Compares arguments of something that is declared again; `what` is how errors call it.
pub(crate) fn assert_equal(
    current: &Table,
    received: &Table,
    what: &str,
    names: &[&str],
) -> Result<(), Fault> {
    for name in names {
        let classic = |value: Option<&Value>| {
            *name == "x-queue-type" && value.is_none_or(|value| *value == Value::literal("classic"))
        };
        let fits = match (current.get(name), received.get(name)) {
            (None, None) => true,
            (Some(one), Some(other)) => same(one, other),
            (one, other) => classic(one) && classic(other),
        };
        if !fits {
            let both = current.get(name).is_some() && received.get(name).is_some();
            let shown = |value: Option<&Value>| match value {
                None => "none".into(),
                Some(value) if both => format!("'{}'", shown(value)),
                Some(value) => {
                    let kind = value.type_name();
                    format!("the value '{}' of type '{kind}'", shown(value))
                }
            };
            let (received, current) = (shown(received.get(name)), shown(current.get(name)));
            return Err(inequivalent(name, what, &received, &current));
        }
    }
    Ok(())
}

/// RabbitMQ's words for two declarations that do not agree.
pub(crate) fn inequivalent(name: &str, what: &str, received: &str, current: &str) -> Fault {
    let text = format!(
        "inequivalent arg '{name}' for {what}: received {received} but current is {current}"
    );
    Fault::new(Code::PreconditionFailed, text)
}

fn shown(value: &Value) -> String {
    if let Some(number) = value.integer() {
        return format!("{number}");
    }
    match value {
        Value::Bool(flag) => format!("{flag}"),
        Value::String(bytes) | Value::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Void => "undefined".into(),
        Value::Timestamp(seconds) => format!("{seconds}"),
        Value::Float(number) => format!("{number:?}"),
        Value::Double(number) => format!("{number:?}"),
        Value::Decimal(scale, digits) => format!("{{{scale},{digits}}}"),
        // Erlang's term of a nested value; nobody compares one in earnest.
        Value::Array(values) => erlang::binary(format!("{values:?}").as_bytes()),
        Value::Table(fields) => erlang::binary(format!("{fields:?}").as_bytes()),
        Value::Byte(_)
        | Value::UnsignedByte(_)
        | Value::Short(_)
        | Value::UnsignedShort(_)
        | Value::Int(_)
        | Value::UnsignedInt(_)
        | Value::Long(_) => String::new(),
    }
}
