//! Routes (rtnetlink(7)): the one that makes every address of a range the machine's own, without that
//! any interface has it (AnyIP), and what on the machine stands in its way.
//!
//! Ours carry a number of their own as the program that made them, so that a process knows those of
//! its predecessor, and takes away no other's.

use std::fmt;
use std::io;
use std::net::IpAddr;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use super::attribute::{Attributes, Writer};
use super::prefix::Prefix;
use super::socket::{ACK, DUMP, REQUEST, Socket, message};

mod way;

#[cfg(test)]
mod tests;

pub use way::{Leads, Way};

/// Which program made a route (`rtm_protocol`): any number from 5 that no program is known for, see
/// /etc/iproute2/rt_protos. The `M` of Mainstay.
pub const MADE_BY_US: u8 = b'M';

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const GET_ADDRESS: u16 = 22;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const REPLACE: u16 = 0x100;

/// `RT_TABLE_LOCAL`.
const LOCAL_TABLE: u8 = 255;
/// `RT_SCOPE_HOST`.
const HOST_SCOPE: u8 = 254;
/// `RTN_LOCAL`.
const LOCAL_TYPE: u8 = 2;
/// `RTM_F_CLONED`: made by the kernel from another, for one destination.
const CLONED: u32 = 0x200;
/// `lo`, in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// `struct rtmsg`.
const ROUTE_LEN: usize = 12;
/// `struct ifaddrmsg`.
const ADDRESS_LEN: usize = 8;

const TO: u16 = 1;
const OUT_INTERFACE: u16 = 4;
const SOURCE: u16 = 7;

/// A route that makes all addresses of a range the machine's own: `ip route add local PREFIX dev lo`.
///
/// Whoever listens on all addresses is reached by each of them. To listen on one of them alone needs
/// `IP_FREEBIND` if it is one of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalRoute {
    /// The range.
    pub prefix: Prefix,
    /// From which address the machine's own programs speak to it, unless they choose one; an address
    /// of the machine. Without: from the one they speak to.
    pub source: Option<IpAddr>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was changed.
    Changed,
    /// It was so already.
    Unchanged,
}

/// What the machine has in a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collision {
    /// An interface has an address of the range.
    Address {
        /// The address.
        address: IpAddr,
        /// Of this name.
        interface: String,
    },
    /// A route, which is not the default one, leads to a part of the range or to more than it.
    Route {
        /// Where it leads.
        to: Prefix,
        /// By the interface of this name; routes that refuse, or have several, have none.
        interface: Option<String>,
    },
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, interface } => {
                write!(f, "the address {address} of interface `{interface}`")
            }
            Self::Route {
                to,
                interface: Some(interface),
            } => write!(f, "the route to {to} by interface `{interface}`"),
            Self::Route {
                to,
                interface: None,
            } => write!(f, "the route to {to}"),
        }
    }
}

/// Why a route could not be made or deleted.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The kernel does not want it; a missing right is `EPERM`.
    #[error("cannot {what}")]
    Refused {
        /// What was to be done with which route.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody else has a route of the same range. It is left alone.
    #[error(
        "cannot make all addresses of {0} this machine's own: there is a local route to it that is not \
         ours; delete it, or choose another range"
    )]
    Taken(Prefix),
}

/// A way to the routes of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Routes {
    socket: Socket,
}

impl Routes {
    /// Changes nothing yet.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open_to(None)?;
        Ok(Self { socket })
    }

    /// Makes a range the machine's own; one of ours with another source is replaced, without a moment
    /// between. Does not look for what else is in the range: see [`Self::collision`].
    pub fn add_local(&self, wanted: &LocalRoute) -> Result<Outcome, RouteError> {
        let refused = |source| RouteError::Refused {
            what: format!("make all addresses of {} this machine's own", wanted.prefix),
            source,
        };
        match self.put(wanted, EXCLUSIVE) {
            Ok(()) => return Ok(Outcome::Changed),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refused(error)),
        }
        let ours = self.locals().map_err(refused)?;
        let there = ours.iter().find(|route| route.prefix == wanted.prefix);
        match there {
            None => Err(RouteError::Taken(wanted.prefix)),
            Some(there) if there == wanted => Ok(Outcome::Unchanged),
            Some(_) => {
                self.put(wanted, REPLACE).map_err(refused)?;
                Ok(Outcome::Changed)
            }
        }
    }

    /// Deletes our route to a range, if there is one.
    pub fn delete_local(&self, prefix: Prefix) -> Result<Outcome, RouteError> {
        let mut out = Writer::default();
        let source = None;
        let route = LocalRoute { prefix, source };
        write(&mut out, (DELETE_ROUTE, REQUEST | ACK), &route);
        match self.socket.request(out.as_bytes()) {
            Ok(()) => Ok(Outcome::Changed),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(Outcome::Unchanged),
            Err(source) => Err(RouteError::Refused {
                what: format!("delete the local route to {prefix}"),
                source,
            }),
        }
    }

    /// Those of ours, also what an earlier process left.
    pub fn locals(&self) -> io::Result<Vec<LocalRoute>> {
        let mut found = Vec::new();
        self.each_route(|route| {
            if let (true, Some(prefix)) = (route.is_ours(), route.to) {
                let source = route.source;
                found.push(LocalRoute { prefix, source });
            }
        })?;
        Ok(found)
    }

    /// The first that the machine has in the range: an address, or a route that is neither default nor
    /// ours. Whoever owns the other addresses of an overlapping route could no longer be reached.
    pub fn collision(&self, prefix: Prefix) -> io::Result<Option<Collision>> {
        let mut address = None;
        let request = dump(GET_ADDRESS, &[0; ADDRESS_LEN]);
        self.socket.dump(request.as_bytes(), |body| {
            let found = FoundAddress::read(body);
            address = address.or(found.filter(|found| prefix.contains(found.address)));
        })?;
        if let Some(FoundAddress { address, index }) = address {
            let interface = name_of(index);
            return Ok(Some(Collision::Address { address, interface }));
        }
        let mut collides = None;
        self.each_route(|route| {
            let Some(to) = route.to.filter(|to| to.overlaps(prefix)) else {
                return;
            };
            if !route.is_ours() && !route.cloned {
                collides.get_or_insert((to, route.interface));
            }
        })?;
        Ok(collides.map(|(to, index)| {
            let interface = index.map(name_of);
            Collision::Route { to, interface }
        }))
    }

    fn put(&self, route: &LocalRoute, flag: u16) -> io::Result<()> {
        let mut out = Writer::default();
        write(&mut out, (NEW_ROUTE, REQUEST | ACK | CREATE | flag), route);
        self.socket.request(out.as_bytes())
    }

    /// Routes of all tables; not the default ones, which lead everywhere.
    fn each_route(&self, mut each: impl FnMut(FoundRoute)) -> io::Result<()> {
        let request = dump(GET_ROUTE, &[0; ROUTE_LEN]);
        self.socket.dump(request.as_bytes(), |body| {
            if let Some(route) = FoundRoute::read(body) {
                each(route);
            }
        })
    }
}

fn dump(kind: u16, header: &[u8]) -> Writer {
    let mut out = Writer::default();
    message(&mut out, kind, (REQUEST | DUMP, 1), |out| out.raw(header));
    out
}

fn write(out: &mut Writer, (kind, flags): (u16, u16), route: &LocalRoute) {
    let LocalRoute { prefix, source } = route;
    message(out, kind, (flags, 1), |out| {
        out.raw(&[family_of(prefix.address()), prefix.len(), 0, 0]);
        out.raw(&[LOCAL_TABLE, MADE_BY_US, HOST_SCOPE, LOCAL_TYPE]);
        out.raw(&[0; 4]);
        write_address(out, TO, prefix.address());
        out.native(OUT_INTERFACE, LOOPBACK);
        if let Some(source) = source {
            write_address(out, SOURCE, *source);
        }
    });
}

fn write_address(out: &mut Writer, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.attribute(kind, &address.octets()),
        IpAddr::V6(address) => out.attribute(kind, &address.octets()),
    }
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    let four = || Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?));
    let sixteen = || Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?));
    four().or_else(sixteen)
}

fn family_of(address: IpAddr) -> u8 {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    u8::try_from(family.as_raw()).expect("families of addresses are small numbers")
}

/// What the kernel says of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FoundRoute {
    /// `None`: to all.
    to: Option<Prefix>,
    interface: Option<u32>,
    source: Option<IpAddr>,
    table: u8,
    made_by: u8,
    kind: u8,
    cloned: bool,
}

impl FoundRoute {
    fn read(body: &[u8]) -> Option<Self> {
        let (header, attributes) = body.split_first_chunk::<ROUTE_LEN>()?;
        let [_, len, _, _, table, made_by, _, kind, flags @ ..] = *header;
        let attributes = Attributes::of(attributes);
        let address = |kind| read_address(attributes.find(kind)?);
        let to = match len {
            0 => None,
            len => Some(Prefix::new(address(TO)?, len).ok()?),
        };
        Some(Self {
            to,
            interface: attributes.find_native(OUT_INTERFACE),
            source: address(SOURCE),
            table,
            made_by,
            kind,
            cloned: u32::from_ne_bytes(flags) & CLONED != 0,
        })
    }

    fn is_ours(&self) -> bool {
        (self.table, self.made_by, self.kind) == (LOCAL_TABLE, MADE_BY_US, LOCAL_TYPE)
    }
}

/// What the kernel says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FoundAddress {
    address: IpAddr,
    index: u32,
}

impl FoundAddress {
    fn read(body: &[u8]) -> Option<Self> {
        let (header, attributes) = body.split_first_chunk::<ADDRESS_LEN>()?;
        let [_, _, _, _, index @ ..] = *header;
        let attributes = Attributes::of(attributes);
        // IFA_LOCAL, which of two ends is here; IFA_ADDRESS, which may be the other's.
        let address = attributes.find(2).or_else(|| attributes.find(1))?;
        Some(Self {
            address: read_address(address)?,
            index: u32::from_ne_bytes(index),
        })
    }
}

/// An interface's name; its number, if it is gone.
fn name_of(index: u32) -> String {
    let asked = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    );
    asked
        .and_then(|socket| netdevice::index_to_name(socket, index))
        .unwrap_or_else(|_| format!("number {index}"))
}

/// Reads an answer as each kind that there is.
#[cfg(feature = "driven")]
pub(super) fn read_all(body: &[u8]) {
    FoundRoute::read(body);
    FoundAddress::read(body);
}
