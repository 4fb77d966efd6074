//! One connection of a client: its task, its phases, its end.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use mainstay_http1::{HeadWriter, Persistence, Refused, Request};
use mainstay_ids::Instant;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::access_log::Line;
use crate::delivery::{self, Delivered};
use crate::exchange::Source;
use crate::headers::Hop;
use crate::inbound::{Inbound, Next};
use crate::limits::{CLIENT_HEAD, LINGER_LEN_MAX, LINGER_TIME, PARTING_IDLE};
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
}

impl Scope {
    pub(crate) fn hop(self) -> Hop {
        match self {
            Self::Entry => Hop::Entry,
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
    /// The request waits for the head of its answer, since the last byte of it came.
    Waiting { since: Instant },
    /// It has waited too long.
    Expired,
    /// The answer is under way, or the connection is a tunnel.
    Answering,
}

/// What the worker wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Serve,
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

/// One connection of a client, as its task, its requests and the worker's sweep see it.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) scope: Scope,
    pub(crate) peer_text: Bytes,
    phase: Cell<Phase>,
    order: Cell<Order>,
    /// Of a request's body.
    upload: Cell<Stall>,
    /// Of an answer.
    download: Cell<Stall>,
    /// Bytes that had been written when [`Self::download`] began.
    downloaded: Cell<u64>,
    waker: RefCell<Option<Waker>>,
    /// Its place in the worker's list.
    pub(crate) place: Cell<usize>,
}

impl Client {
    fn new(worker: Rc<Worker>, peer: SocketAddr, scope: Scope) -> Self {
        let since = worker.clock.now();
        // An IPv4 client on an IPv6 socket is written as what it is.
        let peer = peer.ip().to_canonical();
        Self {
            worker,
            scope,
            peer_text: Bytes::from(peer.to_string()),
            phase: Cell::new(Phase::Idle { since }),
            order: Cell::new(Order::Serve),
            upload: Cell::new(Stall::None),
            download: Cell::new(Stall::None),
            downloaded: Cell::new(0),
            waker: RefCell::new(None),
            place: Cell::new(usize::MAX),
        }
    }

    /// The first byte of a request has come.
    pub(crate) fn note_head(&self) {
        if let Phase::Idle { .. } = self.phase.get() {
            let since = self.worker.clock.now();
            self.phase.set(Phase::Head { since });
        }
    }

    /// A request's head is complete; gives the time at which its first byte came.
    pub(crate) fn begin_request(&self) -> Instant {
        let now = self.worker.clock.now();
        let started = match self.phase.get() {
            Phase::Head { since } => since,
            Phase::Idle { .. } | Phase::Waiting { .. } | Phase::Expired | Phase::Answering => now,
        };
        self.phase.set(Phase::Waiting { since: now });
        started
    }

    /// A piece of a request's body has come: the instance's time to answer begins again.
    pub(crate) fn note_upload(&self) {
        self.upload.set(Stall::None);
        if let Phase::Waiting { .. } = self.phase.get() {
            let since = self.worker.clock.now();
            self.phase.set(Phase::Waiting { since });
        }
    }

    /// Nothing of a request's body is there.
    pub(crate) fn await_upload(&self) {
        if self.upload.get() == Stall::None {
            self.upload.set(Stall::Since(self.worker.clock.now()));
        }
    }

    /// Whether the client has let its body wait for too long.
    pub(crate) fn upload_has_expired(&self) -> bool {
        self.upload.get() == Stall::Expired
    }

    /// The client takes nothing more of an answer, of which so many bytes were written.
    pub(crate) fn await_download(&self, written: u64) {
        if self.download.get() == Stall::None || self.downloaded.get() != written {
            self.download.set(Stall::Since(self.worker.clock.now()));
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
        self.upload.set(Stall::None);
        self.download.set(Stall::None);
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.phase.get() == Phase::Expired
    }

    /// Acts on deadlines that have passed.
    pub(crate) fn sweep(&self, now: Instant) {
        let is_over = |since: Instant, time: Duration| now.since(since) >= time;
        let deadlines = &self.worker.deadlines;
        if let Stall::Since(since) = self.download.get()
            && is_over(since, deadlines.client_write)
        {
            self.cut();
        }
        let uploading = match self.upload.get() {
            Stall::None => false,
            Stall::Since(since) if is_over(since, deadlines.body_read) => {
                self.upload.set(Stall::Expired);
                self.wake();
                true
            }
            Stall::Since(_) | Stall::Expired => true,
        };
        match self.phase.get() {
            Phase::Idle { since } if is_over(since, deadlines.client_idle) => self.cut(),
            Phase::Idle { .. } if self.may_leave(now) => self.wake(),
            Phase::Head { since } if is_over(since, deadlines.head_read) => self.cut(),
            Phase::Waiting { since } if !uploading && is_over(since, deadlines.response_head) => {
                self.phase.set(Phase::Expired);
                self.wake();
            }
            Phase::Idle { .. }
            | Phase::Head { .. }
            | Phase::Waiting { .. }
            | Phase::Expired
            | Phase::Answering => {}
        }
    }

    /// Lets the connection end after the request that is under way.
    pub(crate) fn finish_up(&self) {
        if self.order.get() == Order::Serve {
            self.order.set(Order::FinishUp);
            self.wake();
        }
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
            Order::Serve => request.persistence,
            Order::FinishUp | Order::Cut => Persistence::Close,
        }
    }

    fn cut(&self) {
        self.order.set(Order::Cut);
        self.wake();
    }

    fn wake(&self) {
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

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, scope: Scope) {
    let client = Rc::new(Client::new(Rc::clone(&worker), peer, scope));
    let _admitted = worker.admit(&client);
    let mut talk = pin!(talk(Rc::clone(&client), stream));
    poll_fn(|cx| {
        client.remember_waker(cx);
        match client.order.get() {
            Order::Serve | Order::FinishUp => talk.as_mut().poll(cx),
            Order::Cut => Poll::Ready(()),
        }
    })
    .await;
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
async fn talk(client: Rc<Client>, stream: TcpStream) {
    let inbound = Rc::new(Inbound::new(stream, Rc::clone(&client)));
    loop {
        let after = match next(&client, &inbound).await {
            Next::Request(request) => Box::pin(handle(&client, &inbound, request)).await,
            Next::Refused(refused) => Box::pin(refuse(&client, &inbound, refused)).await,
            Next::Http2 => Box::pin(refuse(&client, &inbound, Refused::Http2Preface)).await,
            Next::Gone => After::Close,
        };
        match after {
            After::Next => {}
            After::Linger => return Box::pin(linger(&inbound)).await,
            After::Close => return,
            After::Tunnel(tunnel) => {
                client.phase.set(Phase::Answering);
                return Box::pin(tunnel.run(&inbound)).await;
            }
        }
    }
}

/// The next request, unless the connection is to end first.
async fn next(client: &Client, inbound: &Inbound) -> Next {
    let mut next = pin!(inbound.next(CLIENT_HEAD));
    poll_fn(|cx| match next.as_mut().poll(cx) {
        Poll::Pending if client.may_leave(client.worker.clock.now()) => Poll::Ready(Next::Gone),
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
        let mut answer = pin!(proxy::answer(Rc::clone(client), request, source));
        poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            // Dropping the request closes the connection to the instance, which learns of it so.
            Poll::Pending => inbound.poll_gone(cx, CLIENT_HEAD).map(|()| None),
        })
        .await
    };
    let Some(answer) = answer else {
        return After::Close;
    };
    match delivery::deliver(client, inbound, answer).await {
        Delivered::Whole(Persistence::KeepAlive) if inbound.is_body_complete() => After::Next,
        Delivered::Whole(_) if inbound.has_more() => After::Linger,
        Delivered::Whole(_) | Delivered::Broken => After::Close,
        Delivered::Upgraded(tunnel) => After::Tunnel(tunnel),
    }
}

/// Answers what is no request.
async fn refuse(client: &Rc<Client>, inbound: &Inbound, refused: Refused) -> After {
    let worker = &client.worker;
    let started = client.begin_request();
    client.begin_answer();
    worker.counters.requests.add(1);
    worker.counters.refusals.add(1);
    let id = worker.ids.next();
    let status = refused.status();
    let refusal = Refusal::unrouted(Reason::BadRequest, refused.to_string());
    let text = refusal.text_with_status(status, &id);
    let bytes = text.len() as u64;
    let head = worker.buffers.head(|out| {
        let mut head = HeadWriter::response(out, status);
        for (name, value) in refusal.fields() {
            head.field(name.as_bytes(), &value);
        }
        head.number(b"content-length", bytes)
            .field(b"date", &worker.date())
            .field(b"connection", b"close")
            .field(b"x-request-id", &id);
        head.finish();
    });
    let written = delivery::write(client, inbound, head, text).await;
    let ended = worker.clock.now();
    worker.log(|| Line {
        id: &id,
        client: &client.peer_text,
        method: "-",
        host: None,
        path: "-",
        status,
        service: None,
        instance: None,
        reason: Some(Reason::BadRequest.word()),
        tries: 0,
        bytes,
        started,
        ended,
    });
    match written {
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
