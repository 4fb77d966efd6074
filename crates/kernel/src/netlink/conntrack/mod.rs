//! What connection tracking knows (include/uapi/linux/netfilter/nfnetlink_conntrack.h): which
//! connection was led where, and how to make it forget.
//!
//! The table is of the network namespace in which the way was opened. Connections that a container
//! with a namespace of its own translates itself are in its own table. Flows of zones other than the
//! default one are found by where they lead, not by their tuple.

mod attributes;
mod events;

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::attribute::{Attributes, Writer};
use super::socket::{ACK, DUMP, Message, REQUEST, Socket, message};
use attributes::{FILTER, ID, IP, ORIGINAL, PROTOCOL_OF, REPLY};

#[cfg(test)]
pub(super) mod tests;

pub use events::{Event, Events};

/// `NFNL_SUBSYS_CTNETLINK`, as the upper half of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;
/// Netfilter's own header.
const GENERIC_LEN: usize = 4;
/// Flows that one datagram asks for, or deletes. Each is answered at once, and the answers must find
/// room in the receive buffer, of which each takes about 5 KiB.
const FLOWS_AT_ONCE: usize = 256;

/// Of flows that lead to services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// `IPPROTO_*`.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    fn read(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// How the packets of one direction are addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// By which protocol.
    pub protocol: Protocol,
    /// Who sends them.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
}

/// A connection, or what counts as one in UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// As whoever began it addressed it: to a service, if it was translated.
    pub original: Tuple,
    /// As the answers come: from the instance that was chosen.
    pub reply: Tuple,
    /// Whether an answer was seen.
    pub answered: bool,
    /// Of this flow alone, also if another has the same ends later.
    id: u32,
}

impl Flow {
    /// Reads one; `None` if it is cut, or neither of TCP nor of UDP.
    pub fn read(body: &[u8]) -> Option<Self> {
        attributes::read(&Attributes::of(body.get(GENERIC_LEN..)?))
    }

    /// Whether its packets are led elsewhere than they were sent.
    pub fn is_led_on(&self) -> bool {
        self.original.destination != self.reply.source
    }
}

/// How full the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Entries of this network namespace.
    pub entries: u64,
    /// More than these are not taken: packets that would begin one are dropped. The limit is of the
    /// machine, and holds for each namespace.
    pub entries_max: u64,
}

impl Fill {
    /// Of the network namespace of this thread. `NotFound` if nothing tracks connections here.
    pub fn read() -> io::Result<Self> {
        let number = |name: &str| {
            let path = Path::new("/proc/sys/net/netfilter").join(name);
            let text = std::fs::read_to_string(path)?;
            text.trim().parse().map_err(io::Error::other)
        };
        Ok(Self {
            entries: number("nf_conntrack_count")?,
            entries_max: number("nf_conntrack_max")?,
        })
    }
}

/// A way to the table of the network namespace in which it was opened. Needs `CAP_NET_ADMIN` there.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Looks at nothing yet.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open()?;
        Ok(Self { socket })
    }

    /// What became of connections that were addressed so, in the same order; `None` for those that are
    /// not there. Hundreds are asked for at once, and found by their hash: the table's size is nothing
    /// to it.
    pub fn find(&self, original: &[Tuple]) -> io::Result<Vec<Option<Flow>>> {
        let mut found = vec![None; original.len()];
        for (batch, found) in chunks(original, &mut found) {
            let originals = batch.iter().map(|tuple| (tuple, ()));
            let request = requests((GET, REQUEST), originals, |_, ()| ());
            let mut refused = None;
            self.socket.exchange(request.as_bytes(), |message| {
                let slot = usize::try_from(message.sequence).ok();
                match (message.answer(), slot.and_then(|at| found.get_mut(at))) {
                    (Some(answer), _) => refuse(answer.errno, &mut refused),
                    (None, Some(slot)) => *slot = Flow::read(message.body),
                    (None, None) => {}
                }
            })?;
            refused.map_or(Ok(()), Err)?;
        }
        Ok(found)
    }

    /// Makes the kernel forget these flows, if they are still there. The next packet of each is led
    /// anew. Returns how many.
    pub fn delete(&self, flows: &[Flow]) -> io::Result<usize> {
        let mut deleted = 0;
        for batch in flows.chunks(FLOWS_AT_ONCE) {
            let originals = batch.iter().map(|flow| (&flow.original, flow.id));
            let request = requests((DELETE, REQUEST | ACK), originals, |out, id| {
                out.number(ID, id);
            });
            let mut refused = None;
            let heard = |message: Message<'_>| match message.answer() {
                Some(answer) if answer.errno == 0 => deleted += 1,
                Some(answer) => refuse(answer.errno, &mut refused),
                None => {}
            };
            self.socket.exchange(request.as_bytes(), heard)?;
            refused.map_or(Ok(()), Err)?;
        }
        Ok(deleted)
    }

    /// Hands on each flow that an instance answers at this address: those that services led there, and
    /// those that were addressed to it.
    ///
    /// The kernel walks over its table, and tells only these; of IPv6, also those of other instances
    /// with this port, which are sorted out here. Before Linux 5.8 it knows no filter and tells all: the
    /// same flows, in half a second instead of 10 ms.
    pub fn each_answered_by(
        &self,
        protocol: Protocol,
        instance: SocketAddr,
        mut each: impl FnMut(Flow),
    ) -> io::Result<()> {
        let mut out = Writer::default();
        let header = (SUBSYSTEM | GET, REQUEST | DUMP);
        write_filter(&mut out, header, protocol, instance);
        self.socket.dump(out.as_bytes(), |body| {
            let found = Flow::read(body).filter(|flow| {
                let reply = flow.reply;
                (reply.protocol, reply.source) == (protocol, instance)
            });
            if let Some(flow) = found {
                each(flow);
            }
        })
    }

    /// Makes the kernel forget all flows that an instance answers at this address, in one walk over its
    /// table. The next packet of each is led anew: of UDP to an instance that is still there.
    ///
    /// Those of IPv6, and on Linux before 6.11, which cannot do so and refuses, all are found and
    /// deleted one by one.
    pub fn delete_answered_by(&self, protocol: Protocol, instance: SocketAddr) -> io::Result<()> {
        if instance.is_ipv6() {
            return self.find_and_delete(protocol, instance);
        }
        let mut out = Writer::default();
        let header = (SUBSYSTEM | DELETE, REQUEST | ACK);
        write_filter(&mut out, header, protocol, instance);
        match self.socket.request(out.as_bytes()) {
            // It takes the filter for a tuple, of which half is missing.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.find_and_delete(protocol, instance)
            }
            result => result,
        }
    }

    fn find_and_delete(&self, protocol: Protocol, instance: SocketAddr) -> io::Result<()> {
        let mut found = Vec::new();
        self.each_answered_by(protocol, instance, |flow| found.push(flow))?;
        self.delete(&found).map(drop)
    }
}

/// What is not there is no error.
fn refuse(errno: i32, refused: &mut Option<io::Error>) {
    if ![0, libc::ENOENT].contains(&errno) {
        refused.get_or_insert_with(|| io::Error::from_raw_os_error(errno));
    }
}

/// What is asked for, beside where its answers go.
fn chunks<'a, T, U>(
    asked: &'a [T],
    answers: &'a mut [U],
) -> impl Iterator<Item = (&'a [T], &'a mut [U])> {
    asked
        .chunks(FLOWS_AT_ONCE)
        .zip(answers.chunks_mut(FLOWS_AT_ONCE))
}

/// A message about each flow, numbered from 0, and what it says beside the tuple.
fn requests<'a, T>(
    (kind, flags): (u16, u16),
    originals: impl Iterator<Item = (&'a Tuple, T)>,
    write: impl Fn(&mut Writer, T),
) -> Writer {
    let mut out = Writer::default();
    for (sequence, (original, more)) in (0..).zip(originals) {
        message(&mut out, SUBSYSTEM | kind, (flags, sequence), |out| {
            out.raw(&[attributes::family(original.source.ip()), 0, 0, 0]);
            attributes::write_tuple(out, ORIGINAL, original);
            write(out, more);
        });
    }
    out
}

/// `CTA_FILTER_FLAG_*` of a tuple (net/netfilter/nf_internals.h).
const BY_SOURCE: u32 = 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_SOURCE_PORT: u32 = 1 << 4;

/// Asks for what this address answers by this protocol.
///
/// The address is left out if it is one of IPv6: in `ctnetlink_filter_match_tuple` of all kernels since
/// 5.8 the comparison is the wrong way round, so that the filter lets through all others but this.
fn write_filter(
    out: &mut Writer,
    (kind, flags): (u16, u16),
    protocol: Protocol,
    instance: SocketAddr,
) {
    let by = match instance {
        SocketAddr::V4(_) => BY_SOURCE | BY_PROTOCOL | BY_SOURCE_PORT,
        SocketAddr::V6(_) => BY_PROTOCOL | BY_SOURCE_PORT,
    };
    message(out, kind, (flags, 1), |out| {
        out.raw(&[attributes::family(instance.ip()), 0, 0, 0]);
        out.nest(REPLY, |out| {
            out.nest(IP, |out| attributes::write_source(out, instance.ip()));
            out.nest(PROTOCOL_OF, |out| {
                out.attribute(1, &[protocol.number()]);
                out.attribute(2, &instance.port().to_be_bytes());
            });
        });
        // CTA_FILTER_REPLY_FLAGS
        out.nest(FILTER, |out| out.native(2, by));
    });
}
