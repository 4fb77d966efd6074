//! Ports for instances.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketType, bind, socket};

/// Below the range from which Linux gives ports to outgoing connections (32768 and up): none of
/// those takes an instance's port while it restarts.
const RANGE: RangeInclusive<u16> = 20_000..=29_999;

/// The ports of one node. A lock and not a task, because it is held for a few system calls and
/// never over an await.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    /// Where instances listen.
    at: IpAddr,
    used: Arc<Mutex<Used>>,
}

#[derive(Debug)]
struct Used {
    ports: BTreeSet<u16>,
    /// Where the search begins: behind the last one that was given, so that a port rests long
    /// before somebody else gets it. A client that still connects to an instance that ended then
    /// meets nobody, and not another service.
    next: u16,
}

/// A port that no other instance of this node is given while this lives.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    ports: Ports,
}

impl Ports {
    /// Those of this address of the node.
    pub(crate) fn new(at: IpAddr) -> Self {
        let used = Used {
            ports: BTreeSet::new(),
            next: fastrand::u16(RANGE),
        };
        let used = Arc::new(Mutex::new(used));
        Self { at, used }
    }

    /// A port that is free now; `None` if there is none in the range.
    pub(crate) fn take(&self) -> Option<Port> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in RANGE {
            let number = used.next;
            used.next = if number == *RANGE.end() {
                *RANGE.start()
            } else {
                number + 1
            };
            if !used.ports.contains(&number) && is_free(SocketAddr::new(self.at, number)) {
                used.ports.insert(number);
                return Some(Port {
                    number,
                    ports: self.clone(),
                });
            }
        }
        None
    }

    /// The port of an instance that was started before.
    pub(crate) fn hold(&self, number: u16) -> Port {
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ports
            .insert(number);
        Port {
            number,
            ports: self.clone(),
        }
    }
}

impl Port {
    /// Where the instance is to listen.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.ports.at, self.number)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.ports
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ports
            .remove(&self.number);
    }
}

/// Without `SO_REUSEADDR`, which would call a port free that an old connection still occupies, or
/// that somebody has bound and not yet opened.
fn is_free(address: SocketAddr) -> bool {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let bound = socket(family, SocketType::STREAM, None).and_then(|fd| bind(&fd, &address));
    bound.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn a_port_is_given_once_while_it_is_held_and_rests_afterwards() {
        let ports = Ports::new(Ipv4Addr::LOCALHOST.into());
        let mut held: Vec<Port> = (0..300).map(|_| ports.take().unwrap()).collect();
        let numbers: BTreeSet<u16> = held.iter().map(|port| port.number).collect();
        assert_eq!(numbers.len(), 300);
        assert!(numbers.iter().all(|number| RANGE.contains(number)));
        let given_back = held.pop().unwrap().number;
        assert_ne!(ports.take().unwrap().number, given_back);
    }

    #[test]
    fn a_port_on_which_somebody_listens_is_not_given() {
        let ports = Ports::new(Ipv4Addr::LOCALHOST.into());
        let next = || ports.used.lock().unwrap().next;
        let taken: Vec<_> = (0..3)
            .filter_map(|step| TcpListener::bind(("0.0.0.0", next() + step)).ok())
            .collect();
        let port = ports.take().unwrap();
        assert!(
            taken
                .iter()
                .all(|other| other.local_addr().unwrap().port() != port.number)
        );
        TcpListener::bind(port.address()).unwrap();
    }

    #[test]
    fn the_port_of_an_adopted_instance_is_not_given() {
        let ports = Ports::new(Ipv4Addr::LOCALHOST.into());
        let next = ports.used.lock().unwrap().next;
        let _held = ports.hold(next);
        assert_ne!(ports.take().unwrap().number, next);
    }
}
