//! Chains of anybody that packets meet by themselves: what else has a say.

use std::io;

use super::Policy;
use super::listing::GET_CHAIN;
use crate::netlink::attribute::Attributes;
use crate::netlink::socket::{DUMP, Socket};

/// `NFPROTO_UNSPEC`: all of them.
const ANY_FAMILY: u8 = 0;
/// `NF_DROP`.
const DROP: u64 = 0;

/// A base chain, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooked {
    /// Which packets its table sees (`NFPROTO_*`): 1 is `inet`, 2 `ip`, 10 `ip6`.
    pub family: u8,
    /// Its table.
    pub table: String,
    /// Its own name.
    pub chain: String,
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// Where it is hooked in (`NF_INET_*`): 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub hook: u32,
    /// Of two at one hook the lower comes first; of equals the one that was made first.
    pub priority: i32,
    /// What becomes of packets that no rule decides on.
    pub policy: Policy,
}

impl Socket {
    /// All base chains of this network namespace, those of iptables-nft included; those of
    /// iptables-legacy are no chains of nf_tables.
    pub fn hooked_chains(&self) -> io::Result<Vec<Hooked>> {
        let mut found = Vec::new();
        self.dump_chains(|family, chain| found.extend(read(family, &chain)))?;
        Ok(found)
    }

    fn dump_chains(&self, each: impl FnMut(u8, Attributes<'_>)) -> io::Result<()> {
        self.ask_of_families((GET_CHAIN, DUMP), ANY_FAMILY, |_| (), each)
    }
}

fn read(family: u8, chain: &Attributes<'_>) -> Option<Hooked> {
    let hook = Attributes::of(chain.find(4)?);
    let small = |number: u64| u32::try_from(number).ok();
    let text = |kind| chain.find_text(kind).map(str::to_owned);
    let policy = match chain.find_number(5) {
        Some(DROP) => Policy::Drop,
        Some(_) | None => Policy::Accept,
    };
    Some(Hooked {
        family,
        table: text(1)?,
        chain: text(3)?,
        kind: text(7)?,
        hook: small(hook.find_number(1)?)?,
        priority: small(hook.find_number(2)?)?.cast_signed(),
        policy,
    })
}
