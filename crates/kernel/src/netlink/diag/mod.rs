//! TCP sockets of this machine (sock_diag(7)): found by a filter that runs in the kernel, and reset.
//!
//! Only sockets of the network namespace in which the way was opened are seen. Those of containers
//! with a namespace of their own are out of reach from outside.

mod filter;

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::net::netlink;

use super::attribute::Writer;
use super::socket::{ACK, DUMP, Message, REQUEST, Socket, message};
use filter::ENDS_MAX;

#[cfg(test)]
mod tests;

/// `SOCK_DIAG_BY_FAMILY`.
const FIND: u16 = 20;
/// `SOCK_DESTROY`.
const DESTROY: u16 = 21;
/// `INET_DIAG_REQ_BYTECODE`.
const BYTECODE: u16 = 1;
const TCP: u8 = 6;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `struct inet_diag_sockid`: ports, addresses, interface, cookie.
const IDENTITY_LEN: usize = 48;
/// `struct inet_diag_msg`.
const FOUND_LEN: usize = 72;
/// Sockets that are reset by one datagram. Each is answered at once, and the answers must find room in
/// the receive buffer, of which each takes about 1 KiB.
const RESETS_AT_ONCE: usize = 512;

/// In which a connection is (include/net/tcp_states.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Both ends may speak.
    Established,
    /// Asked for here, not answered.
    SynSent,
    /// Asked for there, the handshake is not over.
    SynReceived,
    /// Here nothing more is said, and the other end does not know it yet.
    FinWait1,
    /// Here nothing more is said.
    FinWait2,
    /// It is over; the kernel remembers it for a minute.
    TimeWait,
    /// It has not begun, or is over.
    Closed,
    /// The other end says nothing more.
    CloseWait,
    /// Neither says more, and the other end does not know it yet.
    LastAck,
    /// It waits for connections.
    Listening,
    /// Both said at once that they say no more.
    Closing,
}

impl State {
    fn read(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 | 12 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Closed,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listening,
            11 => Self::Closing,
            _ => return None,
        })
    }

    /// In a set of states.
    fn bit(self) -> u32 {
        1 << match self {
            Self::Established => 1,
            Self::SynSent => 2,
            Self::SynReceived => 3,
            Self::FinWait1 => 4,
            Self::FinWait2 => 5,
            Self::TimeWait => 6,
            Self::Closed => 7,
            Self::CloseWait => 8,
            Self::LastAck => 9,
            Self::Listening => 10,
            Self::Closing => 11,
        }
    }
}

/// Connections at an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Crowd {
    /// That are established: a measure of load.
    pub established: u64,
    /// That an end of the instance would break off; see [`Connection::is_in_flight`].
    pub in_flight: u64,
}

/// What to look for. Of connections whose ends are addresses of IPv4, those of sockets of IPv6 are
/// found, too (`::ffff:10.0.0.1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By what is here; an unspecified address stands for all, of both versions of IP.
    Local(SocketAddr),
    /// By what is there.
    Remote(SocketAddr),
}

impl End {
    fn address(self) -> SocketAddr {
        match self {
            Self::Local(address) | Self::Remote(address) => address,
        }
    }

    /// Whether a socket has it.
    fn is_of(self, found: &Connection) -> bool {
        let (wanted, has) = match self {
            Self::Local(wanted) => (wanted, found.local),
            Self::Remote(wanted) => (wanted, found.remote),
        };
        wanted.port() == has.port()
            && (wanted.ip().is_unspecified() || wanted.ip().to_canonical() == has.ip())
    }
}

/// A socket, as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// What is here.
    pub local: SocketAddr,
    /// What is there.
    pub remote: SocketAddr,
    /// In which it is.
    pub state: State,
    /// Whether a program has it open. If not, it waits to be accepted, or is closed and the kernel does
    /// the rest alone.
    pub held: bool,
    /// Only this socket has it, also if another has the same ends later.
    cookie: u64,
    /// To which interface it is bound; 0: to none.
    interface: u32,
}

impl Connection {
    /// Reads one; `None` if it is cut, or of a kind that is not known.
    pub fn read(body: &[u8]) -> Option<Self> {
        let found = body.first_chunk::<FOUND_LEN>()?;
        let word = |at: usize| [found[at], found[at + 1], found[at + 2], found[at + 3]];
        let port = |at: usize| u16::from_be_bytes([found[at], found[at + 1]]);
        let address = |at: usize| {
            Some(match found[0] {
                IPV4 => IpAddr::from(word(at)),
                IPV6 => IpAddr::from(<[u8; 16]>::try_from(&found[at..at + 16]).ok()?),
                _ => return None,
            })
        };
        let (local, remote) = (address(8)?, address(24)?);
        let cookie = found[44..52].try_into().ok()?;
        Some(Self {
            local: SocketAddr::new(local.to_canonical(), port(4)),
            remote: SocketAddr::new(remote.to_canonical(), port(6)),
            state: State::read(found[1])?,
            held: u32::from_ne_bytes(word(68)) != 0,
            cookie: u64::from_ne_bytes(cookie),
            interface: u32::from_ne_bytes(word(40)),
        })
    }

    /// As `struct inet_diag_req_v2`. A socket of IPv6 between addresses of IPv4 is found by these.
    fn write(&self, out: &mut Writer) {
        let (local, remote) = (self.local.ip(), self.remote.ip());
        let family = match local {
            IpAddr::V4(_) => IPV4,
            IpAddr::V6(_) => IPV6,
        };
        out.raw(&[family, TCP, 0, 0]);
        out.raw(&u32::MAX.to_ne_bytes());
        out.raw(&self.local.port().to_be_bytes());
        out.raw(&self.remote.port().to_be_bytes());
        for address in [local, remote] {
            out.raw(&match address {
                IpAddr::V4(address) => {
                    let mut bytes = [0; 16];
                    bytes[..4].copy_from_slice(&address.octets());
                    bytes
                }
                IpAddr::V6(address) => address.octets(),
            });
        }
        out.raw(&self.interface.to_ne_bytes());
        out.raw(&self.cookie.to_ne_bytes());
    }

    /// Whether the program behind the local end still has to do with it, so that ending the program
    /// would break something off: it may speak, or has not accepted it yet.
    pub fn is_in_flight(&self) -> bool {
        match self.state {
            State::Established | State::SynReceived | State::CloseWait => true,
            // It has said all, and may still listen. If the program has it not, the kernel ends it.
            State::FinWait1 | State::FinWait2 => self.held,
            State::SynSent
            | State::TimeWait
            | State::Closed
            | State::LastAck
            | State::Listening
            | State::Closing => false,
        }
    }
}

/// Those for which [`Connection::is_in_flight`] may say so.
const IN_FLIGHT: [State; 5] = [
    State::Established,
    State::SynReceived,
    State::CloseWait,
    State::FinWait1,
    State::FinWait2,
];

/// Why sockets were not reset.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// The kernel was built without.
    #[error(
        "this kernel cannot reset sockets of other programs (it was built without \
         CONFIG_INET_DIAG_DESTROY): programs that wait for a dead instance wait until their own timeout"
    )]
    Unsupported,
    /// `CAP_NET_ADMIN` is missing.
    #[error("may not reset sockets of other programs: it needs CAP_NET_ADMIN")]
    Forbidden,
    /// Something else.
    #[error("cannot reset the connection from {local} to {remote}")]
    Refused {
        /// Its end here.
        local: SocketAddr,
        /// Its end there.
        remote: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The kernel could not be asked.
    #[error("cannot talk to sock_diag")]
    Socket(#[source] io::Error),
}

/// A way to the TCP sockets of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Sockets {
    socket: Socket,
}

impl Sockets {
    /// Looks at nothing yet.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open_to(Some(netlink::SOCK_DIAG))?;
        Ok(Self { socket })
    }

    /// Hands on each socket that has one of these ends and is in one of these states, with the end's
    /// place in the list; once for each of several ends. The kernel walks over all of the machine's
    /// sockets, but tells only these. What comes and goes meanwhile may be there or not.
    pub fn each(
        &self,
        ends: &[End],
        states: &[State],
        mut each: impl FnMut(usize, Connection),
    ) -> io::Result<()> {
        let mask = states.iter().fold(0, |mask, state| mask | state.bit());
        for (first, ends) in (0..).step_by(ENDS_MAX).zip(ends.chunks(ENDS_MAX)) {
            let programs = [IPV4, IPV6].map(|family| (family, filter::bytecode(family, ends)));
            for (family, program) in programs {
                let Some(program) = program else { continue };
                let mut out = Writer::default();
                message(&mut out, FIND, (REQUEST | DUMP, 1), |out| {
                    out.raw(&[family, TCP, 0, 0]);
                    out.raw(&mask.to_ne_bytes());
                    out.raw(&[0; IDENTITY_LEN]);
                    out.attribute(BYTECODE, &program);
                });
                self.socket.dump(out.as_bytes(), |body| {
                    let Some(found) = Connection::read(body) else {
                        return;
                    };
                    for (index, end) in (first..).zip(ends) {
                        if end.is_of(&found) {
                            each(index, found);
                        }
                    }
                })?;
            }
        }
        Ok(())
    }

    /// What goes on at instances of this machine that listen there, in the same order.
    pub fn crowds(&self, locals: &[SocketAddr]) -> io::Result<Vec<Crowd>> {
        let mut crowds = vec![Crowd::default(); locals.len()];
        let ends: Vec<End> = locals.iter().copied().map(End::Local).collect();
        self.each(&ends, &IN_FLIGHT, |index, found| {
            let crowd = &mut crowds[index];
            crowd.in_flight += u64::from(found.is_in_flight());
            crowd.established += u64::from(found.state == State::Established);
        })?;
        Ok(crowds)
    }

    /// Resets sockets that were found: whoever waits for one is told at once (`ECONNABORTED`), and the
    /// other end, if it lives. Returns how many; those that are gone meanwhile are not counted. If one
    /// cannot be reset the others are, and it is told then.
    pub fn reset(&self, found: &[Connection]) -> Result<usize, ResetError> {
        let mut reset = 0;
        let mut failed = None;
        for batch in found.chunks(RESETS_AT_ONCE) {
            match self.reset_batch(batch, &mut reset) {
                Ok(()) => {}
                Err(error @ ResetError::Refused { .. }) => {
                    failed.get_or_insert(error);
                }
                // Nor would the others.
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(reset), Err)
    }

    fn reset_batch(&self, batch: &[Connection], reset: &mut usize) -> Result<(), ResetError> {
        let mut out = Writer::default();
        for (sequence, connection) in (0..).zip(batch) {
            message(&mut out, DESTROY, (REQUEST | ACK, sequence), |out| {
                connection.write(out);
            });
        }
        let mut refused = None;
        let heard = |message: Message<'_>| {
            let Some(answer) = message.answer() else {
                return;
            };
            match answer.errno {
                0 => *reset += 1,
                // It is gone.
                libc::ENOENT => {}
                _ => refused = refused.or(Some(answer)),
            }
        };
        self.socket
            .exchange(out.as_bytes(), heard)
            .map_err(ResetError::Socket)?;
        let Some(answer) = refused else {
            return Ok(());
        };
        let index = usize::try_from(answer.sequence).ok();
        let connection = index.and_then(|index| batch.get(index));
        Err(refusal(connection, answer.errno))
    }
}

fn refusal(connection: Option<&Connection>, errno: i32) -> ResetError {
    let source = io::Error::from_raw_os_error(errno);
    match (errno, connection) {
        (libc::EOPNOTSUPP, _) => ResetError::Unsupported,
        (libc::EPERM, _) => ResetError::Forbidden,
        (_, Some(connection)) => ResetError::Refused {
            local: connection.local,
            remote: connection.remote,
            source,
        },
        (_, None) => ResetError::Socket(source),
    }
}
