//! Clients, a broker and a disk.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use core::time::Duration;
use mainstay_ids::{Instant, Timestamp};

use super::Played;
use super::disk::{Disk, Kept};
use super::judge::{ChannelModel, Hold, Judge, Kind, Promise, QUEUES};
use super::random::Random;
use crate::broker::{Broker, Everything, Input, Now, Output, Record, User, Work};
use crate::field::{Table, Value};
use crate::message::{Body, Content, Message};
use crate::method::{
    BasicAck, BasicCancel, BasicConsume, BasicGet, BasicNack, BasicPublish, BasicQos, BasicReject,
    ConfirmSelect, ExchangeDeclare, Method, QueueBind, QueueDeclare,
};
use crate::planted::Planted;
use crate::properties::Properties;
use crate::queue::{ChannelKey, ConnectionId, QueueId};
use crate::session::Reply;
use crate::text::ShortString;

/// Things that happen in a run.
const STEPS: usize = 160;
/// Bytes of bodies that stay in memory: none, some, all.
const BUDGETS: [u64; 3] = [0, 30, u64::MAX];
/// Connections at most at a time.
const CONNECTIONS: usize = 4;
/// Goes to `main` and `second`.
const BOTH: &str = "both";

pub(super) struct World {
    random: Random,
    planted: Planted,
    now: Instant,
    broker: Broker,
    disk: Disk,
    judge: Judge,
    /// Each with whether it reads.
    connections: BTreeMap<ConnectionId, bool>,
    next_connection: u64,
    next_message: u64,
    next_consumer: u64,
    /// Which queue of the world has which number in the broker, through all its lives.
    numbers: BTreeMap<QueueId, usize>,
    /// What a `basic.get` under way is for.
    getting: Option<(usize, bool)>,
    steps: Vec<String>,
}

fn new_broker(planted: Planted) -> Broker {
    let mut broker = Broker::new("/", [1, 2]);
    broker.plant(planted);
    broker.set_budget(BUDGETS[1]);
    broker
}

impl World {
    pub(super) fn new(seed: u64, planted: Planted) -> Self {
        Self {
            random: Random::new(seed),
            planted,
            now: Instant::START,
            broker: new_broker(planted),
            disk: Disk::default(),
            judge: Judge::default(),
            connections: BTreeMap::new(),
            next_connection: 1,
            next_message: 1,
            next_consumer: 1,
            numbers: BTreeMap::new(),
            getting: None,
            steps: Vec::new(),
        }
    }

    pub(super) fn into_played(self) -> Played {
        Played {
            broken: self.judge.broken,
            steps: self.steps,
            happened: self.judge.happened,
        }
    }

    pub(super) fn run(&mut self) {
        self.begin();
        for _ in 0..STEPS {
            self.step();
            if self.judge.broken.is_some() {
                return;
            }
        }
        self.calm();
    }

    fn time(&self) -> Now {
        Now {
            instant: self.now,
            wall: Timestamp(0),
        }
    }

    fn say(&mut self, what: String) {
        self.steps.push(what);
    }

    fn input(&mut self, input: Input) {
        let now = self.time();
        self.broker.handle(now, input);
        self.carry_out();
    }

    fn method(&mut self, key: ChannelKey, method: impl Into<Method>) {
        self.input(Input::Method(key, method.into(), None));
    }

    /// Who declares: what is there already is declared again.
    fn begin(&mut self) {
        let key = self.open_channel();
        self.method(
            key,
            ExchangeDeclare {
                exchange: BOTH.into(),
                kind: "fanout".into(),
                durable: true,
                ..ExchangeDeclare::default()
            },
        );
        for kind in QUEUES {
            self.method(
                key,
                QueueDeclare {
                    queue: kind.name.into(),
                    durable: kind.durable,
                    arguments: arguments(kind),
                    ..QueueDeclare::default()
                },
            );
        }
        for queue in ["main", "second"] {
            self.method(
                key,
                QueueBind {
                    queue: queue.into(),
                    exchange: BOTH.into(),
                    ..QueueBind::default()
                },
            );
        }
    }

    fn open_channel(&mut self) -> ChannelKey {
        let connection = match self.connections.keys().next_back().copied() {
            Some(known) if self.connections.len() >= CONNECTIONS || self.random.permille(500) => {
                let all: Vec<ConnectionId> = self.connections.keys().copied().collect();
                if all.is_empty() {
                    known
                } else {
                    self.random.one_of(&all)
                }
            }
            Some(_) | None => self.open_connection(),
        };
        let used = self.judge.channels.keys();
        let used = used.filter(|key| key.connection == connection);
        let channel = used.map(|key| key.channel).max().unwrap_or(0) + 1;
        let key = ChannelKey {
            connection,
            channel,
        };
        self.open(key);
        key
    }

    fn open(&mut self, key: ChannelKey) {
        self.judge.channels.insert(key, ChannelModel::default());
        self.input(Input::OpenChannel(key));
        self.method(key, ConfirmSelect { nowait: true });
        self.say(format!("{key:?} opens"));
    }

    fn open_connection(&mut self) -> ConnectionId {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.connections.insert(connection, true);
        let user = User {
            name: "guest".into(),
            rights: Box::new(Everything),
            hears_cancel: true,
        };
        self.input(Input::Opened(connection, user));
        connection
    }

    fn step(&mut self) {
        let channels: Vec<ChannelKey> = self.judge.channels.keys().copied().collect();
        if channels.is_empty() {
            self.open_channel();
            return;
        }
        let key = self.random.one_of(&channels);
        match self.random.below(1000) {
            0..400 => self.publish(key),
            400..580 => self.settle(key),
            580..650 => self.consume(key),
            650..690 => self.cancel(key),
            690..760 => self.get(key),
            760..790 => self.limit(key),
            790..850 => {
                self.open_channel();
            }
            850..870 => self.close(key),
            870..885 => self.kill(key.connection),
            885..905 => self.pause(key.connection),
            905..910 => self.budget(),
            910..925 => self.move_some(),
            925..930 => self.purge(),
            930..985 => self.sync(),
            _ => self.crash(),
        }
        self.settle_broker();
        self.check_rest();
    }

    /// A batch of inputs is over.
    fn settle_broker(&mut self) {
        self.now = self.now.after(Duration::from_millis(1));
        loop {
            let now = self.time();
            let work = self.broker.work(now);
            self.carry_out();
            if work == Work::Idle {
                break;
            }
        }
        self.broker.check_invariants();
    }

    fn publish(&mut self, key: ChannelKey) {
        // Several at once are confirmed together.
        for _ in 0..=self.random.below(4) {
            let (exchange, routing_key, queues): (&str, &str, &[usize]) = match self.random.below(8)
            {
                0 | 1 => ("", "main", &[0]),
                2 | 3 => ("", "small", &[1]),
                4 => ("", "passing", &[2]),
                5 | 6 => (BOTH, "any", &[0, 3]),
                _ => ("", "nobody", &[]),
            };
            let persistent = self.random.permille(800);
            let mandatory = self.random.permille(500);
            let message = self.next_message;
            self.next_message += 1;
            self.say(format!(
                "{key:?} publishes {message} to {exchange}/{routing_key}"
            ));
            self.judge
                .published(key, message, queues, persistent, mandatory);
            let properties = Properties {
                delivery_mode: persistent.then_some(2),
                ..Properties::default()
            };
            let content = Content {
                properties: properties.write(),
                body: Bytes::from(message.to_string().into_bytes()),
            };
            let method = BasicPublish {
                exchange: exchange.into(),
                routing_key: routing_key.into(),
                mandatory,
                ..BasicPublish::default()
            };
            self.input(Input::Method(key, method.into(), Some(content)));
        }
    }

    fn settle(&mut self, key: ChannelKey) {
        let held = self.judge.channels.get(&key).expect("open");
        let tags: Vec<u64> = held.held.keys().copied().collect();
        if tags.is_empty() {
            return;
        }
        let delivery_tag = self.random.one_of(&tags);
        let multiple = self.random.permille(300);
        match self.random.below(10) {
            0..6 => {
                self.say(format!(
                    "{key:?} acknowledges {delivery_tag}, multiple: {multiple}"
                ));
                if multiple {
                    self.judge.count("acknowledged together");
                }
                self.judge.settled(key, delivery_tag, multiple, false);
                self.method(
                    key,
                    BasicAck {
                        delivery_tag,
                        multiple,
                    },
                );
            }
            6..8 => {
                self.say(format!(
                    "{key:?} gives {delivery_tag} back, multiple: {multiple}"
                ));
                self.judge.count("given back");
                self.judge.settled(key, delivery_tag, multiple, true);
                self.method(
                    key,
                    BasicNack {
                        delivery_tag,
                        multiple,
                        requeue: true,
                    },
                );
            }
            _ => {
                self.say(format!("{key:?} throws {delivery_tag} away"));
                self.judge.count("thrown away");
                self.judge.refused(key, delivery_tag);
                self.method(
                    key,
                    BasicReject {
                        delivery_tag,
                        requeue: false,
                    },
                );
            }
        }
    }

    fn consume(&mut self, key: ChannelKey) {
        let queue = self.random.below(QUEUES.len());
        let no_ack = self.random.permille(50);
        let prefetch = self.random.one_of(&[1_u16, 2, 5]);
        let consumer = self.next_consumer;
        self.next_consumer += 1;
        self.say(format!(
            "{key:?} consumes {} as {consumer}",
            QUEUES[queue].name
        ));
        let limit = self.judge.channels.get(&key).expect("open").limit;
        // A prefetch per consumer ends one for the channel.
        let prefetch = if limit == 0 { prefetch } else { 0 };
        if limit == 0 {
            self.method(
                key,
                BasicQos {
                    prefetch_count: prefetch,
                    ..BasicQos::default()
                },
            );
        }
        let room = usize::from(prefetch);
        let channel = self.judge.channels.get_mut(&key).expect("open");
        channel.consumers.insert(consumer, (queue, room));
        self.method(
            key,
            BasicConsume {
                queue: QUEUES[queue].name.into(),
                consumer_tag: ShortString::cut(&format!("{queue}-{consumer}")),
                no_ack,
                ..BasicConsume::default()
            },
        );
    }

    fn cancel(&mut self, key: ChannelKey) {
        let channel = self.judge.channels.get_mut(&key).expect("open");
        let Some((consumer, (queue, _))) = channel.consumers.pop_first() else {
            return;
        };
        self.judge.count("cancelled");
        self.say(format!("{key:?} cancels {consumer}"));
        self.method(
            key,
            BasicCancel {
                consumer_tag: ShortString::cut(&format!("{queue}-{consumer}")),
                nowait: true,
            },
        );
    }

    fn get(&mut self, key: ChannelKey) {
        let queue = self.random.below(QUEUES.len());
        let no_ack = self.random.permille(300);
        self.say(format!("{key:?} gets of {}", QUEUES[queue].name));
        self.getting = Some((queue, no_ack));
        self.method(
            key,
            BasicGet {
                queue: QUEUES[queue].name.into(),
                no_ack,
                ..BasicGet::default()
            },
        );
        self.getting = None;
    }

    /// A prefetch for the whole channel, while it has no consumer with one of its own.
    fn limit(&mut self, key: ChannelKey) {
        let limit = self.random.one_of(&[1_u16, 3]);
        let channel = self.judge.channels.get_mut(&key).expect("open");
        let held = channel.held.values().any(|hold| hold.consumer.is_some());
        if !channel.consumers.is_empty() || held {
            return;
        }
        channel.limit = usize::from(limit);
        self.say(format!("{key:?} takes {limit} at most"));
        // What was set for consumers before does not count any more.
        for (prefetch_count, global) in [(0, false), (limit, true)] {
            self.method(
                key,
                BasicQos {
                    prefetch_count,
                    global,
                    ..BasicQos::default()
                },
            );
        }
    }

    fn close(&mut self, key: ChannelKey) {
        self.judge.count("channel closed");
        self.say(format!("{key:?} closes"));
        self.judge.closed(key);
        self.input(Input::CloseChannel(key));
        // Many clients use the number that is free at once.
        if self.random.permille(500) {
            self.open(key);
        }
    }

    fn kill(&mut self, connection: ConnectionId) {
        self.judge.count("connection died");
        self.say(format!("{connection:?} dies"));
        let all: Vec<ChannelKey> = self.judge.channels.keys().copied().collect();
        for key in all.into_iter().filter(|key| key.connection == connection) {
            self.judge.closed(key);
        }
        self.connections.remove(&connection);
        self.input(Input::Gone(connection));
    }

    fn pause(&mut self, connection: ConnectionId) {
        let reads = self.connections.get_mut(&connection).expect("a connection");
        *reads = !*reads;
        let reads = *reads;
        self.judge.count("paused");
        self.say(format!("{connection:?} reads: {reads}"));
        self.input(if reads {
            Input::Resume(connection)
        } else {
            Input::Pause(connection)
        });
    }

    fn budget(&mut self) {
        let budget = self.random.one_of(&BUDGETS);
        self.say(format!("bodies may take {budget} bytes"));
        self.broker.set_budget(budget);
    }

    /// An operator moves messages.
    fn move_some(&mut self) {
        let from = self.random.one_of(&[0, 3]);
        let to = QUEUES[from].letters.expect("where letters go");
        let count = self.random.below(5);
        let now = self.time();
        let (source, target) = (QUEUES[from].name, QUEUES[to].name);
        self.say(format!("{count} are moved from {source} to {target}"));
        let moved = self
            .broker
            .move_messages(now, &source.into(), &target.into(), count);
        let moved = moved.expect("queues of the world");
        let waiting = self.judge.queues[from].ready.len();
        if moved != count.min(waiting) {
            let what = format!("{moved} of {waiting} were moved, {count} were to be");
            return self.judge.fail(Promise::Counts, what);
        }
        self.judge.moved(from, moved);
        self.carry_out();
    }

    fn purge(&mut self) {
        let queue = self.random.below(QUEUES.len());
        let now = self.time();
        self.say(format!("{} is purged", QUEUES[queue].name));
        let purged = self.broker.purge(now, &QUEUES[queue].name.into());
        if purged != Ok(self.judge.queues[queue].ready.len()) {
            let what = format!("{purged:?} were thrown away");
            return self.judge.fail(Promise::Counts, what);
        }
        self.judge.purged(queue);
        self.carry_out();
    }

    fn sync(&mut self) {
        self.say("sync".into());
        for (queue, through) in self.write_down() {
            self.input(Input::Stored(queue, through));
        }
    }

    fn write_down(&mut self) -> BTreeMap<QueueId, u64> {
        let through = self.disk.sync();
        self.judge.synced();
        through
    }

    /// Everything but the disk is gone.
    fn crash(&mut self) {
        let lucky = self.random.below(self.disk.unsynced() + 1);
        self.say(format!("crash; {lucky} unsynced lines are there"));
        self.disk.crash(lucky);
        self.connections.clear();
        self.broker = new_broker(self.planted);
        let now = self.time();
        for record in self.disk.records() {
            self.broker.restore(now, record).expect("our own record");
        }
        let kept = self.disk.kept();
        let mut of: [Vec<u64>; QUEUES.len()] = Default::default();
        for ((queue, position), message) in &kept {
            let there = self.broker.restore_message(now, *queue, *position, message);
            if !there {
                // It did not outlive the broker, and had letters whose bodies were on disk alone.
                assert!(!self.numbers.contains_key(queue), "{queue:?} is gone");
                self.disk.forget(*queue, *position);
                continue;
            }
            of[self.numbers[queue]].push(number(whole(message)));
        }
        self.judge.restored(&of);
        self.begin();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.broker.pop() {
            match output {
                Output::Reply(key, reply) => self.reply(key, &reply),
                Output::Fault(key, fault) => {
                    self.judge
                        .fail(Promise::OneWord, format!("{key:?} is faulted: {fault}"));
                }
                Output::Store(queue, position, message) => {
                    if !self.disk.store(queue, position, message) {
                        let what = format!("{queue:?} {position} is to be stored without it");
                        self.judge.fail(Promise::BodyIsThere, what);
                    }
                }
                Output::Forget(queue, position) => self.disk.forget(queue, position),
                Output::Opened(_) => {}
                Output::Record(record) => self.record(record),
            }
        }
    }

    /// What is declared is on disk before anybody hears of it.
    fn record(&mut self, record: Record) {
        if let Record::Queue(id, queue) = &record {
            let at = QUEUES.iter().position(|kind| queue.name == kind.name);
            self.numbers.insert(*id, at.expect("a queue of the world"));
        }
        self.disk.record(record);
        let stored = self.write_down();
        let now = self.time();
        for (queue, through) in stored {
            self.broker.handle(now, Input::Stored(queue, through));
        }
    }

    /// The number of the message of this body, which is read from disk if it is there alone.
    fn number_of(&mut self, body: &Body) -> Option<u64> {
        match body {
            Body::Here(bytes) => Some(number(bytes)),
            Body::Stored { place, len } => {
                let bytes = self.disk.read(*place);
                let there = bytes.filter(|bytes| bytes.len() as u64 == *len);
                if there.is_none() {
                    let what = format!("{place:?} has no body");
                    self.judge.fail(Promise::BodyIsThere, what);
                }
                there.map(|bytes| number(&bytes))
            }
        }
    }

    fn reply(&mut self, key: ChannelKey, reply: &Reply) {
        match reply {
            Reply::Content(method, _, body) => {
                if reply.place().is_some() {
                    self.judge.count("read back");
                }
                if let Some(message) = self.number_of(body) {
                    self.content(key, method, message);
                }
            }
            Reply::Method(Method::BasicAck(ack)) => {
                self.word(key, ack.delivery_tag, ack.multiple, true);
            }
            Reply::Method(Method::BasicNack(nack)) => {
                self.word(key, nack.delivery_tag, nack.multiple, false);
            }
            Reply::Method(_) => {}
        }
    }

    fn content(&mut self, key: ChannelKey, method: &Method, message: u64) {
        match method {
            Method::BasicReturn(_) => self.judge.returned(key, message),
            Method::BasicDeliver(deliver) => {
                let tag = deliver.consumer_tag.text().into_owned();
                let (queue, consumer) = tag.split_once('-').expect("our own tag");
                let consumer = consumer.parse().expect("a number");
                let hold = Hold {
                    queue: queue.parse().expect("a number"),
                    message,
                    consumer: Some(consumer),
                    order: 0,
                };
                let no_ack = self.is_no_ack(key, deliver.delivery_tag);
                let redelivered = deliver.redelivered;
                self.judge
                    .delivered(key, deliver.delivery_tag, hold, redelivered, no_ack);
            }
            Method::BasicGetOk(got) => {
                let (queue, no_ack) = self.getting.expect("a get is under way");
                self.judge.count("got");
                let hold = Hold {
                    queue,
                    message,
                    consumer: None,
                    order: 0,
                };
                self.judge
                    .delivered(key, got.delivery_tag, hold, got.redelivered, no_ack);
            }
            _ => {}
        }
    }

    /// Whether a delivery needs no acknowledgement: the broker holds none of it.
    fn is_no_ack(&self, key: ChannelKey, tag: u64) -> bool {
        !self.broker.holds(key, tag)
    }

    fn word(&mut self, key: ChannelKey, number: u64, multiple: bool, ack: bool) {
        let kept = safe(&self.disk.kept(), &self.numbers);
        self.judge
            .word(key, number, multiple, ack, |queue, message| {
                kept.contains(&(queue, message))
            });
    }

    /// After each step nobody who can take something lacks it, and the broker counts as we do.
    fn check_rest(&mut self) {
        for (at, kind) in QUEUES.iter().enumerate() {
            let ready = self.judge.queues[at].ready.len();
            let held = self
                .judge
                .channels
                .values()
                .flat_map(|one| one.held.values());
            let held = held.filter(|hold| hold.queue == at).count();
            let counted = self.broker.depth(&kind.name.into());
            let (waits, unacked, _) = counted.expect("a queue of the world");
            if (waits, unacked) != (ready, held) {
                let what = format!("{}: {waits}+{unacked}, and it is {ready}+{held}", kind.name);
                self.judge.fail(Promise::Counts, what);
            }
            let now = self.time();
            let peeked = self.broker.peek(now, &kind.name.into(), 3);
            let peeked = peeked.expect("a queue of the world").into_iter();
            let shown: Vec<Option<u64>> = peeked
                .map(|one| self.number_of(&one.message.body))
                .collect();
            let next = self.judge.queues[at].ready.values().take(3);
            let next: Vec<Option<u64>> = next.copied().map(Some).collect();
            if shown != next {
                let what = format!("{} shows {shown:?} and has {next:?}", kind.name);
                self.judge.fail(Promise::Order, what);
            }
            if ready > 0 && self.somebody_waits(at) {
                let what = format!("{} has {ready}, and somebody waits for them", kind.name);
                self.judge.fail(Promise::NoStandstill, what);
            }
        }
    }

    fn somebody_waits(&self, queue: usize) -> bool {
        self.judge.channels.iter().any(|(key, channel)| {
            let by_consumer = channel.held.values().filter(|hold| hold.consumer.is_some());
            let all = by_consumer.clone().count();
            let mut consumers = channel.consumers.iter();
            let reads = self
                .connections
                .get(&key.connection)
                .is_some_and(|reads| *reads);
            reads
                && (channel.limit == 0 || all < channel.limit)
                && consumers.any(|(number, (of, prefetch))| {
                    let his = by_consumer
                        .clone()
                        .filter(|hold| hold.consumer == Some(*number));
                    *of == queue && (*prefetch == 0 || his.count() < *prefetch)
                })
        })
    }

    /// Everybody leaves; one client takes all that there is.
    fn calm(&mut self) {
        self.say("calm".into());
        let all: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for connection in all {
            self.kill(connection);
        }
        self.sync();
        let key = self.open_channel();
        for (queue, kind) in QUEUES.iter().enumerate() {
            while self.judge.broken.is_none() && !self.judge.queues[queue].ready.is_empty() {
                let before = self.judge.queues[queue].ready.len();
                self.getting = Some((queue, true));
                let method = BasicGet {
                    queue: kind.name.into(),
                    no_ack: true,
                    ..BasicGet::default()
                };
                self.method(key, method);
                if self.judge.queues[queue].ready.len() == before {
                    let what = format!("{before} of {}", kind.name);
                    self.judge.fail(Promise::NothingLost, what);
                }
            }
        }
        self.sync();
        self.settle_broker();
        self.check_rest();
        let left = self.disk.written().len();
        if left > 0 {
            self.judge
                .fail(Promise::DiskEmpties, format!("{left} messages are on disk"));
        }
    }
}

fn arguments(kind: Kind) -> Table {
    let mut fields = Vec::new();
    if let Some(max) = kind.max {
        let max = Value::Long(i64::try_from(max).expect("small"));
        fields.push(("x-max-length".into(), max));
        fields.push(("x-overflow".into(), Value::literal("reject-publish")));
    }
    if let Some(letters) = kind.letters {
        let letters = Value::literal(QUEUES[letters].name);
        fields.push(("x-dead-letter-exchange".into(), Value::literal("")));
        fields.push(("x-dead-letter-routing-key".into(), letters));
    }
    Table::new(fields)
}

fn whole(message: &Message) -> &Bytes {
    message.body.here().expect("the disk has whole messages")
}

fn number(body: &[u8]) -> u64 {
    let text = core::str::from_utf8(body).expect("our own body");
    text.parse().expect("a number")
}

fn safe(kept: &Kept, numbers: &BTreeMap<QueueId, usize>) -> BTreeSet<(usize, u64)> {
    let one = |((queue, _), message): (&(QueueId, u64), &Arc<Message>)| {
        Some((*numbers.get(queue)?, number(whole(message))))
    };
    kept.iter().filter_map(one).collect()
}
