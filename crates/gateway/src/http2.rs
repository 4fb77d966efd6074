//! Clients that speak HTTP/2 without TLS and say so at once (RFC 9113, 3.3). hyper carries the
//! frames; each request is written as a head of HTTP/1.1 and goes through the same strict parser
//! and the same path as any other.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mainstay_http1::{BodyError, Content as Sent, Framing, Http2Head, Refused, Request, Trailers};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::spawn_local;

use crate::answer::{Answer, AnswerHead};
use crate::connection::{Client, Rejected};
use crate::exchange::Source;
use crate::flood::FrameWatch;
use crate::headers::pass_response;
use crate::inbound::{Inbound, Piece};
use crate::limits::{
    H2_PING_AFTER, H2_PING_TIMEOUT, H2_RESETS_PENDING_MAX, H2_SEND_LEN_MAX, H2_WINDOW,
};
use crate::metrics::Denied;
use crate::proxy;
use crate::refusal::Reason;
use crate::worker::{Admitted, Worker};

/// Serves a connection to its end.
pub(crate) async fn serve(client: Rc<Client>, inbound: Rc<Inbound>) {
    let io = TokioIo::new(Watched {
        early: inbound.take_read(),
        inbound,
        frames: FrameWatch::new(),
        client: Rc::clone(&client),
    });
    let limits = client.worker.limits();
    let mut builder = http2::Builder::new(Local(Rc::clone(&client.worker)));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(limits.head_len)
        .max_pending_accept_reset_streams(H2_RESETS_PENDING_MAX)
        .initial_stream_window_size(H2_WINDOW)
        .initial_connection_window_size(H2_WINDOW)
        .max_send_buf_size(H2_SEND_LEN_MAX)
        .keep_alive_interval(H2_PING_AFTER)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    let service = service_fn(|request| answer(client.begin_stream(), request));
    let mut http = pin!(builder.serve_connection(io, service));
    let mut told = Told::Nothing;
    let ended = poll_fn(|cx| {
        if told == Told::Nothing && client.is_leaving() {
            if let Some(limit) = client.wear() {
                client.frontend.denied.count(limit);
            }
            told = Told::Leaving;
            // GOAWAY: streams that have begun go on to their end.
            http.as_mut().graceful_shutdown();
        }
        http.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, client = ?client.peer_text, "a connection of HTTP/2 broke");
    }
}

/// What a client of HTTP/2 has been told of the end of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Leaving,
}

/// Runs what hyper needs for each stream. It ends with its connection at the latest.
#[derive(Clone)]
struct Local(Rc<Worker>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, stream: F) {
        spawn_local(Rc::clone(&self.0).in_steps(stream));
    }
}

/// A stream in the worker's list until this is dropped.
struct Stream {
    client: Rc<Client>,
    _admitted: Admitted,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.client.end_stream();
    }
}

/// The sweep cut a stream off, or its instance broke off.
#[derive(Debug, thiserror::Error)]
#[error("the answer was broken off")]
struct Cut;

async fn answer(
    client: Rc<Client>,
    request: http::Request<Incoming>,
) -> Result<Response<AnswerBody>, Cut> {
    let stream = Stream {
        _admitted: client.worker.admit(&client),
        client: Rc::clone(&client),
    };
    let (parts, body) = request.into_parts();
    let request = match check(&parts, &body, &client) {
        Ok(request) => request,
        Err(why) => {
            let what = why.to_string();
            client.count_refused(why);
            let rejected = Rejected::new(&client, Reason::BadRequest, why.status(), what);
            return Ok(reject(rejected, stream));
        }
    };
    let source = if body.is_end_stream() {
        Source::Empty
    } else {
        Source::Http2(body, Rc::clone(&client))
    };
    let answer = proxy::answer(Rc::clone(&client), Box::new(request), source, None);
    let answer = client.interruptible(answer).await.ok_or(Cut)?;
    Ok(respond(answer, stream))
}

fn check(
    parts: &http::request::Parts,
    body: &Incoming,
    client: &Client,
) -> Result<Request, Refused> {
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let head = Http2Head {
        method: parts.method.as_str(),
        path,
        authority: parts.uri.authority().map(http::uri::Authority::as_str),
        content: if body.is_end_stream() {
            Sent::Absent
        } else {
            Sent::Present
        },
    };
    let fields = parts.headers.iter();
    let fields = fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    Request::from_http2(head, fields, client.head_limits())
}

/// The trailers of a request, as strictly as those of HTTP/1.
pub(crate) fn trailers(headers: &HeaderMap) -> Result<Option<Box<Trailers>>, BodyError> {
    let fields = headers.iter();
    let fields = fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    mainstay_http1::trailers_from_http2(fields)
}

fn reject(rejected: Rejected, stream: Stream) -> Response<AnswerBody> {
    let mut headers = HeaderMap::new();
    for (name, value) in &rejected.fields {
        put(&mut headers, name.as_bytes(), value);
    }
    let body = AnswerBody::new(Shown::Text(rejected.text), stream);
    build(rejected.status, headers, body)
}

fn respond(answer: Answer, stream: Stream) -> Response<AnswerBody> {
    let mut headers = HeaderMap::new();
    match &answer.head {
        AnswerHead::Ours(fields) => {
            for (name, value) in fields {
                put(&mut headers, name.as_bytes(), value);
            }
        }
        AnswerHead::Instance(response) => {
            pass_response(response, &answer.visit, |name, value| {
                put(&mut headers, name, value);
            });
        }
    }
    if let Framing::Length(len) = answer.framing() {
        headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(len));
    }
    if !headers.contains_key(http::header::DATE) {
        put(&mut headers, b"date", &stream.client.worker.date());
    }
    put(&mut headers, b"x-request-id", &answer.visit.id);
    let status = answer.status;
    let body = AnswerBody::new(Shown::Answer(Box::new(answer)), stream);
    build(status, headers, body)
}

fn put(headers: &mut HeaderMap, name: &[u8], value: &[u8]) {
    // What the strict parser let through, HTTP/2 can say as well; names are in small letters there.
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        headers.append(name, value);
    }
}

fn build(status: u16, headers: HeaderMap, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = headers;
    response
}

/// An answer's body as hyper takes it.
struct AnswerBody {
    content: Rc<RefCell<Shown>>,
    stream: Stream,
    written: u64,
}

/// What a stream sends. hyper does not look at it as long as the client makes no room, so the sweep
/// takes it away from here.
pub(crate) enum Shown {
    Text(Bytes),
    Answer(Box<Answer>),
    /// The client was cut off.
    Cut,
}

impl AnswerBody {
    fn new(content: Shown, stream: Stream) -> Self {
        let content = Rc::new(RefCell::new(content));
        stream.client.let_cut(&content);
        Self {
            content,
            stream,
            written: 0,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        let client = &this.stream.client;
        // hyper asks for more only when the client has made room.
        client.note_download();
        let mut content = this.content.borrow_mut();
        let answer = match &mut *content {
            Shown::Cut => return Poll::Ready(Some(Err(Cut))),
            Shown::Text(text) if text.is_empty() => return Poll::Ready(None),
            Shown::Text(text) => {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(text)))));
            }
            Shown::Answer(answer) => answer,
        };
        let piece = ready!(answer.poll_piece(cx));
        Poll::Ready(match piece {
            Ok(Piece::Data(data)) => {
                this.written += data.len() as u64;
                client.await_download(this.written);
                Some(Ok(Frame::data(data)))
            }
            Ok(Piece::End(None)) => None,
            Ok(Piece::End(Some(trailers))) => {
                let mut headers = HeaderMap::new();
                for field in trailers.iter() {
                    put(&mut headers, field.name, field.value);
                }
                // Asked again, an answer says that nothing follows.
                Some(Ok(Frame::trailers(headers)))
            }
            Err(_) => Some(Err(Cut)),
        })
    }

    fn is_end_stream(&self) -> bool {
        match &*self.content.borrow() {
            Shown::Text(text) => text.is_empty(),
            Shown::Answer(answer) => answer.is_over(),
            Shown::Cut => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*self.content.borrow() {
            Shown::Cut => SizeHint::default(),
            Shown::Text(text) => SizeHint::with_exact(text.len() as u64),
            Shown::Answer(answer) => match answer.framing() {
                Framing::None => SizeHint::with_exact(0),
                Framing::Length(len) => SizeHint::with_exact(len.saturating_sub(self.written)),
                Framing::Chunked | Framing::UntilClose => SizeHint::default(),
            },
        }
    }
}

/// The client's socket, with what was read of it already, and an eye on the frames.
struct Watched {
    inbound: Rc<Inbound>,
    early: BytesMut,
    frames: FrameWatch,
    client: Rc<Client>,
}

impl Watched {
    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        let now = self.client.worker.clock.now();
        self.frames.look(now, bytes).map_err(|flood| {
            self.client.frontend.denied.count(Denied::H2Flood);
            tracing::warn!(client = ?self.client.peer_text, %flood, "a connection of HTTP/2 is cut off");
            io::Error::other(flood)
        })
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.early.is_empty() {
            ready!(this.inbound.socket.poll_read_into(cx, buf))?;
        } else {
            let len = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early[..len]);
            this.early.advance(len);
            if this.early.is_empty() {
                let early = std::mem::take(&mut this.early);
                this.client.worker.buffers.give(early);
            }
        }
        Poll::Ready(this.look(&buf.filled()[before..]))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inbound.socket.poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inbound.socket.poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.inbound.socket.shut_down_write())
    }
}
