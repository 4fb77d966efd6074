//! A connection that has changed its protocol (WebSocket): bytes both ways until one side ends it.
//! A direction in which nothing moves has no buffer, since there may be thousands of tunnels.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};

use crate::answer::{Relay, Visit};
use crate::inbound::Inbound;
use crate::metrics::recorded::Ended;
use crate::upstream::Upstream;
use crate::view::Flight;
use crate::wire::{Buffers, Socket, make_room};

/// The instance's side of a changed connection. Counts as in flight as long as it exists.
pub(crate) struct Tunnel {
    instance: Upstream,
    visit: Visit,
    flight: Flight,
}

impl Tunnel {
    pub(crate) fn new(relay: Relay, visit: Visit) -> Self {
        let (exchange, flight) = relay.into_parts();
        Self {
            instance: exchange.into_upgraded(),
            visit,
            flight,
        }
    }

    /// Carries bytes, those first that came behind the request and behind the answer 101.
    pub(crate) async fn run(mut self, client: &Inbound) {
        let mut up = Direction::starting_with(client.take_read());
        let mut down = Direction::starting_with(std::mem::take(&mut self.instance.read));
        let worker = std::rc::Rc::clone(&self.visit.client.worker);
        let buffers = &worker.buffers;
        let (outside, inside) = (&client.socket, &self.instance.socket);
        // An error is how most such connections end: somebody closed a lid.
        poll_fn(|cx| {
            // The connection may stand for ever although nobody is there.
            if self.flight.endpoint().end().is_some() {
                return Poll::Ready(Ok(()));
            }
            let up = up.poll(outside, inside, buffers, cx);
            let down = down.poll(inside, outside, buffers, cx);
            match (up, down) {
                (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                    Poll::Ready(Err(error))
                }
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
                _ => Poll::Pending,
            }
        })
        .await
        .ok();
        self.visit.bytes = down.carried;
        self.visit.ending = Ended::Tunnel;
        up.end(buffers);
        down.end(buffers);
    }
}

/// One direction of a tunnel.
struct Direction {
    buffer: BytesMut,
    carried: u64,
    course: Course,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Open,
    /// The side that sends has ended, and the other was told.
    Ended,
}

impl Direction {
    fn starting_with(buffer: BytesMut) -> Self {
        Self {
            buffer,
            carried: 0,
            course: Course::Open,
        }
    }

    /// Carries what there is; ready when the side that sends has ended.
    fn poll(
        &mut self,
        from: &Socket,
        to: &Socket,
        buffers: &Buffers,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.course == Course::Open {
            while !self.buffer.is_empty() {
                let written = ready!(to.poll_write(cx, &[IoSlice::new(&self.buffer)]))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.buffer.advance(written);
                self.carried += written as u64;
            }
            if self.buffer.capacity() > 0 && from.poll_readable(cx).is_pending() {
                buffers.give(std::mem::take(&mut self.buffer));
                return Poll::Pending;
            }
            ready!(from.poll_readable(cx))?;
            if self.buffer.capacity() == 0 {
                self.buffer = buffers.take();
            }
            make_room(&mut self.buffer);
            if ready!(from.poll_read(cx, &mut self.buffer))? == 0 {
                self.course = Course::Ended;
                to.shut_down_write()?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn end(self, buffers: &Buffers) {
        if self.buffer.capacity() > 0 {
            buffers.give(self.buffer);
        }
    }
}
