//! The hardware address of the virtual router (RFC 9568, 7.3): an interface of its own on top of the seat's, which has
//! the floating addresses.
//!
//! It is switched on while the addresses are here, and only then. Switched on, the kernel gives it alone what another
//! holder with the same hardware address says; so a holder listens there, and a backup on the interface below. Nobody
//! but the holder sends from that hardware address, so that switches never look for it elsewhere.

use std::io;
use std::num::NonZeroU8;

use mainstay_kernel::netlink::link::Link;
use mainstay_kernel::netlink::macvlan::{self, Switch};
use mainstay_kernel::protocol::{self, ProtocolSocket};
use mainstay_vrrp::PROTOCOL;
use std::net::IpAddr;

use crate::altered::{set_for_now, split_rp_filter};
use crate::host::Host;

/// Of which family the addresses are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// The interface.
#[derive(Debug)]
pub(super) struct VirtualMac {
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
    name: String,
    /// What is heard on it; `None` while it is switched off.
    pub(super) socket: Option<ProtocolSocket>,
}

impl VirtualMac {
    /// Makes it, switched off. What has its name is what an earlier process of ours left, and is replaced.
    pub(super) fn make(
        host: &Host,
        below: &Link,
        vrid: NonZeroU8,
        family: Family,
    ) -> io::Result<Self> {
        let (digit, octet) = match family {
            Family::V4 => (4, 1),
            Family::V6 => (6, 2),
        };
        let mac = [0, 0, 0x5e, 0, octet, vrid.get()];
        let name = format!("msv{digit}-{vrid}-{}", below.index);
        let mut altered = host.altered.borrow_mut();
        altered.makes(&name)?;
        if let Some(left) = Link::named(&host.route, &name)? {
            macvlan::remove(&host.route, left.index)?;
        }
        macvlan::make(&host.route, &name, below.index, mac)?;
        let made = Link::named(&host.route, &name)?.ok_or(io::ErrorKind::NotFound)?;
        match family {
            Family::V4 => {
                split_rp_filter(&host.route)?;
                // As keepalived does: each interface answers for its own addresses, and what comes from clients, whose way
                // back is by the interface below, is not dropped.
                for (setting, value) in [
                    ("arp_ignore", "1"),
                    ("rp_filter", "0"),
                    ("accept_local", "1"),
                ] {
                    set_for_now(&format!("net/ipv4/conf/{name}/{setting}"), value)?;
                }
                for setting in ["arp_ignore", "arp_filter"] {
                    altered.set(&format!("net/ipv4/conf/{}/{setting}", below.name), "1")?;
                }
                set_for_now(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
            }
            Family::V6 => {
                // Without addresses of its own, which would be those of every holder (RFC 9568, 7.4).
                for (setting, value) in [
                    ("disable_ipv6", "0"),
                    ("addr_gen_mode", "1"),
                    ("accept_ra", "0"),
                    ("autoconf", "0"),
                ] {
                    set_for_now(&format!("net/ipv6/conf/{name}/{setting}"), value)?;
                }
            }
        }
        Ok(Self {
            index: made.index,
            mac,
            name,
            socket: None,
        })
    }

    /// Whether it is still there.
    pub(super) fn exists(&self, host: &Host) -> bool {
        let found = Link::named(&host.route, &self.name);
        matches!(found, Ok(Some(link)) if link.index == self.index)
    }

    /// Switches it on, for the addresses that come.
    pub(super) fn rise(&mut self, host: &Host, group: IpAddr) -> io::Result<()> {
        if self.socket.is_some() {
            return Ok(());
        }
        macvlan::switch(&host.route, self.index, Switch::On)?;
        let socket = ProtocolSocket::open(&protocol::Options {
            protocol: PROTOCOL,
            interface: (&self.name, self.index),
            group,
        })?;
        host.watch(&socket)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Switches it off: nothing is sent from this hardware address any more.
    pub(super) fn sink(&mut self, host: &Host) -> io::Result<()> {
        self.socket = None;
        macvlan::switch(&host.route, self.index, Switch::Off)
    }
}
