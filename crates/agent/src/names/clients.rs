//! Who may ask, and how much of it at once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use mainstay_ids::Instant;
use mainstay_model::Network;

/// How long an address that was found to be ours, or not, counts as that. Addresses of a machine change
/// by an administrator's hand, or with a floating address.
const REMEMBERED: std::time::Duration = std::time::Duration::from_secs(5);

/// How many addresses are remembered. Whoever forges sources fills it; then each datagram costs what an
/// unknown one costs, some microseconds, and no memory.
const REMEMBERED_MAX: usize = 256;

/// Tells those whom we answer from strangers.
#[derive(Debug)]
pub(super) struct Gate {
    allow: Vec<Network>,
    remembered: HashMap<IpAddr, (Standing, Instant)>,
}

/// Whether an address is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Known,
    Stranger,
}

impl Gate {
    /// Admits this machine, and these networks.
    pub(super) fn new(allow: Vec<Network>) -> Self {
        Self {
            allow,
            remembered: HashMap::new(),
        }
    }

    /// Whether whoever sent from there is answered.
    pub(super) fn standing(&mut self, source: SocketAddr, now: Instant) -> Standing {
        let ip = source.ip().to_canonical();
        if ip.is_loopback() || self.allow.iter().any(|network| network.contains(ip)) {
            return Standing::Known;
        }
        if let Some((standing, until)) = self.remembered.get(&ip)
            && now < *until
        {
            return *standing;
        }
        let standing = if is_own(source) {
            Standing::Known
        } else {
            Standing::Stranger
        };
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.clear();
        }
        self.remembered
            .insert(ip, (standing, now.after(REMEMBERED)));
        standing
    }
}

/// Whether this machine has the address: to its own ones the kernel sends from the very same. No packet
/// is sent. A bind would tell less: with `ip_nonlocal_bind` any address can be bound. That a packet from
/// outside bears an address of ours, the kernel refuses itself.
fn is_own(address: SocketAddr) -> bool {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let sent_from = || {
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.local_addr()
    };
    sent_from().is_ok_and(|from| from.ip() == address.ip())
}

/// Counts what is under way, in all and for each client.
#[derive(Debug)]
pub(super) struct Crowd {
    limits: Limits,
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// How much there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) all: usize,
    pub(super) per_client: usize,
}

/// By what clients are told apart: IPv6 gives each as many addresses as he likes, out of one /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Client(IpAddr);

impl Client {
    pub(super) fn of(source: SocketAddr) -> Self {
        const PREFIX: u128 = !0 << 64;
        Self(match source.ip().to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & PREFIX).into(),
            ip @ IpAddr::V4(_) => ip,
        })
    }
}

impl Crowd {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            all: 0,
            by_client: HashMap::new(),
        }
    }

    /// Lets one more of this client in, if there is room. Whoever is in must [`Crowd::leave`].
    pub(super) fn enter(&mut self, client: Client) -> Entered {
        let of_client = self.by_client.get(&client.0).copied().unwrap_or_default();
        if self.all >= self.limits.all || of_client >= self.limits.per_client {
            return Entered::Full;
        }
        self.all += 1;
        self.by_client.insert(client.0, of_client + 1);
        Entered::Yes
    }

    /// One of this client's is over.
    pub(super) fn leave(&mut self, client: Client) {
        self.all = self.all.saturating_sub(1);
        if let Some(count) = self.by_client.get_mut(&client.0) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_client.remove(&client.0);
            }
        }
    }
}

/// Whether there was room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    Yes,
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().expect("an address"), 4000)
    }

    #[test]
    fn this_machine_and_the_networks_that_are_named_are_known() {
        let network = Network::parse("192.0.2.0/24").expect("a network");
        let mut gate = Gate::new(vec![network]);
        for known in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "192.0.2.77",
        ] {
            assert_eq!(
                gate.standing(from(known), Instant::START),
                Standing::Known,
                "{known}"
            );
        }
        for stranger in ["192.0.3.1", "198.51.100.7", "2001:db8::1"] {
            let standing = gate.standing(from(stranger), Instant::START);
            assert_eq!(standing, Standing::Stranger, "{stranger}");
        }
    }

    #[test]
    fn whoever_forges_sources_costs_no_memory() {
        let mut gate = Gate::new(Vec::new());
        for n in 0..2000u32 {
            let forged = SocketAddr::new(Ipv4Addr::from(0xc633_6400 + n).into(), 53);
            gate.standing(forged, Instant::START);
        }
        assert!(gate.remembered.len() <= REMEMBERED_MAX);
    }

    #[test]
    fn one_client_cannot_take_the_room_of_all() {
        let mut crowd = Crowd::new(Limits {
            all: 3,
            per_client: 2,
        });
        let (one, two) = (
            Client::of(from("2001:db8::1")),
            Client::of(from("2001:db8:0:1::1")),
        );
        assert_eq!(one, Client::of(from("2001:db8::2")));
        assert_eq!(crowd.enter(one), Entered::Yes);
        assert_eq!(crowd.enter(one), Entered::Yes);
        assert_eq!(crowd.enter(one), Entered::Full);
        assert_eq!(crowd.enter(two), Entered::Yes);
        assert_eq!(crowd.enter(two), Entered::Full);
        crowd.leave(one);
        assert_eq!(crowd.enter(two), Entered::Yes);
        for _ in 0..2 {
            crowd.leave(two);
        }
        crowd.leave(one);
        assert!(crowd.by_client.is_empty() && crowd.all == 0);
    }
}
