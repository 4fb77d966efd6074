//! One virtual host with everything in it: exchanges, queues, and the channels of all its connections. It has one owner,
//! which hands inputs in and carries outputs out, in order.

mod acks;
mod basic;
mod channel;
mod contract;
mod dead_letters;
mod definitions;
mod delays;
mod exchanges;
mod memory;
mod meters;
mod operate;
mod policies;
mod publish;
mod queues;
mod restore;
#[cfg(test)]
mod tests;
mod timeouts;
mod transactions;
mod views;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use mainstay_ids::Instant;

use self::channel::{Channel, Commit, Mode, Word, WordKind};
pub use self::contract::{
    DurableQueue, Everything, Input, Now, Output, Record, Right, Rights, User, Work,
};
pub use self::definitions::{Definitions, QueueDefinition};
use self::memory::Memory;
use self::meters::Meters;
use self::queues::Slot;
pub use self::views::{ChannelMode, ChannelView, ConsumerView, QueueState, QueueView};
use crate::code::{Code, Fault, Scope};
use crate::limits::CONSUMER_TIMEOUT;
use crate::message::{Content, Message};
use crate::method::{
    AccessRequestOk, BasicAck, BasicDeliver, BasicNack, ChannelFlowOk, ConfirmSelectOk, Method,
};
use crate::planted::{Bug, Planted};
use crate::policy::Policies;
use crate::queue::{
    ChannelKey, ConnectionId, ConsumerKey, Delivery, Effect, Origin, QueueId, Turn,
};
use crate::session::Reply;
use crate::text::ShortString;
use crate::vhost::Vhost;

/// Queues that go on in one call of [`Broker::work`].
const QUEUES_PER_WORK: usize = 64;

#[derive(Debug)]
struct Connection {
    user: User,
    paused: bool,
    channels: BTreeSet<u16>,
    /// The queues that go with it.
    exclusive: BTreeSet<QueueId>,
}

/// Whether effects are being carried out further up the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrying {
    Nothing,
    Effects,
}

/// The broker of one virtual host.
#[derive(Debug)]
pub struct Broker {
    vhost: Vhost,
    queues: BTreeMap<QueueId, Slot>,
    names: BTreeMap<ShortString, QueueId>,
    next_queue: u64,
    connections: BTreeMap<ConnectionId, Connection>,
    channels: BTreeMap<ChannelKey, Channel>,
    /// Channels so far.
    lives: u64,
    /// Where direct replies go.
    replies: BTreeMap<ShortString, ChannelKey>,
    /// Queues that have more to deliver than one turn.
    runnable: VecDeque<QueueId>,
    timers: BTreeSet<(Instant, QueueId)>,
    /// What waits for its time: when, and where it is.
    due: BTreeSet<(Instant, QueueId, u64)>,
    /// Where that is, by exchange.
    shelves: BTreeMap<ShortString, QueueId>,
    /// Channels whose oldest delivery is looked at, and when.
    watched: BTreeSet<(Instant, ChannelKey)>,
    consumer_timeout: Option<Duration>,
    queues_max: Option<usize>,
    /// Channels with something to confirm.
    speaking: BTreeSet<ChannelKey>,
    /// What queues want, and is not carried out yet.
    effects: VecDeque<(QueueId, Effect)>,
    carrying: Carrying,
    outputs: VecDeque<Output>,
    memory: Memory,
    meters: Meters,
    policies: Policies,
    names_given: Names,
    planted: Planted,
}

impl Broker {
    /// An empty one. The seed is for names that clients cannot guess: it is to be random and told to nobody.
    pub fn new(vhost: impl Into<String>, seed: [u64; 2]) -> Self {
        Self {
            vhost: Vhost::new(vhost),
            queues: BTreeMap::new(),
            names: BTreeMap::new(),
            next_queue: 1,
            connections: BTreeMap::new(),
            channels: BTreeMap::new(),
            lives: 0,
            replies: BTreeMap::new(),
            runnable: VecDeque::new(),
            timers: BTreeSet::new(),
            due: BTreeSet::new(),
            shelves: BTreeMap::new(),
            watched: BTreeSet::new(),
            consumer_timeout: Some(CONSUMER_TIMEOUT),
            queues_max: None,
            speaking: BTreeSet::new(),
            effects: VecDeque::new(),
            carrying: Carrying::Nothing,
            outputs: VecDeque::new(),
            memory: Memory::default(),
            meters: Meters::default(),
            policies: Policies::default(),
            names_given: Names {
                key: seed,
                count: 0,
            },
            planted: Planted::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// Exchanges and bindings.
    pub fn vhost(&self) -> &Vhost {
        &self.vhost
    }

    /// What is to be done next.
    pub fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes an input in, and delivers what can be delivered because of it.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Opened(connection, user) => {
                let new = Connection {
                    user,
                    paused: false,
                    channels: BTreeSet::new(),
                    exclusive: BTreeSet::new(),
                };
                self.connections.insert(connection, new);
            }
            Input::Gone(connection) => self.drop_connection(now, connection),
            Input::OpenChannel(key) => {
                if let Some(connection) = self.connections.get_mut(&key.connection) {
                    connection.channels.insert(key.channel);
                    self.lives += 1;
                    self.channels.insert(key, Channel::new(self.lives));
                    self.outputs.push_back(Output::Opened(key));
                }
            }
            Input::CloseChannel(key) => self.drop_channel(now, key),
            Input::Method(key, method, content) => self.method(now, key, method, content),
            Input::Stored(queue, through) => self.stored(now, queue, through),
            Input::Pause(connection) => {
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.paused = true;
                }
            }
            Input::Resume(connection) => self.resume(now, connection),
        }
    }

    /// Goes on with what waits, says what is due, and confirms what is safe. Called after a batch of inputs until it
    /// is idle, and at the deadline.
    pub fn work(&mut self, now: Now) -> Work {
        for _ in 0..QUEUES_PER_WORK {
            if self.due.first().is_some_and(|(at, ..)| *at <= now.instant) {
                self.ripen(now);
                continue;
            }
            if self
                .watched
                .first()
                .is_some_and(|(at, _)| *at <= now.instant)
            {
                self.look_at_oldest(now);
                continue;
            }
            let due = self.timers.first().filter(|(at, _)| *at <= now.instant);
            let queue = match due {
                Some((_, queue)) => *queue,
                None => match self.runnable.pop_front() {
                    Some(queue) => queue,
                    None => break,
                },
            };
            if let Some(slot) = self.queues.get_mut(&queue) {
                slot.runs = false;
                if slot.queue.is_abandoned(now.instant) {
                    self.delete_queue(now, queue);
                    continue;
                }
            }
            self.turn(now, queue);
        }
        for key in core::mem::take(&mut self.speaking) {
            self.speak(now, key);
        }
        let due = self.deadline() <= now.instant;
        if due || !self.runnable.is_empty() || !self.speaking.is_empty() {
            Work::More
        } else {
            Work::Idle
        }
    }

    /// When [`Broker::work`] is to be called.
    pub fn deadline(&self) -> Instant {
        let queues = self.timers.first().map(|(at, _)| *at);
        let delays = self.due.first().map(|(at, ..)| *at);
        let watched = self.watched.first().map(|(at, _)| *at);
        let all = [queues, delays, watched].into_iter().flatten();
        all.min().unwrap_or(Instant::NEVER)
    }

    fn method(&mut self, now: Now, key: ChannelKey, method: Method, content: Option<Content>) {
        // What a channel still says after its violation is not heard.
        if !self.channels.contains_key(&key) {
            return;
        }
        let id = method.id();
        if let Err(fault) = self.carry_out(now, key, method, content) {
            self.fault(now, key, fault.by(id));
        }
    }

    fn carry_out(
        &mut self,
        now: Now,
        key: ChannelKey,
        method: Method,
        content: Option<Content>,
    ) -> Result<(), Fault> {
        match method {
            Method::BasicPublish(method) => match content {
                Some(content) => self.publish(now, key, &method, content),
                None => Err(Fault::new(
                    Code::UnexpectedFrame,
                    "a publish without content",
                )),
            },
            Method::BasicAck(method) => self.ack(now, key, &method),
            Method::BasicNack(method) => self.nack(now, key, &method),
            Method::BasicReject(method) => self.reject(now, key, &method),
            Method::BasicRecover(method) => self.recover(now, key, method.requeue, true),
            Method::BasicRecoverAsync(method) => self.recover(now, key, method.requeue, false),
            Method::BasicConsume(method) => self.consume(now, key, &method),
            Method::BasicCancel(method) => {
                self.cancel(now, key, method);
                Ok(())
            }
            Method::BasicGet(method) => self.get(now, key, &method),
            Method::BasicQos(method) => self.qos(now, key, &method),
            Method::QueueDeclare(method) => self.declare_queue(now, key, &method),
            Method::QueueDelete(method) => self.delete_queue_method(now, key, &method),
            Method::QueuePurge(method) => self.purge_queue(now, key, &method),
            Method::QueueBind(method) => self.bind_queue(key, method),
            Method::QueueUnbind(method) => self.unbind_queue(now, key, method),
            Method::ExchangeDeclare(method) => self.declare_exchange(now, key, &method),
            Method::ExchangeDelete(method) => self.delete_exchange(now, key, &method),
            Method::ExchangeBind(method) => self.bind_exchange(key, method),
            Method::ExchangeUnbind(method) => self.unbind_exchange(now, key, method),
            Method::ConfirmSelect(method) => self.select_confirm(key, method.nowait),
            Method::TxSelect(_) => self.select_transaction(key),
            Method::TxCommit(_) => self.commit(now, key),
            Method::TxRollback(_) => self.roll_back(key),
            Method::AccessRequest(_) => {
                self.answer(key, AccessRequestOk { ticket: 1 }.into());
                Ok(())
            }
            Method::ChannelFlow(method) if method.active => {
                self.answer(key, ChannelFlowOk { active: true }.into());
                Ok(())
            }
            Method::ChannelFlow(_) => Err(Fault::new(Code::NotImplemented, "active=false")),
            // Everything else is a server's, or a connection's.
            _ => Err(Fault::new(Code::CommandInvalid, "unimplemented method")),
        }
    }

    fn answer(&mut self, key: ChannelKey, method: Method) {
        self.outputs
            .push_back(Output::Reply(key, Reply::Method(method)));
    }

    fn channel(&mut self, key: ChannelKey) -> &mut Channel {
        self.channels
            .get_mut(&key)
            .expect("a method is carried out on a channel that is there")
    }

    /// Lets go of what a violation closes, and says so.
    fn fault(&mut self, now: Now, key: ChannelKey, fault: Fault) {
        let scope = fault.code.scope();
        self.outputs.push_back(Output::Fault(key, fault));
        match scope {
            Scope::Channel => self.drop_channel(now, key),
            Scope::Connection => self.drop_connection(now, key.connection),
        }
    }

    fn select_confirm(&mut self, key: ChannelKey, nowait: bool) -> Result<(), Fault> {
        let channel = self.channel(key);
        match &channel.mode {
            Mode::Plain => channel.mode = Mode::Confirm(channel::Confirms::new()),
            Mode::Confirm(_) => {}
            Mode::Transaction(_) => {
                let what = "cannot switch from tx to confirm mode";
                return Err(Fault::new(Code::PreconditionFailed, what));
            }
        }
        if !nowait {
            self.answer(key, ConfirmSelectOk {}.into());
        }
        Ok(())
    }

    fn stored(&mut self, now: Now, queue: QueueId, through: u64) {
        let mut effects = Vec::new();
        let excess = self.excess(queue);
        if let Some(slot) = self.queues.get_mut(&queue) {
            slot.queue.stored(through, excess, &mut effects);
        }
        self.apply(now, queue, effects);
    }

    fn resume(&mut self, now: Now, connection: ConnectionId) {
        let Some(state) = self.connections.get_mut(&connection) else {
            return;
        };
        state.paused = false;
        let channels: Vec<u16> = state.channels.iter().copied().collect();
        for channel in channels {
            let key = ChannelKey {
                connection,
                channel,
            };
            self.wake(now, key);
        }
    }

    /// A channel takes deliveries again.
    fn wake(&mut self, now: Now, key: ChannelKey) {
        let Some(channel) = self.channels.get(&key) else {
            return;
        };
        let queues: BTreeSet<QueueId> = channel.consumers.values().copied().collect();
        for queue in queues {
            if let Some(slot) = self.queues.get_mut(&queue) {
                slot.queue.wake(key);
                self.turn(now, queue);
            }
        }
    }

    /// Delivers what a queue has for one turn.
    fn turn(&mut self, now: Now, id: QueueId) {
        let mut effects = Vec::new();
        self.turn_into(now, id, &mut effects);
        self.apply(now, id, effects);
    }

    /// One turn of a queue, behind what it wants already.
    fn turn_into(&mut self, now: Now, id: QueueId, effects: &mut Vec<Effect>) {
        let Some(slot) = self.queues.get_mut(&id) else {
            return;
        };
        self.meters.stir(now.instant, id, &mut slot.queue);
        let (channels, connections) = (&mut self.channels, &self.connections);
        let mut admit = |key: ChannelKey, no_ack: bool| {
            let open = connections
                .get(&key.connection)
                .is_some_and(|connection| !connection.paused);
            let Some(channel) = channels.get_mut(&key).filter(|_| open) else {
                return false;
            };
            if no_ack || channel.limit == 0 {
                return true;
            }
            let admits = channel.counted < channel.limit;
            channel.counted += u32::from(admits);
            admits
        };
        let turn = slot.queue.turn(now.instant, &mut admit, effects);
        if turn == Turn::More && !slot.runs {
            slot.runs = true;
            self.runnable.push_back(id);
        }
        self.set_timer(id);
    }

    fn set_timer(&mut self, id: QueueId) {
        let Some(slot) = self.queues.get_mut(&id) else {
            return;
        };
        let deadline = slot.queue.deadline();
        if deadline != slot.deadline {
            self.timers.remove(&(slot.deadline, id));
            slot.deadline = deadline;
            if deadline != Instant::NEVER {
                self.timers.insert((deadline, id));
            }
        }
    }

    /// Carries out what a queue wants, in order, and what comes of it before what follows: a dead letter is stored
    /// before its message is forgotten. Not by recursion: dead letters may go through thousands of queues.
    fn apply(&mut self, now: Now, id: QueueId, effects: Vec<Effect>) {
        self.account(id);
        for effect in effects.into_iter().rev() {
            self.effects.push_front((id, effect));
        }
        if self.carrying == Carrying::Effects {
            return;
        }
        self.carrying = Carrying::Effects;
        while let Some((id, effect)) = self.effects.pop_front() {
            self.apply_one(now, id, effect);
        }
        self.carrying = Carrying::Nothing;
    }

    fn apply_one(&mut self, now: Now, id: QueueId, effect: Effect) {
        match effect {
            Effect::Deliver(consumer, delivery) => self.deliver(now, id, &consumer, &delivery),
            Effect::Store(position, message) => {
                self.outputs.push_back(Output::Store(id, position, message));
            }
            Effect::Forget(_) if self.planted.has(Bug::ForgetsAck) => {}
            Effect::Forget(position) => self.outputs.push_back(Output::Forget(id, position)),
            Effect::Confirm(origin) => {
                self.hear(origin, |confirms| confirms.confirmed(origin.number));
            }
            Effect::Refuse(origin) if self.planted.has(Bug::NoRefusal) => {
                self.hear(origin, |confirms| confirms.confirmed(origin.number));
            }
            Effect::Refuse(origin) => {
                self.hear(origin, |confirms| confirms.refused(origin.number));
            }
            Effect::DeadLetter(message, death) => self.dead_letter(now, id, &message, death),
        }
    }

    /// A queue speaks of a publish. What was published on an older channel of the same number concerns nobody.
    fn hear(&mut self, origin: Origin, what: impl FnOnce(&mut channel::Confirms)) {
        let channel = self.channels.get_mut(&origin.channel);
        let any = self.planted.has(Bug::ForgetsLife);
        let channel = channel.filter(|channel| channel.life == origin.life || any);
        if let Some(confirms) = channel.and_then(Channel::confirms) {
            what(confirms);
            self.speaking.insert(origin.channel);
        }
    }

    fn deliver(&mut self, now: Now, id: QueueId, consumer: &ConsumerKey, delivery: &Delivery) {
        let key = consumer.channel;
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        let unacked = channel::Unacked {
            queue: id,
            position: delivery.position,
            by: channel::By::Consumer,
            since: now.instant,
        };
        let delivery_tag = channel.deliver((!delivery.no_ack).then_some(unacked));
        self.watch(key);
        let method = BasicDeliver {
            consumer_tag: consumer.tag.clone(),
            delivery_tag,
            redelivered: delivery.redelivered,
            exchange: delivery.message.exchange.clone(),
            routing_key: delivery.message.routing_key.clone(),
        };
        let properties = self.properties_of(id, delivery);
        let body = delivery.message.body.clone();
        let reply = Reply::Content(method.into(), properties, body);
        self.outputs.push_back(Output::Reply(key, reply));
    }

    /// Says what is due on a channel: confirms, or that a commit is done.
    fn speak(&mut self, now: Now, key: ChannelKey) {
        let planted = self.planted;
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        match &mut channel.mode {
            Mode::Confirm(confirms) => {
                for word in confirms.words(planted) {
                    self.answer(key, word.method());
                }
            }
            Mode::Transaction(transaction) if transaction.state == Commit::UnderWay => {
                self.finish_commit(now, key);
            }
            Mode::Plain | Mode::Transaction(_) => {}
        }
    }

    /// All that its channels held goes back before any of it is delivered anew: else what one of them gave back would
    /// overtake what another one still has.
    fn drop_connection(&mut self, now: Now, connection: ConnectionId) {
        let Some(state) = self.connections.remove(&connection) else {
            return;
        };
        let mut touched = BTreeSet::new();
        for channel in state.channels {
            let key = ChannelKey {
                connection,
                channel,
            };
            touched.extend(self.release(now, key));
        }
        for queue in state.exclusive {
            self.delete_queue(now, queue);
        }
        self.go_on(now, touched);
    }

    fn drop_channel(&mut self, now: Now, key: ChannelKey) {
        if let Some(connection) = self.connections.get_mut(&key.connection) {
            connection.channels.remove(&key.channel);
        }
        let touched = self.release(now, key);
        self.go_on(now, touched);
    }

    /// A channel is gone: its consumers go first, so that nothing that comes back goes to them again. The queues that
    /// have something to deliver because of it.
    fn release(&mut self, now: Now, key: ChannelKey) -> BTreeSet<QueueId> {
        let mut touched = BTreeSet::new();
        let Some(channel) = self.channels.remove(&key) else {
            return touched;
        };
        self.speaking.remove(&key);
        if let Some(at) = channel.watch {
            self.watched.remove(&(at, key));
        }
        if let Some(replies) = &channel.replies {
            self.replies.remove(&replies.address);
        }
        for (tag, queue) in &channel.consumers {
            let consumer = ConsumerKey {
                channel: key,
                tag: tag.clone(),
            };
            self.remove_consumer(now, *queue, &consumer);
            touched.insert(*queue);
        }
        touched.extend(self.give_back(now, channel));
        touched
    }

    /// Queues go, if they were to go with their last consumer, or deliver what came back.
    fn go_on(&mut self, now: Now, queues: BTreeSet<QueueId>) {
        for queue in queues {
            if !self.delete_if_done(now, queue) {
                self.turn(now, queue);
            }
        }
    }

    /// What a channel held goes back to its place; from which queues it came.
    fn give_back(&mut self, now: Now, channel: Channel) -> BTreeSet<QueueId> {
        let mut touched = BTreeSet::new();
        let mut unacked: Vec<channel::Unacked> = channel.unacked.into_values().collect();
        if let Mode::Transaction(transaction) = channel.mode {
            let settled = transaction.settled.into_iter().flat_map(|(_, list)| list);
            unacked.extend(settled.map(|(_, unacked)| unacked));
        }
        if self.planted.has(Bug::DropsUnacked) {
            unacked.clear();
        }
        for one in unacked {
            self.settle_one(now, one, crate::queue::Settle::Requeue);
            touched.insert(one.queue);
        }
        touched
    }

    fn user(&self, key: ChannelKey) -> &User {
        let connection = self.connections.get(&key.connection);
        &connection.expect("a channel's connection is there").user
    }

    /// Whether the user may; `what` is how RabbitMQ's text calls it.
    fn check(&self, key: ChannelKey, right: Right, name: &str, what: &str) -> Result<(), Fault> {
        let user = self.user(key);
        if user.rights.allows(right, name) {
            return Ok(());
        }
        let text = format!("access to {what} refused for user '{}'", user.name);
        Err(Fault::new(Code::AccessRefused, text))
    }

    fn check_queue(&self, key: ChannelKey, right: Right, name: &ShortString) -> Result<(), Fault> {
        self.check(key, right, &name.text(), &self.vhost.queue_words(name))
    }

    fn check_exchange(
        &self,
        key: ChannelKey,
        right: Right,
        name: &ShortString,
    ) -> Result<(), Fault> {
        let default = ShortString::literal("amq.default");
        let name = if name.is_empty() { &default } else { name };
        self.check(key, right, &name.text(), &self.vhost.exchange_words(name))
    }

    /// Whether a delivery is not settled.
    #[cfg(test)]
    pub(crate) fn holds(&self, key: ChannelKey, tag: u64) -> bool {
        let channel = self.channels.get(&key);
        channel.is_some_and(|channel| channel.unacked.contains_key(&tag))
    }

    /// What must hold between inputs, whatever came.
    pub fn check_invariants(&self) {
        for (key, channel) in &self.channels {
            let held = channel.unacked.len() + in_transaction(channel);
            let counted = usize::try_from(channel.counted).expect("64 bits");
            assert!(
                channel.limit == 0 || counted <= held,
                "{key:?} counts deliveries that it does not hold"
            );
            for queue in channel.consumers.values() {
                assert!(
                    self.queues.contains_key(queue),
                    "{key:?} consumes a queue that is gone"
                );
            }
        }
        for (at, key) in &self.watched {
            let watch = self.channels.get(key).and_then(|channel| channel.watch);
            assert_eq!(watch, Some(*at), "{key:?} is looked at once");
        }
        for (name, id) in &self.names {
            assert_eq!(self.queues.get(id).map(|slot| &slot.name), Some(name));
        }
        assert_eq!(self.names.len() + self.shelves.len(), self.queues.len());
        for (_, shelf, position) in &self.due {
            let slot = self.queues.get(shelf);
            assert!(
                slot.is_some_and(|slot| slot.queue.is_held(*position)),
                "what is due waits: {shelf:?} {position}"
            );
        }
        let here: u64 = self.queues.values().map(|slot| slot.queue.here()).sum();
        assert_eq!(self.memory.here, here, "bodies in memory are counted");
        for (at, id) in &self.timers {
            assert_eq!(self.queues.get(id).map(|slot| slot.deadline), Some(*at));
        }
    }

    /// Messages of a queue that wait, that are delivered and not settled, and consumers; `None` without such a queue.
    pub fn depth(&self, name: &ShortString) -> Option<(usize, usize, usize)> {
        let slot = self.queues.get(self.names.get(name)?)?;
        Some((
            slot.queue.ready(),
            slot.queue.unacked(),
            slot.queue.consumers(),
        ))
    }
}

impl Word {
    fn method(self) -> Method {
        match self.kind {
            WordKind::Ack => BasicAck {
                delivery_tag: self.number,
                multiple: self.multiple,
            }
            .into(),
            WordKind::Nack => BasicNack {
                delivery_tag: self.number,
                multiple: self.multiple,
                requeue: true,
            }
            .into(),
        }
    }
}

/// Names that those cannot guess who do not know the key, whatever names they have seen: SipHash of a counter.
#[derive(Debug)]
struct Names {
    key: [u64; 2],
    count: u64,
}

impl Names {
    fn next(&mut self, prefix: &str) -> ShortString {
        self.count += 1;
        let [one, other] = self.key;
        let hasher = siphasher::sip128::SipHasher24::new_with_keys(one, other);
        let hash = hasher.hash(&self.count.to_be_bytes()).as_u128();
        ShortString::cut(&format!("{prefix}-{}", base64url(&hash.to_be_bytes())))
    }
}

/// RFC 4648, 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=three.len()].copy_from_slice(three);
        let group = u32::from_be_bytes(group);
        for at in 0..=three.len() {
            let six = (group >> (18 - 6 * at)) & 63;
            text.push(char::from(ALPHABET[six as usize]));
        }
    }
    text
}

/// What was settled in a transaction that is not committed.
fn in_transaction(channel: &Channel) -> usize {
    match &channel.mode {
        Mode::Transaction(transaction) => {
            transaction.settled.iter().map(|(_, list)| list.len()).sum()
        }
        Mode::Plain | Mode::Confirm(_) => 0,
    }
}

fn shown_message(message: &Message) -> (ShortString, ShortString) {
    (message.exchange.clone(), message.routing_key.clone())
}
