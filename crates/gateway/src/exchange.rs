//! One request and its answer on one connection to an instance.
//!
//! Both directions are driven by whoever polls either: an instance may begin its answer before it
//! has all of the request, and a client may read nothing before it has sent everything.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;
use mainstay_http1::{
    BodyError, ChunkHead, Decoder, Framing, Method, Persistence, Response, Scan, Step, Trailers,
    write_last_chunk,
};

use crate::connection::Client;
use crate::http2;
use crate::inbound::{BodyFailure, Inbound, Piece};
use crate::upstream::{NoHead, Upstream};
use crate::wire::{Buffers, Outgoing};

const CRLF: &[u8] = b"\r\n";

/// Where a request's body comes from.
pub(crate) enum Source {
    Empty,
    Http1(Rc<Inbound>),
    Http2(Incoming, Rc<Client>),
}

impl Source {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyFailure>> {
        match self {
            Self::Empty => Poll::Ready(Ok(Piece::End(None))),
            Self::Http1(inbound) => inbound.poll_body(cx),
            Self::Http2(body, client) => loop {
                let frame = match std::pin::Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(frame) => frame,
                    Poll::Pending if client.upload_has_expired() => {
                        return Poll::Ready(Err(BodyFailure::TooSlow));
                    }
                    Poll::Pending => {
                        client.await_upload();
                        return Poll::Pending;
                    }
                };
                client.note_upload();
                match frame {
                    None => return Poll::Ready(Ok(Piece::End(None))),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if data.is_empty() => {}
                        Ok(data) => {
                            client.note_received(data.len());
                            return Poll::Ready(Ok(Piece::Data(data)));
                        }
                        Err(frame) => {
                            if let Ok(trailers) = frame.into_trailers() {
                                let end = http2::trailers(&trailers).map(Piece::End);
                                return Poll::Ready(end.map_err(BodyFailure::Malformed));
                            }
                        }
                    },
                    Some(Err(_)) => return Poll::Ready(Err(BodyFailure::Gone)),
                }
            },
        }
    }
}

/// A request's body, of which the beginning is kept as long as it is short enough, so that the
/// request can be sent again.
pub(crate) struct RequestBody {
    source: Source,
    framing: Framing,
    kept: Kept,
    /// How much is kept at most.
    replay_len: usize,
    /// Pieces of what is kept that this try has been given.
    given: usize,
    end: End,
}

/// Whether the body's end has come.
enum End {
    Ahead,
    Seen(Option<Box<Trailers>>),
}

enum Kept {
    /// All that came so far.
    Whole { pieces: Vec<Bytes>, len: usize },
    /// It became too long, or nobody will want it again.
    Not,
}

impl RequestBody {
    pub(crate) fn new(source: Source, framing: Framing, replay_len: usize) -> Self {
        Self {
            replay_len,
            source,
            framing,
            kept: Kept::Whole {
                pieces: Vec::new(),
                len: 0,
            },
            given: 0,
            end: End::Ahead,
        }
    }

    /// Whether it can be sent from its beginning.
    pub(crate) fn is_replayable(&self) -> bool {
        matches!(self.kept, Kept::Whole { .. })
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.source, Source::Empty)
    }

    /// Begins again for another try.
    pub(crate) fn rewind(&mut self) {
        self.given = 0;
    }

    /// The same once more, if there is nothing that could be taken only once.
    pub(crate) fn another(&self) -> Option<Self> {
        match self.source {
            Source::Empty => Some(Self::new(Source::Empty, self.framing, self.replay_len)),
            Source::Http1(_) | Source::Http2(..) => None,
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyFailure>> {
        if let Kept::Whole { pieces, .. } = &self.kept
            && let Some(piece) = pieces.get(self.given)
        {
            self.given += 1;
            return Poll::Ready(Ok(Piece::Data(piece.clone())));
        }
        if let End::Seen(trailers) = &self.end {
            return Poll::Ready(Ok(Piece::End(trailers.clone())));
        }
        let piece = ready!(self.source.poll_piece(cx))?;
        match &piece {
            Piece::Data(data) => self.keep(data),
            Piece::End(trailers) => self.end = End::Seen(trailers.clone()),
        }
        Poll::Ready(Ok(piece))
    }

    fn keep(&mut self, data: &Bytes) {
        let Kept::Whole { pieces, len } = &mut self.kept else {
            return;
        };
        *len += data.len();
        if *len > self.replay_len {
            self.kept = Kept::Not;
            return;
        }
        // A copy: the piece itself would keep a whole read buffer alive.
        pieces.push(Bytes::copy_from_slice(data));
        self.given += 1;
    }
}

/// How far the sending of a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Running,
    /// The last piece is being written.
    Last,
    Complete,
    /// The instance takes no more of it; it may answer nevertheless.
    Refused,
    /// The client broke off its body.
    ClientFailed(BodyFailure),
}

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Not a byte of it was sent.
    NotSent,
    /// The instance may have seen it.
    Lost(NoHead),
    /// The client broke off its body.
    Client(BodyFailure),
}

/// An answer's body that does not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the instance broke off its answer")]
pub(crate) struct BrokenOff;

/// One request on its connection, from the first byte of the one to the last of the other.
pub(crate) struct Exchange {
    upstream: Upstream,
    method: Method,
    out: Outgoing,
    body: RequestBody,
    sending: Sending,
    scan: Scan,
    decoder: Option<Decoder>,
    persistence: Persistence,
}

impl Exchange {
    pub(crate) fn new(upstream: Upstream, method: Method, head: Bytes, body: RequestBody) -> Self {
        Self {
            upstream,
            method,
            out: Outgoing::with_head(head),
            body,
            sending: Sending::Running,
            scan: Scan::default(),
            decoder: None,
            persistence: Persistence::Close,
        }
    }

    /// The request's body.
    pub(crate) fn body(&self) -> &RequestBody {
        &self.body
    }

    /// Closes the connection, keeps its buffer, and gives the request's body back.
    pub(crate) fn give_up(self, buffers: &Buffers) -> RequestBody {
        if self.upstream.read.capacity() > 0 {
            buffers.give(self.upstream.read);
        }
        self.body
    }

    /// Whether nothing can be done before the client sends more of the request's body.
    pub(crate) fn awaits_client(&self) -> bool {
        self.sending == Sending::Running && self.out.is_empty()
    }

    /// Whether the client is still sending the request's body.
    pub(crate) fn is_sending(&self) -> bool {
        matches!(self.sending, Sending::Running | Sending::Last)
    }

    /// Sends as much of the request as can be sent.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.sending == Sending::Running && self.out.has_room() {
                match self.body.poll_piece(cx) {
                    Poll::Ready(Ok(piece)) => self.load(piece),
                    Poll::Ready(Err(failure)) => self.sending = Sending::ClientFailed(failure),
                    Poll::Pending if self.out.is_empty() => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            match self.sending {
                Sending::Running | Sending::Last => {}
                Sending::Complete | Sending::Refused | Sending::ClientFailed(_) => {
                    return Poll::Ready(());
                }
            }
            let flushed = self.out.poll_flush(&self.upstream.socket, cx);
            match ready!(flushed) {
                Ok(()) if self.sending == Sending::Last => self.sending = Sending::Complete,
                Ok(()) => {}
                Err(_) => self.sending = Sending::Refused,
            }
        }
    }

    /// Puts a piece on its way, behind the head if that is still there.
    fn load(&mut self, piece: Piece) {
        let chunked = self.body.framing == Framing::Chunked;
        match piece {
            Piece::Data(data) if chunked => {
                let line = Bytes::copy_from_slice(ChunkHead::new(data.len()).as_bytes());
                self.out.append(line, data, CRLF);
            }
            Piece::Data(data) => self.out.append(Bytes::new(), data, b""),
            Piece::End(trailers) => {
                if chunked {
                    let mut last = bytes::BytesMut::new();
                    write_last_chunk(&mut last, trailers.as_deref());
                    self.out.append(last.freeze(), Bytes::new(), b"");
                }
                self.sending = Sending::Last;
            }
        }
    }

    /// Sends, and waits for the head of the answer. Those of interim answers are given to `early`.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Buffers,
        early: impl Fn(&Response),
    ) -> Poll<Result<Box<Response>, NoAnswer>> {
        loop {
            // Whether it is done or not, the instance may answer already.
            let _ = self.poll_send(cx);
            if let Sending::ClientFailed(failure) = self.sending {
                return Poll::Ready(Err(NoAnswer::Client(failure)));
            }
            let head = self
                .upstream
                .poll_head(cx, &mut self.scan, self.method, buffers);
            match head {
                Poll::Ready(Ok(response)) if response.is_interim() => early(&response),
                Poll::Ready(Ok(response)) => {
                    self.decoder = Some(Decoder::new(response.framing));
                    self.persistence = response.persistence;
                    return Poll::Ready(Ok(Box::new(response)));
                }
                Poll::Ready(Err(_)) if self.out.is_untouched() => {
                    return Poll::Ready(Err(NoAnswer::NotSent));
                }
                Poll::Ready(Err(why)) => return Poll::Ready(Err(NoAnswer::Lost(why))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The next piece of the answer's body.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BrokenOff>> {
        let _ = self.poll_send(cx);
        let Some(decoder) = &mut self.decoder else {
            return Poll::Ready(Ok(Piece::End(None)));
        };
        loop {
            if let Some(piece) = decode(decoder, &mut self.upstream) {
                return Poll::Ready(piece);
            }
            match ready!(self.upstream.poll_fill_body(cx)) {
                Ok(0) => decoder.end_of_input().map_err(broken)?,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "an instance's connection broke");
                    return Poll::Ready(Err(BrokenOff));
                }
            }
        }
    }

    /// The next piece of what was read of the answer's body.
    pub(crate) fn piece_at_hand(&mut self) -> Option<Result<Piece, BrokenOff>> {
        decode(self.decoder.as_mut()?, &mut self.upstream)
    }

    /// Whether the last byte of the answer was taken.
    pub(crate) fn is_answered(&self) -> bool {
        self.decoder.as_ref().is_some_and(Decoder::is_complete)
    }

    /// The connection, if another request may be sent on it.
    pub(crate) fn into_idle(self) -> Result<Upstream, Box<Self>> {
        let is_idle = self.is_answered()
            && self.sending == Sending::Complete
            && self.persistence == Persistence::KeepAlive
            && self.upstream.read.is_empty()
            && !self.has_unusual_body();
        if is_idle {
            Ok(self.upstream)
        } else {
            Err(Box::new(self))
        }
    }

    /// Whether it sent a body where some programs read none, and would take it for the next request
    /// ("CL.0", Kettle: Browser-Powered Desync Attacks).
    fn has_unusual_body(&self) -> bool {
        matches!(self.method, Method::Get | Method::Head) && !self.body.is_empty()
    }

    /// Closes the connection, and keeps its buffer.
    pub(crate) fn discard(self, buffers: &Buffers) {
        if self.upstream.read.capacity() > 0 {
            buffers.give(self.upstream.read);
        }
    }

    /// The connection, after the instance has changed the protocol.
    pub(crate) fn into_upgraded(self) -> Upstream {
        self.upstream
    }
}

/// Takes the next piece off what was read.
fn decode(decoder: &mut Decoder, upstream: &mut Upstream) -> Option<Result<Piece, BrokenOff>> {
    match decoder.decode(&mut upstream.read) {
        Ok(Step::NeedMore) => None,
        Ok(Step::Data(data)) => Some(Ok(Piece::Data(data))),
        Ok(Step::End(trailers)) => Some(Ok(Piece::End(trailers))),
        Err(error) => Some(Err(broken(error))),
    }
}

fn broken(error: BodyError) -> BrokenOff {
    tracing::debug!(%error, "an instance's answer is malformed");
    BrokenOff
}
