//! Service addresses and the claims on hosts, paths and addresses that must not clash.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mainstay_ids::ServiceName;
use mainstay_model::service::AddressSpec;
use mainstay_model::{HttpMatch, Network, ServiceSpec};

use super::contract::Refusal;

/// The port of every address picked for `auto`.
const AUTO_PORT: u16 = 8080;

/// Where addresses for `auto` lie unless a range is given: 127.96.0.0/16, loopback, so that nobody
/// outside can reach them, and far from what people pick by hand.
const AUTO_DEFAULT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 96, 0, 0));
const AUTO_DEFAULT_PREFIX: u8 = 16;

/// The last part of an address is 1 to 254, so that none looks like a network or a broadcast.
const AUTO_PER_256: u32 = 254;

/// What belongs to whom.
#[derive(Debug, Default)]
pub(super) struct Claims<'a> {
    routes: BTreeMap<&'a HttpMatch, &'a ServiceName>,
    addresses: BTreeMap<SocketAddr, &'a ServiceName>,
}

impl<'a> Claims<'a> {
    /// `service` claims what `spec` says, and the address once picked for it.
    pub(super) fn claim(
        &mut self,
        service: &'a ServiceName,
        spec: &'a ServiceSpec,
        auto: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        for route in spec.matches() {
            let by = *self.routes.entry(route).or_insert(service);
            if by != service {
                return Err(Refusal::RouteTaken {
                    service: service.clone(),
                    route: Box::new(route.clone()),
                    by: by.clone(),
                });
            }
        }
        let fixed = match spec.address {
            Some(AddressSpec::Fixed(address)) => Some(address),
            Some(AddressSpec::Auto) | None => None,
        };
        for address in fixed.into_iter().chain(auto) {
            let by = *self.addresses.entry(address).or_insert(service);
            if by != service {
                return Err(Refusal::AddressTaken {
                    service: service.clone(),
                    address,
                    by: by.clone(),
                });
            }
        }
        Ok(())
    }

    pub(super) fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.addresses.keys().copied().collect()
    }
}

/// Picks an address for `auto`: under one `seed` the same name gets the same one, unless it is taken.
pub(super) fn pick(
    service: &ServiceName,
    seed: u32,
    range: Option<Network>,
    taken: &BTreeSet<SocketAddr>,
) -> Option<SocketAddr> {
    let count = auto_count(range);
    let start = fnv1a(seed, service.as_str()) % count;
    (0..count)
        .map(|step| auto_address(range, (start + step) % count))
        .find(|address| !taken.contains(address))
}

fn auto_count(range: Option<Network>) -> u32 {
    let host_bits = |one: Network| match one.address() {
        IpAddr::V4(_) => 32 - one.prefix(),
        IpAddr::V6(_) => 128 - one.prefix(),
    };
    match range.map_or(32 - AUTO_DEFAULT_PREFIX, host_bits) {
        // The addresses of a network smaller than 256 are what whoever wrote it meant.
        bits @ 0..8 => 1 << bits,
        // More than there are services.
        bits => (1 << (bits.min(24) - 8)) * AUTO_PER_256,
    }
}

fn auto_address(range: Option<Network>, index: u32) -> SocketAddr {
    let first = range.map_or(AUTO_DEFAULT, |one| one.address());
    let offset = if auto_count(range) < AUTO_PER_256 {
        index
    } else {
        index / AUTO_PER_256 * 256 + index % AUTO_PER_256 + 1
    };
    let ip = match first {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() + offset)),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() + u128::from(offset))),
    };
    SocketAddr::new(ip, AUTO_PORT)
}

/// FNV-1a, 32 bits: short, and the same on every machine and in every version.
fn fnv1a(seed: u32, text: &str) -> u32 {
    text.bytes().fold(0x811C_9DC5 ^ seed, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn every_address_for_auto_is_different_and_usable() {
        let count = auto_count(None);
        let all: BTreeSet<SocketAddr> = (0..count).map(|n| auto_address(None, n)).collect();
        assert_eq!(all.len(), 256 * 254);
        assert_eq!(auto_address(None, 0).to_string(), "127.96.0.1:8080");
        assert_eq!(
            auto_address(None, count - 1).to_string(),
            "127.96.255.254:8080"
        );
    }

    #[test]
    fn addresses_of_a_range_lie_in_it() {
        for text in [
            "10.96.0.0/16",
            "10.0.0.0/8",
            "10.96.7.0/24",
            "10.96.7.128/25",
            "10.10.1.128/32",
            "fd96::/112",
            "fd00::/8",
        ] {
            let range = Network::parse(text).expect("a network");
            let count = auto_count(Some(range));
            for index in [0, count / 2, count - 1] {
                let address = auto_address(Some(range), index);
                assert!(range.contains(address.ip()), "{address} of {text}");
            }
        }
        let one = Network::parse("10.10.1.128").expect("a network");
        assert_eq!(auto_count(Some(one)), 1);
    }

    #[test]
    fn a_name_keeps_its_address_unless_that_is_taken() {
        let orders = ServiceName::parse("orders").expect("a name");
        let pick = |seed, taken: &BTreeSet<SocketAddr>| super::pick(&orders, seed, None, taken);
        let first = pick(0, &BTreeSet::new()).expect("one is free");
        assert_eq!(pick(0, &BTreeSet::new()), Some(first));
        let second = pick(0, &BTreeSet::from([first])).expect("one is free");
        assert_ne!(first, second);
        let others = pick(1, &BTreeSet::new());
        assert_ne!(others, Some(first), "another Mainstay's");
        let count = auto_count(None);
        let all = (0..count).map(|n| auto_address(None, n)).collect();
        assert_eq!(pick(0, &all), None);
    }
}
