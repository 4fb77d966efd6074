//! Reading elements back: for explanations and for taking over what an earlier process made. It reads
//! all of a set, which is slow; nothing that happens per change asks for it.

use std::io;

use super::transaction::{SUBSYSTEM, message};
use super::{Family, Name};
use crate::netlink::attribute::{Attributes, Writer};
use crate::netlink::socket::{DUMP, REQUEST, Socket};

const GET_ELEMENTS: u16 = 13;
/// Netfilter's own header.
pub(super) const GENERIC_LEN: usize = 4;

/// An element as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dumped {
    /// See [`super::Key::to_bytes`].
    pub key: Vec<u8>,
    /// What a map has for it; see there.
    pub value: Option<Vec<u8>>,
    /// The chain to which a map of verdicts leads.
    pub chain: Option<String>,
    /// Packets and bytes, if they are counted.
    pub counted: Option<(u64, u64)>,
}

impl Socket {
    /// All elements of a set or map, in the kernel's order. What another process changes meanwhile may
    /// be there or not.
    pub fn dump_elements(
        &self,
        family: Family,
        table: &Name,
        set: &Name,
    ) -> io::Result<Vec<Dumped>> {
        let mut out = Writer::default();
        message(
            &mut out,
            SUBSYSTEM | GET_ELEMENTS,
            (REQUEST | DUMP, 1),
            (family.number(), 0),
            |out| {
                out.text(1, table.as_str());
                out.text(2, set.as_str());
            },
        );
        let mut found = Vec::new();
        self.dump(out.as_bytes(), |body| {
            found.extend(elements(body));
        })?;
        Ok(found)
    }
}

/// Those of one message.
pub(super) fn elements(body: &[u8]) -> impl Iterator<Item = Dumped> {
    let attributes = Attributes::of(body.get(GENERIC_LEN..).unwrap_or_default());
    let list = attributes.find(3).unwrap_or_default();
    Attributes::of(list).filter_map(|(_, element)| read(element))
}

fn read(element: &[u8]) -> Option<Dumped> {
    let element = Attributes::of(element);
    let data = |kind| element.find(kind).map(Attributes::of);
    let value = |kind| data(kind)?.find(1).map(<[u8]>::to_vec);
    let verdict = || data(2)?.find(2).map(Attributes::of);
    // NFTA_SET_ELEM_EXPR; NFTA_SET_ELEM_EXPRESSIONS has more than one.
    let counter = || Attributes::of(element.find(7)?).find(2).map(Attributes::of);
    Some(Dumped {
        key: value(1)?,
        value: value(2),
        chain: verdict().and_then(|verdict| verdict.find_text(2).map(str::to_owned)),
        counted: counter().and_then(|counter| {
            let (bytes, packets) = (counter.find_number(1)?, counter.find_number(2)?);
            Some((packets, bytes))
        }),
    })
}
