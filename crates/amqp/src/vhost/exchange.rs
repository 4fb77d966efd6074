//! Exchanges and their types.

use alloc::format;
use alloc::string::String;

use crate::code::{Code, Fault};
use crate::erlang;
use crate::field::{Table, Value};
use crate::text::ShortString;

/// How an exchange chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// The nameless one: each queue is bound to it by its name.
    Default,
    /// By the same key.
    Direct,
    /// Everything.
    Fanout,
    /// By words of the key, with `*` and `#`.
    Topic,
    /// By fields of the headers.
    Headers,
    /// As its argument `x-delayed-type` says, once a message's time has come.
    Delayed,
}

impl ExchangeKind {
    /// As it is declared.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default | Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::Delayed => "x-delayed-message",
        }
    }

    /// Reads a type that was asked for. RabbitMQ 4 and this broker refuse an unknown one on its channel; RabbitMQ 3
    /// ends the connection (503).
    pub fn parse(name: &ShortString) -> Result<Self, Fault> {
        match name.as_bytes() {
            b"direct" => Ok(Self::Direct),
            b"fanout" => Ok(Self::Fanout),
            b"topic" => Ok(Self::Topic),
            b"headers" => Ok(Self::Headers),
            b"x-delayed-message" => Ok(Self::Delayed),
            _ => {
                let what = format!("unknown exchange type '{name}'");
                Err(Fault::new(Code::PreconditionFailed, what))
            }
        }
    }
}

/// How an exchange that delays chooses, once it does.
fn delayed_kind(arguments: &Table) -> Option<Result<ExchangeKind, Fault>> {
    let name = ShortString::new(arguments.get("x-delayed-type")?.string()?.clone())?;
    Some(ExchangeKind::parse(&name))
}

impl Exchange {
    /// How it chooses among its bindings.
    pub fn chooses(&self) -> ExchangeKind {
        match self.kind {
            ExchangeKind::Delayed => match delayed_kind(&self.arguments) {
                Some(Ok(kind)) => kind,
                Some(Err(_)) | None => ExchangeKind::Direct,
            },
            kind => kind,
        }
    }

    /// Whether its arguments say what its type needs.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.kind != ExchangeKind::Delayed {
            return Ok(());
        }
        match delayed_kind(&self.arguments) {
            Some(Ok(ExchangeKind::Delayed)) | None => Err(Fault::new(
                Code::PreconditionFailed,
                "Invalid argument, 'x-delayed-type' must be an existing exchange type",
            )),
            Some(kind) => kind.map(|_| ()),
        }
    }
}

/// An exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Its name.
    pub name: ShortString,
    /// How it chooses.
    pub kind: ExchangeKind,
    /// Whether it outlives the broker.
    pub durable: bool,
    /// Whether it goes with its last binding.
    pub auto_delete: bool,
    /// Whether only other exchanges may publish to it.
    pub internal: bool,
    /// What goes where it knows no queue.
    pub alternate: Option<ShortString>,
    /// All that it was declared with.
    pub arguments: Table,
}

/// Those that are always there.
pub(super) fn standard() -> impl Iterator<Item = Exchange> {
    [
        ("", ExchangeKind::Default),
        ("amq.direct", ExchangeKind::Direct),
        ("amq.fanout", ExchangeKind::Fanout),
        ("amq.topic", ExchangeKind::Topic),
        ("amq.headers", ExchangeKind::Headers),
        ("amq.match", ExchangeKind::Headers),
    ]
    .into_iter()
    .map(|(name, kind)| Exchange {
        name: name.into(),
        kind,
        durable: true,
        auto_delete: false,
        internal: false,
        alternate: None,
        arguments: Table::EMPTY,
    })
}

/// Whether all or one of the fields must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    All,
    Any,
    AllWithX,
    AnyWithX,
}

impl Match {
    fn of(arguments: &Table) -> Option<Self> {
        match arguments.get("x-match") {
            None => Some(Self::All),
            Some(Value::String(word)) => match &word[..] {
                b"all" => Some(Self::All),
                b"any" => Some(Self::Any),
                b"all-with-x" => Some(Self::AllWithX),
                b"any-with-x" => Some(Self::AnyWithX),
                _ => None,
            },
            Some(_) => None,
        }
    }
}

/// RabbitMQ refuses a binding whose `x-match` it does not know.
pub(super) fn check_headers_binding(arguments: &Table) -> Result<(), Fault> {
    if Match::of(arguments).is_some() {
        return Ok(());
    }
    let shown: String = match arguments.get("x-match") {
        Some(Value::String(word)) => {
            format!(
                "Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x",
                erlang::binary(word)
            )
        }
        Some(other) => format!(
            "Invalid x-match field type {} (value {other:?}); expected longstr",
            other.type_name()
        ),
        None => String::new(),
    };
    Err(Fault::new(Code::PreconditionFailed, shown))
}

/// Whether the headers have what a binding asks for. A field without a value asks for presence alone.
pub(super) fn headers_match(wanted: &Table, headers: &Table) -> bool {
    let rule = Match::of(wanted).unwrap_or(Match::All);
    let with_x = matches!(rule, Match::AllWithX | Match::AnyWithX);
    let mut asked = wanted
        .iter()
        .filter(|(name, _)| name != "x-match" && (with_x || !name.as_bytes().starts_with(b"x-")));
    let agrees = |(name, value): &(ShortString, Value)| {
        let found = headers.get(&name.text());
        found.is_some_and(|found| *value == Value::Void || agree(value, found))
    };
    match rule {
        Match::All | Match::AllWithX => asked.all(agrees),
        Match::Any | Match::AnyWithX => asked.any(agrees),
    }
}

/// Whole numbers of any width agree, as they do in Erlang.
fn agree(one: &Value, other: &Value) -> bool {
    match (one.integer(), other.integer()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}
