//! Connections to instances.
//!
//! An upstream connection has no task of its own: whoever waits for its answer drives it, so that a
//! request costs no hand-over between tasks. While it lies in the pool nobody drives it; it is
//! looked at when it is taken out.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use mainstay_ids::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::{CONNECT_TIMEOUT, HTTP_BUFFER_LEN_MAX};

/// A socket with a second handle, by which the pool can look whether the instance has closed it
/// while hyper owns the first. Borrowed only within one call.
#[derive(Debug, Clone)]
pub(crate) struct Stream(Rc<RefCell<TcpStream>>);

impl Stream {
    /// Whether the instance neither closed the connection nor sent something unasked. A system
    /// call: for requests that must not be sent twice.
    fn is_quiet(&self) -> bool {
        let stream = self.0.borrow();
        let mut byte = [MaybeUninit::uninit()];
        let peeked = socket2::SockRef::from(&*stream).peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}

/// What is sent to an instance as a request's body.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// There is none, so that the request can be sent again.
    Empty,
    /// The client's body, as it comes.
    Streamed(Incoming, Upload),
}

/// Tells, from outside, how far the sending of a body has come.
#[derive(Debug, Clone)]
pub(crate) struct Upload(Rc<Cell<UploadState>>);

/// How far the sending of a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadState {
    /// It is still being sent.
    Running,
    /// All of it was read from the client.
    Complete,
    /// Nobody wants the rest.
    Abandoned,
}

impl Upload {
    pub(crate) fn state(&self) -> UploadState {
        self.0.get()
    }
}

impl RequestBody {
    /// The client's body, and how to see its end.
    pub(crate) fn streamed(body: Incoming) -> (Self, Upload) {
        let upload = Upload(Rc::new(Cell::new(UploadState::Running)));
        (Self::Streamed(body, upload.clone()), upload)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Self::Streamed(body, upload) = self
            && upload.state() == UploadState::Running
        {
            upload.0.set(if body.is_end_stream() {
                UploadState::Complete
            } else {
                UploadState::Abandoned
            });
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(body, upload) => {
                let frame = Pin::new(body).poll_frame(cx);
                if matches!(frame, Poll::Ready(None)) {
                    upload.0.set(UploadState::Complete);
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body, _) => body.size_hint(),
        }
    }
}

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// Not a byte of it was sent; here it is back.
    NotSent(Box<Request<RequestBody>>),
    /// The instance may have seen it.
    Lost(hyper::Error),
    /// The caller had enough of waiting.
    Expired,
}

/// One connection to an instance.
pub(crate) struct Upstream {
    sender: SendRequest<RequestBody>,
    connection: Connection<TokioIo<Stream>, RequestBody>,
    stream: Stream,
    course: Course,
    pub(crate) idle_since: Instant,
}

/// Whether a connection may still be driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Running,
    Ended,
}

/// How sure a caller must be that an idle connection is still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Assurance {
    /// What the runtime has heard so far: a request that is lost can be sent again.
    Hint,
    /// Ask the operating system.
    Look,
}

impl Upstream {
    /// Opens a connection within [`CONNECT_TIMEOUT`].
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Box<Self>> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        let stream = Stream(Rc::new(RefCell::new(stream)));
        let (sender, connection) = Builder::new()
            .max_buf_size(HTTP_BUFFER_LEN_MAX)
            .handshake(TokioIo::new(stream.clone()))
            .await
            .map_err(io::Error::other)?;
        Ok(Box::new(Self {
            sender,
            connection,
            stream,
            course: Course::Running,
            idle_since: Instant::START,
        }))
    }

    /// Moves everything on that can be moved on.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if self.course == Course::Running && self.connection.poll_without_shutdown(cx).is_ready() {
            // An error has reached whoever waits for the answer or its body.
            self.course = Course::Ended;
        }
    }

    /// Whether it has ended, well or badly.
    pub(crate) fn has_ended(&self) -> bool {
        self.course == Course::Ended
    }

    /// Whether nothing is under way on it, so that another request may be sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.course == Course::Running && self.sender.is_ready()
    }

    /// Whether an idle connection can be used.
    pub(crate) fn is_alive(&mut self, assurance: Assurance) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.is_idle()
            && match assurance {
                Assurance::Hint => true,
                Assurance::Look => self.stream.is_quiet(),
            }
    }

    /// Sends a request and waits for the head of its answer, or until `expired` says so.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
        expired: impl Fn() -> bool,
    ) -> Result<Response<Incoming>, SendFailure> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            if self.course == Course::Running
                && self.connection.poll_without_shutdown(cx).is_ready()
            {
                self.course = Course::Ended;
            }
            match answer.as_mut().poll(cx) {
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                Poll::Ready(Err(mut failure)) => Poll::Ready(Err(match failure.take_message() {
                    Some(request) => SendFailure::NotSent(Box::new(request)),
                    None => SendFailure::Lost(failure.into_error()),
                })),
                Poll::Pending if expired() => Poll::Ready(Err(SendFailure::Expired)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Drives the connection without anybody who waits for it, until it is idle or has ended.
    pub(crate) async fn settle(&mut self) {
        poll_fn(|cx| {
            self.drive(cx);
            if self.has_ended() || self.is_idle() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Takes the socket of a connection that has ended with an upgrade, with the bytes that came
    /// after the answer.
    pub(crate) async fn into_upgraded(
        mut self: Box<Self>,
        deadline: Duration,
    ) -> Option<(Stream, Bytes)> {
        let ended = poll_fn(|cx| {
            self.drive(cx);
            if self.has_ended() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        timeout(deadline, ended).await.ok()?;
        let parts = self.connection.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }
}
