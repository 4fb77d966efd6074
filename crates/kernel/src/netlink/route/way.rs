//! Which route a packet takes.

use std::io;
use std::net::IpAddr;

use super::{
    FoundRoute, GET_ROUTE, LOCAL_TYPE, MADE_BY_US, OUT_INTERFACE, ROUTE_LEN, Routes, TO, family_of,
    name_of, read_address, write_address,
};
use crate::netlink::attribute::{Attributes, Writer};
use crate::netlink::prefix::Prefix;
use crate::netlink::socket::{Message, REQUEST, message};

/// `RTM_F_FIB_MATCH`: the route itself, not what becomes of it for one destination. Linux 5.4.
const MATCH: u32 = 0x2000;
const GATEWAY: u16 = 5;
const FROM: u16 = 2;
/// `RTPROT_RA`.
const ADVERTISED: u8 = 9;
/// `RTN_UNICAST`.
const UNICAST_TYPE: u8 = 1;

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// Here: the address is the machine's own.
    Here,
    /// On, to another host.
    On,
    /// To nobody, or to all of a network: what `RTN_*` calls it.
    Otherwise(u8),
}

/// The route that a packet takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// To which range; `None`: the default route.
    pub to: Option<Prefix>,
    /// Where it leads.
    pub leads: Leads,
    /// By the interface of this name.
    pub interface: Option<String>,
    /// By way of this host.
    pub gateway: Option<IpAddr>,
    /// Whether Mainstay made it.
    pub is_ours: bool,
}

impl Routes {
    /// The route that a packet of this machine to an address takes; `None` if none leads there, or one
    /// that says that nobody is there. `from`: only as far as rules of routing look at it, and it has
    /// to be the machine's own.
    pub fn way(&self, to: IpAddr, from: Option<IpAddr>) -> io::Result<Option<Way>> {
        let mut out = Writer::default();
        message(&mut out, GET_ROUTE, (REQUEST, 1), |out| {
            let len = |address: IpAddr| Prefix::of(address).len();
            out.raw(&[family_of(to), len(to), from.map_or(0, len), 0]);
            out.raw(&[0; 4]);
            out.raw(&MATCH.to_ne_bytes());
            write_address(out, TO, to);
            if let Some(from) = from {
                write_address(out, FROM, from);
            }
        });
        let (mut found, mut refused) = (None, None);
        self.socket
            .exchange(out.as_bytes(), |message: Message<'_>| {
                match message.answer() {
                    Some(answer) if answer.errno != 0 => refused = Some(answer.errno),
                    Some(_) => {}
                    None => found = found.take().or_else(|| read(message.body)),
                }
            })?;
        match refused {
            // None at all; one that refuses, by the kind of its refusal.
            Some(
                libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES | libc::ESRCH,
            ) => Ok(None),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(found),
        }
    }

    /// Whether a router's advertisement made a route: it would go with the first second in which the
    /// machine is a router of IPv6 itself.
    pub fn has_advertised(&self) -> io::Result<bool> {
        let mut advertised = false;
        self.each_route(|route| advertised |= route.made_by == ADVERTISED)?;
        Ok(advertised)
    }
}

fn read(body: &[u8]) -> Option<Way> {
    let route = FoundRoute::read(body)?;
    let attributes = Attributes::of(body.get(ROUTE_LEN..)?);
    Some(Way {
        to: route.to,
        leads: match route.kind {
            LOCAL_TYPE => Leads::Here,
            UNICAST_TYPE => Leads::On,
            other => Leads::Otherwise(other),
        },
        interface: attributes.find_native(OUT_INTERFACE).map(name_of),
        gateway: attributes.find(GATEWAY).and_then(read_address),
        // In which table it is cannot be told: the kernel keeps those of `local` and `main` in one.
        is_ours: (route.made_by, route.kind) == (MADE_BY_US, LOCAL_TYPE),
    })
}
