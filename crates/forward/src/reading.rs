//! What the kernel has in force, whoever made it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mainstay_control::forward::Slots;

use mainstay_model::forward::BackEndKind;

use crate::back_end::Counted;

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

/// A part of all, in percent with one digit, such as `33.3 %`.
pub fn percent(part: u64, all: u64) -> String {
    let thousandths = (part * 1000 + all / 2).checked_div(all).unwrap_or(0);
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}
