//! Writing an answer to a client of HTTP/1.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use mainstay_http1::{
    ChunkHead, Framing, HeadWriter, Known, Persistence, Version, write_last_chunk,
};

use crate::answer::{Answer, AnswerHead, Content};
use crate::connection::Client;
use crate::exchange::BrokenOff;
use crate::headers::{client_framing, pass_response};
use crate::inbound::{Inbound, Piece};
use crate::tunnel::Tunnel;
use crate::wire::Outgoing;

const CRLF: &[u8] = b"\r\n";
/// The end of a chunk, and the last chunk without trailers.
const CRLF_LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// How the delivery of an answer ended.
pub(crate) enum Delivered {
    /// All of it was written.
    Whole(Persistence),
    /// The client went away, or the instance broke off.
    Broken,
    /// The connection is a tunnel now.
    Upgraded(Box<Tunnel>),
}

/// Whether the connection goes on behind an answer.
fn persistence(client: &Client, inbound: &Inbound, answer: &Answer) -> Persistence {
    let request = &answer.visit.request;
    let framing = client_framing(answer.framing(), request.version);
    // Of a body that nobody takes, nobody knows the end.
    let is_abandoned = matches!(answer.head, AnswerHead::Ours(_)) && !inbound.is_body_complete();
    if framing == Framing::UntilClose || is_abandoned {
        return Persistence::Close;
    }
    client.persistence(request)
}

fn write_head(
    out: &mut BytesMut,
    client: &Client,
    answer: &Answer,
    framing: Framing,
    persistence: Persistence,
) {
    let mut head = HeadWriter::response(out, answer.status);
    let mut date = None;
    match &answer.head {
        AnswerHead::Ours(fields) => {
            for (name, value) in fields {
                head.field(name.as_bytes(), value);
            }
        }
        AnswerHead::Instance(response) => {
            date = response.fields.named(b"date");
            pass_response(response, &answer.visit, |name, value| {
                head.field(name, value);
            });
        }
    }
    match framing {
        Framing::Length(len) => head.number(b"content-length", len),
        Framing::Chunked => head.field(b"transfer-encoding", b"chunked"),
        Framing::None | Framing::UntilClose => &mut head,
    };
    if date.is_none() {
        head.field(b"date", &client.worker.date());
    }
    let is_old = answer.visit.request.version == Version::Http10;
    match (&answer.content, &answer.head, persistence) {
        (Content::Tunnel(_), AnswerHead::Instance(response), _) => {
            let protocol = response.fields.get(Known::Upgrade).unwrap_or_default();
            head.field(b"connection", b"upgrade")
                .field(b"upgrade", protocol);
        }
        (_, _, Persistence::Close) => {
            head.field(b"connection", b"close");
        }
        (_, _, Persistence::KeepAlive) if is_old => {
            head.field(b"connection", b"keep-alive");
        }
        (_, _, Persistence::KeepAlive) => {}
    }
    if !answer.visit.id.is_empty() {
        head.field(b"x-request-id", &answer.visit.id);
    }
    head.finish();
}

/// Writes a head and a text.
pub(crate) async fn write(
    client: &Client,
    inbound: &Inbound,
    head: Bytes,
    text: Bytes,
) -> io::Result<()> {
    let mut out = Outgoing::with_head(head);
    if !text.is_empty() {
        out.append(Bytes::new(), text, b"");
    }
    poll_fn(|cx| {
        let flushed = out.poll_flush(&inbound.socket, cx);
        if flushed.is_pending() {
            client.await_download(out.written_in_all());
        }
        flushed
    })
    .await
}

/// How far the writing of an answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Body,
    /// The last piece is being written.
    Last,
    /// What there was of the body is being written.
    Broken,
}

/// By whom an answer was broken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    ByClient,
    ByInstance,
}

/// An answer on its way to the client.
pub(crate) struct Delivery<'a> {
    client: &'a Client,
    inbound: &'a Inbound,
    answer: Answer,
    out: Outgoing,
    framing: Framing,
    persistence: Persistence,
    stage: Stage,
    /// A piece that came in the same moment as the one before.
    ahead: Option<Result<Piece, BrokenOff>>,
}

impl<'a> Delivery<'a> {
    /// Makes the head. Nothing is written yet.
    pub(crate) fn new(client: &'a Client, inbound: &'a Inbound, answer: Answer) -> Self {
        let early = inbound.end_early();
        if let AnswerHead::Ours(_) = answer.head {
            // A body that has come already does not cost the client its connection.
            inbound.skip_arrived();
        }
        let persistence = persistence(client, inbound, &answer);
        let framing = client_framing(answer.framing(), answer.visit.request.version);
        let buffers = &client.worker.buffers;
        let head = buffers.head(|out| {
            out.extend_from_slice(&early);
            write_head(out, client, &answer, framing, persistence);
        });
        Self {
            client,
            inbound,
            out: Outgoing::with_head(head),
            framing,
            persistence,
            stage: match answer.content {
                Content::Tunnel(_) => Stage::Last,
                Content::Empty | Content::Text(_) | Content::Relayed(_) => Stage::Body,
            },
            answer,
            ahead: None,
        }
    }

    /// What came of it.
    pub(crate) fn end(self, written: Result<(), Broken>) -> Delivered {
        match written {
            Ok(()) => match self.answer.content {
                Content::Tunnel(relay) => {
                    Delivered::Upgraded(Box::new(Tunnel::new(*relay, self.answer.visit)))
                }
                Content::Empty | Content::Text(_) | Content::Relayed(_) => {
                    Delivered::Whole(self.persistence)
                }
            },
            Err(Broken::ByClient) => Delivered::Broken,
            Err(Broken::ByInstance) => {
                // The end of such a body is the end of the connection.
                if self.framing == Framing::UntilClose {
                    self.inbound.socket.reset_at_close();
                }
                Delivered::Broken
            }
        }
    }

    /// Writes as much as can be written.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if self.stage == Stage::Body && self.out.has_room() && self.poll_load(cx).is_pending() {
                // The head alone is worth writing, nothing is not.
                if self.out.is_empty() {
                    let gone = self.inbound.poll_gone(cx);
                    return gone.map(|()| Err(Broken::ByClient));
                }
            }
            match (self.out.poll_flush(&self.inbound.socket, cx), self.stage) {
                (Poll::Ready(Ok(())), Stage::Body) => self.client.note_download(),
                (Poll::Ready(Ok(())), Stage::Last) => return Poll::Ready(Ok(())),
                (Poll::Ready(Ok(())), Stage::Broken) => {
                    return Poll::Ready(Err(Broken::ByInstance));
                }
                (Poll::Ready(Err(_)), _) => return Poll::Ready(Err(Broken::ByClient)),
                (Poll::Pending, _) => {
                    self.client.await_download(self.out.written_in_all());
                    // The client may read nothing before it has sent everything.
                    self.answer.drive(cx);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Puts the next piece on its way.
    fn poll_load(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let piece = match self.ahead.take() {
            Some(piece) => piece,
            None => std::task::ready!(self.answer.poll_piece(cx)),
        };
        match piece {
            Ok(Piece::Data(data)) => self.load(data),
            Ok(Piece::End(trailers)) => {
                self.stage = Stage::Last;
                if self.framing == Framing::Chunked {
                    let mut last = BytesMut::new();
                    write_last_chunk(&mut last, trailers.as_deref());
                    self.out.append(last.freeze(), Bytes::new(), b"");
                }
            }
            Err(BrokenOff) => self.stage = Stage::Broken,
        }
        Poll::Ready(())
    }

    /// Puts bytes on their way, and the end with them if it is there.
    fn load(&mut self, data: Bytes) {
        // Only what was read already: the buffer of this piece is used again for the next one.
        self.ahead = self.answer.next_piece_at_hand();
        let is_last = matches!(self.ahead, Some(Ok(Piece::End(None))));
        if is_last {
            self.stage = Stage::Last;
        }
        if self.framing != Framing::Chunked {
            self.out.append(Bytes::new(), data, b"");
            return;
        }
        let line = Bytes::copy_from_slice(ChunkHead::new(data.len()).as_bytes());
        let tail = if is_last { CRLF_LAST_CHUNK } else { CRLF };
        self.out.append(line, data, tail);
    }
}
