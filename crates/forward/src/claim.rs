//! Making service addresses this machine's own.

use std::io;
use std::net::IpAddr;

use mainstay_kernel::netlink::route::{Collision, LocalRoute, RouteError, Routes};
use mainstay_kernel::netlink::{Prefix, PrefixError};
use mainstay_model::Network;
use mainstay_model::forward::Ranges;

/// Why service addresses cannot be this machine's own.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Something else has them.
    #[error(
        "service addresses cannot be in {range}: there is {has}; choose a `range` that nothing uses"
    )]
    InUse {
        /// The network.
        range: Network,
        /// What is in it.
        has: Collision,
    },
    /// A route could not be changed.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The kernel could not be asked for routes.
    #[error("cannot look at this machine's routes")]
    Look(#[source] io::Error),
    /// A network is not one to the kernel.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
}

/// The routes that make service addresses local, so that programs get an answer for each at once,
/// and nothing leaves the machine for one.
#[derive(Debug)]
pub struct Claim {
    routes: Routes,
    wanted: Vec<LocalRoute>,
}

impl Claim {
    /// Looks whether they can be made in this thread's network namespace, and makes none: rules come
    /// first, so that no program answers for a service in between, and before them this look, so that
    /// they cut nothing off. `source` is the address of this machine from which its programs speak;
    /// without, or if it is loopback, they speak from the service's own.
    pub fn plan(ranges: &Ranges, source: Option<IpAddr>) -> Result<Self, ClaimError> {
        let routes = Routes::open().map_err(ClaimError::Look)?;
        let mut wanted = Vec::new();
        for range in ranges.networks() {
            let address = range.address();
            // Loopback is local as it is.
            if address.is_loopback() {
                continue;
            }
            let prefix = Prefix::new(address, range.prefix())?;
            match routes.collision(prefix).map_err(ClaimError::Look)? {
                None => {}
                // One address alone may be the machine's own, or a floating one that it has now.
                Some(Collision::Address { address: own, .. })
                    if own == address && prefix == Prefix::of(own) =>
                {
                    continue;
                }
                Some(has) => return Err(ClaimError::InUse { range: *range, has }),
            }
            let suits =
                |source: &IpAddr| source.is_ipv4() == address.is_ipv4() && !source.is_loopback();
            let source = source.filter(suits);
            wanted.push(LocalRoute { prefix, source });
        }
        Ok(Self { routes, wanted })
    }

    /// Makes them, and again what somebody took away.
    pub fn hold(&self) -> Result<(), ClaimError> {
        for route in &self.wanted {
            self.routes.add_local(route)?;
        }
        Ok(())
    }

    /// Takes the routes away.
    pub fn give_up(&self) -> Result<(), ClaimError> {
        for route in &self.wanted {
            self.routes.delete_local(route.prefix)?;
        }
        Ok(())
    }
}
