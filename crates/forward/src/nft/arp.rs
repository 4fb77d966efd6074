//! Each node has all service addresses: none may say on its links that they are its own, which Linux
//! does of all local addresses.
//!
//! IPv6 needs nothing: neighbour discovery answers for addresses of interfaces alone.

use mainstay_kernel::netlink::nft::{
    Base, Chain, Expression, Family, Hook, Name, Policy, Register, Transaction, Verdict,
};
use mainstay_model::forward::Answering;

use super::Settings;
use super::rules::lies_in;

/// Where a message of ARP over Ethernet has the address that is asked for (RFC 826).
const TARGET_AT: u32 = 24;
const ADDRESS_LEN: u32 = 4;

/// Everything, into a table that is not there; `None`: there is nothing to be kept silent about.
pub(super) fn make(settings: &Settings) -> Option<Transaction> {
    match settings.answering {
        Answering::On => return None,
        Answering::Off => {}
    }
    let networks = settings.ranges.networks().iter();
    // One address alone may be the machine's own, which others find by ARP.
    let ranges = networks.filter(|one| one.address().is_ipv4() && one.prefix() < 32);
    let mut ranges = ranges.peekable();
    ranges.peek()?;
    let mut tx = Transaction::new(Family::Arp, settings.table.clone());
    tx.add_table();
    let name = Name::new("input").ok()?;
    let base = Some((Hook::ArpInput(0), Policy::Accept));
    tx.add_chain(&Chain {
        name: name.clone(),
        base,
    });
    for range in ranges {
        let target = Expression::Payload {
            base: Base::Network,
            offset: TARGET_AT,
            len: ADDRESS_LEN,
            into: Register::new(0),
        };
        let drop = Expression::Verdict(Verdict::Drop);
        tx.add_rule(&name, &[&[target], &lies_in(range)[..], &[drop]].concat());
    }
    Some(tx)
}
