//! The interface of a seat: whether it can take part, and from which address.

use std::fmt;
use std::io;
use std::net::IpAddr;

use mainstay_kernel::neighbour::Multicast;
use mainstay_kernel::netlink::address::{Placed, of_interface};
use mainstay_kernel::netlink::link::{Change, Link};
use mainstay_kernel::protocol::{self, ProtocolSocket, Received};
use mainstay_model::VipSpec;
use mainstay_model::vip::Hardware;
use mainstay_vrrp::{Input, PROTOCOL, Role};

use super::virtual_mac::{Family, VirtualMac};
use super::{Changed, LOOK_EVERY, PACKETS_MAX, Seat, remove_all};
use crate::host::Host;
use crate::journal::state;

/// An interface that works.
#[derive(Debug)]
pub(super) struct Bearing {
    pub(super) link: Link,
    pub(super) socket: ProtocolSocket,
    /// The sender of our adverts.
    pub(super) source: IpAddr,
    /// With a hardware address of its own.
    pub(super) virtual_mac: Option<VirtualMac>,
}

impl Bearing {
    /// Where the addresses are put. On an interface of their own without their network, to which the way is that of the
    /// interface below.
    pub(super) fn placed<'s>(&self, spec: &'s VipSpec) -> impl Iterator<Item = Placed> + use<'s> {
        let (index, alone) = match &self.virtual_mac {
            Some(virtual_mac) => (virtual_mac.index, true),
            None => (self.link.index, false),
        };
        spec.addresses.iter().map(move |floating| Placed {
            address: floating.address,
            prefix_len: match floating.address {
                IpAddr::V4(_) if alone => 32,
                IpAddr::V6(_) if alone => 128,
                IpAddr::V4(_) | IpAddr::V6(_) => floating.prefix_len,
            },
            index,
        })
    }

    /// The hardware address that is announced.
    pub(super) fn mac(&self) -> Option<[u8; 6]> {
        match &self.virtual_mac {
            Some(virtual_mac) => Some(virtual_mac.mac),
            None => self.link.mac,
        }
    }

    /// Where others are heard.
    pub(super) fn hears(&self) -> &ProtocolSocket {
        let risen = self.virtual_mac.as_ref();
        risen
            .and_then(|risen| risen.socket.as_ref())
            .unwrap_or(&self.socket)
    }

    /// What is heard on both interfaces counts once.
    pub(super) fn ignore_below(&self, room: &mut [u8]) {
        if std::ptr::eq(self.hears(), &raw const self.socket) {
            return;
        }
        for _ in 0..PACKETS_MAX {
            match self.socket.receive(room) {
                Ok(Received::Packet(_) | Received::Broken) => {}
                Ok(Received::Nothing) | Err(_) => return,
            }
        }
    }

    /// Sends an advert; a holder with a virtual hardware address sends it from there (RFC 9568, 7.3).
    pub(super) fn send(&self, host: &Host, to: IpAddr, payload: &[u8]) -> io::Result<()> {
        match &self.virtual_mac {
            Some(VirtualMac {
                socket: Some(_),
                mac,
                ..
            }) => {
                let packet = Multicast {
                    index: self.link.index,
                    mac: *mac,
                    from: self.source,
                    group: to,
                    protocol: PROTOCOL,
                };
                host.announcer.multicast(&packet, payload)
            }
            Some(_) | None => self.socket.send(self.source, to, payload),
        }
    }
}

/// Why it does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Missing {
        interface: String,
    },
    Down {
        interface: String,
    },
    NoAddress {
        interface: String,
        family: &'static str,
    },
    Refused {
        what: &'static str,
        why: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { interface } => write!(
                f,
                "there is no interface `{interface}`; `ip link` lists them, and it is waited for"
            ),
            Self::Down { interface } => write!(
                f,
                "the interface `{interface}` is switched off or has no carrier; it is waited for"
            ),
            Self::NoAddress { interface, family } => write!(
                f,
                "`{interface}` has no {family} address of its own that adverts could come from; `ip address` lists them, and it is waited for"
            ),
            Self::Refused { what, why } => write!(f, "cannot {what}: {why}; it is tried again"),
        }
    }
}

impl Seat {
    /// What is told from now on is new.
    pub(crate) fn begin_changes(&mut self) {
        self.changed = Changed::Nothing;
    }

    /// Takes in what the kernel says. That our own addresses come, are renewed and go is our own doing.
    pub(crate) fn note_change(&mut self, change: Change) {
        let bears = |index: u32| {
            let bearing = self.bearing.as_ref();
            bearing.is_none_or(|bearing| {
                let virtual_mac = bearing.virtual_mac.as_ref();
                bearing.link.index == index || virtual_mac.is_some_and(|one| one.index == index)
            })
        };
        let floats = |address: IpAddr| self.spec.addresses.iter().any(|one| one.address == address);
        let matters = match change {
            Change::Link(index) => bears(index),
            Change::Address(index, address) => bears(index) && !floats(address),
            Change::Everything => true,
        };
        if matters {
            self.changed = Changed::Something;
        }
    }

    /// Looks at the interface if something was said of it.
    pub(crate) fn look_if_changed(&mut self, host: &Host) {
        if self.changed == Changed::Something {
            self.look(host);
        }
    }

    /// Looks at the interface, and takes part or not.
    pub(crate) fn look(&mut self, host: &Host) {
        self.look_at = host.now().after(LOOK_EVERY);
        match self.find(host) {
            Ok((link, source)) => self.bear(host, link, source),
            Err(fault) => self.fail(host, fault),
        }
    }

    /// The interface and the address of adverts.
    fn find(&self, host: &Host) -> Result<(Link, IpAddr), Fault> {
        let interface = self.spec.interface.clone();
        let link = Link::named(&host.route, &interface);
        let Some(link) = link.map_err(|error| refused("look at interfaces", &error))? else {
            return Err(Fault::Missing { interface });
        };
        if self.bearing.is_none() && self.router.role() == Role::Init {
            // Whoever ran here before may have left them, and another one may hold them by now.
            let placed = self.spec.addresses.iter().map(|floating| Placed {
                address: floating.address,
                prefix_len: floating.prefix_len,
                index: link.index,
            });
            remove_all(&self.spec, placed, host);
        }
        if !link.works {
            return Err(Fault::Down { interface });
        }
        let source = source(&self.spec, link.index, host);
        let family = if self.spec.is_ipv6() { "IPv6" } else { "IPv4" };
        let source = source.map_err(|error| refused("look at addresses", &error))?;
        let source = source.ok_or(Fault::NoAddress { interface, family })?;
        Ok((link, source))
    }

    fn bear(&mut self, host: &Host, link: Link, source: IpAddr) {
        let before = self
            .bearing
            .take()
            .filter(|before| before.link.index == link.index);
        let (known, socket, virtual_mac) = match before {
            Some(before) => (Some(before.source), Ok(before.socket), before.virtual_mac),
            None => (None, self.open(host, &link), None),
        };
        let virtual_mac = self.veil(host, &link, virtual_mac);
        let (socket, virtual_mac) = match (socket, virtual_mac) {
            (Ok(socket), Ok(virtual_mac)) => (socket, virtual_mac),
            (Err(error), _) => {
                self.fail(host, refused("open a socket for protocol 112", &error));
                return;
            }
            (Ok(_), Err(error)) => {
                self.fail(
                    host,
                    refused("make the interface of the virtual MAC", &error),
                );
                return;
            }
        };
        self.bearing = Some(Bearing {
            link,
            socket,
            source,
            virtual_mac,
        });
        self.fault = None;
        if known != Some(source) {
            self.handle(host, Input::Up { source });
        }
    }

    /// The interface of the virtual hardware address, if it is wanted: the one that is there, or a new one.
    fn veil(
        &mut self,
        host: &Host,
        below: &Link,
        before: Option<VirtualMac>,
    ) -> io::Result<Option<VirtualMac>> {
        match self.spec.hardware {
            Hardware::Own => return Ok(None),
            Hardware::Virtual => {}
        }
        if let Some(before) = before.filter(|before| before.exists(host)) {
            return Ok(Some(before));
        }
        let family = if self.spec.is_ipv6() {
            Family::V6
        } else {
            Family::V4
        };
        let made = VirtualMac::make(host, below, self.spec.vrid, family)?;
        // Whoever took the one before away took the addresses, too.
        if self.router.renews_addresses() {
            self.renew_at = host.now();
        }
        Ok(Some(made))
    }

    fn open(&self, host: &Host, link: &Link) -> io::Result<ProtocolSocket> {
        let options = protocol::Options {
            protocol: PROTOCOL,
            interface: (&link.name, link.index),
            group: self.router.options().group(),
        };
        let socket = ProtocolSocket::open(&options)?;
        host.watch(&socket)?;
        Ok(socket)
    }

    fn fail(&mut self, host: &Host, fault: Fault) {
        // With the interface that it had, so that its addresses can be removed.
        self.handle(host, Input::Down);
        self.bearing = None;
        if self.fault.as_ref() == Some(&fault) {
            return;
        }
        let (name, fault_state) = (&self.spec.name, state(Role::Init));
        tracing::error!("({name}) Entering {fault_state} STATE: {fault}");
        self.record(host, fault_state, &fault.to_string(), None);
        self.past.note(fault_state, fault.to_string());
        if self.fault.is_none() {
            self.call_hook(fault_state);
        }
        self.fault = Some(fault);
    }
}

fn refused(what: &'static str, error: &io::Error) -> Fault {
    let why = error.to_string();
    Fault::Refused { what, why }
}

/// The address from which adverts come: the primary one of IPv4; of IPv6 the one of the link (RFC 9568, 5.1.2.1), or
/// that which peers elsewhere can reach.
fn source(spec: &VipSpec, index: u32, host: &Host) -> io::Result<Option<IpAddr>> {
    let floats = |address: IpAddr| spec.addresses.iter().any(|one| one.address == address);
    let of_link = |address: IpAddr| match address {
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
        IpAddr::V4(_) => false,
    };
    let wants_of_link = spec.is_ipv6() && spec.peers.iter().all(|peer| of_link(*peer));
    let listed = of_interface(&host.route, index)?;
    let fits = |address: IpAddr| {
        address.is_ipv6() == spec.is_ipv6() && of_link(address) == wants_of_link && !floats(address)
    };
    let mut own = listed.iter().filter(|one| one.usable && !one.secondary);
    // One with a lifetime may be of a floating address, too.
    let found = own.find(|one| fits(one.placed.address));
    Ok(found.map(|one| one.placed.address))
}
