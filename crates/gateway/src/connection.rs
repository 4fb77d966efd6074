//! One connection of a client: its task, its phases, its end.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mainstay_ids::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::headers::Hop;
use crate::limits::{HTTP_BUFFER_LEN_MAX, LINGER_LEN_MAX, LINGER_TIME};
use crate::proxy;
use crate::tunnel::Tunnel;
use crate::upstream::{Upload, UploadState};
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
    /// The request waits for the head of its answer.
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

/// How the socket is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Close,
    /// By RST: an orderly end would look as if a body that broke off were complete.
    Reset,
}

/// One connection of a client, as its task, its requests and the worker's sweep see it.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) scope: Scope,
    pub(crate) peer: IpAddr,
    pub(crate) peer_text: HeaderValue,
    phase: Cell<Phase>,
    order: Cell<Order>,
    ending: Cell<Ending>,
    waker: RefCell<Option<Waker>>,
    /// The body of the newest request that had one.
    upload: RefCell<Option<Upload>>,
    tunnel: RefCell<Option<Tunnel>>,
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
            peer,
            peer_text: HeaderValue::try_from(peer.to_string())
                .expect("an IP address is legal in a header"),
            phase: Cell::new(Phase::Idle { since }),
            order: Cell::new(Order::Serve),
            ending: Cell::new(Ending::Close),
            waker: RefCell::new(None),
            upload: RefCell::new(None),
            tunnel: RefCell::new(None),
            place: Cell::new(usize::MAX),
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
        self.upload.replace(None);
        started
    }

    /// The answer's head is there.
    pub(crate) fn begin_answer(&self) {
        self.phase.set(Phase::Answering);
    }

    /// The request has ended.
    pub(crate) fn end_request(&self, now: Instant) {
        self.phase.set(Phase::Idle { since: now });
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.phase.get() == Phase::Expired
    }

    pub(crate) fn watch_upload(&self, upload: Upload) {
        self.upload.replace(Some(upload));
    }

    pub(crate) fn reset_at_end(&self) {
        self.ending.set(Ending::Reset);
    }

    /// What happens after the answer 101.
    pub(crate) fn tunnel_through(&self, tunnel: Tunnel) {
        self.tunnel.replace(Some(tunnel));
    }

    /// Acts on deadlines that have passed.
    pub(crate) fn sweep(&self, now: Instant) {
        let is_over = |since: Instant, time: Duration| now.since(since) >= time;
        let deadlines = &self.worker.deadlines;
        match self.phase.get() {
            Phase::Idle { since } if is_over(since, deadlines.client_idle) => self.cut(),
            Phase::Head { since } if is_over(since, deadlines.head_read) => self.cut(),
            Phase::Waiting { since } if is_over(since, deadlines.response_head) => {
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

    fn note_read(&self) {
        if let Phase::Idle { .. } = self.phase.get() {
            let since = self.worker.clock.now();
            self.phase.set(Phase::Head { since });
        }
    }
}

/// The client's socket; sees when a head begins.
struct ClientIo {
    stream: TcpStream,
    client: Rc<Client>,
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.client.note_read();
        }
        read
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What all client connections have in common. hyper's own timer for heads is off: it would set up
/// and take down a timer for each request, and the sweep does the same work twice a second.
pub(crate) fn server() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_buf_size(HTTP_BUFFER_LEN_MAX);
    builder
}

/// How the HTTP part of a connection ended.
enum Ended {
    ByHttp,
    ByOrder,
}

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, scope: Scope) {
    let client = Rc::new(Client::new(Rc::clone(&worker), peer, scope));
    let _admitted = worker.admit(&client);
    let io = TokioIo::new(ClientIo {
        stream,
        client: Rc::clone(&client),
    });
    let service = service_fn(|request| proxy::answer(Rc::clone(&client), request));
    let mut http = worker.http.serve_connection(io, service);
    let mut told = Order::Serve;
    let ended = poll_fn(|cx| {
        client.remember_waker(cx);
        match client.order.get() {
            Order::Serve => {}
            Order::Cut => return Poll::Ready(Ended::ByOrder),
            Order::FinishUp if told == Order::FinishUp => {}
            Order::FinishUp => {
                told = Order::FinishUp;
                Pin::new(&mut http).graceful_shutdown();
            }
        }
        // An error is the client's fault or has been counted where it arose.
        pin!(&mut http).poll(cx).map(|_| Ended::ByHttp)
    })
    .await;
    if let Ended::ByOrder = ended {
        return;
    }
    let parts = http.into_parts();
    let stream = parts.io.into_inner().stream;
    let tunnel = client.tunnel.take();
    if let Some(tunnel) = tunnel {
        client.phase.set(Phase::Answering);
        tunnel.run(stream, parts.read_buf).await;
    } else if client.ending.get() == Ending::Reset {
        // If it fails, the socket is gone already.
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .ok();
    } else if client.upload.borrow().as_ref().map(Upload::state) == Some(UploadState::Abandoned) {
        linger(stream).await;
    }
}

/// Reads what a client still sends after its answer: closing a socket with unread bytes resets
/// the connection, and the client might lose the answer.
async fn linger(mut stream: TcpStream) {
    let mut scratch = [0; 4096];
    let mut left = LINGER_LEN_MAX;
    let rest = async {
        while let Ok(read) = stream.read(&mut scratch).await {
            left = left.saturating_sub(read);
            if read == 0 || left == 0 {
                break;
            }
        }
    };
    // Whoever sends for longer than this does not look for the answer.
    timeout(LINGER_TIME, rest).await.ok();
}
