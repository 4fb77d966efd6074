//! How definitions and messages stand in the log. What clients declare stands there in AMQP's own form: as the methods that
//! declare it.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use mainstay_amqp::method::{ExchangeBind, ExchangeDeclare, QueueBind, QueueDeclare};
use mainstay_amqp::{
    AppliesTo, Binding, Body, Destination, DurableQueue, Exchange, ExchangeKind, Fault, Message,
    Method, Policy, Properties, QueueId, Record, ShortString, Table, Value, frame,
};
use mainstay_journal::messages::{Change, QueueKey, Ref};
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::accounts::{Accounts, Permission, User};

/// The format of all that stands in the log; a newer one is refused.
const FORMAT: u32 = 1;
/// Bytes before a method's payload in a frame: type, channel, length.
const FRAME_HEAD: usize = 7;

/// Something in the log is not what this program writes there.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A newer program wrote it.
    #[error(
        "the broker's log has format {found}, and this program reads up to {FORMAT}: use the program that wrote it, or a newer one"
    )]
    Newer {
        /// Its format.
        found: u32,
    },
    /// A definition cannot be read.
    #[error("the definition {key} in the broker's log cannot be read: {why}")]
    Definition {
        /// Its key, shown.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// A message cannot be read.
    #[error("message {position} of queue {queue} in the broker's log cannot be read: {why}")]
    Message {
        /// The queue's number.
        queue: u64,
        /// Its place there.
        position: u64,
        /// What is wrong.
        why: String,
    },
}

/// Where a queue of a virtual host stands.
pub(crate) fn queue_key(vhost: u16, queue: QueueId) -> QueueKey {
    QueueKey {
        vhost: u32::from(vhost),
        queue: queue.0,
    }
}

pub(crate) fn reference(vhost: u16, queue: QueueId, position: u64) -> Ref {
    Ref {
        queue: queue_key(vhost, queue),
        position,
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Format,
    User,
    Vhost,
    Permission,
    Exchange,
    Queue,
    Delays,
    Binding,
    Policy,
}

impl Kind {
    const fn letter(self) -> u8 {
        match self {
            Self::Format => b'#',
            Self::User => b'u',
            Self::Vhost => b'v',
            Self::Permission => b'p',
            Self::Exchange => b'e',
            Self::Queue => b'q',
            Self::Delays => b'd',
            Self::Binding => b'b',
            Self::Policy => b'y',
        }
    }

    fn of(letter: u8) -> Option<Self> {
        let all = [
            Self::Format,
            Self::User,
            Self::Vhost,
            Self::Permission,
            Self::Exchange,
            Self::Queue,
            Self::Delays,
            Self::Binding,
            Self::Policy,
        ];
        all.into_iter().find(|kind| kind.letter() == letter)
    }
}

fn key(kind: Kind, rest: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(1 + rest.len());
    key.put_u8(kind.letter());
    key.put_slice(rest);
    key.freeze()
}

/// The key of something in a virtual host.
fn inner_key(kind: Kind, vhost: u16, rest: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(3 + rest.len());
    key.put_u8(kind.letter());
    key.put_u16(vhost);
    key.put_slice(rest);
    key.freeze()
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .expect("names and words are JSON")
        .into()
}

/// Says which format all has.
pub(crate) fn put_format() -> Change {
    Change::Put {
        key: key(Kind::Format, b""),
        value: json(&FORMAT),
    }
}

pub(crate) fn put_user(name: &str, user: &User) -> Change {
    Change::Put {
        key: key(Kind::User, name.as_bytes()),
        value: json(user),
    }
}

pub(crate) fn remove_user(name: &str) -> Change {
    Change::Remove {
        key: key(Kind::User, name.as_bytes()),
    }
}

pub(crate) fn put_vhost(name: &str, number: u16) -> Change {
    Change::Put {
        key: key(Kind::Vhost, name.as_bytes()),
        value: json(&number),
    }
}

#[derive(Serialize, Deserialize)]
struct AtVhost {
    vhost: String,
    user: String,
}

fn permission_key(vhost: &str, user: &str) -> Bytes {
    let at = AtVhost {
        vhost: vhost.to_owned(),
        user: user.to_owned(),
    };
    key(Kind::Permission, &json(&at))
}

pub(crate) fn put_permission(vhost: &str, user: &str, permission: &Permission) -> Change {
    Change::Put {
        key: permission_key(vhost, user),
        value: json(permission),
    }
}

pub(crate) fn remove_permission(vhost: &str, user: &str) -> Change {
    Change::Remove {
        key: permission_key(vhost, user),
    }
}

/// Class, number and fields of a method.
fn payload(method: impl Into<Method>) -> Bytes {
    let mut framed = BytesMut::new();
    frame::write_method(&mut framed, 0, &method.into());
    let len = framed.len();
    framed.freeze().slice(FRAME_HEAD..len - 1)
}

fn bound(binding: &Binding) -> Bytes {
    let (source, routing_key) = (binding.source.clone(), binding.key.clone());
    let arguments = binding.arguments.clone();
    match &binding.destination {
        Destination::Queue(queue) => payload(QueueBind {
            queue: queue.clone(),
            exchange: source,
            routing_key,
            arguments,
            ..QueueBind::default()
        }),
        Destination::Exchange(destination) => payload(ExchangeBind {
            destination: destination.clone(),
            source,
            routing_key,
            arguments,
            ..ExchangeBind::default()
        }),
    }
}

/// A binding is known by all of it, which may be long.
fn binding_key(vhost: u16, bound: &[u8]) -> Bytes {
    let hash = digest::digest(&digest::SHA256, bound);
    inner_key(Kind::Binding, vhost, hash.as_ref())
}

/// The changes that a record is.
pub(crate) fn changes_of(vhost: u16, record: &Record) -> Vec<Change> {
    let number = |id: &QueueId| id.0.to_be_bytes();
    let put = |key, value| vec![Change::Put { key, value }];
    let remove = |key| vec![Change::Remove { key }];
    match record {
        Record::Exchange(exchange) => {
            let declare = ExchangeDeclare {
                exchange: exchange.name.clone(),
                kind: ShortString::literal(exchange.kind.name()),
                durable: exchange.durable,
                auto_delete: exchange.auto_delete,
                internal: exchange.internal,
                arguments: exchange.arguments.clone(),
                ..ExchangeDeclare::default()
            };
            let key = inner_key(Kind::Exchange, vhost, exchange.name.as_bytes());
            put(key, payload(declare))
        }
        Record::NoExchange(name) => remove(inner_key(Kind::Exchange, vhost, name.as_bytes())),
        Record::Queue(id, queue) => {
            let declare = QueueDeclare {
                queue: queue.name.clone(),
                durable: true,
                auto_delete: queue.auto_delete,
                arguments: queue.arguments.clone(),
                ..QueueDeclare::default()
            };
            put(inner_key(Kind::Queue, vhost, &number(id)), payload(declare))
        }
        Record::Delays(id, exchange) => {
            let named = ExchangeDeclare {
                exchange: exchange.clone(),
                ..ExchangeDeclare::default()
            };
            put(inner_key(Kind::Delays, vhost, &number(id)), payload(named))
        }
        Record::NoQueue(id) => vec![
            Change::Remove {
                key: inner_key(Kind::Queue, vhost, &number(id)),
            },
            Change::Remove {
                key: inner_key(Kind::Delays, vhost, &number(id)),
            },
            Change::ForgetQueue(queue_key(vhost, *id)),
        ],
        Record::Binding(binding) => {
            let bound = bound(binding);
            put(binding_key(vhost, &bound), bound)
        }
        Record::NoBinding(binding) => remove(binding_key(vhost, &bound(binding))),
        Record::Policy(policy) => put(
            inner_key(Kind::Policy, vhost, policy.name.as_bytes()),
            payload(written_policy(policy)),
        ),
        Record::NoPolicy(name) => remove(inner_key(Kind::Policy, vhost, name.as_bytes())),
    }
}

/// A policy in the fields of a declaration: what it is for stands as the type.
fn written_policy(policy: &Policy) -> ExchangeDeclare {
    let pattern = Value::String(Bytes::copy_from_slice(policy.pattern.as_bytes()));
    let definition = Value::Table(policy.definition.clone());
    ExchangeDeclare {
        exchange: policy.name.clone(),
        kind: ShortString::literal(policy.applies_to.name()),
        arguments: Table::new(vec![
            ("pattern".into(), pattern),
            ("priority".into(), Value::Long(policy.priority)),
            ("definition".into(), definition),
        ]),
        ..ExchangeDeclare::default()
    }
}

fn read_policy(declare: &ExchangeDeclare) -> Result<Policy, Fault> {
    let all = &declare.arguments;
    let pattern = all.get("pattern").and_then(Value::string);
    Ok(Policy {
        name: declare.exchange.compact(),
        pattern: pattern.map(|bytes| text(bytes)).unwrap_or_default(),
        applies_to: AppliesTo::parse(&declare.kind.text())?,
        priority: all.get("priority").and_then(Value::integer).unwrap_or(0),
        definition: match all.get("definition") {
            Some(Value::Table(table)) => table.clone(),
            Some(_) | None => Table::EMPTY,
        },
    })
}

/// What is kept in memory of a message that is on disk: exchange and key, each behind its length, and the properties.
pub(crate) fn head_of(message: &Message) -> Bytes {
    let (exchange, routing_key) = (&message.exchange, &message.routing_key);
    let len = 2 + exchange.as_bytes().len() + routing_key.as_bytes().len();
    let mut head = BytesMut::with_capacity(len + message.properties.len());
    for part in [exchange, routing_key] {
        let len = u8::try_from(part.as_bytes().len()).expect("a short string");
        head.put_u8(len);
        head.put_slice(part.as_bytes());
    }
    head.put_slice(&message.properties);
    head.freeze()
}

/// A message out of its head.
pub(crate) fn message_of(head: &Bytes, body: Body) -> Result<Message, String> {
    let short = "its head is cut off".to_owned();
    let mut rest = head.clone();
    let mut next = || -> Option<ShortString> {
        let len = usize::from(*rest.first()?);
        let part = rest.get(1..=len)?;
        let part = rest.slice_ref(part);
        rest = rest.slice(1 + len..);
        ShortString::new(part)
    };
    let (exchange, key) = (next(), next());
    let (exchange, key) = exchange.zip(key).ok_or(short)?;
    let properties = Properties::read(&rest).map_err(|why| why.to_string())?;
    Message::with_body(&exchange, &key, &rest, body, &properties).map_err(|why| why.to_string())
}

/// What the definitions of a log come to.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    pub(crate) accounts: Accounts,
    /// By virtual host: exchanges, queues, and then what binds them.
    pub(crate) records: BTreeMap<u16, Vec<Record>>,
}

/// Reads definitions, in any order; `None`: there are none.
pub(crate) fn read(definitions: &[(Bytes, Bytes)]) -> Result<Option<Definitions>, RecordError> {
    if definitions.is_empty() {
        return Ok(None);
    }
    let mut read = Definitions::default();
    let mut bindings = Vec::new();
    for (key, value) in definitions {
        let wrong = |why: String| RecordError::Definition {
            key: String::from_utf8_lossy(key).into_owned(),
            why,
        };
        let (kind, rest) = key
            .split_first()
            .and_then(|(letter, rest)| Some((Kind::of(*letter)?, rest)))
            .ok_or_else(|| wrong("its kind is not known".to_owned()))?;
        match kind {
            Kind::Format => {
                let found: u32 = parse(value).map_err(wrong)?;
                if found > FORMAT {
                    return Err(RecordError::Newer { found });
                }
            }
            Kind::User => {
                let user = parse(value).map_err(wrong)?;
                read.accounts.users.insert(text(rest), user);
            }
            Kind::Vhost => {
                let number = parse(value).map_err(wrong)?;
                read.accounts.vhosts.insert(text(rest), number);
            }
            Kind::Permission => {
                let AtVhost { vhost, user } = parse(rest).map_err(wrong)?;
                let permission = parse(value).map_err(wrong)?;
                read.accounts.permissions.insert((vhost, user), permission);
            }
            Kind::Exchange | Kind::Queue | Kind::Delays | Kind::Binding | Kind::Policy => {
                let (vhost, record) = inner(kind, rest, value).map_err(wrong)?;
                match record {
                    Record::Binding(_) => bindings.push((vhost, record)),
                    _ => read.records.entry(vhost).or_default().push(record),
                }
            }
        }
    }
    for (vhost, binding) in bindings {
        read.records.entry(vhost).or_default().push(binding);
    }
    Ok(Some(read))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn parse<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|why| why.to_string())
}

/// A record of a virtual host.
fn inner(kind: Kind, rest: &[u8], value: &Bytes) -> Result<(u16, Record), String> {
    let short = || "its key is cut off".to_owned();
    let (vhost, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let vhost = u16::from_be_bytes(*vhost);
    let method = Method::read(value).map_err(|why| why.to_string())?;
    let record = match method {
        Method::ExchangeDeclare(declare) if matches!(kind, Kind::Policy) => {
            Record::Policy(read_policy(&declare).map_err(|why| why.to_string())?)
        }
        Method::ExchangeDeclare(declare) if matches!(kind, Kind::Delays) => {
            let id = rest.first_chunk::<8>().ok_or_else(short)?;
            Record::Delays(QueueId(u64::from_be_bytes(*id)), declare.exchange.compact())
        }
        Method::ExchangeDeclare(declare) => {
            Record::Exchange(exchange(declare).map_err(|why| why.to_string())?)
        }
        Method::QueueDeclare(declare) => {
            let id = rest.first_chunk::<8>().ok_or_else(short)?;
            let queue = DurableQueue {
                name: declare.queue.compact(),
                auto_delete: declare.auto_delete,
                arguments: declare.arguments,
            };
            Record::Queue(QueueId(u64::from_be_bytes(*id)), queue)
        }
        Method::QueueBind(bind) => Record::Binding(Binding {
            source: bind.exchange.compact(),
            destination: Destination::Queue(bind.queue.compact()),
            key: bind.routing_key.compact(),
            arguments: bind.arguments,
        }),
        Method::ExchangeBind(bind) => Record::Binding(Binding {
            source: bind.source.compact(),
            destination: Destination::Exchange(bind.destination.compact()),
            key: bind.routing_key.compact(),
            arguments: bind.arguments,
        }),
        other => return Err(format!("it is a {}", other.name())),
    };
    Ok((vhost, record))
}

fn exchange(declare: ExchangeDeclare) -> Result<Exchange, Fault> {
    let alternate = declare.arguments.get("alternate-exchange");
    let alternate = alternate.and_then(Value::string).cloned();
    Ok(Exchange {
        kind: ExchangeKind::parse(&declare.kind)?,
        name: declare.exchange.compact(),
        durable: declare.durable,
        auto_delete: declare.auto_delete,
        internal: declare.internal,
        alternate: alternate.and_then(ShortString::new),
        arguments: declare.arguments,
    })
}
