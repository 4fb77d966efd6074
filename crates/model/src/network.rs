//! Networks: addresses with the length of their prefix.

use alloc::string::String;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a network is an address, as in `10.0.0.7`, or one with its prefix, as in `10.0.0.0/8` or `fd00::/8`"
)]
pub struct NetworkError;

/// A network: an address and how many of its first bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    /// Its bits behind the prefix are zero.
    bits: u128,
    prefix: u8,
    family: Family,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn len(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// The address's family and bits, the first one on top.
fn bits_of(address: IpAddr) -> (Family, u128) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (Family::V4, u128::from(v4.to_bits()) << 96),
        IpAddr::V6(v6) => (Family::V6, v6.to_bits()),
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(prefix))
        .unwrap_or_default()
}

impl Network {
    /// Reads `10.0.0.0/8`, `fd00::/8`, or one address alone. Bits behind the prefix are dropped.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let (family, bits) = bits_of(address);
        let prefix = match prefix {
            None => family.len(),
            // `+8` is a number for Rust, and none for anybody else.
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().map_err(|_| NetworkError)?
            }
            Some(_) => return Err(NetworkError),
        };
        if prefix > family.len() {
            return Err(NetworkError);
        }
        Ok(Self {
            bits: bits & mask(prefix),
            prefix,
            family,
        })
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        match self.family {
            // Only the upper 32 bits are ever set.
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(
                u32::try_from(self.bits >> 96).unwrap_or_default(),
            )),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(self.bits)),
        }
    }

    /// How many bits of it count.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether any address lies in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.family == other.family && self.bits & shorter == other.bits & shorter
    }

    /// Whether the address lies in it. An IPv4 address that came in over an IPv6 socket counts as
    /// the IPv4 address that it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (family, bits) = bits_of(address);
        family == self.family && bits & mask(self.prefix) == self.bits
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;
    fn try_from(text: String) -> Result<Self, NetworkError> {
        Self::parse(&text)
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        alloc::format!("{network}")
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn network(text: &str) -> Network {
        Network::parse(text).expect("a network")
    }

    #[test]
    fn networks_overlap_if_one_has_the_other() {
        let range = network("10.96.0.0/16");
        assert!(range.overlaps(&network("10.96.7.0/24")));
        assert!(network("10.0.0.0/8").overlaps(&range));
        assert!(!range.overlaps(&network("10.97.0.0/16")));
        assert!(!range.overlaps(&network("::/0")));
        assert!(network("0.0.0.0/0").overlaps(&range));
        assert_eq!(range.address().to_string(), "10.96.0.0");
        assert_eq!(range.prefix(), 16);
    }

    #[test]
    fn a_network_holds_its_addresses_also_when_they_came_over_ipv6() {
        let inside = |network: &str, ip: &str| {
            let network = Network::parse(network).expect("a network");
            network.contains(ip.parse().expect("an address"))
        };
        assert!(inside("10.1.2.3/8", "10.255.0.1"));
        assert!(!inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("10.0.0.7", "10.0.0.7") && !inside("10.0.0.7", "10.0.0.6"));
        assert!(inside("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(!inside("0.0.0.0/0", "::1") && inside("0.0.0.0/0", "255.255.255.255"));
        assert!(inside("fd00::/8", "fdff::1") && !inside("fd00::/8", "fe00::1"));
        assert!(inside("::/0", "fe00::1") && inside("::1", "::1"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "a/8",
        ] {
            assert_eq!(Network::parse(bad), Err(NetworkError), "{bad}");
        }
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("fd00::1/8", "fd00::/8"),
            ("::1", "::1/128"),
        ] {
            let network = Network::parse(text).expect("a network");
            assert_eq!(network.to_string(), shown);
        }
    }
}
