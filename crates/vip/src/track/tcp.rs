//! Whether something accepts connections.

use std::net::SocketAddr;
use std::time::Duration;

use mainstay_ids::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Found, Works};
use crate::host::Host;

#[derive(Debug)]
enum State {
    Resting {
        until: Instant,
    },
    /// The connection is under way.
    Trying {
        socket: Socket,
        since: Instant,
    },
}

/// A port.
#[derive(Debug)]
pub(super) struct Port {
    address: SocketAddr,
    every: Duration,
    timeout: Duration,
    state: State,
}

impl Port {
    pub(super) fn new(address: SocketAddr, every: Duration, timeout: Duration) -> Self {
        let until = Instant::START;
        Self {
            address,
            every,
            timeout,
            state: State::Resting { until },
        }
    }

    pub(super) fn turn(&mut self, host: &Host) -> Found {
        let now = host.now();
        match &self.state {
            State::Resting { until } if now < *until => Found::Nothing,
            State::Resting { .. } => {
                self.begin(host, now);
                match self.state {
                    State::Trying { .. } => Found::Nothing,
                    State::Resting { .. } => Found::Once(Works::No),
                }
            }
            State::Trying { socket, since } => {
                let late = now.since(*since) >= self.timeout;
                let works = match outcome(socket) {
                    Some(works) => works,
                    None if late => Works::No,
                    None => return Found::Nothing,
                };
                // Dropped with a reset: what is looked at keeps no connection that nobody uses.
                socket.set_linger(Some(Duration::ZERO)).ok();
                self.rest(now);
                Found::Once(works)
            }
        }
    }

    fn begin(&mut self, host: &Host, now: Instant) {
        self.rest(now);
        let domain = Domain::for_address(self.address);
        let kind = Type::STREAM.nonblocking().cloexec();
        let Ok(socket) = Socket::new(domain, kind, Some(Protocol::TCP)) else {
            return;
        };
        let under_way = match socket.connect(&self.address.into()) {
            Ok(()) => true,
            Err(error) => {
                error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
            }
        };
        if under_way && host.watch_writable(&socket).is_ok() {
            self.state = State::Trying { socket, since: now };
        }
    }

    fn rest(&mut self, now: Instant) {
        let until = now.after(self.every);
        self.state = State::Resting { until };
    }

    pub(super) fn next_deadline(&self) -> Instant {
        match &self.state {
            State::Resting { until } => *until,
            State::Trying { since, .. } => since.after(self.timeout),
        }
    }
}

/// What became of the connection, if that is known.
fn outcome(socket: &Socket) -> Option<Works> {
    let mut ready = [PollFd::new(socket, PollFlags::OUT)];
    let count = poll(&mut ready, Some(&Timespec::default())).ok()?;
    if count == 0 {
        return None;
    }
    match socket.take_error() {
        Ok(None) => Some(Works::Yes),
        Ok(Some(_)) | Err(_) => Some(Works::No),
    }
}
