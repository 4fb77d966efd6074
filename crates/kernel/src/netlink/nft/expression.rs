//! What rules are made of: small steps that load, compare and change.

use super::Name;
use crate::netlink::attribute::Writer;

/// `NFTA_LIST_ELEM`.
pub(super) const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// A register of four bytes. What is longer takes those behind it, too: an address of IPv6 four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(u32);

impl Register {
    /// How many there are.
    pub const COUNT: u32 = 16;

    /// Number `index`, from 0. Panics if there is none of that number.
    pub const fn new(index: u32) -> Self {
        assert!(index < Self::COUNT, "there are 16 registers");
        // NFT_REG32_00
        Self(8 + index)
    }
}

/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;

/// From where a part of a packet is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The header of IP.
    Network,
    /// The header behind it, of TCP or UDP.
    Transport,
}

/// What is known about a packet beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// The packet's or socket's mark.
    Mark,
    /// The index of the interface by which it came.
    InputInterface,
    /// The index of the interface by which it leaves.
    OutputInterface,
    /// The version of IP, as `NFPROTO_*`; one byte.
    NetworkProtocol,
    /// TCP or UDP, as `IPPROTO_*`; one byte.
    TransportProtocol,
    /// Of which kind the interface is by which it came, such as `bridge`; 16 bytes, zeros behind the
    /// word. For devices, which have no kind, the rule does not match.
    InputKind,
    /// Of which kind the interface is by which it leaves.
    OutputKind,
}

/// What connection tracking knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConntrackKey {
    /// Bits of `IP_CT_*`: new, established, ...
    State,
    /// Whether the packet goes the way of the connection's first (0) or back (1); one byte.
    Direction,
    /// Bits of `IPS_*`.
    Status,
    /// To which IPv4 address the connection's first packet was sent, before anything translated it.
    OriginalIpv4Destination,
    /// To which IPv6 address.
    OriginalIpv6Destination,
}

/// How a register is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Goes on if all bytes are equal.
    Equal,
    /// Goes on if any differs.
    NotEqual,
    /// Goes on if they are no greater, the first byte being the highest.
    AtMost,
}

/// How a packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// With a reset; only of TCP.
    TcpReset,
    /// With "port unreachable" of the packet's version of IP.
    PortUnreachable,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The packet goes on behind this base chain.
    Accept,
    /// It is gone, without a word.
    Drop,
    /// Goes on behind the rule that led here.
    Return,
    /// To a chain, and back at its end.
    Jump(Name),
    /// To a chain, and not back.
    Goto(Name),
}

impl Verdict {
    /// `NFT_*` and `NF_*`.
    fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
        }
    }

    fn chain(&self) -> Option<&Name> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            Self::Accept | Self::Drop | Self::Return => None,
        }
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.nest(DATA_VERDICT, |out| {
            out.attribute(VERDICT_CODE, &self.code().to_be_bytes());
            if let Some(chain) = self.chain() {
                out.text(VERDICT_CHAIN, chain.as_str());
            }
        });
    }
}

/// Writes a value as the kernel wants data.
pub(super) fn write_value(out: &mut Writer, value: &[u8]) {
    out.attribute(DATA_VALUE, value);
}

/// One step of a rule. A comparison or lookup that does not hold ends the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Loads `len` bytes of the packet.
    Payload {
        /// From where it is counted.
        base: Base,
        /// Of the first byte.
        offset: u32,
        /// In bytes.
        len: u32,
        /// Where the result goes.
        into: Register,
    },
    /// Loads something known about the packet.
    Meta {
        /// What.
        key: MetaKey,
        /// Where the result goes.
        into: Register,
    },
    /// Loads something that connection tracking knows.
    Conntrack {
        /// What.
        key: ConntrackKey,
        /// Where the result goes.
        into: Register,
    },
    /// `from & mask`.
    Mask {
        /// Where the value stands.
        from: Register,
        /// As the register has the value: addresses in network order, conntrack's bits in the
        /// machine's own.
        mask: Vec<u8>,
        /// Where the result goes.
        into: Register,
    },
    /// Goes on if the comparison holds.
    Compare {
        /// Where the value stands.
        register: Register,
        /// Which result goes on.
        how: Comparison,
        /// As the register has it.
        with: Vec<u8>,
    },
    /// Whether a set has the key that begins in this register.
    IsIn {
        /// Which.
        set: Name,
        /// Where the key begins.
        key: Register,
    },
    /// Adds the key to a dynamic set, or lets it live longer, and counts the packet there.
    Count {
        /// Which; it has to be dynamic.
        set: Name,
        /// Where the key begins.
        key: Register,
    },
    /// Looks the key up in a map, and loads what it has for it.
    Map {
        /// Which.
        map: Name,
        /// Where the key begins.
        key: Register,
        /// Where the result goes.
        into: Register,
    },
    /// Looks the key up in a map of verdicts, and does what it says.
    VerdictMap {
        /// Which.
        map: Name,
        /// Where the key begins.
        key: Register,
    },
    /// A random number below `modulus`.
    Random {
        /// Not 0.
        modulus: u32,
        /// Where the result goes.
        into: Register,
    },
    /// Jenkins' hash of `len` bytes, modulo `modulus`.
    Hash {
        /// Where the value stands.
        from: Register,
        /// In bytes.
        len: u32,
        /// Not 0.
        modulus: u32,
        /// What changes all hashes.
        seed: u32,
        /// Where the result goes.
        into: Register,
    },
    /// What kind of address the source is (`RTN_*`).
    SourceAddressType {
        /// Where the result goes.
        into: Register,
    },
    /// Sends the packet's connection to the address and port in these registers.
    DestinationNat {
        /// Which version of IP the address is of.
        family: super::Family,
        /// Where the address stands.
        address: Register,
        /// Where the port stands.
        port: Register,
    },
    /// Gives the packet's connection the address of the interface by which it leaves.
    Masquerade,
    /// Refuses the packet, and tells its sender.
    Reject(Rejection),
    /// Counts packets and bytes.
    Counter,
    /// Ends the rule.
    Verdict(Verdict),
}

impl Expression {
    pub(super) fn write(&self, out: &mut Writer) {
        out.text(EXPR_NAME, self.name());
        out.nest(EXPR_DATA, |out| self.write_data(out));
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } => "meta",
            Self::Conntrack { .. } => "ct",
            Self::Mask { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::IsIn { .. } | Self::Map { .. } | Self::VerdictMap { .. } => "lookup",
            Self::Count { .. } => "dynset",
            Self::Random { .. } => "numgen",
            Self::Hash { .. } => "hash",
            Self::SourceAddressType { .. } => "fib",
            Self::DestinationNat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject(_) => "reject",
            Self::Counter => "counter",
            Self::Verdict(_) => "immediate",
        }
    }

    fn write_data(&self, out: &mut Writer) {
        match self {
            Self::Payload {
                base,
                offset,
                len,
                into,
            } => write_payload(out, *base, (*offset, *len), *into),
            Self::Meta { key, into } => {
                out.number(1, into.0);
                out.number(2, meta_key(*key));
            }
            Self::Conntrack { key, into } => {
                out.number(1, into.0);
                out.number(2, conntrack_key(*key));
                if let Some(direction) = direction(*key) {
                    out.attribute(3, &[direction]);
                }
            }
            Self::Mask { from, mask, into } => write_mask(out, *from, mask, *into),
            Self::Compare {
                register,
                how,
                with,
            } => {
                out.number(1, register.0);
                out.number(2, comparison(*how));
                out.nest(3, |out| write_value(out, with));
            }
            Self::IsIn { set, key } => write_lookup(out, set, *key, None),
            Self::Count { set, key } => write_count(out, set, *key),
            Self::Map { map, key, into } => write_lookup(out, map, *key, Some(into.0)),
            Self::VerdictMap { map, key } => write_lookup(out, map, *key, Some(VERDICT_REGISTER)),
            Self::Random { modulus, into } => {
                out.number(1, into.0);
                out.number(2, *modulus);
                // NFT_NG_RANDOM
                out.number(3, 1);
                out.number(4, 0);
            }
            Self::Hash {
                from,
                len,
                modulus,
                seed,
                into,
            } => write_hash(out, (*from, *len), (*modulus, *seed), *into),
            Self::SourceAddressType { into } => {
                out.number(1, into.0);
                // NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_SADDR
                out.number(2, 3);
                out.number(3, 1);
            }
            Self::DestinationNat {
                family,
                address,
                port,
            } => write_nat(out, *family, *address, *port),
            Self::Masquerade | Self::Counter => {}
            Self::Reject(how) => {
                let (kind, code) = rejection(*how);
                out.number(1, kind);
                out.attribute(2, &[code]);
            }
            Self::Verdict(verdict) => {
                out.number(1, VERDICT_REGISTER);
                out.nest(2, |out| verdict.write(out));
            }
        }
    }
}

fn write_payload(out: &mut Writer, base: Base, (offset, len): (u32, u32), into: Register) {
    let base = match base {
        Base::Network => 1,
        Base::Transport => 2,
    };
    out.number(1, into.0);
    out.number(2, base);
    out.number(3, offset);
    out.number(4, len);
}

fn write_mask(out: &mut Writer, from: Register, mask: &[u8], into: Register) {
    out.number(1, from.0);
    out.number(2, into.0);
    out.number(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
    out.nest(4, |out| write_value(out, mask));
    out.nest(5, |out| write_value(out, &vec![0; mask.len()]));
}

fn write_count(out: &mut Writer, set: &Name, key: Register) {
    out.text(1, set.as_str());
    // NFT_DYNSET_OP_UPDATE
    out.number(3, 1);
    out.number(4, key.0);
    out.nest(7, |out| Expression::Counter.write(out));
}

fn write_lookup(out: &mut Writer, set: &Name, key: Register, into: Option<u32>) {
    out.text(1, set.as_str());
    out.number(2, key.0);
    if let Some(into) = into {
        out.number(3, into);
    }
}

fn write_hash(
    out: &mut Writer,
    (from, len): (Register, u32),
    (modulus, seed): (u32, u32),
    into: Register,
) {
    out.number(1, from.0);
    out.number(2, into.0);
    out.number(3, len);
    out.number(4, modulus);
    out.number(5, seed);
    // No offset; NFT_HASH_JENKINS.
    out.number(6, 0);
    out.number(7, 0);
}

fn write_nat(out: &mut Writer, family: super::Family, address: Register, port: Register) {
    // NFT_NAT_DNAT
    out.number(1, 1);
    out.number(2, family.number().into());
    out.number(3, address.0);
    out.number(5, port.0);
}

fn meta_key(key: MetaKey) -> u32 {
    match key {
        MetaKey::Mark => 3,
        MetaKey::InputInterface => 4,
        MetaKey::OutputInterface => 5,
        MetaKey::NetworkProtocol => 15,
        MetaKey::TransportProtocol => 16,
        MetaKey::InputKind => 26,
        MetaKey::OutputKind => 27,
    }
}

fn conntrack_key(key: ConntrackKey) -> u32 {
    match key {
        ConntrackKey::State => 0,
        ConntrackKey::Direction => 1,
        ConntrackKey::Status => 2,
        ConntrackKey::OriginalIpv4Destination => 20,
        ConntrackKey::OriginalIpv6Destination => 22,
    }
}

/// `IP_CT_DIR_*`, of what has one.
fn direction(key: ConntrackKey) -> Option<u8> {
    match key {
        ConntrackKey::State | ConntrackKey::Direction | ConntrackKey::Status => None,
        ConntrackKey::OriginalIpv4Destination | ConntrackKey::OriginalIpv6Destination => Some(0),
    }
}

fn comparison(how: Comparison) -> u32 {
    match how {
        Comparison::Equal => 0,
        Comparison::NotEqual => 1,
        Comparison::AtMost => 3,
    }
}

/// `NFT_REJECT_*` and its code.
fn rejection(how: Rejection) -> (u32, u8) {
    match how {
        Rejection::TcpReset => (1, 0),
        // NFT_REJECT_ICMPX_PORT_UNREACH: of either version of IP.
        Rejection::PortUnreachable => (2, 1),
    }
}
