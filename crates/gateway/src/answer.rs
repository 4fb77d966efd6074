//! What a client receives, and what is known about its request by the end.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderValue, Method, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use mainstay_ids::Instant;

use crate::access_log::Line;
use crate::connection::Client;
use crate::refusal::Reason;
use crate::upstream::Upstream;
use crate::view::{Flight, LocalEndpoint};

/// The status that the access log shows for a request whose client went away before its answer.
const CLIENT_WENT_AWAY: u16 = 499;

/// One request from its head to the end of its answer. Dropping it ends the request: the
/// connection is idle again, and the access log gets its line.
pub(crate) struct Visit {
    pub(crate) client: Rc<Client>,
    pub(crate) id: HeaderValue,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) uri: Uri,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) started: Instant,
    pub(crate) status: Option<u16>,
    pub(crate) reason: Option<Reason>,
    /// The service to which it belongs, once that is known.
    pub(crate) service: Option<Rc<str>>,
    pub(crate) endpoint: Option<Rc<LocalEndpoint>>,
    pub(crate) tries: u32,
    pub(crate) bytes: u64,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let worker = &self.client.worker;
        let now = worker.clock.now();
        self.client.end_request(now);
        worker.log(|| Line {
            id: &self.id,
            client: &self.client.peer_text,
            method: &self.method,
            host: self.host.as_ref(),
            uri: &self.uri,
            status: self.status.unwrap_or(CLIENT_WENT_AWAY),
            service: self.service.as_deref(),
            instance: self
                .endpoint
                .as_ref()
                .map(|endpoint| &endpoint.shared.label),
            reason: self.reason.map(Reason::word),
            tries: self.tries,
            bytes: self.bytes,
            started: self.started,
            ended: now,
        });
    }
}

/// An answer's body, with everything that must live as long as it.
pub(crate) struct Answer {
    pub(crate) content: Content,
    pub(crate) visit: Option<Visit>,
}

/// Where an answer's body comes from.
pub(crate) enum Content {
    /// There is none.
    Empty,
    /// A text of our own.
    Text(Bytes),
    /// The instance.
    Relayed(Relay),
}

/// A body on its way from an instance.
pub(crate) struct Relay {
    body: Incoming,
    /// The connection on which it comes. `None`: a task of its own drives it.
    upstream: Option<Box<Upstream>>,
    flight: Flight,
    /// The instance has broken off. Told one poll later, because hyper throws away what it has not
    /// yet written when it hears of an error, and that may be all that the client would get.
    broken: Option<hyper::Error>,
}

impl Relay {
    /// The body of an answer that came on `upstream`; if it is complete already, the connection
    /// goes back to the pool and there is nothing to relay.
    pub(crate) fn start(
        body: Incoming,
        upstream: Option<Box<Upstream>>,
        flight: Flight,
    ) -> Content {
        let relay = Self {
            body,
            upstream,
            flight,
            broken: None,
        };
        if relay.body.is_end_stream() {
            Content::Empty
        } else {
            Content::Relayed(relay)
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending()
            && let Some(upstream) = &mut self.upstream
        {
            upstream.drive(cx);
            frame = Pin::new(&mut self.body).poll_frame(cx);
        }
        if let Poll::Ready(Some(Err(error))) = frame {
            self.broken = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        frame
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(mut upstream) = self.upstream.take() {
            if !upstream.is_idle() && self.body.is_end_stream() {
                // The last byte was read; hyper has yet to notice that nothing follows.
                upstream.drive(&mut Context::from_waker(Waker::noop()));
            }
            // Not idle: the client went away, or the instance sends more than it should. Closing
            // the connection is how an instance learns that nobody listens.
            if upstream.is_idle() {
                self.flight.endpoint().park(upstream);
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let frame = match &mut this.content {
            Content::Empty => return Poll::Ready(None),
            Content::Text(text) if text.is_empty() => return Poll::Ready(None),
            Content::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Content::Relayed(relay) => relay.poll_frame(cx),
        };
        let visit = this.visit.as_mut();
        match (&frame, visit) {
            (Poll::Ready(Some(Ok(frame))), Some(visit)) => {
                visit.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            (Poll::Ready(Some(Err(_))), Some(visit)) => visit.break_off(),
            (Poll::Ready(_) | Poll::Pending, _) => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Text(text) => text.is_empty(),
            Content::Relayed(relay) => relay.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
            Content::Relayed(relay) => relay.body.size_hint(),
        }
    }
}

impl Visit {
    /// The host that was asked for, as the client wrote it; empty if there is none.
    pub(crate) fn host_text(&self) -> &str {
        let host = self.host.as_ref();
        host.and_then(|host| host.to_str().ok()).unwrap_or_default()
    }

    /// The instance broke off in the middle of its answer. hyper closes the client's connection; a
    /// client of HTTP/1.0 would take that for the end of the body, so it gets a reset.
    fn break_off(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.shared.counters.failures.add(1);
        }
        if self.version == Version::HTTP_10 {
            self.client.reset_at_end();
        }
    }
}

/// What [`crate::proxy::answer`] gives to hyper; it always has an answer.
pub(crate) type Answered = Result<http::Response<Answer>, Infallible>;
