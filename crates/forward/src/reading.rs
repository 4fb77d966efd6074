//! What the kernel has in force, whoever made it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use mainstay_control::forward::Slots;
use mainstay_kernel::netlink::conntrack::{Conntrack, Protocol, Tuple};
use mainstay_kernel::netlink::diag::{End, Sockets, State};
use mainstay_kernel::netlink::route::{Leads, Routes};

use mainstay_model::forward::BackEndKind;

use crate::back_end::Counted;

/// Connections to one service that are counted: more than a host has ports for one address.
const CLIENTS_MAX: usize = 65_536;

/// All that there is in a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// By whose rules.
    pub back_end: BackEndKind,
    /// Somebody switched the rules off: packets do not meet them.
    pub dormant: bool,
    /// In the order of their addresses.
    pub services: Vec<ServiceReading>,
    /// Instances to which what is under way is reset.
    pub dead: Vec<SocketAddr>,
    /// What instances were sent and have sent.
    pub traffic: BTreeMap<SocketAddr, Counted>,
}

/// A service address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceReading {
    /// The address.
    pub address: SocketAddr,
    /// Who gets its connections. `None`: the rules are not whole, and connections to some instances
    /// fail until the agent repairs them.
    pub slots: Option<Slots>,
    /// New connections since its rules were made.
    pub connections: u64,
}

impl Reading {
    /// The service of an address.
    pub fn service(&self, address: SocketAddr) -> Option<&ServiceReading> {
        self.services.iter().find(|one| one.address == address)
    }
}

impl ServiceReading {
    /// Each instance with the number of its slots, in their order.
    pub fn counts(&self) -> Vec<(SocketAddr, u64)> {
        let owners = self.slots.iter().flat_map(Slots::owners);
        let mut counts = BTreeMap::new();
        for owner in owners {
            *counts.entry(*owner).or_insert(0) += 1;
        }
        counts.into_iter().collect()
    }
}

/// Established connections of TCP that sockets of this thread's network namespace have, by instance: to
/// an instance here all of its own, also those that no service led there; to one elsewhere those of
/// clients here that services led there. Clients elsewhere of instances elsewhere have no socket here.
pub fn established(reading: &Reading) -> io::Result<BTreeMap<SocketAddr, u64>> {
    let (routes, sockets, conntrack) = (Routes::open()?, Sockets::open()?, Conntrack::open()?);
    let mut counts = BTreeMap::new();
    for service in &reading.services {
        let mut led = Vec::new();
        for (instance, _) in service.counts() {
            let way = routes.way(instance.ip(), None)?;
            if way.is_some_and(|way| way.leads == Leads::Here) {
                let crowds = sockets.crowds(&[instance])?;
                counts.insert(instance, crowds.iter().map(|crowd| crowd.established).sum());
            } else {
                led.push(instance);
            }
        }
        if led.is_empty() {
            continue;
        }
        let clients = clients(&sockets, service.address)?;
        for flow in conntrack.find(&clients)?.into_iter().flatten() {
            *counts.entry(flow.reply.source).or_default() += 1;
        }
        for instance in led {
            counts.entry(instance).or_default();
        }
    }
    Ok(counts)
}

/// Connections of programs here to a service.
fn clients(sockets: &Sockets, service: SocketAddr) -> io::Result<Vec<Tuple>> {
    let mut found = Vec::new();
    sockets.each(
        &[End::Remote(service)],
        &[State::Established],
        |_, socket| {
            if found.len() < CLIENTS_MAX {
                found.push(Tuple {
                    protocol: Protocol::Tcp,
                    source: socket.local,
                    destination: service,
                });
            }
        },
    )?;
    Ok(found)
}

/// A part of all, in percent with one digit, such as `33.3 %`.
pub fn percent(part: u64, all: u64) -> String {
    let thousandths = (part * 1000 + all / 2).checked_div(all).unwrap_or(0);
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}
