//! What a client receives, and what is known about its request by the end.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use mainstay_http1::{Framing, Request, Response};
use mainstay_ids::Instant;

use crate::Verdicts;
use crate::access_log::Line;
use crate::connection::Client;
use crate::exchange::{BrokenOff, Exchange};
use crate::forwarded::{Protocol, Way};
use crate::headers::Alterations;
use crate::inbound::Piece;
use crate::metrics::recorded::{Ended, Recorded};
use crate::refusal::Reason;
use crate::rewrite::Values;
use crate::view::{Counted, Flight, LocalEndpoint};

/// The status that the access log shows for a request whose client went away before its answer.
const CLIENT_WENT_AWAY: u16 = 499;

/// One request from its head to the end of its answer. Dropping it ends the request: the
/// connection is idle again, and the access log gets its line.
pub(crate) struct Visit {
    pub(crate) client: Rc<Client>,
    pub(crate) id: Bytes,
    pub(crate) request: Box<Request>,
    pub(crate) started: Instant,
    pub(crate) status: Option<u16>,
    pub(crate) reason: Option<Reason>,
    /// The service to which it belongs, once that is known.
    pub(crate) service: Option<Rc<str>>,
    /// What is counted of that service.
    pub(crate) counts: Option<Rc<Counted>>,
    /// When the head of an instance's answer came.
    pub(crate) first_byte: Option<Instant>,
    /// How it would end if it ended now.
    pub(crate) ending: Ended,
    pub(crate) endpoint: Option<Rc<LocalEndpoint>>,
    /// What is changed in the answer of that endpoint.
    pub(crate) alterations: Alterations,
    pub(crate) tries: u32,
    /// How it ended if a second instance was asked because the first was slow: `won` or `lost`.
    pub(crate) hedge: Option<&'static str>,
    pub(crate) bytes: u64,
}

impl Visit {
    /// The host that was asked for, as the client wrote it; empty if there is none.
    pub(crate) fn host(&self) -> &str {
        self.request.host().unwrap_or_default()
    }

    /// By which way it came.
    pub(crate) fn way(&self) -> Way<'_> {
        Way {
            hop: self.client.scope.hop(),
            peer: &self.client.peer_text,
            protocol: if self.client.is_stream() {
                Protocol::Http2
            } else {
                Protocol::Http1
            },
        }
    }

    /// What variables stand for in it.
    pub(crate) fn values(&self) -> Values<'_> {
        Values {
            client: &self.client.peer_text,
            id: &self.id,
            request: &self.request,
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let worker = &self.client.worker;
        let now = worker.now();
        self.client.end_request(now);
        let recorded = Recorded {
            frontend: &self.client.frontend,
            service: self.counts.as_ref().map(|counts| &***counts),
            endpoint: self.endpoint.as_ref().map(|endpoint| &*endpoint.shared),
            status: self.status,
            reason: self.reason,
            tries: self.tries,
            bytes_in: self.client.received(),
            bytes_out: self.bytes,
            started: self.started,
            first_byte: self.first_byte.filter(|_| self.reason.is_none()),
            ended: now,
            ending: self.ending,
        };
        recorded.count();
        worker.log(|| Line {
            id: &self.id,
            client: &self.client.peer_text,
            port: self.client.peer_port,
            scope: self.client.scope,
            http: self.client.http(self.request.version),
            method: self.request.method_name(),
            host: self.request.host(),
            path: self.request.target(),
            status: self.status.unwrap_or(CLIENT_WENT_AWAY),
            service: self.service.as_deref(),
            instance: self
                .endpoint
                .as_ref()
                .map(|endpoint| &*endpoint.shared.label),
            reason: self.reason.map(Reason::word),
            tries: self.tries,
            hedge: self.hedge,
            bytes_in: recorded.bytes_in,
            bytes: self.bytes,
            started: self.started,
            first_byte: recorded.first_byte,
            ended: now,
        });
    }
}

/// An answer, whoever the client is told by.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: AnswerHead,
    pub(crate) content: Content,
    pub(crate) visit: Visit,
}

/// Where an answer's fields come from.
pub(crate) enum AnswerHead {
    /// They are our own.
    Ours(Vec<(&'static str, Bytes)>),
    /// The instance sent them.
    Instance(Box<Response>),
}

/// Where an answer's body comes from.
pub(crate) enum Content {
    /// There is none.
    Empty,
    /// A text of our own.
    Text(Bytes),
    /// The instance.
    Relayed(Box<Relay>),
    /// From now on bytes are carried both ways.
    Tunnel(Box<Relay>),
}

impl Answer {
    /// How the body is framed as far as whoever made it knows.
    pub(crate) fn framing(&self) -> Framing {
        match (&self.head, &self.content) {
            (_, Content::Text(text)) => Framing::Length(text.len() as u64),
            (AnswerHead::Instance(response), _) => response.framing,
            (AnswerHead::Ours(_), _) => Framing::None,
        }
    }

    /// Whether no piece of the body is left.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    /// The next piece of the body.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BrokenOff>> {
        self.poll_piece_of(|relay| relay.poll_piece(cx))
    }

    /// The next piece, if it was read together with the one before.
    pub(crate) fn next_piece_at_hand(&mut self) -> Option<Result<Piece, BrokenOff>> {
        let piece = self.poll_piece_of(|relay| match relay.exchange().piece_at_hand() {
            Some(piece) => Poll::Ready(piece),
            None => Poll::Pending,
        });
        match piece {
            Poll::Ready(piece) => Some(piece),
            Poll::Pending => None,
        }
    }

    fn poll_piece_of(
        &mut self,
        of: impl FnOnce(&mut Relay) -> Poll<Result<Piece, BrokenOff>>,
    ) -> Poll<Result<Piece, BrokenOff>> {
        let piece = match &mut self.content {
            Content::Empty | Content::Tunnel(_) => return Poll::Ready(Ok(Piece::End(None))),
            Content::Text(text) => {
                let text = std::mem::take(text);
                self.end(Ended::Whole);
                Poll::Ready(Ok(Piece::Data(text)))
            }
            Content::Relayed(relay) => {
                let piece = of(relay);
                match &piece {
                    Poll::Ready(Ok(Piece::End(_))) => self.end(Ended::Whole),
                    Poll::Ready(Err(_)) => self.end(Ended::InstanceBroke),
                    // The connection is free for others before the client has read the rest.
                    Poll::Ready(Ok(Piece::Data(_))) if relay.is_over() => self.end(Ended::Whole),
                    Poll::Ready(Ok(Piece::Data(_))) | Poll::Pending => {}
                }
                piece
            }
        };
        match &piece {
            Poll::Ready(Ok(Piece::Data(data))) => self.visit.bytes += data.len() as u64,
            Poll::Ready(Err(BrokenOff)) => {
                if let Some(endpoint) = &self.visit.endpoint {
                    endpoint.shared.counters.failures.add(1);
                }
            }
            Poll::Ready(Ok(Piece::End(_))) | Poll::Pending => {}
        }
        piece
    }

    /// Nothing more comes from the instance.
    fn end(&mut self, ending: Ended) {
        self.content = Content::Empty;
        self.visit.ending = ending;
    }

    /// Moves the request's body on while the answer cannot be.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Content::Relayed(relay) = &mut self.content {
            // Pending or not: whoever cannot write the answer waits for its client.
            let _ = relay.exchange().poll_send(cx);
        }
    }
}

/// A body on its way from an instance.
pub(crate) struct Relay {
    /// `None` only in the moment of its end.
    parts: Option<(Exchange, Flight)>,
    client: Rc<Client>,
}

const ENDED: &str = "an exchange is taken out only at its end";

impl Relay {
    pub(crate) fn new(exchange: Exchange, client: Rc<Client>, flight: Flight) -> Self {
        Self {
            parts: Some((exchange, flight)),
            client,
        }
    }

    fn exchange(&mut self) -> &mut Exchange {
        &mut self.parts.as_mut().expect(ENDED).0
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BrokenOff>> {
        let piece = self.exchange().poll_piece(cx);
        if piece.is_pending() && self.is_cut() {
            return Poll::Ready(Err(BrokenOff));
        }
        piece
    }

    /// Whether the instance is dead or given up, so that nothing more comes although its connection stands.
    fn is_cut(&self) -> bool {
        let flight = self.parts.as_ref().map(|(_, flight)| flight);
        flight.is_some_and(|flight| flight.endpoint().end().is_some())
            && self.client.worker.seams.verdicts == Verdicts::Heeded
    }

    /// Whether the answer is complete and nothing of the request is left to be sent.
    fn is_over(&mut self) -> bool {
        let exchange = self.exchange();
        exchange.is_answered() && !exchange.is_sending()
    }

    /// The exchange, and what counts it as in flight.
    pub(crate) fn into_parts(mut self) -> (Exchange, Flight) {
        self.parts.take().expect(ENDED)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let Some((exchange, flight)) = self.parts.take() else {
            return;
        };
        // Not idle: the client went away, or the instance sends more than it should. Closing the
        // connection is how an instance learns that nobody listens.
        let buffers = &self.client.worker.buffers;
        match exchange.into_idle() {
            Ok(upstream) => flight.endpoint().park(upstream, buffers),
            Err(exchange) => exchange.discard(buffers),
        }
    }
}
