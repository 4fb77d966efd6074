//! Sets and maps, and what is in them.

use std::net::IpAddr;
use std::time::Duration;

use super::expression::{Verdict, write_value};
use super::{Expression, Name};
use crate::netlink::attribute::Writer;

/// What stands in registers is padded to this length.
const FIELD_ALIGNMENT: usize = 4;
/// How many bits of a type's number each field has in the number of a concatenation
/// (`TYPE_BITS` of nft's source: for its listings only).
const TYPE_BITS: u32 = 6;
/// `NFT_DATA_VERDICT`.
const VERDICT_TYPE: u32 = 0xFFFF_FF00;

/// What kind of value a field is; by nft's numbers of types, so that it can list what we made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An address of IPv4.
    Ipv4,
    /// An address of IPv6.
    Ipv6,
    /// TCP or UDP.
    Protocol,
    /// A port of TCP or UDP.
    Port,
    /// A number of four bytes in the machine's own order. nft has no name for one in a declaration
    /// and lists it as a mark.
    Number,
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Number => 19,
        }
    }

    fn len(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Number => 4,
            Self::Ipv6 => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }
}

/// What a key, or a value, consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields(pub &'static [Kind]);

impl Fields {
    fn number(self) -> u32 {
        let kinds = self.0.iter();
        kinds.fold(0, |number, kind| (number << TYPE_BITS) | kind.number())
    }

    /// A single field is not padded.
    fn len(self) -> u32 {
        match self.0 {
            [only] => only.len(),
            many => many.iter().map(|kind| kind.len().next_multiple_of(4)).sum(),
        }
    }
}

/// What a set has for its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Nothing: it is a set.
    None,
    /// A value of its own for each.
    Fields(Fields),
    /// A verdict.
    Verdicts,
}

/// A set, or a map.
#[derive(Debug, Clone)]
pub struct Set {
    /// Unlike those of the table's other sets and maps.
    pub name: Name,
    /// What its keys consist of.
    pub key: Fields,
    /// What it has for them.
    pub values: Values,
    /// Whether packets and bytes are counted for each element.
    pub counted: bool,
    /// `None`: elements come and go by transactions alone.
    pub dynamic: Option<Dynamic>,
}

/// Of a set to which rules add elements as packets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dynamic {
    /// How many elements at most; for more the rule does not hold.
    pub size: u32,
    /// How long one stays that no packet meets.
    pub idle: Duration,
}

const MAP_FLAG: u32 = 0x8;
/// `NFT_SET_TIMEOUT | NFT_SET_EVAL`.
const DYNAMIC_FLAGS: u32 = 0x10 | 0x20;

impl Set {
    /// `id` names it to others of the same transaction.
    pub(super) fn write(&self, out: &mut Writer, id: u32) {
        let is_map = match self.values {
            Values::None => 0,
            Values::Fields(_) | Values::Verdicts => MAP_FLAG,
        };
        let is_dynamic = self.dynamic.map_or(0, |_| DYNAMIC_FLAGS);
        out.number(3, is_map | is_dynamic);
        out.number(4, self.key.number());
        out.number(5, self.key.len());
        match self.values {
            Values::None => {}
            Values::Fields(fields) => {
                out.number(6, fields.number());
                out.number(7, fields.len());
            }
            Values::Verdicts => {
                out.number(6, VERDICT_TYPE);
                out.number(7, 0);
            }
        }
        if let Some(Dynamic { size, idle }) = self.dynamic {
            out.nest(9, |out| out.number(1, size));
            let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
            out.attribute(11, &idle.to_be_bytes());
        }
        out.number(10, id);
        if self.counted {
            out.nest(17, |out| Expression::Counter.write(out));
        }
    }
}

/// A key, or a value, field by field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[must_use]
pub struct Key(Vec<u8>);

impl Key {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`super::Dumped`] has it.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// An address.
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.field(&address.octets()),
            IpAddr::V6(address) => self.field(&address.octets()),
        }
    }

    /// A protocol, as `IPPROTO_*`.
    pub fn protocol(self, protocol: u8) -> Self {
        self.field(&[protocol])
    }

    /// A port.
    pub fn port(self, port: u16) -> Self {
        self.field(&port.to_be_bytes())
    }

    /// A number.
    pub fn number(self, number: u32) -> Self {
        self.field(&number.to_ne_bytes())
    }

    fn field(mut self, bytes: &[u8]) -> Self {
        self.0
            .resize(self.0.len().next_multiple_of(FIELD_ALIGNMENT), 0);
        self.0.extend_from_slice(bytes);
        self
    }

    /// As the kernel has it: more than one field are padded at the end, too.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        if bytes.len() > FIELD_ALIGNMENT {
            bytes.resize(bytes.len().next_multiple_of(FIELD_ALIGNMENT), 0);
        }
        bytes
    }
}

/// What an element of a map has for its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapped {
    /// A value.
    Value(Key),
    /// What becomes of the packet.
    Verdict(Verdict),
}

/// An element of a set, or of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// By what it is found.
    pub key: Key,
    /// `None` in a set, and for what is to be deleted.
    pub mapped: Option<Mapped>,
}

impl Element {
    /// Of a set, or to be deleted.
    pub fn key(key: Key) -> Self {
        Self { key, mapped: None }
    }

    /// Of a map.
    pub fn value(key: Key, value: Key) -> Self {
        let mapped = Some(Mapped::Value(value));
        Self { key, mapped }
    }

    /// Of a map of verdicts.
    pub fn verdict(key: Key, verdict: Verdict) -> Self {
        let mapped = Some(Mapped::Verdict(verdict));
        Self { key, mapped }
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.nest(1, |out| write_value(out, &self.key.to_bytes()));
        match &self.mapped {
            None => {}
            Some(Mapped::Value(value)) => out.nest(2, |out| write_value(out, &value.to_bytes())),
            Some(Mapped::Verdict(verdict)) => out.nest(2, |out| verdict.write(out)),
        }
    }
}
