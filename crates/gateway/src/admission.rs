//! Who may connect: the connections of all workers together, and of one address among them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mainstay_model::gateway::GatewayLimits;

/// The bits of an IPv6 address by which one client is known: whoever has an address has a /64.
const IPV6_NETWORK: u128 = !(u64::MAX as u128);

/// What all workers count together. The table is locked once when a connection begins and once
/// when it ends, for a few instructions.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    connections: AtomicU32,
    by_address: Mutex<HashMap<IpAddr, u32>>,
}

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Its address has as many as it may have.
    Address,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    /// Of whose address it is one; `None`: nobody knows yet.
    address: Option<IpAddr>,
}

impl Admission {
    /// Whether there is room for one more connection at all.
    pub(crate) fn has_room(&self, limits: &GatewayLimits) -> bool {
        self.connections.load(Ordering::Relaxed) < limits.connections
    }

    /// Counts a connection that was accepted, whoever it is from.
    pub(crate) fn begin(self: &Arc<Self>) -> Place {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Place {
            admission: Arc::clone(self),
            address: None,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, u32>> {
        // Nothing that can panic happens under it.
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts it for its client's address, too.
    pub(crate) fn settle(mut self, client: IpAddr, limits: &GatewayLimits) -> Result<Self, Denied> {
        let address = network(client);
        let mut table = self.admission.lock();
        let count = table.entry(address).or_default();
        if *count >= limits.connections_per_address {
            drop(table);
            return Err(Denied::Address);
        }
        *count += 1;
        drop(table);
        self.address = Some(address);
        Ok(self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.connections.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else {
            return;
        };
        let mut table = self.admission.lock();
        if let Some(count) = table.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                table.remove(&address);
            }
        }
    }
}

/// By what a client is known.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: u32, connections_per_address: u32) -> GatewayLimits {
        GatewayLimits {
            connections,
            connections_per_address,
            ..GatewayLimits::default()
        }
    }

    #[test]
    fn one_address_cannot_take_all_connections_and_gets_its_places_back() {
        let admission = Arc::new(Admission::default());
        let limits = limits(4, 2);
        let enter = |address: &str| admission.begin().settle(address.parse().unwrap(), &limits);
        let (first, second) = (enter("192.0.2.1").unwrap(), enter("192.0.2.1").unwrap());
        assert_eq!(enter("192.0.2.1").unwrap_err(), Denied::Address);
        assert_eq!(enter("::ffff:192.0.2.1").unwrap_err(), Denied::Address);
        let _other = enter("192.0.2.2").unwrap();
        assert!(admission.has_room(&limits));
        drop(first);
        let _third = enter("192.0.2.1").unwrap();
        drop(second);
        assert_eq!(admission.connections.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_client_of_ipv6_is_known_by_its_network() {
        let admission = Arc::new(Admission::default());
        let limits = limits(4, 1);
        let enter = |address: &str| admission.begin().settle(address.parse().unwrap(), &limits);
        let _first = enter("2001:db8:0:1::1").unwrap();
        assert!(enter("2001:db8:0:1:ffff::2").is_err());
        assert!(enter("2001:db8:0:2::1").is_ok());
        assert_eq!(admission.lock().len(), 1, "who has left is forgotten");
    }

    #[test]
    fn beyond_the_limit_of_all_there_is_no_room() {
        let admission = Arc::new(Admission::default());
        let limits = limits(1, 1);
        let place = admission.begin();
        assert!(!admission.has_room(&limits));
        drop(place);
        assert!(admission.has_room(&limits));
    }
}
