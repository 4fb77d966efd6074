//! One connection of a client: its task, its phases, its end.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use mainstay_http1::{HeadLimits, HeadWriter, Persistence, Refused, Request, Version};
use mainstay_ids::Instant;
use mainstay_model::traffic::Timeouts;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::access_log::Line;
use crate::admission::Place;
use crate::delivery::{self, Delivered, Delivery};
use crate::exchange::Source;
use crate::headers::Hop;
use crate::http2::{self, Shown};
use crate::inbound::{Inbound, Next};
use crate::leave::Leave;
use crate::limits::{LINGER_LEN_MAX, LINGER_TIME, PARTING_IDLE};
use crate::metrics::recorded::{Ended, Recorded};
use crate::metrics::{Denied, FrontendKey, Open};
use crate::proxy;
use crate::refusal::{Reason, Refusal};
use crate::tunnel::Tunnel;
use crate::worker::Worker;

/// On which socket a connection came, and so where its requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// The entry: host and path decide.
    Entry,
    /// A service's own address: everything is for that service.
    Address(SocketAddr),
    /// An address of a listener in HTTP mode: everything is for its servers.
    Listen(SocketAddr),
}

/// A connection that has come.
pub(crate) struct Arrival {
    pub(crate) stream: TcpStream,
    /// Who the client is, as far as it is known.
    pub(crate) client: SocketAddr,
    /// What it has sent already.
    pub(crate) early: Vec<u8>,
    pub(crate) scope: Scope,
    pub(crate) open: Open,
}

impl Scope {
    /// That of the connections of one of the gateway's own sockets.
    pub(crate) fn of(key: &FrontendKey) -> Self {
        match key {
            FrontendKey::Entry => Self::Entry,
            FrontendKey::Address(address) => Self::Address(*address),
        }
    }

    pub(crate) fn hop(self) -> Hop {
        match self {
            Self::Entry | Self::Listen(_) => Hop::Entry,
            Self::Address(_) => Hop::Inside,
        }
    }
}

/// What a connection is doing, with the begin of what has a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between two requests, or before the first.
    Idle { since: Instant },
    /// A request's head is coming in.
    Head { since: Instant },
    /// For too long.
    HeadExpired,
    /// The request waits for the head of its answer, since the last byte of it came.
    Waiting { since: Instant },
    /// It has waited too long.
    Expired,
    /// The answer is under way, or the connection has streams of its own.
    Answering,
    /// It carries bytes.
    Tunnel,
}

/// What the worker wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Serve,
    /// Each request of HTTP/1 is its connection's last: its address is about to leave.
    Brief,
    /// Finish the request that is under way, then close.
    FinishUp,
    /// Close now.
    Cut,
}

/// A wait for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stall {
    /// It does what it should.
    None,
    /// It takes, or sends, nothing.
    Since(Instant),
    /// For too long.
    Expired,
}

/// From where a client came.
struct From {
    scope: Scope,
    peer_text: Bytes,
    peer_port: u16,
    frontend: Rc<Open>,
}

/// One connection of a client, as its task, its requests and the worker's sweep see it.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) scope: Scope,
    pub(crate) peer_text: Bytes,
    /// The client's port.
    pub(crate) peer_port: u16,
    /// Where it came in; open as long as the connection, or a stream of it, is there.
    pub(crate) frontend: Rc<Open>,
    /// Of the present request's body.
    received: Cell<u64>,
    phase: Cell<Phase>,
    order: Cell<Order>,
    /// Of a request's body.
    upload: Cell<Stall>,
    /// Of an answer.
    download: Cell<Stall>,
    /// Bytes that had been written when [`Self::download`] began.
    downloaded: Cell<u64>,
    /// When the present request began.
    request_since: Cell<Option<Instant>>,
    /// What the service of the present request has of its own.
    timeouts: Cell<Timeouts>,
    requests: Cell<u32>,
    /// When it is old enough to be moved to another worker, or another machine.
    aged_at: Instant,
    /// The connection of which this is a stream of HTTP/2, and how many it has.
    parent: Option<Rc<Client>>,
    streams: Cell<u32>,
    shown: RefCell<Weak<RefCell<Shown>>>,
    /// Its socket; of a stream of HTTP/2, its connection has it.
    inbound: RefCell<Weak<Inbound>>,
    /// To which address it connected, once anybody asked.
    local: Cell<Option<IpAddr>>,
    waker: RefCell<Option<Waker>>,
    /// Its place in the worker's list.
    pub(crate) place: Cell<usize>,
}

impl Client {
    fn new(worker: Rc<Worker>, peer: SocketAddr, scope: Scope, open: Open) -> Self {
        let since = worker.now();
        // An IPv4 client on an IPv6 socket is written as what it is.
        let peer_text = Bytes::from(peer.ip().to_canonical().to_string());
        // Spread, so that what connected together does not come back together.
        let spread = 0.9 + 0.2 * worker.fraction();
        let age = worker.limits().connection_age.mul_f64(spread);
        let from = From {
            scope,
            peer_text,
            peer_port: peer.port(),
            frontend: Rc::new(open),
        };
        Self::with(worker, from, since.after(age), None)
    }

    fn with(worker: Rc<Worker>, from: From, aged_at: Instant, parent: Option<Rc<Self>>) -> Self {
        let since = worker.now();
        let From {
            scope,
            peer_text,
            peer_port,
            frontend,
        } = from;
        Self {
            worker,
            scope,
            peer_text,
            peer_port,
            frontend,
            received: Cell::new(0),
            phase: Cell::new(Phase::Idle { since }),
            order: Cell::new(Order::Serve),
            upload: Cell::new(Stall::None),
            download: Cell::new(Stall::None),
            downloaded: Cell::new(0),
            request_since: Cell::new(None),
            timeouts: Cell::default(),
            requests: Cell::new(0),
            aged_at,
            parent,
            streams: Cell::new(0),
            shown: RefCell::default(),
            inbound: RefCell::default(),
            local: Cell::new(None),
            waker: RefCell::new(None),
            place: Cell::new(usize::MAX),
        }
    }

    /// A stream of this connection of HTTP/2: a client of its own, as far as deadlines go.
    pub(crate) fn begin_stream(self: &Rc<Self>) -> Rc<Self> {
        self.streams.set(self.streams.get() + 1);
        self.requests.set(self.requests.get().saturating_add(1));
        self.phase.set(Phase::Answering);
        let from = From {
            scope: self.scope,
            peer_text: self.peer_text.clone(),
            peer_port: self.peer_port,
            frontend: Rc::clone(&self.frontend),
        };
        Rc::new(Self::with(
            Rc::clone(&self.worker),
            from,
            self.aged_at,
            Some(Rc::clone(self)),
        ))
    }

    /// The end of what [`Self::begin_stream`] began.
    pub(crate) fn end_stream(&self) {
        let Some(parent) = &self.parent else {
            return;
        };
        parent.streams.set(parent.streams.get() - 1);
        if parent.streams.get() == 0 {
            let since = self.worker.now();
            parent.phase.set(Phase::Idle { since });
        }
    }

    /// What a request's head may be.
    pub(crate) fn head_limits(&self) -> HeadLimits {
        let limits = self.worker.limits();
        HeadLimits {
            len_max: limits.head_len as usize,
            fields_max: limits.head_fields as usize,
        }
    }

    /// Whether the client takes too long over a head.
    pub(crate) fn head_has_expired(&self) -> bool {
        self.phase.get() == Phase::HeadExpired
    }

    /// The first byte of a request has come.
    pub(crate) fn note_head(&self) {
        if let Phase::Idle { .. } = self.phase.get() {
            let since = self.worker.now();
            self.phase.set(Phase::Head { since });
        }
    }

    /// A request's head is complete; gives the time at which its first byte came.
    pub(crate) fn begin_request(&self) -> Instant {
        let now = self.worker.now();
        let started = match self.phase.get() {
            Phase::Head { since } => since,
            Phase::Idle { .. }
            | Phase::HeadExpired
            | Phase::Waiting { .. }
            | Phase::Expired
            | Phase::Answering
            | Phase::Tunnel => now,
        };
        self.phase.set(Phase::Waiting { since: now });
        self.request_since.set(Some(now));
        self.received.set(0);
        self.requests.set(self.requests.get().saturating_add(1));
        started
    }

    /// A piece of a request's body has come: the instance's time to answer begins again.
    pub(crate) fn note_upload(&self) {
        self.upload.set(Stall::None);
        if let Phase::Waiting { .. } = self.phase.get() {
            let since = self.worker.now();
            self.phase.set(Phase::Waiting { since });
        }
    }

    /// So many bytes of a request's body have come.
    pub(crate) fn note_received(&self, len: usize) {
        self.received.set(self.received.get() + len as u64);
    }

    /// How many bytes of the present request's body have come.
    pub(crate) fn received(&self) -> u64 {
        self.received.get()
    }

    /// The version of HTTP that it speaks; a stream of HTTP/2 looks like a request of HTTP/1.1 inside.
    pub(crate) fn http(&self, version: Version) -> &'static str {
        match (&self.parent, version) {
            (Some(_), _) => "2",
            (None, Version::Http11) => "1.1",
            (None, Version::Http10) => "1.0",
        }
    }

    /// Nothing of a request's body is there.
    pub(crate) fn await_upload(&self) {
        if self.upload.get() == Stall::None {
            self.upload.set(Stall::Since(self.worker.now()));
        }
    }

    /// Whether the client has let its body wait for too long.
    pub(crate) fn upload_has_expired(&self) -> bool {
        self.upload.get() == Stall::Expired
    }

    /// The client takes nothing more of an answer, of which so many bytes were written.
    pub(crate) fn await_download(&self, written: u64) {
        if self.download.get() == Stall::None || self.downloaded.get() != written {
            self.download.set(Stall::Since(self.worker.now()));
            self.downloaded.set(written);
        }
    }

    /// It has taken all there was.
    pub(crate) fn note_download(&self) {
        self.download.set(Stall::None);
    }

    /// The answer's head is there.
    pub(crate) fn begin_answer(&self) {
        self.phase.set(Phase::Answering);
    }

    /// The request has ended.
    pub(crate) fn end_request(&self, now: Instant) {
        self.phase.set(Phase::Idle { since: now });
        self.request_since.set(None);
        self.timeouts.take();
        self.upload.set(Stall::None);
        self.download.set(Stall::None);
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.phase.get() == Phase::Expired
    }

    /// Holds the present request to its service's deadlines instead of the gateway's.
    pub(crate) fn keep_deadlines(&self, timeouts: Timeouts) {
        self.timeouts.set(timeouts);
    }

    /// Whether it is a stream of a connection of HTTP/2.
    pub(crate) fn is_stream(&self) -> bool {
        self.parent.is_some()
    }

    /// Acts on deadlines that have passed.
    pub(crate) fn sweep(&self, now: Instant) {
        let is_over = |since: Instant, time: Duration| now.since(since) >= time;
        let limits = self.worker.limits();
        let timeouts = self.timeouts.get();
        let answer_time = timeouts.answer.unwrap_or(limits.answer_time);
        if let Stall::Since(since) = self.download.get()
            && is_over(since, limits.write_idle)
        {
            self.frontend.denied.count(Denied::WriteIdle);
            self.cut();
        }
        if let Some(since) = self.request_since.get()
            && is_over(since, timeouts.request.unwrap_or(limits.request_time))
        {
            self.frontend.denied.count(Denied::RequestTime);
            match self.phase.get() {
                Phase::Waiting { .. } => self.expire(Phase::Expired),
                _ => self.cut(),
            }
        }
        let uploading = match self.upload.get() {
            Stall::None => false,
            Stall::Since(since) if is_over(since, limits.body_idle) => {
                self.frontend.denied.count(Denied::BodyIdle);
                self.upload.set(Stall::Expired);
                self.wake();
                true
            }
            Stall::Since(_) | Stall::Expired => true,
        };
        match self.phase.get() {
            Phase::Idle { since } if is_over(since, limits.idle_time) => {
                self.frontend.denied.count(Denied::IdleTime);
                self.cut();
            }
            Phase::Idle { .. } if self.may_leave(now) => self.wake(),
            Phase::Head { since } if is_over(since, limits.head_time) => {
                self.frontend.denied.count(Denied::HeadTime);
                self.expire(Phase::HeadExpired);
            }
            Phase::Waiting { since } if !uploading && is_over(since, answer_time) => {
                self.expire(Phase::Expired);
            }
            Phase::Idle { .. }
            | Phase::Head { .. }
            | Phase::HeadExpired
            | Phase::Waiting { .. }
            | Phase::Expired
            | Phase::Answering
            | Phase::Tunnel => {}
        }
    }

    fn expire(&self, phase: Phase) {
        self.phase.set(phase);
        self.wake();
    }

    /// Lets the connection end after the request that is under way.
    pub(crate) fn finish_up(&self) {
        if matches!(self.order.get(), Order::Serve | Order::Brief) {
            self.order.set(Order::FinishUp);
            self.wake();
        }
    }

    /// Lets each request of HTTP/1 be the last of its connection. One of HTTP/2 goes on: its client would come back here
    /// at once, again and again.
    pub(crate) fn be_brief(&self) {
        if self.order.get() == Order::Serve {
            self.order.set(Order::Brief);
        }
    }

    /// Whether it is a connection to one of the addresses that are left.
    pub(crate) fn is_concerned(&self, leave: &Leave) -> bool {
        if self.parent.is_some() {
            return false;
        }
        if self.local.get().is_none() {
            let inbound = self.inbound.borrow().upgrade();
            self.local
                .set(inbound.and_then(|inbound| inbound.socket.local()));
        }
        self.local.get().is_some_and(|local| leave.concerns(local))
    }

    /// Whether it carries bytes that are no requests.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.phase.get() == Phase::Tunnel
    }

    /// Whether it may end although its client has not said so. A client that has just been served
    /// may have its next request on the way: it is told with the answer to that.
    fn may_leave(&self, now: Instant) -> bool {
        let Phase::Idle { since } = self.phase.get() else {
            return false;
        };
        self.order.get() == Order::FinishUp && now.since(since) >= PARTING_IDLE
    }

    /// Whether the next request is wanted, after one that went so.
    pub(crate) fn persistence(&self, request: &Request) -> Persistence {
        match self.order.get() {
            Order::Serve => match (request.persistence, self.wear()) {
                (Persistence::KeepAlive, Some(limit)) => {
                    self.frontend.denied.count(limit);
                    Persistence::Close
                }
                (asked, _) => asked,
            },
            Order::Brief | Order::FinishUp | Order::Cut => Persistence::Close,
        }
    }

    /// By which limit it has lived long enough, or served enough.
    pub(crate) fn wear(&self) -> Option<Denied> {
        let worker = &self.worker;
        if self.requests.get() >= worker.limits().requests_per_connection {
            Some(Denied::RequestsPerConnection)
        } else {
            (worker.now() >= self.aged_at).then_some(Denied::ConnectionAge)
        }
    }

    /// Whether a connection of HTTP/2 is to take no more requests.
    pub(crate) fn is_leaving(&self) -> bool {
        self.order.get() == Order::FinishUp || self.wear().is_some()
    }

    /// Counts a head that a limit kept out.
    pub(crate) fn count_refused(&self, refused: Refused) {
        if matches!(refused, Refused::TooLong | Refused::TargetTooLong) {
            self.frontend.denied.count(Denied::HeadLen);
        } else if refused == Refused::TooManyFields {
            self.frontend.denied.count(Denied::HeadFields);
        }
    }

    /// Runs `task` unless the sweep cuts the client off.
    pub(crate) async fn interruptible<T>(&self, task: impl Future<Output = T>) -> Option<T> {
        let mut task = pin!(task);
        poll_fn(|cx| match self.poll_cut(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => task.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// Ready when the client is to be cut off.
    fn poll_cut(&self, cx: &Context<'_>) -> Poll<()> {
        self.remember_waker(cx);
        match self.order.get() {
            Order::Serve | Order::Brief | Order::FinishUp => Poll::Pending,
            Order::Cut => Poll::Ready(()),
        }
    }

    /// Lets the sweep take away what a stream sends.
    pub(crate) fn let_cut(&self, shown: &Rc<RefCell<Shown>>) {
        self.shown.replace(Rc::downgrade(shown));
    }

    /// Ends it now.
    pub(crate) fn cut(&self) {
        self.order.set(Order::Cut);
        if let Some(shown) = self.shown.borrow().upgrade() {
            shown.replace(Shown::Cut);
        }
        self.wake();
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn remember_waker(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }
}

/// Serves one connection to its end, until which it keeps its place.
pub(crate) async fn serve(_place: Place, worker: Rc<Worker>, arrival: Arrival) {
    let Arrival {
        stream,
        client: peer,
        early,
        scope,
        open,
    } = arrival;
    let client = Rc::new(Client::new(Rc::clone(&worker), peer, scope, open));
    let _admitted = worker.admit(&client);
    let inbound = Rc::new(Inbound::new(stream, Rc::clone(&client), &early));
    client.inbound.replace(Rc::downgrade(&inbound));
    worker.greet(&client);
    drop(early);
    let talk = talk(Rc::clone(&client), inbound);
    client.interruptible(talk).await;
}

/// What follows a request on its connection.
enum After {
    Next,
    /// The client may still be sending what nobody wants.
    Linger,
    Close,
    Tunnel(Box<Tunnel>),
}

/// Request by request. What a request needs lives in a box of its own, so that an idle connection
/// is small.
async fn talk(client: Rc<Client>, inbound: Rc<Inbound>) {
    loop {
        let after = match next(&client, &inbound).await {
            Next::Request(request) => Box::pin(handle(&client, &inbound, request)).await,
            Next::Refused(refused) => {
                client.count_refused(refused);
                let what = refused.to_string();
                let rejected = Rejected::new(&client, Reason::BadRequest, refused.status(), what);
                Box::pin(reject(&client, &inbound, rejected)).await
            }
            Next::TooSlow => {
                let what = "its head did not come in time".to_owned();
                let status = Reason::HeadTimeout.status();
                let rejected = Rejected::new(&client, Reason::HeadTimeout, status, what);
                Box::pin(reject(&client, &inbound, rejected)).await
            }
            Next::Http2 => return Box::pin(http2::serve(client, inbound)).await,
            Next::Gone => After::Close,
        };
        match after {
            After::Next => {}
            After::Linger => return Box::pin(linger(&inbound)).await,
            After::Close => return,
            After::Tunnel(tunnel) => {
                client.phase.set(Phase::Tunnel);
                client.request_since.set(None);
                return Box::pin(tunnel.run(&inbound)).await;
            }
        }
    }
}

/// The next request, unless the connection is to end first.
async fn next(client: &Client, inbound: &Inbound) -> Next {
    let mut next = pin!(inbound.next());
    poll_fn(|cx| match next.as_mut().poll(cx) {
        Poll::Pending if client.may_leave(client.worker.now()) => Poll::Ready(Next::Gone),
        next => next,
    })
    .await
}

/// Answers one request.
async fn handle(client: &Rc<Client>, inbound: &Rc<Inbound>, request: Box<Request>) -> After {
    let source = if inbound.is_body_complete() {
        Source::Empty
    } else {
        Source::Http1(Rc::clone(inbound))
    };
    let answer = {
        let mut answer = pin!(proxy::answer(
            Rc::clone(client),
            request,
            source,
            Some(inbound)
        ));
        poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            // Dropping the request closes the connection to the instance, which learns of it so.
            Poll::Pending => inbound.poll_gone(cx).map(|()| None),
        })
        .await
    };
    let Some(answer) = answer else {
        return After::Close;
    };
    let mut delivery = Delivery::new(client, inbound, answer);
    let written = poll_fn(|cx| delivery.poll(cx)).await;
    match delivery.end(written) {
        Delivered::Whole(Persistence::KeepAlive) if inbound.is_body_complete() => After::Next,
        Delivered::Whole(_) if inbound.has_more() => After::Linger,
        Delivered::Whole(_) | Delivered::Broken => After::Close,
        Delivered::Upgraded(tunnel) => After::Tunnel(tunnel),
    }
}

/// The answer to something that is no request.
pub(crate) struct Rejected {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(&'static str, Bytes)>,
    pub(crate) text: Bytes,
}

impl Rejected {
    /// Counts it, writes its line of the access log, and makes the answer.
    pub(crate) fn new(client: &Client, reason: Reason, status: u16, what: String) -> Self {
        let worker = &client.worker;
        let started = client.begin_request();
        client.begin_answer();
        let id = worker.ids.next();
        let refusal = Refusal::unrouted(reason, what);
        let text = refusal.text_with_status(status, &id);
        let ended = worker.now();
        Recorded {
            frontend: &client.frontend,
            service: None,
            endpoint: None,
            status: Some(status),
            reason: Some(reason),
            tries: 0,
            bytes_in: 0,
            bytes_out: text.len() as u64,
            started,
            first_byte: None,
            ended,
            ending: Ended::Whole,
        }
        .count();
        worker.log(|| Line {
            id: &id,
            client: &client.peer_text,
            port: client.peer_port,
            scope: client.scope,
            http: client.http(Version::Http11),
            method: "-",
            host: None,
            path: "-",
            status,
            service: None,
            instance: None,
            reason: Some(reason.word()),
            tries: 0,
            hedge: None,
            bytes_in: 0,
            bytes: text.len() as u64,
            started,
            first_byte: None,
            ended,
        });
        let mut fields = refusal.fields();
        fields.push(("date", worker.date()));
        fields.push(("x-request-id", id));
        Self {
            status,
            fields,
            text,
        }
    }
}

async fn reject(client: &Client, inbound: &Inbound, rejected: Rejected) -> After {
    let Rejected {
        status,
        fields,
        text,
    } = rejected;
    let head = client.worker.buffers.head(|out| {
        let mut head = HeadWriter::response(out, status);
        for (name, value) in &fields {
            head.field(name.as_bytes(), value);
        }
        head.number(b"content-length", text.len() as u64)
            .field(b"connection", b"close");
        head.finish();
    });
    match delivery::write(client, inbound, head, text).await {
        Ok(()) => After::Linger,
        Err(_) => After::Close,
    }
}

/// Reads what a client still sends after its answer: closing a socket with unread bytes resets
/// the connection, and the client might lose the answer.
async fn linger(inbound: &Inbound) {
    // If it fails, the client is gone already.
    inbound.socket.shut_down_write().ok();
    // Whoever sends for longer than this does not look for the answer.
    timeout(LINGER_TIME, inbound.swallow(LINGER_LEN_MAX))
        .await
        .ok();
}
