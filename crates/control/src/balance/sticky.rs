//! Which of several versions, and which instance for ever, a request belongs to.

use core::net::IpAddr;

use mainstay_ids::Version;
use mainstay_model::Share;
use mainstay_model::routing::Handle;
use siphasher::sip::SipHasher24;

/// What a request brings along of its client: the same for all requests that belong together.
///
/// It is a function of nothing else, so that every worker of every gateway, also after a restart,
/// comes to the same instance. A client can choose its own; which instance that leads to depends on
/// handles, which nobody outside can compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affinity(u64);

impl Affinity {
    /// By the value of a header.
    pub fn of_value(value: &[u8]) -> Self {
        Self(SipHasher24::new().hash(value))
    }

    /// By the client's address; of IPv6 by the first 64 bits, since a host changes the rest by
    /// itself (RFC 8981).
    pub fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => Self::of_value(&ip.octets()),
            IpAddr::V6(ip) => Self::of_value(&ip.octets()[..8]),
        }
    }

    /// How far the client is from an instance: of several it belongs to the nearest.
    ///
    /// Rendezvous hashing with weights (Schindelhauer, Schomaker: Weighted distributed hash tables,
    /// 2005): an instance more takes its share evenly from all others, and one less gives its own
    /// to all others; no other client moves. Weight 0 is infinitely far.
    pub fn distance(self, handle: Handle, weight: u32) -> f64 {
        let drawn = mix(self.0 ^ handle.0);
        // In 0..1 without its ends, by 53 bits, which a double holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let drawn = ((drawn >> 11) as f64 + 0.5) / 9_007_199_254_740_992.0;
        -libm::log(drawn) / f64::from(weight)
    }

    /// A draw that is the same for the same client, for [`Side::of`].
    pub fn draw(self) -> u64 {
        mix(self.0 ^ 0x5111_7000_0000_0001)
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Which versions of a service a request may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Any: there is none on trial.
    Any,
    /// The one on trial, because the draw says so.
    Trial(Version),
    /// The one on trial, because the request asks for it.
    Asked(Version),
    /// All but the one on trial.
    Rest(Version),
}

impl Side {
    /// The side of a request: first by version, so that the share holds whatever the numbers of
    /// instances are.
    pub fn of(trial: Version, share: Share, draw: u64) -> Self {
        if share.takes(draw) {
            Self::Trial(trial)
        } else {
            Self::Rest(trial)
        }
    }

    /// Whether a version is on it.
    pub fn holds(self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::Trial(trial) | Self::Asked(trial) => version == trial,
            Self::Rest(trial) => version != trial,
        }
    }
}

/// How a request is bound to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// Not at all.
    Free,
    /// It says which one it had, by whatever is left of that.
    Held(Handle),
    /// To the nearest.
    By(Affinity),
}

/// What a request wants beside an endpoint that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Of which version.
    pub side: Side,
    /// Of which instance.
    pub bond: Bond,
}

impl Wish {
    /// Nothing.
    pub const NONE: Self = Self {
        side: Side::Any,
        bond: Bond::Free,
    };
}

/// What of an endpoint a wish can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// Its version.
    pub version: Version,
    /// What names it to clients; `None`: nobody stays with it.
    pub handle: Option<Handle>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const CLIENTS: u64 = 20_000;

    fn nearest(client: u64, instances: &[(u64, u32)]) -> u64 {
        let affinity = Affinity::of_value(&client.to_le_bytes());
        let distance = |(name, weight): &(u64, u32)| affinity.distance(Handle(mix(*name)), *weight);
        let mut all = instances.iter();
        let nearest = all
            .by_ref()
            .min_by(|one, other| distance(one).total_cmp(&distance(other)));
        nearest.expect("there are some").0
    }

    #[test]
    fn an_instance_more_or_less_moves_its_own_share_and_nobody_else() {
        let three = [(1, 1), (2, 1), (3, 1)];
        let four = [(1, 1), (2, 1), (3, 1), (4, 1)];
        let mut moved = 0;
        for client in 0..CLIENTS {
            let (before, after) = (nearest(client, &three), nearest(client, &four));
            if before != after {
                assert_eq!(
                    after, 4,
                    "client {client} moved to one that was there before"
                );
                moved += 1;
            }
        }
        let share = CLIENTS / 4;
        assert!(
            (share - share / 10..share + share / 10).contains(&moved),
            "{moved}"
        );
    }

    #[test]
    fn a_share_follows_the_weight_and_nothing_goes_to_nothing() {
        let weighted = [(1, 1), (2, 3), (3, 0)];
        let homes: Vec<u64> = (0..CLIENTS)
            .map(|client| nearest(client, &weighted))
            .collect();
        let of = |name| homes.iter().filter(|home| **home == name).count();
        assert_eq!(of(3), 0);
        let share = of(2);
        assert!((14_600..15_400).contains(&share), "{share}");
    }

    #[test]
    fn a_host_stays_where_it_is_although_its_address_changes_as_hosts_do_it() {
        let of = |text: &str| Affinity::of_address(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn a_thousandth_is_a_thousandth() {
        const DRAWS: u64 = 200_000;
        let share = Share::from_ppm(1000).expect("legal");
        let trial = Version(2);
        let drawn = (0..DRAWS).filter(|n| {
            Side::of(trial, share, mix(n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).holds(trial)
        });
        let drawn = drawn.count();
        // 200 is expected; the standard deviation is 14.
        assert!((143..257).contains(&drawn), "{drawn}");
        let by_client = (0..DRAWS).filter(|n| {
            let draw = Affinity::of_value(&n.to_le_bytes()).draw();
            Side::of(trial, share, draw).holds(trial)
        });
        let by_client = by_client.count();
        assert!((143..257).contains(&by_client), "{by_client}");
    }
}
