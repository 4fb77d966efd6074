//! Ranges of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All addresses that begin with the same bits, such as 10.96.0.0/16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

/// What is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no range of addresses: expected {expected}")]
pub struct PrefixError {
    text: String,
    expected: String,
}

impl Prefix {
    /// The range of the first `len` bits of `address`, all of whose other bits must be 0.
    pub fn new(address: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let refuse = |expected| {
            let text = format!("{address}/{len}");
            Err(PrefixError { text, expected })
        };
        if len > bits(address) {
            return refuse(format!("at most /{}", bits(address)));
        }
        let first = Self { address, len }.first();
        if first != address {
            return refuse(format!("its first address, {first}/{len}"));
        }
        Ok(Self { address, len })
    }

    /// The range of one address.
    pub fn of(address: IpAddr) -> Self {
        let len = bits(address);
        Self { address, len }
    }

    /// Its first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many bits its addresses share.
    #[expect(clippy::len_without_is_empty, reason = "there is no empty range")]
    pub fn len(self) -> u8 {
        self.len
    }

    /// Whether an address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        self.overlaps(Self::of(address))
    }

    /// Whether any address is in both. An address of IPv4 is none of IPv6, also if it can be written
    /// as one.
    pub fn overlaps(self, other: Self) -> bool {
        let len = self.len.min(other.len);
        let cut = |address| Self { address, len }.first();
        bits(self.address) == bits(other.address) && cut(self.address) == cut(other.address)
    }

    fn first(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.len)).unwrap_or(0);
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let shift = 128 - u32::from(self.len);
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }
}

/// Of an address.
fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::netlink) fn read(text: &str) -> Result<Prefix, PrefixError> {
        let (address, len) = text.split_once('/').unwrap();
        Prefix::new(address.parse().unwrap(), len.parse().unwrap())
    }

    fn prefix(text: &str) -> Prefix {
        read(text).unwrap()
    }

    #[test]
    fn ranges_overlap_if_one_is_in_the_other() {
        for (one, other, overlap) in [
            ("10.96.0.0/16", "10.96.3.0/24", true),
            ("10.96.0.0/16", "10.97.0.0/16", false),
            ("10.0.0.0/8", "10.96.0.0/16", true),
            ("0.0.0.0/0", "10.96.0.0/16", true),
            ("::/0", "10.96.0.0/16", false),
            ("::ffff:10.96.0.0/112", "10.96.0.0/16", false),
            ("fd00:6d61::/64", "fd00:6d61::10/128", true),
            ("fd00:6d61::/64", "fd00:6d61:0:1::/64", false),
        ] {
            assert_eq!(
                prefix(one).overlaps(prefix(other)),
                overlap,
                "{one} {other}"
            );
            assert_eq!(
                prefix(other).overlaps(prefix(one)),
                overlap,
                "{other} {one}"
            );
        }
        assert!(prefix("10.96.0.0/16").contains([10, 96, 255, 255].into()));
        assert!(!prefix("10.96.0.0/16").contains([10, 95, 255, 255].into()));
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_was_expected() {
        for (text, expected) in [
            ("10.96.0.1/16", "its first address, 10.96.0.0/16"),
            ("10.96.0.0/33", "at most /32"),
            ("::/129", "at most /128"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(prefix("0.0.0.0/0").to_string(), "0.0.0.0/0");
        assert_eq!(prefix("10.96.0.10/32"), Prefix::of([10, 96, 0, 10].into()));
    }
}
