//! One connection: bytes in, requests to its virtual host; letters of it out as bytes. One task, which waits for all of
//! that at once: no direction stops the other.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use mainstay_amqp::{
    ConnectionId, Entry, Options, Reply, Request, Session, ShortString, User, VhostEntry,
};
use mainstay_ids::Instant;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep_until, timeout};
use tokio_util::io::poll_read_buf;

use crate::doorman::Doorman;
use crate::host::Call;
use crate::house::{Home, House, Place};
use crate::inbox::Inbox;
use crate::limits::{
    FRAMED_MAX, INPUT_MAX, LAST_WORDS, READ_MAX, READ_MIN, REQUESTS_PER_BATCH, SLICES_MAX,
    UNSENT_HIGH, UNSENT_LOW,
};
use crate::mailbox::{Letter, Mailbox, Word};
use crate::reader::{Asked, Coming};

/// What a broker of the past is told to be: clients choose their ways by it, and these agree with ours.
const PRODUCT: &str = "RabbitMQ";
const VERSION: &str = "3.10.8";

/// What a connection is served with.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) house: Rc<House>,
    pub(crate) doorman: Rc<Doorman>,
    pub(crate) peer: IpAddr,
    /// Given back when the client is known.
    pub(crate) handshake: OwnedSemaphorePermit,
}

/// Serves it to its end.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, served: Served) {
    let Served {
        house,
        doorman,
        peer,
        handshake,
    } = served;
    house.metrics.connections.add(1);
    let id = house.next_connection();
    let mailbox = Rc::new(Mailbox::default());
    house
        .connections
        .borrow_mut()
        .insert(id, Rc::clone(&mailbox));
    let now = house.clock.now();
    let mut connection = Connection {
        stream,
        peer,
        id,
        session: Session::new(now, Options::new(PRODUCT, VERSION)),
        user: ShortString::default(),
        input: BytesMut::new(),
        read_len: READ_MIN,
        source: Source::Open,
        batch: Vec::new(),
        seat: Seat {
            house,
            mailbox,
            id,
            host: None,
            place: None,
        },
        flush: Flush::Done,
        reading: None,
        writing: VecDeque::new(),
        writing_len: 0,
        armed: Instant::NEVER,
        leave_by: Instant::NEVER,
        handshake: Some(handshake),
    };
    if let Err(error) = connection.run(&doorman).await {
        tracing::debug!(connection = id.0, %error, "a connection broke off");
    }
}

/// A place in the house, given up when the task ends, however it does.
#[derive(Debug)]
struct Seat {
    house: Rc<House>,
    mailbox: Rc<Mailbox>,
    id: ConnectionId,
    host: Option<Rc<Inbox<Call>>>,
    /// Among those that are in a virtual host.
    place: Option<Place>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.house.connections.borrow_mut().remove(&self.id);
        self.house.homes.borrow_mut().remove(&self.id);
        if let Some(host) = self.host.take() {
            host.put(Call::Gone(self.id));
        }
    }
}

/// Whether more can come from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Open,
    /// It closed its side.
    Dry,
}

/// Whether the stream has something that it was not told to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flush {
    Due,
    Done,
}

#[derive(Debug)]
struct Connection<S> {
    stream: S,
    peer: IpAddr,
    id: ConnectionId,
    session: Session,
    user: ShortString,
    input: BytesMut,
    read_len: usize,
    source: Source,
    /// What is to go to the virtual host.
    batch: Vec<Request>,
    seat: Seat,
    flush: Flush,
    /// All letters behind it wait.
    reading: Option<Reading>,
    writing: VecDeque<Bytes>,
    writing_len: usize,
    /// For when the timer is set.
    armed: Instant,
    /// An ended connection is closed then, whether its last words were taken or not.
    leave_by: Instant,
    handshake: Option<OwnedSemaphorePermit>,
}

/// A message whose body comes from the disk.
#[derive(Debug)]
struct Reading {
    channel: u16,
    reply: Reply,
    body: Coming,
    /// Bytes that wait for the client all the same.
    len: usize,
}

/// How far parsing came.
#[derive(Debug)]
enum Parsed {
    /// To one that only this task can answer.
    Question(Box<Request>),
    /// The rest is parsed when there is room, or when an answer came.
    Waits,
    /// Of what was read there is nothing left, or a part of a frame that says nothing unless more comes.
    Done,
}

/// Why the loop stopped.
#[derive(Debug)]
enum Stop {
    /// The session wants to know something, and waits for it.
    Ask(Box<Request>),
    Ended,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self, doorman: &Doorman) -> io::Result<()> {
        let mut timer = pin!(sleep_until(tokio::time::Instant::now()));
        loop {
            let stop = poll_fn(|cx| self.poll(cx, timer.as_mut())).await?;
            match stop {
                Stop::Ask(request) => self.answer(doorman, *request).await,
                Stop::Ended => return self.part().await,
            }
        }
    }

    fn now(&self) -> Instant {
        self.seat.house.clock.now()
    }

    /// Everything that can be done now.
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<io::Result<Stop>> {
        self.seat.mailbox.listen(cx.waker());
        loop {
            self.hear_words();
            self.take_letters(cx)?;
            if self.session.is_ended() && self.leave_by == Instant::NEVER {
                self.leave_by = self.now().after(LAST_WORDS);
            }
            let is_parsed = match self.parse() {
                Parsed::Question(question) => return Poll::Ready(Ok(Stop::Ask(question))),
                Parsed::Waits => false,
                Parsed::Done => true,
            };
            let handed = self.poll_hand_over(cx);
            let read = self.poll_read(cx)?;
            let ticked = self.poll_timer(cx, timer.as_mut());
            // Last: what all of these had to say goes out before anything is waited for.
            let wrote = self.poll_write(cx)?;
            if self.session.is_ended() && self.unsent() == 0 && self.batch.is_empty() {
                return Poll::Ready(Ok(Stop::Ended));
            }
            if self.source == Source::Dry && is_parsed && self.batch.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if self.leave_by <= self.now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if !(wrote || handed || read || ticked) {
                return Poll::Pending;
            }
        }
    }

    fn hear_words(&mut self) {
        while let Some(word) = self.seat.mailbox.hear() {
            match word {
                Word::Block(why) => self.session.block(why),
                Word::Unblock => self.session.unblock(),
                Word::Shut(why) => {
                    let now = self.now();
                    self.session.shut(now, &why);
                }
            }
        }
    }

    /// Bytes that wait to be written.
    fn unsent(&mut self) -> usize {
        self.writing_len + self.session.outbox().len()
    }

    /// Writes letters as frames, as far as the client keeps up: what is behind stays shared with the queues, or on disk.
    fn take_letters(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.unsent() < FRAMED_MAX {
            if let Some(reading) = &mut self.reading {
                let Poll::Ready(body) = Pin::new(&mut reading.body).poll(cx) else {
                    break;
                };
                if let Some(Reading { channel, reply, .. }) = self.reading.take() {
                    self.send_read(channel, reply, body)?;
                }
                continue;
            }
            let Some(letter) = self.seat.mailbox.take() else {
                break;
            };
            self.open_letter(letter)?;
        }
        Ok(())
    }

    fn open_letter(&mut self, letter: Letter) -> io::Result<()> {
        let len = letter.len();
        match letter {
            Letter::Reply(channel, reply, None) => self.session.send(channel, &reply),
            Letter::Reply(channel, reply, Some(place)) => match self.seat.house.reader.ask(place) {
                Asked::Here(body) => self.send_read(channel, reply, body)?,
                Asked::Coming(body) => {
                    self.seat.house.metrics.bodies_waited_for.add(1);
                    self.reading = Some(Reading {
                        channel,
                        reply,
                        body,
                        len,
                    });
                }
            },
            Letter::Opened(channel) => self.session.channel_opened(channel),
            Letter::Closed(channel) => self.session.channel_closed(channel),
            Letter::Fault(channel, fault) => {
                let now = self.now();
                self.session.fault(now, channel, &fault);
            }
        }
        Ok(())
    }

    fn send_read(&mut self, channel: u16, reply: Reply, body: io::Result<Bytes>) -> io::Result<()> {
        let body = body.inspect_err(|error| {
            tracing::error!(%error, "a body cannot be read; its client is cut off and gets it again");
        })?;
        self.seat.house.metrics.bodies_read.add(1);
        self.session.send(channel, &reply.loaded(body));
        Ok(())
    }

    /// Writes what there is; whether anything went.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut any = false;
        loop {
            while self.writing.len() < SLICES_MAX
                && let Some(piece) = self.session.outbox().pop()
            {
                self.writing_len += piece.len();
                self.writing.push_back(piece);
            }
            if self.writing.is_empty() {
                break;
            }
            let slices = std::array::from_fn::<_, SLICES_MAX, _>(|at| {
                IoSlice::new(self.writing.get(at).map_or(&[], |piece| piece))
            });
            let slices = &slices[..self.writing.len().min(SLICES_MAX)];
            let stream = Pin::new(&mut self.stream);
            match stream.poll_write_vectored(cx, slices) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(len)) => {
                    self.wrote(len);
                    any = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        if any {
            self.flush = Flush::Due;
            let now = self.now();
            self.session.spoke(now);
        }
        // A TLS stream keeps what it encrypted until it is told, and until its socket takes it; for others this is nothing.
        if self.flush == Flush::Due && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
            self.flush = Flush::Done;
        }
        let read = self.reading.as_ref().map_or(0, |reading| reading.len);
        let unsent = self.unsent() + read;
        self.seat.mailbox.set_unsent(unsent);
        Ok(any)
    }

    fn wrote(&mut self, mut len: usize) {
        self.seat
            .house
            .metrics
            .written_bytes
            .add(u64::try_from(len).unwrap_or(0));
        self.writing_len -= len;
        while let Some(piece) = self.writing.front_mut() {
            if piece.len() > len {
                piece.advance(len);
                return;
            }
            len -= piece.len();
            self.writing.pop_front();
        }
    }

    /// Requests out of what was read, up to the first that only this task can answer.
    fn parse(&mut self) -> Parsed {
        let now = self.now();
        while self.batch.len() < REQUESTS_PER_BATCH && self.seat.mailbox.load() < UNSENT_HIGH {
            match self.session.read(now, &mut self.input) {
                Some(
                    question @ (Request::Authenticate(_)
                    | Request::OpenVhost(_)
                    | Request::UpdateSecret(_)),
                ) => return Parsed::Question(Box::new(question)),
                Some(request) => self.batch.push(request),
                None if self.session.is_waiting() => return Parsed::Waits,
                None => return Parsed::Done,
            }
        }
        Parsed::Waits
    }

    /// Gives the virtual host what it is asked for, and tells it when there is room for deliveries again.
    fn poll_hand_over(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(host) = &self.seat.host else {
            // Before a virtual host is entered there is nothing to ask but that the connection is gone.
            self.batch.clear();
            return false;
        };
        let mailbox = &self.seat.mailbox;
        let resumes = mailbox.is_paused() && mailbox.load() < UNSENT_LOW;
        let asks = !self.batch.is_empty() && mailbox.may_ask();
        if !asks && !resumes {
            return false;
        }
        if host.poll_room(cx).is_pending() {
            return false;
        }
        if resumes {
            mailbox.set_paused(false);
            host.put(Call::Resume(self.id));
        }
        if asks {
            mailbox.asks();
            host.put(Call::Requests(self.id, std::mem::take(&mut self.batch)));
        }
        true
    }

    /// Reads once, unless there is enough to do; whether anything came.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let busy = !self.batch.is_empty()
            || self.input.len() >= INPUT_MAX
            || self.seat.mailbox.load() >= UNSENT_HIGH;
        if busy
            || self.source == Source::Dry
            || self.session.is_blocked()
            || self.session.is_ended()
        {
            return Ok(false);
        }
        self.input.reserve(self.read_len);
        let came = match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input) {
            Poll::Pending => {
                if self.input.is_empty() {
                    // An idle connection holds no buffer.
                    self.input = BytesMut::new();
                    self.read_len = READ_MIN;
                }
                return Ok(false);
            }
            Poll::Ready(read) => read?,
        };
        if came == 0 {
            self.source = Source::Dry;
            return Ok(true);
        }
        let metrics = &self.seat.house.metrics;
        metrics.read_bytes.add(u64::try_from(came).unwrap_or(0));
        if came >= self.read_len {
            self.read_len = (self.read_len * 2).min(READ_MAX);
        }
        let now = self.now();
        self.session.heard(now);
        Ok(true)
    }

    /// Heartbeats and time-outs. The timer is set anew only when it came, or when it is too late.
    fn poll_timer(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> bool {
        let due = self.session.deadline().min(self.leave_by);
        if due < self.armed {
            self.armed = due;
            if let Some(at) = self.seat.house.clock.at(due) {
                timer.as_mut().reset(at);
            }
        }
        if self.armed == Instant::NEVER || timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.armed = Instant::NEVER;
        let now = self.now();
        self.session.tick(now);
        true
    }

    async fn answer(&mut self, doorman: &Doorman, request: Request) {
        match request {
            Request::Authenticate(credentials) => {
                self.user = credentials.user.clone();
                let house = Rc::clone(&self.seat.house);
                let entry = doorman.admit(&house, self.peer, &credentials).await;
                let now = self.now();
                self.session.authenticated(now, entry);
            }
            Request::OpenVhost(name) => {
                let entry = self.enter(&name).await;
                let now = self.now();
                if entry != VhostEntry::Granted {
                    // It holds a place of those who come in: there is no time for more than last words.
                    self.leave_by = now.after(LAST_WORDS);
                }
                self.session.opened(now, &self.user, entry);
                if let Some(why) = self.seat.house.alarm() {
                    self.session.block(why);
                }
            }
            // As RabbitMQ, whose own users have no secret that ends: it asks only those back ends about a new one whose secrets
            // do (`state_can_expire` of `rabbit_access_control:update_state`), and takes any for the others. The password
            // counts when the client comes again; what it may is looked up at each method anyhow.
            Request::UpdateSecret(_) => {
                let now = self.now();
                self.session.secret_updated(now, Entry::Granted);
            }
            Request::OpenChannel(_)
            | Request::CloseChannel(_)
            | Request::Method(..)
            | Request::Gone => self.batch.push(request),
        }
    }

    async fn enter(&mut self, name: &ShortString) -> VhostEntry {
        let (vhost, user) = (name.text(), self.user.text());
        let host = self.seat.house.hosts.borrow().get(&*vhost).cloned();
        let Some(host) = host else {
            return VhostEntry::Missing;
        };
        let home = Home {
            user: user.clone().into_owned(),
            vhost: vhost.clone().into_owned(),
        };
        self.seat.house.homes.borrow_mut().insert(self.id, home);
        // Before anything is looked at: from here to the call nothing else happens, so that what changes for this user or
        // this virtual host is either seen here or told to this connection.
        host.room().await;
        if host.is_closed() {
            return VhostEntry::Missing;
        }
        let permission = {
            let accounts = self.seat.house.accounts.borrow();
            accounts.permission(&vhost, &user).cloned()
        };
        let Some(Ok(rights)) = permission.map(|permission| permission.compile()) else {
            return VhostEntry::Refused;
        };
        let user = User {
            name: self.user.compact(),
            rights: Box::new(rights),
            hears_cancel: self.session.capabilities().consumer_cancel_notify,
        };
        // Before the wait, so that nobody else gets it meanwhile.
        self.seat.place = self.seat.house.take_place();
        if self.seat.place.is_none() {
            return VhostEntry::Full(self.seat.house.room.connections);
        }
        let mailbox = Rc::clone(&self.seat.mailbox);
        host.put(Call::Open(self.id, user, mailbox));
        self.seat.host = Some(host);
        self.handshake = None;
        VhostEntry::Granted
    }

    /// Everything was said. What the client still sends is thrown away, so that our last words are not lost with it.
    async fn part(&mut self) -> io::Result<()> {
        let part = async {
            self.stream.shutdown().await?;
            let mut rest = BytesMut::with_capacity(READ_MIN);
            loop {
                rest.clear();
                let stream = &mut self.stream;
                let read = poll_fn(|cx| poll_read_buf(Pin::new(&mut *stream), cx, &mut rest));
                if read.await? == 0 {
                    return Ok(());
                }
            }
        };
        // Who does not close in time is closed.
        timeout(LAST_WORDS, part).await.unwrap_or(Ok(()))
    }
}
