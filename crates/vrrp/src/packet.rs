//! Adverts out of bytes and into bytes, without allocation.
//!
//! ```text
//!  version 3 (RFC 9568, 5.1)                          version 2 (RFC 3768, 5.1)
//!  0       1       2       3                          0       1       2       3
//! +---+---+-------+-------+-------+                  +---+---+-------+-------+-------+
//! | 3 | 1 | VRID  | prior.| count |                  | 2 | 1 | VRID  | prior.| count |
//! +---+---+-------+-------+-------+                  +---+---+-------+-------+-------+
//! | - | 12 bits: 1/100 s | checksum |                | auth  | sec.  |   checksum    |
//! +---+-----------+-------+-------+                  +-------+-------+-------+-------+
//! |   count addresses of 4 or 16  |                  |      count addresses of 4     |
//! +-------------------------------+                  +-------------------------------+
//!                                                    |      8 bytes of password      |
//!                                                    +-------------------------------+
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::{Sum, pseudo_header};
use crate::refused::{Refused, WriteError};
use crate::words::{Checksum, Interval, Priority, Version, Vrid};

/// The protocol's number in the IP header.
pub const PROTOCOL: u8 = 112;
/// Where adverts go over IPv4 (RFC 9568, 5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Where adverts go over IPv6 (RFC 9568, 5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// What the TTL or hop limit must be on a link.
pub const HOP_LIMIT: u8 = 255;
/// The longest advert: 255 addresses of IPv6. What is longer is refused, so a buffer needs one byte more at most.
pub const LEN_MAX: usize = FIXED + 255 * 16;

/// Bytes before the addresses, in both versions.
const FIXED: usize = 8;
/// The password of version 2, zeros without one.
const PASSWORD: usize = 8;
const TYPE_ADVERT: u8 = 1;

/// What the IP header said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The sender.
    pub from: IpAddr,
    /// The group, or our own address where peers are listed.
    pub to: IpAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
}

/// From how far adverts may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// From this link: a hop limit of 255, which nobody behind a router can forge (RFC 5082).
    #[default]
    Link,
    /// Peers are listed, and stand behind routers.
    Routed {
        /// The least that is believed.
        hop_limit_min: u8,
    },
}

/// An advert that was received and is well-formed. Whether its sender is believed is the election's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advert<'a> {
    /// Who sent it.
    pub from: IpAddr,
    /// Its version.
    pub version: Version,
    /// Of which virtual router it speaks.
    pub vrid: Vrid,
    /// The sender's priority, or [`Priority::LEAVING`].
    pub priority: Priority,
    /// How often the sender sends.
    pub interval: Interval,
    /// The virtual addresses.
    pub addresses: Addresses<'a>,
    /// How the sender counts its checksum, if that can be told and there is a choice.
    pub checksum: Option<Checksum>,
}

impl<'a> Advert<'a> {
    /// Reads the payload of an IP packet.
    pub fn read(envelope: &Envelope, reach: Reach, bytes: &'a [u8]) -> Result<Self, Refused> {
        let min = match reach {
            Reach::Link => HOP_LIMIT,
            Reach::Routed { hop_limit_min } => hop_limit_min,
        };
        if envelope.hop_limit < min {
            let found = envelope.hop_limit;
            return Err(Refused::HopLimit { found, min });
        }
        if envelope.from.is_ipv4() != envelope.to.is_ipv4() {
            return Err(Refused::Families);
        }
        let Some((fixed, _)) = bytes.split_first_chunk::<FIXED>() else {
            let found = bytes.len();
            return Err(Refused::Short { found, min: FIXED });
        };
        let [kind, vrid, priority, count, fifth, sixth, _, _] = *fixed;
        let version = read_version(kind, envelope)?;
        let vrid = Vrid::new(vrid).ok_or(Refused::Vrid)?;
        if version == Version::V2 && fifth != 0 {
            return Err(Refused::Authentication(fifth));
        }
        if version == Version::V3 && count == 0 {
            return Err(Refused::NoAddress);
        }
        let size = address_size(envelope.from);
        let expected = length(version, usize::from(count), size);
        if bytes.len() != expected {
            return Err(Refused::Length {
                found: bytes.len(),
                expected,
                addresses: count,
            });
        }
        let checksum = check(version, envelope, bytes)?;
        let centiseconds = match version {
            Version::V2 => u16::from(sixth) * 100,
            // RFC 9568, 5.2.6: the four bits before are not looked at.
            Version::V3 => u16::from_be_bytes([fifth, sixth]) & Interval::CENTISECONDS_MAX_V3,
        };
        Ok(Self {
            from: envelope.from,
            version,
            vrid,
            priority: Priority(priority),
            interval: Interval::from_centiseconds(centiseconds).ok_or(Refused::Interval)?,
            addresses: Addresses {
                bytes: &bytes[FIXED..FIXED + usize::from(count) * size],
                size,
            },
            checksum,
        })
    }
}

fn read_version(kind: u8, envelope: &Envelope) -> Result<Version, Refused> {
    let version = match kind >> 4 {
        2 if envelope.from.is_ipv6() => return Err(Refused::VersionOfFamily),
        2 => Version::V2,
        3 => Version::V3,
        other => return Err(Refused::UnknownVersion(other)),
    };
    match kind & 0x0f {
        TYPE_ADVERT => Ok(version),
        other => Err(Refused::Type(other)),
    }
}

fn address_size(address: IpAddr) -> usize {
    if address.is_ipv4() { 4 } else { 16 }
}

fn length(version: Version, count: usize, size: usize) -> usize {
    let addresses = FIXED + count * size;
    match version {
        Version::V2 => addresses + PASSWORD,
        Version::V3 => addresses,
    }
}

/// Checks the checksum, and says how it was counted.
fn check(version: Version, envelope: &Envelope, bytes: &[u8]) -> Result<Option<Checksum>, Refused> {
    let pseudo = pseudo_header(envelope.from, envelope.to, bytes.len());
    let alone = Sum::default().add(bytes).holds();
    let with = pseudo.add(bytes).holds();
    match (version, envelope.from) {
        // RFC 3768, 5.3.8: the message alone.
        (Version::V2, _) if alone => Ok(None),
        // RFC 8200, 8.1.
        (Version::V3, IpAddr::V6(_)) if with => Ok(None),
        (Version::V3, IpAddr::V4(_)) if with || alone => Ok(match (with, alone) {
            (true, false) => Some(Checksum::WithPseudoHeader),
            (false, true) => Some(Checksum::MessageAlone),
            // One pair of addresses in 65,535 counts as nothing: then it cannot be told.
            (true, true) | (false, false) => None,
        }),
        (Version::V2 | Version::V3, _) => Err(Refused::Checksum(version)),
    }
}

/// The addresses that an advert lists, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl<'a> Addresses<'a> {
    /// How many; 255 at most.
    pub fn len(self) -> usize {
        self.bytes.len() / self.size
    }

    /// Whether there are none, which version 2 allows.
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> + 'a {
        self.bytes.chunks_exact(self.size).map(|bytes| {
            if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
                return IpAddr::from(v4);
            }
            let v6 = <[u8; 16]>::try_from(bytes).expect("an address has 4 or 16 bytes");
            IpAddr::from(v6)
        })
    }
}

/// An advert to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// Its version.
    pub version: Version,
    /// Of which virtual router it speaks.
    pub vrid: Vrid,
    /// The priority that is said.
    pub priority: Priority,
    /// How often we send.
    pub interval: Interval,
    /// The virtual addresses, of one family. RFC 9568, 5.2.9 wants the link-local one first for IPv6; peers that
    /// are configured without it expect it not to be there, so the order is the configuration's.
    pub addresses: &'a [IpAddr],
    /// How the checksum is counted, where there is a choice.
    pub checksum: Checksum,
}

impl Outgoing<'_> {
    /// Writes it for a way from an address to another, and says how many bytes it has.
    pub fn write(&self, from: IpAddr, to: IpAddr, room: &mut [u8]) -> Result<usize, WriteError> {
        let count = self.check(from, to)?;
        let needed = length(self.version, self.addresses.len(), address_size(from));
        let Some(bytes) = room.get_mut(..needed) else {
            let room = room.len();
            return Err(WriteError::Room { needed, room });
        };
        let centiseconds = self.interval.centiseconds();
        let (number, timing) = match self.version {
            Version::V2 => (2, centiseconds / 100),
            Version::V3 => (3, centiseconds),
        };
        bytes[0] = (number << 4) | TYPE_ADVERT;
        bytes[1] = self.vrid.get();
        bytes[2] = self.priority.0;
        bytes[3] = count;
        // The authentication of version 2 is none, and stands where version 3 has the upper bits.
        bytes[4..6].copy_from_slice(&timing.to_be_bytes());
        bytes[6..8].fill(0);
        let mut at = FIXED;
        for address in self.addresses {
            at += put(*address, &mut bytes[at..]);
        }
        bytes[at..].fill(0);
        let pseudo = pseudo_header(from, to, needed);
        let start = match (self.version, from, self.checksum) {
            (Version::V2, _, _) | (Version::V3, IpAddr::V4(_), Checksum::MessageAlone) => {
                Sum::default()
            }
            (Version::V3, IpAddr::V4(_), Checksum::WithPseudoHeader)
            | (Version::V3, IpAddr::V6(_), _) => pseudo,
        };
        let checksum = start.add(bytes).checksum();
        bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
        Ok(needed)
    }

    /// Whether it can be said at all; the count of addresses.
    fn check(&self, from: IpAddr, to: IpAddr) -> Result<u8, WriteError> {
        let same = |address: &IpAddr| address.is_ipv4() == from.is_ipv4();
        if !self.addresses.iter().chain([&to]).all(same) {
            return Err(WriteError::Family);
        }
        match self.version {
            Version::V2 if from.is_ipv6() => return Err(WriteError::VersionOfFamily),
            Version::V3 if self.addresses.is_empty() => return Err(WriteError::NoAddress),
            Version::V2 | Version::V3 => {}
        }
        if !self.interval.fits(self.version) {
            return Err(WriteError::Interval(self.version));
        }
        let count = self.addresses.len();
        u8::try_from(count).map_err(|_| WriteError::TooMany(count))
    }
}

fn put(address: IpAddr, room: &mut [u8]) -> usize {
    match address {
        IpAddr::V4(v4) => room[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => room[..16].copy_from_slice(&v6.octets()),
    }
    address_size(address)
}
