//! What the kernel has in force, whoever made it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;

use mainstay_control::forward::Slots;
use mainstay_kernel::netlink::conntrack::{Conntrack, Protocol, Tuple};
use mainstay_kernel::netlink::diag::{End, Sockets, State};
use mainstay_kernel::netlink::route::{Leads, Routes};

use mainstay_model::forward::BackEndKind;

use crate::back_end::Counted;

/// Connections to instances elsewhere that are counted: more than a host has ports for one service.
const CLIENTS_MAX: usize = 65_536;

/// All that there is in a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// By whose rules.
    pub back_end: BackEndKind,
    /// Somebody switched the rules off: packets do not meet them.
    pub dormant: bool,
    /// What of the rules that are the same for all services somebody changed, in words.
    pub altered: Vec<String>,
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
    /// Each service with its instances.
    pub fn leading(&self) -> Vec<Leading> {
        let services = self.services.iter();
        let leading = services.map(|service| Leading {
            service: service.address,
            instances: service.counts().into_iter().map(|(to, _)| to).collect(),
        });
        leading.collect()
    }

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

/// A service address with the instances to which it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leading {
    /// The service address.
    pub service: SocketAddr,
    /// Where its instances listen.
    pub instances: Vec<SocketAddr>,
}

/// Established connections of TCP that sockets of this thread's network namespace have, by instance: to
/// an instance here all of its own, also those that no service led there; to one elsewhere those of
/// clients here that services led there. Clients elsewhere of instances elsewhere have no socket here.
pub fn established(leading: &[Leading]) -> io::Result<BTreeMap<SocketAddr, u64>> {
    let (routes, sockets, conntrack) = (Routes::open()?, Sockets::open()?, Conntrack::open()?);
    let mut ways = HashMap::new();
    let mut counts = BTreeMap::new();
    let mut here = BTreeSet::new();
    let mut leading_on = Vec::new();
    for Leading { service, instances } in leading {
        let mut leads_on = false;
        for instance in instances {
            counts.insert(*instance, 0);
            let ip = instance.ip();
            let is_here = match ways.entry(ip) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(place) => {
                    let way = routes.way(ip, None)?;
                    *place.insert(way.is_some_and(|way| way.leads == Leads::Here))
                }
            };
            if is_here {
                here.insert(*instance);
            }
            leads_on |= !is_here;
        }
        leading_on.extend(leads_on.then_some(End::Remote(*service)));
    }
    let at: Vec<SocketAddr> = here.iter().copied().collect();
    for (instance, crowd) in at.iter().zip(sockets.crowds(&at)?) {
        counts.insert(*instance, crowd.established);
    }
    let clients = clients(&sockets, &leading_on)?;
    for flow in conntrack.find(&clients)?.into_iter().flatten() {
        let to = flow.reply.source;
        if let Some(count) = counts.get_mut(&to).filter(|_| !here.contains(&to)) {
            *count += 1;
        }
    }
    Ok(counts)
}

/// Connections of programs here to services.
fn clients(sockets: &Sockets, services: &[End]) -> io::Result<Vec<Tuple>> {
    let mut found = Vec::new();
    if services.is_empty() {
        return Ok(found);
    }
    sockets.each(services, &[State::Established], |_, socket| {
        if found.len() < CLIENTS_MAX {
            found.push(Tuple {
                protocol: Protocol::Tcp,
                source: socket.local,
                destination: socket.remote,
            });
        }
    })?;
    Ok(found)
}

/// A part of all, in percent with one digit, such as `33.3 %`.
pub fn percent(part: u64, all: u64) -> String {
    let thousandths = (part * 1000 + all / 2).checked_div(all).unwrap_or(0);
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}
