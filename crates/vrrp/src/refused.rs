//! Why a packet is refused.

use crate::Version;

/// Why a packet is no advert that may be believed. Each sentence goes on from
/// "the VRRP packet from 10.0.0.1 is refused: ".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// RFC 9568, 5.1.1.3: it did not come from this link.
    #[error(
        "its TTL or hop limit is {found}, at least {min} is expected; it came through a router, or is forged"
    )]
    HopLimit {
        /// What it has.
        found: u8,
        /// What is asked for.
        min: u8,
    },
    /// Sender and receiver are not of one family.
    #[error("its sender and its receiver are of different families of addresses")]
    Families,
    /// It ends too soon to say how long it is.
    #[error("it has {found} bytes, and no advert has less than {min}")]
    Short {
        /// Bytes that came.
        found: usize,
        /// Bytes that the fixed part has.
        min: usize,
    },
    /// It is neither version 2 nor 3.
    #[error("its version is {0}, and only 2 and 3 are known")]
    UnknownVersion(u8),
    /// RFC 3768 knows IPv4 alone.
    #[error("it is of version 2, which has no IPv6")]
    VersionOfFamily,
    /// RFC 9568, 5.2.2.
    #[error("its type is {0}, and only 1 (an advert) is known")]
    Type(u8),
    /// The number of no virtual router.
    #[error("its virtual router has the number 0; 1 to 255 are expected")]
    Vrid,
    /// RFC 9568, 5.2.5. Version 2 does not forbid it.
    #[error("it lists no address")]
    NoAddress,
    /// RFC 9568, 7.1: the packet must be complete. What follows it would be read by nobody.
    #[error(
        "it has {found} bytes, and {expected} are expected of a packet with {addresses} addresses"
    )]
    Length {
        /// Bytes that came.
        found: usize,
        /// Bytes that its fields say.
        expected: usize,
        /// Addresses that it says to have.
        addresses: u8,
    },
    /// RFC 3768, 5.3.6. Passwords protect nothing there: everybody on the link reads them.
    #[error("its authentication is {}; only none is understood: set the peers to none, and let a packet filter pass known peers alone", authentication(*.0))]
    Authentication(u8),
    /// A master that sends in intervals of nothing would be dead at once.
    #[error("its interval between adverts is zero")]
    Interval,
    /// It was damaged, or whoever sent it counts differently.
    #[error("its checksum is wrong{}", both(*.0))]
    Checksum(Version),
}

fn authentication(kind: u8) -> &'static str {
    match kind {
        1 => "a password in clear (1)",
        2 => "an authentication header (2)",
        _ => "of an unknown kind",
    }
}

fn both(version: Version) -> &'static str {
    match version {
        Version::V2 => "",
        Version::V3 => ", with a pseudo-header and without",
    }
}

/// Why an advert cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The room is too small.
    #[error("an advert of {needed} bytes does not go into {room}")]
    Room {
        /// Bytes of the advert.
        needed: usize,
        /// Bytes that there are.
        room: usize,
    },
    /// An address is not of the sender's family.
    #[error("an address is of another family than the sender")]
    Family,
    /// The count is one byte.
    #[error("an advert lists 255 addresses at most, and these are {0}")]
    TooMany(usize),
    /// RFC 9568, 5.2.5.
    #[error("an advert of version 3 lists at least one address")]
    NoAddress,
    /// RFC 3768 knows IPv4 alone.
    #[error("version 2 has no IPv6")]
    VersionOfFamily,
    /// The version cannot say the interval.
    #[error("{0} cannot say this interval")]
    Interval(Version),
}
