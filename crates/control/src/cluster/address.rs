//! Service addresses and the claims on hosts, paths and addresses that must not clash.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use core::net::{Ipv4Addr, SocketAddr};

use mainstay_ids::ServiceName;
use mainstay_model::service::AddressSpec;
use mainstay_model::{HttpMatch, ServiceSpec};

use super::contract::Refusal;

/// The port of every address picked for `auto`.
const AUTO_PORT: u16 = 8080;

/// Addresses for `auto` are 127.96.x.y: loopback, so that nobody outside can reach them, and far
/// from what people pick by hand. y is 1 to 254, so that none looks like a network or a broadcast.
const AUTO_COUNT: u32 = 256 * 254;

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
    taken: &BTreeSet<SocketAddr>,
) -> Option<SocketAddr> {
    let start = fnv1a(seed, service.as_str()) % AUTO_COUNT;
    (0..AUTO_COUNT)
        .map(|step| auto_address((start + step) % AUTO_COUNT))
        .find(|address| !taken.contains(address))
}

fn auto_address(index: u32) -> SocketAddr {
    let [_, _, third, fourth] = (index / 254 * 256 + index % 254 + 1).to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, 96, third, fourth), AUTO_PORT))
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
        let all: BTreeSet<SocketAddr> = (0..AUTO_COUNT).map(auto_address).collect();
        assert_eq!(all.len(), 256 * 254);
        assert_eq!(auto_address(0).to_string(), "127.96.0.1:8080");
        assert_eq!(
            auto_address(AUTO_COUNT - 1).to_string(),
            "127.96.255.254:8080"
        );
    }

    #[test]
    fn a_name_keeps_its_address_unless_that_is_taken() {
        let orders = ServiceName::parse("orders").expect("a name");
        let first = pick(&orders, 0, &BTreeSet::new()).expect("one is free");
        assert_eq!(pick(&orders, 0, &BTreeSet::new()), Some(first));
        let second = pick(&orders, 0, &BTreeSet::from([first])).expect("one is free");
        assert_ne!(first, second);
        assert_ne!(
            pick(&orders, 1, &BTreeSet::new()),
            Some(first),
            "another Mainstay's"
        );
        let all = (0..AUTO_COUNT).map(auto_address).collect();
        assert_eq!(pick(&orders, 0, &all), None);
    }
}
