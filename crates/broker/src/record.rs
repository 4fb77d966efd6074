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

/// With this alone a virtual host is gone: whatever else there is of it is thrown away when the log is read.
pub(crate) fn remove_vhost(name: &str) -> Change {
    Change::Remove {
        key: key(Kind::Vhost, name.as_bytes()),
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

/// No method declares a policy: it stands as the arguments of a queue that is not declared.
fn policy_payload(policy: &Policy) -> Bytes {
    let text = |text: &str| Value::String(Bytes::copy_from_slice(text.as_bytes()));
    let fields = vec![
        ("pattern".into(), text(&policy.pattern)),
        ("apply-to".into(), text(policy.applies_to.name())),
        ("priority".into(), Value::Long(policy.priority)),
        ("definition".into(), Value::Table(policy.definition.clone())),
    ];
    payload(QueueDeclare {
        queue: policy.name.clone(),
        passive: true,
        arguments: Table::new(fields),
        ..QueueDeclare::default()
    })
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
        Record::NoQueue(id) => vec![
            Change::Remove {
                key: inner_key(Kind::Queue, vhost, &number(id)),
            },
            Change::ForgetQueue(queue_key(vhost, *id)),
        ],
        Record::Binding(binding) => {
            let bound = bound(binding);
            put(binding_key(vhost, &bound), bound)
        }
        Record::NoBinding(binding) => remove(binding_key(vhost, &bound(binding))),
        // In a queue's place, and gone like one.
        Record::Delays(id, exchange) => {
            let named = ExchangeDeclare {
                exchange: exchange.clone(),
                passive: true,
                ..ExchangeDeclare::default()
            };
            put(inner_key(Kind::Queue, vhost, &number(id)), payload(named))
        }
        Record::Policy(policy) => {
            let key = inner_key(Kind::Policy, vhost, policy.name.as_bytes());
            put(key, policy_payload(policy))
        }
        Record::NoPolicy(name) => remove(inner_key(Kind::Policy, vhost, name.as_bytes())),
    }
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
    /// What takes away what is left of users and virtual hosts that are gone, where the end of their deletion is missing.
    pub(crate) strays: Vec<Change>,
}

impl Definitions {
    /// Whether a definition belongs to a virtual host and a user that are there.
    fn has_owner(&self, kind: Kind, rest: &[u8]) -> bool {
        match kind {
            Kind::Format | Kind::User | Kind::Vhost => true,
            Kind::Permission => parse(rest).is_ok_and(|AtVhost { vhost, user }| {
                let accounts = &self.accounts;
                accounts.vhosts.contains_key(&vhost) && accounts.users.contains_key(&user)
            }),
            Kind::Exchange | Kind::Queue | Kind::Binding | Kind::Policy => {
                let number = rest.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
                let mut known = self.accounts.vhosts.values();
                known.any(|known| Some(*known) == number)
            }
        }
    }

    /// Takes out what belongs to nobody any more. Else it would be found by the next one of that name or number.
    fn disown(&mut self, definitions: &[(Bytes, Bytes)]) {
        for (key, _) in definitions {
            let kind = key.split_first();
            let kind = kind.and_then(|(letter, rest)| Some((Kind::of(*letter)?, rest)));
            if kind.is_some_and(|(kind, rest)| !self.has_owner(kind, rest)) {
                self.strays.push(Change::Remove { key: key.clone() });
            }
        }
        let accounts = &mut self.accounts;
        let (vhosts, users) = (&accounts.vhosts, &accounts.users);
        let permissions = &mut accounts.permissions;
        permissions
            .retain(|(vhost, user), _| vhosts.contains_key(vhost) && users.contains_key(user));
        let known: Vec<u16> = vhosts.values().copied().collect();
        self.records.retain(|number, _| known.contains(number));
    }
}

/// Reads definitions, in any order; `None`: there are none.
pub(crate) fn read(definitions: &[(Bytes, Bytes)]) -> Result<Option<Definitions>, RecordError> {
    if definitions.is_empty() {
        return Ok(None);
    }
    let mut read = Definitions::default();
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
            Kind::Exchange | Kind::Queue | Kind::Binding | Kind::Policy => {
                let (vhost, record) = inner(rest, value).map_err(wrong)?;
                read.records.entry(vhost).or_default().push(record);
            }
        }
    }
    read.disown(definitions);
    for records in read.records.values_mut() {
        records.sort_by_key(rank);
    }
    Ok(Some(read))
}

/// What stands on others comes after them.
fn rank(record: &Record) -> u8 {
    match record {
        Record::Exchange(_) | Record::NoExchange(_) => 0,
        Record::Policy(_) | Record::NoPolicy(_) => 1,
        Record::Queue(..) | Record::NoQueue(_) => 2,
        Record::Delays(..) => 3,
        Record::Binding(_) | Record::NoBinding(_) => 4,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn parse<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|why| why.to_string())
}

/// A record of a virtual host.
fn inner(rest: &[u8], value: &Bytes) -> Result<(u16, Record), String> {
    let short = || "its key is cut off".to_owned();
    let (vhost, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let vhost = u16::from_be_bytes(*vhost);
    let method = Method::read(value).map_err(|why| why.to_string())?;
    let record = match method {
        Method::ExchangeDeclare(declare) if declare.passive => {
            let id = rest.first_chunk::<8>().ok_or_else(short)?;
            Record::Delays(QueueId(u64::from_be_bytes(*id)), declare.exchange.compact())
        }
        Method::QueueDeclare(declare) if declare.passive => Record::Policy(policy(&declare)?),
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

fn policy(declare: &QueueDeclare) -> Result<Policy, String> {
    let field = |name: &str| declare.arguments.get(name);
    let words = |name: &str| {
        let bytes = field(name).and_then(Value::string);
        let bytes = bytes.ok_or_else(|| format!("it lacks `{name}`"))?;
        Ok::<String, String>(text(bytes))
    };
    let definition = match field("definition") {
        Some(Value::Table(table)) => table.clone(),
        Some(_) | None => return Err("it lacks `definition`".to_owned()),
    };
    Ok(Policy {
        name: declare.queue.compact(),
        pattern: words("pattern")?,
        applies_to: AppliesTo::parse(&words("apply-to")?).map_err(|fault| fault.to_string())?,
        priority: field("priority").and_then(Value::integer).unwrap_or(0),
        definition,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn through_the_log(record: &Record) -> Record {
        let changes = changes_of(3, record);
        let Some(Change::Put { key, value }) = changes.into_iter().next() else {
            panic!("a definition");
        };
        let vhost = (super::key(Kind::Vhost, b"three"), json(&3));
        let read = read(&[vhost, (key, value)])
            .expect("it is read")
            .expect("it is there");
        read.records[&3].first().expect("a record").clone()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let arguments = Table::new(vec![
            ("alternate-exchange".into(), Value::literal("other")),
            ("x-max".into(), Value::Long(5)),
        ]);
        let queue = DurableQueue {
            name: "q".into(),
            auto_delete: true,
            arguments: arguments.clone(),
        };
        let exchange = Exchange {
            name: "e".into(),
            kind: ExchangeKind::Topic,
            durable: true,
            auto_delete: false,
            internal: true,
            alternate: Some("other".into()),
            arguments: arguments.clone(),
        };
        let binding = |destination| Binding {
            source: "e".into(),
            destination,
            key: "a.*".into(),
            arguments: arguments.clone(),
        };
        let policy = Policy {
            name: "p".into(),
            pattern: "^q".into(),
            applies_to: AppliesTo::Queues,
            priority: 7,
            definition: arguments.clone(),
        };
        let records = [
            Record::Queue(QueueId(9), queue),
            Record::Exchange(exchange),
            Record::Binding(binding(Destination::Queue("q".into()))),
            Record::Binding(binding(Destination::Exchange("x".into()))),
            Record::Delays(QueueId(10), "e".into()),
            Record::Policy(policy),
        ];
        for record in records {
            assert_eq!(through_the_log(&record), record);
        }
    }

    fn keep(log: &mut BTreeMap<Bytes, Bytes>, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put { key, value } => drop(log.insert(key.clone(), value.clone())),
                Change::Remove { key } => drop(log.remove(key)),
                Change::Message { .. } | Change::Forget(_) | Change::ForgetQueue(_) => {}
            }
        }
    }

    fn read_log(log: &BTreeMap<Bytes, Bytes>) -> Definitions {
        let definitions = log.iter().map(|(key, value)| (key.clone(), value.clone()));
        let definitions: Vec<_> = definitions.collect();
        read(&definitions).expect("readable").expect("some")
    }

    #[test]
    fn a_deletion_that_is_cut_off_anywhere_leaves_all_or_nothing() {
        let queue = DurableQueue {
            name: "q".into(),
            auto_delete: false,
            arguments: Table::EMPTY,
        };
        let user = User {
            password: None,
            tags: Vec::new(),
        };
        let mut log = BTreeMap::new();
        keep(&mut log, &[put_format(), put_user("u", &user)]);
        keep(&mut log, &[put_vhost("kept", 0), put_vhost("goes", 1)]);
        for (vhost, number) in [("kept", 0), ("goes", 1)] {
            keep(&mut log, &[put_permission(vhost, "u", &Permission::all())]);
            for id in 1..4 {
                let record = Record::Queue(QueueId(id), queue.clone());
                keep(&mut log, &changes_of(number, &record));
            }
        }
        let mut deletion = vec![remove_vhost("goes"), remove_permission("goes", "u")];
        for id in 1..4 {
            deletion.extend(changes_of(1, &Record::NoQueue(QueueId(id))));
        }
        for done in 0..=deletion.len() {
            let mut log = log.clone();
            keep(&mut log, &deletion[..done]);
            let found = read_log(&log);
            let there = found.accounts.vhosts.contains_key("goes");
            assert_eq!(there, done == 0);
            assert_eq!(found.accounts.permissions.len(), 1 + usize::from(there));
            assert_eq!(found.records[&0].len(), 3);
            let own = found.records.get(&1).map_or(0, Vec::len);
            assert_eq!(own, if there { 3 } else { 0 }, "after {done}");
            keep(&mut log, &found.strays);
            // The next virtual host gets the number, and finds nothing.
            keep(&mut log, &[put_vhost("goes", 1)]);
            let again = read_log(&log);
            assert_eq!(again.records.get(&1).map_or(0, Vec::len), own);
            assert_eq!(again.strays, []);
        }
        let mut log = log.clone();
        keep(&mut log, &[remove_user("u")]);
        let found = read_log(&log);
        assert_eq!(
            (found.accounts.permissions.len(), found.strays.len()),
            (0, 2)
        );
    }

    #[test]
    fn a_log_of_a_newer_broker_is_refused() {
        let newer = (key(Kind::Format, b""), json(&(FORMAT + 1)));
        let refused = read(&[newer]).expect_err("it is newer");
        assert!(
            matches!(refused, RecordError::Newer { found: 2 }),
            "{refused}"
        );
    }
}
