//! Bytes of one direction, from one socket to the other.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use mainstay_ids::Instant;
use rustix::pipe::{SpliceFlags, splice};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::consume_budget;

use crate::clock::Clock;
use crate::listen::Splice;
use crate::listen::limits::{PIPE_LEN, SPLICE_AFTER};
use crate::listen::pools::{Pipe, Pools};
use crate::metrics::SharedCounter;

/// What both directions of a session share.
pub(crate) struct Flow {
    pub(crate) clock: Clock,
    pub(crate) pools: Rc<Pools>,
    pub(crate) splice: Splice,
    /// When a byte last moved, in either direction.
    pub(crate) moved: Cell<Instant>,
}

/// One direction.
pub(crate) struct Pump<'a> {
    pub(crate) flow: &'a Flow,
    pub(crate) from: &'a TcpStream,
    pub(crate) to: &'a TcpStream,
    /// Of the listener and of the server.
    pub(crate) counters: [&'a SharedCounter; 2],
}

/// Whether more will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Nothing is there at the moment.
    Waits,
    /// There may be more at once.
    Flows,
    /// It has finished.
    Ended,
}

impl Pump<'_> {
    /// Carries until the source has finished, and then tells the other side that it has. No buffer
    /// is held while there is nothing to read.
    pub(crate) async fn run(self) -> io::Result<()> {
        let mut carried = 0;
        let mut source = Source::Waits;
        loop {
            match source {
                Source::Waits => self.from.readable().await?,
                Source::Flows => {}
                Source::Ended => break,
            }
            let pipe = if carried >= SPLICE_AFTER && self.flow.splice == Splice::On {
                self.flow.pools.pipe()
            } else {
                None
            };
            source = match pipe {
                Some(pipe) => self.splice(pipe, &mut carried).await?,
                None => self.copy(&mut carried).await?,
            };
        }
        // Half-close: the other direction goes on. A peer that has closed already is no failure.
        SockRef::from(self.to).shutdown(Shutdown::Write).ok();
        Ok(())
    }

    /// Through a buffer, until nothing is there, or until it is worth to splice.
    async fn copy(&self, carried: &mut u64) -> io::Result<Source> {
        let mut buffer = self.flow.pools.buffer();
        let until = *carried + SPLICE_AFTER;
        while *carried < until {
            consume_budget().await;
            let len = match self.from.try_read(&mut buffer.bytes) {
                Ok(0) => return Ok(Source::Ended),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Source::Waits);
                }
                Err(error) => return Err(error),
            };
            let mut rest = &buffer.bytes[..len];
            while !rest.is_empty() {
                match self.to.try_write(rest) {
                    Ok(written) => {
                        self.count(written);
                        rest = &rest[written..];
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.to.writable().await?;
                    }
                    Err(error) => return Err(error),
                }
            }
            *carried += len as u64;
        }
        Ok(Source::Flows)
    }

    /// Through a pipe, so that the bytes never leave the kernel, until nothing is there.
    async fn splice(&self, mut pipe: Pipe, carried: &mut u64) -> io::Result<Source> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        loop {
            consume_budget().await;
            let fill = || {
                Ok(splice(
                    self.from,
                    None,
                    pipe.ends().1,
                    None,
                    PIPE_LEN,
                    flags,
                )?)
            };
            match self.from.try_io(Interest::READABLE, fill) {
                Ok(0) => return Ok(Source::Ended),
                Ok(len) => pipe.filled = len,
                // The pipe is empty, so it is the socket that has nothing.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Source::Waits);
                }
                Err(error) => return Err(error),
            }
            *carried += pipe.filled as u64;
            while pipe.filled > 0 {
                let empty = || {
                    Ok(splice(
                        pipe.ends().0,
                        None,
                        self.to,
                        None,
                        pipe.filled,
                        flags,
                    )?)
                };
                match self.to.try_io(Interest::WRITABLE, empty) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        self.count(written);
                        pipe.filled -= written;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.to.writable().await?;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn count(&self, len: usize) {
        self.flow.moved.set(self.flow.clock.now());
        for counter in self.counters {
            counter.add(len as u64);
        }
    }
}
