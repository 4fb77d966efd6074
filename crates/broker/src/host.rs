//! One virtual host: the task that owns its `mainstay_amqp::Broker`. Inputs come from connections and from the writer;
//! outputs go to mailboxes and to the log, in order.
//!
//! One turn: what the writer reports, some calls, the broker's own work, and one batch for the writer, or for the log itself.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use mainstay_amqp::{
    Broker, ChannelKey, ConnectionId, Input, Message, Method, Now, Output, QueueId, Record, Reply,
    Request, Scope, User, Work,
};
use mainstay_journal::messages::{Body as StoredBody, Change, Place, Ref};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;

use crate::clock::Clock;
use crate::confirms::Confirms;
use crate::desk::{Question, Told, Unanswered};
use crate::house::House;
use crate::inbox::Inbox;
use crate::limits::{CALLS_PER_TURN, CHANGES_LEN_MAX, HELD_MAX, UNSENT_HIGH};
use crate::mailbox::{Letter, Mailbox};
use crate::record;
use crate::writer::{Batch, Class, Haste, Order, Reports, is_small, len_of};

/// Rounds of the broker's work in one turn; each delivers for 64 queues.
const ROUNDS_PER_TURN: usize = 8;

/// What a virtual host is called for.
#[derive(Debug)]
pub(crate) enum Call {
    /// A connection comes in.
    Open(ConnectionId, User, Rc<Mailbox>),
    /// What a connection asks for, in order.
    Requests(ConnectionId, Vec<Request>),
    /// A connection has written enough to get deliveries again.
    Resume(ConnectionId),
    /// A connection is gone, whatever it said before.
    Gone(ConnectionId),
    /// An operator asks.
    Ask(Question, oneshot::Sender<Told>),
    /// What this user may is another thing from now on.
    Permitted(String),
    /// It is to be deleted: it does nothing more, and says what undoes all of it.
    Abandon(oneshot::Sender<Vec<Change>>),
    /// The end: the last that is said is stored, and then the word is given.
    Stop,
}

/// A connection in this virtual host.
#[derive(Debug)]
struct Guest {
    mailbox: Rc<Mailbox>,
    /// Its channels in confirm mode.
    confirms: BTreeMap<u16, Confirms>,
    /// It stands among those to be rung.
    touched: bool,
}

/// What waits for a declaration to be on disk.
#[derive(Debug)]
struct Held {
    /// The batch that it waits for.
    after: u64,
    to: ConnectionId,
    letter: Letter,
}

/// What goes to the writer at the end of a turn.
#[derive(Debug, Default)]
struct Draft {
    changes: Vec<Change>,
    classes: Vec<Class>,
    through: HashMap<QueueId, u64>,
    /// The message that was stored last and its change, for further queues that store the same.
    last: Option<(Arc<Message>, usize)>,
    len: usize,
    /// A publisher gets a confirm for it.
    is_confirmed: bool,
}

/// The task.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) number: u16,
    pub(crate) broker: Broker,
    pub(crate) house: Rc<House>,
    clock: Clock,
    inbox: Rc<Inbox<Call>>,
    orders: mpsc::Sender<Order>,
    reports: Arc<Reports>,
    guests: HashMap<ConnectionId, Guest>,
    touched: Vec<ConnectionId>,
    draft: Draft,
    /// The batch that is being drafted.
    batch: u64,
    synced: u64,
    held: VecDeque<Held>,
    /// Until which batch answers are held.
    gate: u64,
    class: Class,
    /// Bodies on disk under another name, until the new one is there.
    aliases: HashMap<Ref, (u64, Arc<Place>)>,
    /// What was stored by the input that is being carried out.
    stored: Vec<(QueueId, u64)>,
    /// Answers to operators that wait for the disk.
    unanswered: VecDeque<Unanswered>,
    /// What the operators' own connection was answered.
    pub(crate) answers: Vec<Letter>,
    /// Who deletes it.
    abandoned: Option<oneshot::Sender<Vec<Change>>>,
    #[cfg(debug_assertions)]
    witness: witness::Witness,
}

/// The operators' connection within each virtual host.
pub(crate) const OPERATOR: ConnectionId = ConnectionId(0);

#[derive(Debug)]
enum Event {
    Synced,
    Call(Call),
    Due,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Life {
    GoesOn,
    Ends,
}

impl Host {
    pub(crate) fn new(
        number: u16,
        broker: Broker,
        house: &Rc<House>,
        inbox: &Rc<Inbox<Call>>,
    ) -> Self {
        Self {
            number,
            broker,
            house: Rc::clone(house),
            clock: house.clock,
            inbox: Rc::clone(inbox),
            orders: house.orders(),
            reports: Arc::default(),
            guests: HashMap::new(),
            touched: Vec::new(),
            draft: Draft::default(),
            batch: 1,
            synced: 0,
            held: VecDeque::new(),
            gate: 0,
            class: Class::Ordered,
            aliases: HashMap::new(),
            stored: Vec::new(),
            unanswered: VecDeque::new(),
            answers: Vec::new(),
            abandoned: None,
            #[cfg(debug_assertions)]
            witness: witness::Witness::default(),
        }
    }

    /// Until it is stopped, or the writer is gone.
    pub(crate) async fn run(mut self) {
        let mut more = Work::Idle;
        loop {
            let event = match more {
                Work::More => {
                    tokio::task::yield_now().await;
                    Event::Due
                }
                Work::Idle => self.next().await,
            };
            let (life, work) = self.turn(event);
            more = work;
            if self.hand_over(more).await.is_err() {
                // The writer failed, and all ends.
                return;
            }
            if life == Life::Ends {
                let gone = &self.house.gone;
                gone.set(gone.get().plus(self.broker.counts()));
                match self.abandoned.take() {
                    // All that it changed is on its way to the writer, so that this comes after it.
                    Some(deleter) => drop(deleter.send(self.undone())),
                    None => self.wait_for_disk().await,
                }
                return;
            }
        }
    }

    async fn next(&self) -> Event {
        let due = self.clock.at(self.broker.deadline());
        let takes = self.held.len() < HELD_MAX;
        let inbox = &self.inbox;
        tokio::select! {
            biased;
            () = self.reports.bell.notified() => Event::Synced,
            call = inbox.next(), if takes => Event::Call(call),
            () = async { match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            } } => Event::Due,
        }
    }

    fn turn(&mut self, event: Event) -> (Life, Work) {
        let now = self.clock.times();
        self.hear_reports(now);
        let mut life = Life::GoesOn;
        let mut next = match event {
            Event::Call(call) => Some(call),
            Event::Synced | Event::Due => None,
        };
        for _ in 0..CALLS_PER_TURN {
            let full = self.draft.len > CHANGES_LEN_MAX || self.held.len() >= HELD_MAX;
            let call = match next.take() {
                Some(call) => call,
                None if full => break,
                None => match self.inbox.try_next() {
                    Some(call) => call,
                    None => break,
                },
            };
            if self.call(now, call) == Life::Ends {
                life = Life::Ends;
                break;
            }
        }
        let mut work = Work::Idle;
        for _ in 0..ROUNDS_PER_TURN {
            work = self.broker.work(now);
            self.carry_out(now);
            if work == Work::Idle {
                break;
            }
        }
        (life, work)
    }

    /// Wakes the connections that have letters, the last one first. What somebody is told who waits for the disk comes last:
    /// the next publish is on its way while deliveries are written.
    fn ring(&mut self) {
        while let Some(connection) = self.touched.pop() {
            if let Some(guest) = self.guests.get_mut(&connection) {
                guest.touched = false;
                guest.mailbox.ring();
            }
        }
    }

    fn call(&mut self, now: Now, call: Call) -> Life {
        match call {
            Call::Open(connection, user, mailbox) => {
                let guest = Guest {
                    mailbox,
                    confirms: BTreeMap::new(),
                    touched: false,
                };
                self.guests.insert(connection, guest);
                self.input(now, Input::Opened(connection, user));
            }
            Call::Requests(connection, requests) => {
                if let Some(guest) = self.guests.get(&connection) {
                    guest.mailbox.taken();
                }
                for request in requests {
                    self.request(now, connection, request);
                }
            }
            Call::Resume(connection) => {
                if let Some(guest) = self.guests.get(&connection) {
                    guest.mailbox.set_paused(false);
                    self.input(now, Input::Resume(connection));
                }
            }
            Call::Gone(connection) => {
                self.input(now, Input::Gone(connection));
                self.guests.remove(&connection);
            }
            Call::Ask(question, answer) => {
                let changes = self.draft.changes.len();
                let told = self.ask(now, question);
                if self.draft.changes.len() == changes {
                    // Who asked may have gone away.
                    drop(answer.send(told));
                } else {
                    let (after, to) = (self.batch, answer);
                    self.unanswered.push_back(Unanswered { after, told, to });
                }
            }
            Call::Permitted(user) => self.permitted(&user),
            Call::Abandon(deleter) => {
                self.abandoned = Some(deleter);
                return Life::Ends;
            }
            Call::Stop => return Life::Ends,
        }
        Life::GoesOn
    }

    fn request(&mut self, now: Now, connection: ConnectionId, request: Request) {
        let key = |channel| ChannelKey {
            connection,
            channel,
        };
        match request {
            Request::OpenChannel(channel) => {
                if let Some(guest) = self.guests.get_mut(&connection) {
                    guest.confirms.remove(&channel);
                }
                self.input(now, Input::OpenChannel(key(channel)));
            }
            Request::CloseChannel(channel) => {
                self.input(now, Input::CloseChannel(key(channel)));
                self.post(now, connection, Letter::Closed(channel));
            }
            Request::Method(channel, method, content) => {
                self.class = class_of(&method);
                self.count(&method);
                let method = self.house.keep(method);
                let confirms = matches!(method, Method::ConfirmSelect(_));
                let publishes = matches!(method, Method::BasicPublish(_));
                self.input(now, Input::Method(key(channel), method, content));
                self.class = Class::Ordered;
                let guest = self.guests.get_mut(&connection);
                if let Some(guest) = guest.filter(|_| confirms || publishes) {
                    if confirms {
                        guest.confirms.entry(channel).or_insert_with(Confirms::new);
                    } else if let Some(confirms) = guest.confirms.get_mut(&channel) {
                        self.draft.is_confirmed |= !self.stored.is_empty();
                        confirms.published(std::mem::take(&mut self.stored));
                    }
                }
            }
            // The session says it again when its connection ends.
            Request::Gone => self.input(now, Input::Gone(connection)),
            // Answered by the connection itself.
            Request::Authenticate(_) | Request::OpenVhost(_) | Request::UpdateSecret(_) => {}
        }
    }

    fn count(&self, method: &Method) {
        match method {
            Method::BasicPublish(_) => self.house.metrics.published.add(1),
            Method::BasicAck(_) => self.house.metrics.acknowledged.add(1),
            _ => {}
        }
    }

    /// Takes an input in and carries out what comes of it.
    pub(crate) fn input(&mut self, now: Now, input: Input) {
        self.stored.clear();
        self.broker.handle(now, input);
        self.carry_out(now);
    }

    pub(crate) fn carry_out(&mut self, now: Now) {
        while let Some(output) = self.broker.pop() {
            match output {
                Output::Reply(key, reply) => self.reply(now, key, reply),
                Output::Opened(key) => self.post(now, key.connection, Letter::Opened(key.channel)),
                Output::Fault(key, fault) => {
                    if fault.code.scope() == Scope::Connection {
                        tracing::info!(connection = key.connection.0, %fault, "a connection is closed");
                    }
                    self.post(now, key.connection, Letter::Fault(key.channel, fault));
                }
                Output::Store(queue, position, message) => self.store(queue, position, message),
                Output::Forget(queue, position) => {
                    #[cfg(debug_assertions)]
                    self.witness.forgotten(queue, position);
                    let gone = record::reference(self.number, queue, position);
                    self.change(Change::Forget(gone));
                }
                Output::Record(record) => self.record(&record),
            }
        }
    }

    fn reply(&mut self, now: Now, key: ChannelKey, reply: Reply) {
        match &reply {
            Reply::Method(Method::BasicAck(ack)) => {
                self.confirmed(key, ack.delivery_tag, ack.multiple, true);
            }
            Reply::Method(Method::BasicNack(nack)) => {
                self.confirmed(key, nack.delivery_tag, nack.multiple, false);
            }
            Reply::Content(Method::BasicReturn(_), ..) => self.house.metrics.returned.add(1),
            Reply::Content(..) => self.house.metrics.delivered.add(1),
            Reply::Method(_) => {}
        }
        let place = reply.place().map(|place| {
            let at = record::reference(self.number, place.queue, place.position);
            self.find(at)
        });
        match place {
            Some(None) => {
                // The log knows every place that the broker names: our own mistake. The client is not told a lie.
                tracing::error!(?key, "a body that was stored is not in the log");
                self.house
                    .give_up("a body that was stored is not in the log");
            }
            Some(Some(place)) => {
                self.post(
                    now,
                    key.connection,
                    Letter::Reply(key.channel, reply, Some(place)),
                );
            }
            None => self.post(now, key.connection, Letter::Reply(key.channel, reply, None)),
        }
    }

    pub(crate) fn find(&self, at: Ref) -> Option<Arc<Place>> {
        let place = self.house.places.find(at).map(Arc::new);
        place.or_else(|| self.aliases.get(&at).map(|(_, place)| Arc::clone(place)))
    }

    /// A word to a publisher.
    fn confirmed(&mut self, key: ChannelKey, number: u64, multiple: bool, ack: bool) {
        let Some(guest) = self.guests.get_mut(&key.connection) else {
            return;
        };
        let Some(confirms) = guest.confirms.get_mut(&key.channel) else {
            return;
        };
        #[cfg(debug_assertions)]
        let is_synced = |queue, position| !ack || self.witness.is_synced(queue, position);
        #[cfg(not(debug_assertions))]
        let is_synced = |_, _| true;
        let spoken = confirms.spoken(number, multiple, is_synced);
        if ack {
            self.house.metrics.confirmed.add(spoken);
        }
    }

    /// Puts a letter into its box, or keeps it until what comes before it is on disk.
    fn post(&mut self, now: Now, to: ConnectionId, letter: Letter) {
        if self.gate > self.synced {
            self.held.push_back(Held {
                after: self.gate,
                to,
                letter,
            });
            return;
        }
        self.deliver(now, to, letter);
    }

    fn deliver(&mut self, now: Now, to: ConnectionId, letter: Letter) {
        if to == OPERATOR {
            self.answers.push(letter);
            return;
        }
        let Some(guest) = self.guests.get_mut(&to) else {
            return;
        };
        guest.mailbox.put(letter);
        if !guest.touched {
            guest.touched = true;
            self.touched.push(to);
        }
        if guest.mailbox.load() > UNSENT_HIGH && !guest.mailbox.is_paused() {
            guest.mailbox.set_paused(true);
            self.broker.handle(now, Input::Pause(to));
        }
    }

    fn store(&mut self, queue: QueueId, position: u64, message: Arc<Message>) {
        self.class = Class::Ordered;
        self.stored.push((queue, position));
        self.draft.through.insert(queue, position);
        let at = record::reference(self.number, queue, position);
        let body = match &message.body {
            mainstay_amqp::Body::Here(bytes) => StoredBody::Here(bytes.clone()),
            mainstay_amqp::Body::Stored { place, .. } => {
                let from = record::reference(self.number, place.queue, place.position);
                if let Some(place) = self.find(from) {
                    self.aliases.insert(at, (self.batch, place));
                }
                StoredBody::Stored(from)
            }
        };
        if let Some((last, change)) = &self.draft.last
            && Arc::ptr_eq(last, &message)
            && let Some(Change::Message { refs, .. }) = self.draft.changes.get_mut(*change)
        {
            refs.push(at);
            return;
        }
        let head = record::head_of(&message);
        self.draft.last = Some((message, self.draft.changes.len()));
        self.change(Change::Message {
            refs: vec![at],
            head,
            body,
        });
    }

    fn record(&mut self, record: &Record) {
        #[cfg(debug_assertions)]
        if let Record::NoQueue(queue) = record {
            self.witness.gone(*queue);
        }
        for change in record::changes_of(self.number, record) {
            self.change(change);
        }
        self.gate = self.batch;
    }

    fn change(&mut self, change: Change) {
        self.draft.len += len_of(&change);
        self.draft.changes.push(change);
        self.draft.classes.push(self.class);
    }

    /// What the writer has synced: confirms, and what waited for a declaration.
    fn hear_reports(&mut self, now: Now) {
        let news = self.reports.take();
        self.synced = news.number;
        #[cfg(debug_assertions)]
        self.witness.synced(&news.through);
        while self
            .held
            .front()
            .is_some_and(|held| held.after <= self.synced)
        {
            if let Some(Held { to, letter, .. }) = self.held.pop_front() {
                self.deliver(now, to, letter);
            }
        }
        while let Some(one) = self.unanswered.pop_front_if(|one| one.after <= news.number) {
            drop(one.to.send(one.told));
        }
        for (queue, through) in news.through {
            self.input(now, Input::Stored(queue, through));
        }
        let synced = self.synced;
        self.aliases.retain(|_, (batch, _)| *batch > synced);
    }

    /// Sees to it that what this turn changed is written. Waits while the writer has enough; meanwhile nothing is taken in
    /// here.
    async fn hand_over(&mut self, more: Work) -> Result<(), mpsc::error::SendError<Order>> {
        if self.draft.changes.is_empty() {
            self.ring();
            return Ok(());
        }
        let is_confirmed = self.draft.is_confirmed;
        let batch = self.take_draft();
        // With anything else to do it does not wait for a disk: the next batch gathers meanwhile.
        let is_calm = |host: &Self| more == Work::Idle && host.inbox.is_empty();
        let mut here = is_small(&batch) && is_calm(self) && self.house.here.is_free();
        let is_awaited = batch.haste == Haste::Now;
        if !(here && is_awaited && is_confirmed) {
            self.ring();
        }
        if here && is_awaited {
            // Everybody on this thread gets a turn before it waits for the disk.
            tokio::task::yield_now().await;
            here = is_calm(self);
        }
        let left = if here {
            self.house.here.write(batch)
        } else {
            Some(batch)
        };
        match left {
            Some(batch) => {
                self.ring();
                self.orders.send(Order::Write(batch)).await
            }
            // It is on disk, or nobody waits for that; the next turn begins with what was reported, and ends with the ring.
            None => Ok(()),
        }
    }

    fn take_draft(&mut self) -> Batch {
        let draft = std::mem::take(&mut self.draft);
        let asked = self.unanswered.back();
        let is_asked = asked.is_some_and(|one| one.after == self.batch);
        let forgets = |change: &Change| matches!(change, Change::Forget(_));
        let haste = if !is_asked && draft.changes.iter().all(forgets) {
            Haste::Later
        } else {
            Haste::Now
        };
        let batch = Batch {
            number: self.batch,
            haste,
            changes: draft.changes,
            classes: draft.classes,
            through: draft.through.into_iter().collect(),
            reports: Arc::clone(&self.reports),
        };
        self.batch += 1;
        batch
    }

    /// At the end: everything that was taken in is on disk.
    async fn wait_for_disk(&mut self) {
        if self.orders.send(Order::Retry).await.is_err() {
            return;
        }
        while self.synced + 1 < self.batch {
            let failed = self.house.failed.cancelled();
            tokio::select! {
                () = self.reports.bell.notified() => {}
                () = failed => return,
            }
            self.synced = self.reports.take().number;
        }
    }
}

/// What may go past publishes for which there is no room. Nothing else of what these cause is relief once they stored
/// something: acknowledging may let the next message expire into another queue.
fn class_of(method: &Method) -> Class {
    match method {
        Method::BasicAck(_) | Method::QueuePurge(_) | Method::QueueDelete(_) => Class::Relief,
        _ => Class::Ordered,
    }
}

#[cfg(debug_assertions)]
mod witness {
    //! Knows what is on disk from the writer's words alone, so that the broker's confirms can be held against it.

    use std::collections::{BTreeMap, BTreeSet, HashSet};

    use mainstay_amqp::QueueId;

    #[derive(Debug, Default)]
    pub(super) struct Witness {
        through: BTreeMap<QueueId, u64>,
        /// Acknowledged, or dropped, before it was on disk.
        forgotten: HashSet<(QueueId, u64)>,
        gone: BTreeSet<QueueId>,
    }

    impl Witness {
        pub(super) fn synced(&mut self, through: &BTreeMap<QueueId, u64>) {
            self.through
                .extend(through.iter().map(|(queue, position)| (*queue, *position)));
            let known = &self.through;
            self.forgotten.retain(|(queue, position)| {
                known.get(queue).is_none_or(|through| position > through)
            });
        }

        pub(super) fn forgotten(&mut self, queue: QueueId, position: u64) {
            self.forgotten.insert((queue, position));
        }

        pub(super) fn gone(&mut self, queue: QueueId) {
            self.gone.insert(queue);
        }

        pub(super) fn is_synced(&self, queue: QueueId, position: u64) -> bool {
            self.through
                .get(&queue)
                .is_some_and(|through| position <= *through)
                || self.forgotten.contains(&(queue, position))
                || self.gone.contains(&queue)
        }
    }
}
