//! Bytes of one direction, from one socket to the other.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::consume_budget;

use super::floor::{Floor, Instance};
use super::limits::{BUFFER_LEN, PIPE_LEN, SPLICE_AFTER};

/// Seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Sent,
    Received,
}

/// One direction.
pub(super) struct Pump<'a> {
    pub(super) floor: &'a Floor,
    pub(super) instance: &'a Instance,
    pub(super) from: &'a TcpStream,
    pub(super) to: &'a TcpStream,
    pub(super) direction: Direction,
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

/// A pipe that is counted. What is in it belongs to one direction of one connection, and ends with it.
struct Pipe<'a> {
    read: OwnedFd,
    write: OwnedFd,
    floor: &'a Floor,
}

impl<'a> Pipe<'a> {
    /// `None`: there are as many as there may be, or the kernel has none.
    fn new(floor: &'a Floor) -> Option<Self> {
        if floor.pipes.get() >= floor.limits.pipes {
            return None;
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        floor.pipes.set(floor.pipes.get() + 1);
        Some(Self { read, write, floor })
    }
}

impl Drop for Pipe<'_> {
    fn drop(&mut self) {
        self.floor.pipes.set(self.floor.pipes.get() - 1);
    }
}

impl Pump<'_> {
    /// Carries until the source has finished, and then tells the other side that it has. No buffer
    /// is held while there is nothing to read.
    pub(super) async fn run(self) -> io::Result<()> {
        let mut carried = 0;
        let mut pipe = None;
        let mut source = Source::Waits;
        loop {
            match source {
                Source::Waits => self.from.readable().await?,
                Source::Flows => {}
                Source::Ended => break,
            }
            if carried >= SPLICE_AFTER && pipe.is_none() {
                pipe = Pipe::new(self.floor);
            }
            source = match &pipe {
                Some(pipe) => self.splice(pipe).await?,
                None => self.copy(&mut carried).await?,
            };
        }
        // Half-close: the other direction goes on. A peer that has closed already is no failure.
        SockRef::from(self.to).shutdown(Shutdown::Write).ok();
        Ok(())
    }

    /// Through a buffer, until nothing is there, or until it is worth to splice.
    async fn copy(&self, carried: &mut u64) -> io::Result<Source> {
        let mut buffer = vec![0; BUFFER_LEN];
        let until = *carried + SPLICE_AFTER;
        while *carried < until {
            consume_budget().await;
            let len = match self.from.try_read(&mut buffer) {
                Ok(0) => return Ok(Source::Ended),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Source::Waits);
                }
                Err(error) => return Err(error),
            };
            let mut rest = &buffer[..len];
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
            *carried += u64::try_from(len).unwrap_or(u64::MAX);
        }
        Ok(Source::Flows)
    }

    /// Through a pipe, so that the bytes never leave the kernel, until nothing is there. The pipe is
    /// empty before and after.
    async fn splice(&self, pipe: &Pipe<'_>) -> io::Result<Source> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        loop {
            consume_budget().await;
            let fill = || Ok(splice(self.from, None, &pipe.write, None, PIPE_LEN, flags)?);
            let mut filled = match self.from.try_io(Interest::READABLE, fill) {
                Ok(0) => return Ok(Source::Ended),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Source::Waits);
                }
                Err(error) => return Err(error),
            };
            while filled > 0 {
                let empty = || Ok(splice(&pipe.read, None, self.to, None, filled, flags)?);
                match self.to.try_io(Interest::WRITABLE, empty) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        self.count(written);
                        filled -= written;
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
        let counter = match self.direction {
            Direction::Sent => &self.instance.sent,
            Direction::Received => &self.instance.received,
        };
        counter.set(counter.get() + u64::try_from(len).unwrap_or(u64::MAX));
    }
}
