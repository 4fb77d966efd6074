//! What a table consists of, to see whether it is still as it was made.

use std::io;

use super::dump::GENERIC_LEN;
use super::transaction::{SUBSYSTEM, message};
use super::{Family, Name};
use crate::netlink::attribute::{Attributes, Writer};
use crate::netlink::socket::{ACK, DUMP, REQUEST, Socket};

const GET_TABLE: u16 = 1;
pub(super) const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
const GET_GENERATION: u16 = 16;
/// `NFT_TABLE_F_DORMANT`: its chains see no packets.
const DORMANT: u64 = 0x1;

/// Which state of all rules of a network namespace: one more with each transaction of anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(pub(super) u32);

impl Generation {
    /// After one more transaction.
    #[must_use]
    pub fn next(self) -> Self {
        // 0 is none of them.
        Self(self.0.checked_add(1).unwrap_or(1))
    }
}

/// Chains and rules of a table as the kernel has them, in its own encoding: good for telling whether
/// two are the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Its chains see no packets.
    pub dormant: bool,
    /// By name, with where they are hooked in, by which type and policy.
    pub chains: Vec<(String, Vec<u8>)>,
    /// By chain, with their expressions.
    pub rules: Vec<(String, Vec<u8>)>,
}

impl Socket {
    /// Which state the rules are in; asking costs some microseconds.
    pub fn generation(&self) -> io::Result<Generation> {
        let mut found = None;
        self.ask(
            (GET_GENERATION, ACK),
            Family::Inet.number(),
            |_| (),
            |attributes| {
                found = found.or(attributes.find_number(1));
            },
        )?;
        let found = found.and_then(|number| u32::try_from(number).ok());
        found
            .map(Generation)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Chains and rules of a table; `None` if there is none.
    pub fn list_table(&self, family: Family, table: &Name) -> io::Result<Option<Listing>> {
        let mut listing = Listing::default();
        let family = family.number();
        let named = |out: &mut Writer| out.text(1, table.as_str());
        let asked = self.ask((GET_TABLE, ACK), family, named, |attributes| {
            let flags = attributes.find_number(2).unwrap_or(0);
            listing.dormant = flags & DORMANT != 0;
        });
        match asked {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            asked => asked?,
        }
        let ours = |attributes: &Attributes<'_>| attributes.find_text(1) == Some(table.as_str());
        self.ask((GET_CHAIN, DUMP), family, named, |chain| {
            if let Some(name) = chain.find_text(3).filter(|_| ours(&chain)) {
                let parts = [4, 5, 7].map(|kind| chain.find(kind).unwrap_or_default());
                listing.chains.push((name.to_owned(), parts.concat()));
            }
        })?;
        self.ask((GET_RULE, DUMP), family, named, |rule| {
            if let Some(chain) = rule.find_text(2).filter(|_| ours(&rule)) {
                let steps = rule.find(4).unwrap_or_default().to_vec();
                listing.rules.push((chain.to_owned(), steps));
            }
        })?;
        Ok(Some(listing))
    }

    fn ask(
        &self,
        which: (u16, u16),
        family: u8,
        write: impl FnOnce(&mut Writer),
        mut each: impl FnMut(Attributes<'_>),
    ) -> io::Result<()> {
        self.ask_of_families(which, family, write, |_, attributes| each(attributes))
    }

    /// Also tells of which family each of the answers is.
    pub(super) fn ask_of_families(
        &self,
        (kind, flags): (u16, u16),
        family: u8,
        write: impl FnOnce(&mut Writer),
        mut each: impl FnMut(u8, Attributes<'_>),
    ) -> io::Result<()> {
        let mut out = Writer::default();
        let head = (REQUEST | flags, 1);
        message(&mut out, SUBSYSTEM | kind, head, (family, 0), write);
        self.dump(out.as_bytes(), |body| {
            if let Some((header, attributes)) = body.split_first_chunk::<GENERIC_LEN>() {
                each(header[0], Attributes::of(attributes));
            }
        })
    }
}
