//! Asks this node's gateways to let the clients of addresses go, before these are offered to another machine: what is
//! under way is finished here. The gateway's bound holds; one that does not answer at once has nothing to finish.

use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use mainstay_ids::Instant;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::host::Host;

/// Where the two places of gateways are asked, in the state directory.
const SOCKETS: [&str; 2] = ["gw1.leave", "gw2.leave"];
/// How long a gateway may take to say that it has begun. It has nothing to do for that; a frozen one is not waited for.
const BEGIN_TIME: Duration = Duration::from_millis(500);
/// How much longer than it said a gateway may take.
const MARGIN: Duration = Duration::from_secs(2);
/// The longest answers: two short lines.
const LINES_LEN_MAX: usize = 512;

#[derive(Serialize)]
struct Call<'a> {
    leave: &'a [IpAddr],
}

/// What a gateway says, a line each.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    WithinMs(u64),
    Left { cut: usize },
}

/// One gateway that was asked.
#[derive(Debug)]
struct Asked {
    socket: Socket,
    said: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting {
        until: Instant,
    },
    /// Nobody is left, or nobody says anything more. Until we hang up, it lets nobody in.
    Over,
}

/// A leave that goes on until this is dropped.
#[derive(Debug)]
pub(crate) struct Leave(Vec<Asked>);

impl Leave {
    /// Asks the gateways that are there.
    pub(crate) fn begin(host: &Host, addresses: &[IpAddr]) -> Self {
        let Ok(mut call) = serde_json::to_vec(&Call { leave: addresses }) else {
            return Self(Vec::new());
        };
        call.push(b'\n');
        let asked = SOCKETS
            .iter()
            .filter_map(|name| Asked::begin(host, &host.state.join(name), &call));
        Self(asked.collect())
    }

    /// Hears what they say; whether all have left.
    pub(crate) fn turn(&mut self, host: &Host) -> bool {
        let now = host.now();
        for asked in &mut self.0 {
            asked.turn(now);
        }
        self.0.iter().all(|asked| asked.state == State::Over)
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        let deadlines = self.0.iter().map(|asked| match asked.state {
            State::Waiting { until } => until,
            State::Over => Instant::NEVER,
        });
        deadlines.min().unwrap_or(Instant::NEVER)
    }
}

impl Asked {
    /// `None`: there is no gateway, or it cannot be asked.
    fn begin(host: &Host, path: &Path, call: &[u8]) -> Option<Self> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let mut socket = Socket::new(Domain::UNIX, kind, None).ok()?;
        // A queue that is full is an error, too: nobody is waited for here.
        socket.connect(&SockAddr::unix(path).ok()?).ok()?;
        socket.write_all(call).ok()?;
        host.watch(&socket).ok()?;
        Some(Self {
            socket,
            said: Vec::with_capacity(LINES_LEN_MAX),
            state: State::Waiting {
                until: host.now().after(BEGIN_TIME),
            },
        })
    }

    fn turn(&mut self, now: Instant) {
        let State::Waiting { until } = self.state else {
            return;
        };
        if now >= until {
            tracing::warn!(
                "a gateway does not say that it has let its clients go; the address goes all the same"
            );
            self.state = State::Over;
            return;
        }
        let mut room = [0; LINES_LEN_MAX];
        match self.socket.read(&mut room) {
            Ok(len) if len > 0 && self.said.len() + len <= LINES_LEN_MAX => {
                self.said.extend_from_slice(&room[..len]);
                self.heed(now);
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // It has ended, or says what cannot be.
            Ok(_) | Err(_) => self.state = State::Over,
        }
    }

    fn heed(&mut self, now: Instant) {
        while let Some(end) = self.said.iter().position(|byte| *byte == b'\n') {
            let answer = serde_json::from_slice(&self.said[..end]);
            self.said.drain(..=end);
            match answer {
                Ok(Answer::WithinMs(ms)) => {
                    let until = now.after(Duration::from_millis(ms)).after(MARGIN);
                    self.state = State::Waiting { until };
                }
                Ok(Answer::Left { cut }) => {
                    tracing::info!(
                        "the gateway has let its clients go; {cut} connections were cut"
                    );
                    self.state = State::Over;
                }
                Err(_) => self.state = State::Over,
            }
        }
    }
}
