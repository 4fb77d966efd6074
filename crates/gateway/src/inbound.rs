//! A client's side of an HTTP/1 connection, as it is read: heads, and the bodies behind them.
//!
//! While nothing comes there is no buffer: an idle connection costs its socket and its task.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use mainstay_http1::{
    BodyError, Decoder, Expect, HeadLimits, Refused, Request, Scan, Step, Trailers,
};
use tokio::net::TcpStream;

use crate::connection::Client;
use crate::limits::SKIP_LEN_MAX;
use crate::wire::{Socket, make_room};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Whether the client is to be told "100 Continue" before it sends its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoAhead {
    Due,
    /// It waits for nothing, was told, or gets its answer.
    Settled,
}

/// What comes next on a client's connection.
pub(crate) enum Next {
    Request(Box<Request>),
    /// A head that did not come in time.
    TooSlow,
    /// Something that is no request.
    Refused(Refused),
    /// The client speaks HTTP/2; not a byte of it was taken.
    Http2,
    /// The client has ended it, or it broke.
    Gone,
}

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    End(Option<Box<Trailers>>),
}

/// Why a request's body does not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFailure {
    /// The client went away.
    Gone,
    /// It let the body wait for too long.
    TooSlow,
    /// Its framing is broken.
    Malformed(BodyError),
}

/// The reading side of one client's connection.
pub(crate) struct Inbound {
    pub(crate) socket: Socket,
    client: Rc<Client>,
    read: RefCell<BytesMut>,
    body: RefCell<Option<Decoder>>,
    /// Reads since the head of the present request.
    body_reads: Cell<u32>,
    go_ahead: Cell<GoAhead>,
    /// What is left to be written of interim answers, our own among them.
    early: RefCell<BytesMut>,
}

impl Inbound {
    /// The side of a client that has sent `early` already.
    pub(crate) fn new(stream: TcpStream, client: Rc<Client>, early: &[u8]) -> Self {
        let mut read = BytesMut::new();
        if !early.is_empty() {
            read = client.worker.buffers.take();
            read.extend_from_slice(early);
        }
        Self {
            socket: Socket::new(stream),
            client,
            read: RefCell::new(read),
            body: RefCell::default(),
            body_reads: Cell::new(0),
            go_ahead: Cell::new(GoAhead::Settled),
            early: RefCell::default(),
        }
    }

    /// Waits for the next request's head. Between two requests the buffer is given back.
    pub(crate) async fn next(&self) -> Next {
        let limits = self.client.head_limits();
        let mut scan = Scan::default();
        if !self.read.borrow().is_empty() {
            self.client.note_head();
        }
        loop {
            if self.client.head_has_expired() {
                return Next::TooSlow;
            }
            let found = self.find_head(&mut scan, limits);
            match found {
                Ok(Some(head)) => return self.begin(head, limits),
                Ok(None) => {}
                Err(Refused::Http2Preface) => return Next::Http2,
                Err(refused) => return Next::Refused(refused),
            }
            let filled = poll_fn(|cx| match self.poll_fill(cx) {
                Poll::Pending if self.client.head_has_expired() => Poll::Ready(Ok(1)),
                filled => filled,
            });
            if !matches!(filled.await, Ok(1..)) {
                return Next::Gone;
            }
            self.client.note_head();
        }
    }

    fn find_head(&self, scan: &mut Scan, limits: HeadLimits) -> Result<Option<Bytes>, Refused> {
        let mut read = self.read.borrow_mut();
        if read.is_empty() {
            return Ok(None);
        }
        let end = scan.find_end(&read, limits)?;
        Ok(end.map(|len| {
            // A copy: the head lives as long as its request, and would keep a whole read buffer.
            let head = Bytes::copy_from_slice(&read[..len]);
            read.advance(len);
            head
        }))
    }

    fn begin(&self, head: Bytes, limits: HeadLimits) -> Next {
        let request = match Request::parse(head, limits) {
            Ok(request) => request,
            Err(refused) => return Next::Refused(refused),
        };
        self.body_reads.set(0);
        self.go_ahead.set(match request.expect {
            Expect::Continue => GoAhead::Due,
            Expect::Nothing => GoAhead::Settled,
        });
        self.body.replace(match request.framing {
            framing if framing.is_empty() => None,
            framing => Some(Decoder::new(framing)),
        });
        Next::Request(Box::new(request))
    }

    /// Reads more into the buffer, which is made only when there is something to read.
    fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut read = self.read.borrow_mut();
        let buffers = &self.client.worker.buffers;
        if read.is_empty() {
            if read.capacity() > 0 && self.socket.poll_readable(cx).is_pending() {
                buffers.give(std::mem::take(&mut read));
                return Poll::Pending;
            }
            ready!(self.socket.poll_readable(cx))?;
            // In the middle of a body the buffer was filled by the read before, and given on: it is
            // used again, and larger.
            if read.capacity() == 0 && self.body_reads.get() == 0 {
                *read = buffers.take();
            }
        }
        make_room(&mut read);
        let filled = self.socket.poll_read(cx, &mut read);
        self.body_reads.set(self.body_reads.get().saturating_add(1));
        if read.is_empty() {
            buffers.give(std::mem::take(&mut read));
        }
        filled
    }

    /// The next piece of the present request's body.
    pub(crate) fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyFailure>> {
        loop {
            let mut body = self.body.borrow_mut();
            let Some(decoder) = &mut *body else {
                return Poll::Ready(Ok(Piece::End(None)));
            };
            let step = decoder.decode(&mut self.read.borrow_mut());
            match step.map_err(BodyFailure::Malformed)? {
                Step::Data(data) => {
                    self.client.note_upload();
                    self.client.note_received(data.len());
                    return Poll::Ready(Ok(Piece::Data(data)));
                }
                Step::End(trailers) => {
                    *body = None;
                    self.client.note_upload();
                    return Poll::Ready(Ok(Piece::End(trailers)));
                }
                Step::NeedMore => {}
            }
            drop(body);
            // The client waits for our word only as long as it has sent nothing.
            if self.go_ahead.replace(GoAhead::Settled) == GoAhead::Due {
                self.early.borrow_mut().extend_from_slice(CONTINUE);
            }
            if matches!(self.poll_early(cx), Poll::Ready(Err(_))) {
                return Poll::Ready(Err(BodyFailure::Gone));
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(BodyFailure::Gone)),
                Poll::Pending if self.client.upload_has_expired() => {
                    return Poll::Ready(Err(BodyFailure::TooSlow));
                }
                Poll::Pending => {
                    self.client.await_upload();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Puts an interim answer behind those that are still to be written, unless there would be more
    /// than so many bytes of them.
    pub(crate) fn say_early(&self, len_max: usize, write: impl FnOnce(&mut BytesMut)) {
        let mut early = self.early.borrow_mut();
        let before = early.len();
        write(&mut early);
        if early.len() > len_max {
            early.truncate(before);
        }
    }

    /// Writes what is left of interim answers.
    pub(crate) fn poll_early(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut early = self.early.borrow_mut();
        while !early.is_empty() {
            let written = ready!(self.socket.poll_write(cx, &[IoSlice::new(&early)]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            early.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether all of the present request's body was taken.
    pub(crate) fn is_body_complete(&self) -> bool {
        self.body.borrow().is_none()
    }

    /// Ready when the client has gone away. What it sends meanwhile is kept, up to the length of
    /// one head: then it is no longer looked at, which is the client's own choice.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        // The body is read by whoever takes it, who sees the end, too.
        if !self.is_body_complete() {
            return Poll::Pending;
        }
        loop {
            if self.read.borrow().len() >= self.client.head_limits().len_max {
                return Poll::Pending;
            }
            if !matches!(ready!(self.poll_fill(cx)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
    }

    /// A final answer is on its way: the client waits for no "100 Continue" any more. Gives what is
    /// left of interim answers, which must stand before it: a part of one may be written.
    pub(crate) fn end_early(&self) -> BytesMut {
        self.go_ahead.set(GoAhead::Settled);
        self.early.take()
    }

    /// Takes what has come of a body that nobody wants, without waiting for more.
    pub(crate) fn skip_arrived(&self) {
        let mut left = SKIP_LEN_MAX;
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(Piece::Data(data))) = self.poll_body(&mut cx) {
            left = left.saturating_sub(data.len());
            if left == 0 {
                break;
            }
        }
    }

    /// Whether something was not taken that the client sent, or may still send.
    pub(crate) fn has_more(&self) -> bool {
        !self.is_body_complete() || !self.read.borrow().is_empty()
    }

    fn throw_away(&self) -> usize {
        let mut read = self.read.borrow_mut();
        let len = read.len();
        read.clear();
        len
    }

    /// Reads and throws away, until the client ends or so many bytes have come.
    pub(crate) async fn swallow(&self, len_max: usize) {
        let mut left = len_max;
        loop {
            left = left.saturating_sub(self.throw_away());
            if left == 0 || !matches!(poll_fn(|cx| self.poll_fill(cx)).await, Ok(1..)) {
                break;
            }
        }
    }

    /// What was read but not used.
    pub(crate) fn take_read(&self) -> BytesMut {
        self.read.take()
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let read = self.read.take();
        if read.capacity() > 0 {
            self.client.worker.buffers.give(read);
        }
    }
}
