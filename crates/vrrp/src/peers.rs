//! Who else was heard for this virtual router.

use core::net::IpAddr;
use core::time::Duration;

use mainstay_ids::Instant;

use crate::words::Priority;

/// A router that was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its own address.
    pub address: IpAddr,
    /// The last that it claimed. One that leaves keeps it: on a planned move it stays as a backup.
    pub priority: Priority,
    /// When, by the router's own time.
    pub(crate) heard: Instant,
}

/// More routers for one address are no use; whoever pretends to be many pushes out those that were heard longest ago,
/// and then the worst is the skew time of RFC 9568.
const PEERS_MAX: usize = 8;
/// A backup is silent, so nobody knows whether it is still there. After so long it is not waited for any more.
const REMEMBERED: Duration = Duration::from_mins(10);

/// The peers that were heard last. Backups are silent, so it knows only those that held the address once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peers([Option<Peer>; PEERS_MAX]);

impl Peers {
    /// Notes what one said.
    pub(crate) fn note(&mut self, mut peer: Peer) {
        let known = |place: &Option<Peer>| place.is_some_and(|one| one.address == peer.address);
        let at = self
            .0
            .iter()
            .position(known)
            .unwrap_or_else(|| self.longest_ago());
        if peer.priority == Priority::LEAVING {
            let before = self.0[at].filter(|one| one.address == peer.address);
            peer.priority = before.map_or(Priority::LEAVING, |one| one.priority);
        }
        self.0[at] = Some(peer);
    }

    /// A free place, or that of the peer that was heard longest ago.
    fn longest_ago(&self) -> usize {
        let heard = |at: &usize| self.0[*at].map(|peer| peer.heard);
        (0..PEERS_MAX).min_by_key(heard).unwrap_or(0)
    }

    /// Whether none of those that may still be there is better than who has this rank. Who leaves is asked for nothing.
    pub(crate) fn none_better(
        &self,
        now: Instant,
        leaving: IpAddr,
        rank: (Priority, IpAddr),
    ) -> bool {
        let there = |peer: &&Peer| peer.address != leaving && now.since(peer.heard) < REMEMBERED;
        let better = |peer: &Peer| (peer.priority, peer.address) > rank;
        !self.iter().filter(there).any(better)
    }

    /// Whether that one was heard with a priority of its own.
    pub(crate) fn has_claimed(&self, address: IpAddr) -> bool {
        let claimed = |peer: &Peer| peer.address == address && peer.priority != Priority::LEAVING;
        self.iter().any(claimed)
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.0.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8, priority: u8, heard: u64) -> Peer {
        Peer {
            address: [10, 0, 0, last].into(),
            priority: Priority(priority),
            heard: Instant::from_start(Duration::from_secs(heard)),
        }
    }

    #[test]
    fn a_thousand_strangers_take_no_more_than_eight_places() {
        let mut peers = Peers::default();
        for n in 0..=255 {
            peers.note(peer(n, 200, n.into()));
        }
        assert_eq!(peers.iter().count(), PEERS_MAX);
        assert!(
            peers
                .iter()
                .all(|peer| peer.heard.since_start() >= Duration::from_secs(248))
        );
        // The same one again takes no second place.
        peers.note(peer(255, 100, 300));
        assert_eq!(
            peers
                .iter()
                .filter(|one| **one == peer(255, 100, 300))
                .count(),
            1
        );
        assert_eq!(peers.iter().count(), PEERS_MAX);
    }

    #[test]
    fn the_address_decides_between_equals_and_who_leaves_or_is_long_gone_is_no_rival() {
        let mut peers = Peers::default();
        peers.note(peer(5, 100, 1));
        let best = |peers: &Peers, at: u64, leaving: u8, last: u8, priority: u8| {
            let at = Instant::from_start(Duration::from_secs(at));
            let rank = (Priority(priority), [10, 0, 0, last].into());
            peers.none_better(at, [10, 0, 0, leaving].into(), rank)
        };
        assert!(best(&peers, 2, 9, 6, 100));
        assert!(!best(&peers, 2, 9, 4, 100));
        assert!(best(&peers, 2, 9, 4, 101));
        // It has moved the address away and is still there: for the next one that leaves, it counts.
        peers.note(peer(5, 0, 2));
        assert!(best(&peers, 2, 5, 4, 1));
        assert!(!best(&peers, 2, 9, 4, 1));
        assert!(best(&peers, 602, 9, 4, 1));
        // One that was never heard before it left claims nothing.
        peers.note(peer(7, 0, 3));
        assert!(
            !peers.has_claimed([10, 0, 0, 7].into()) && peers.has_claimed([10, 0, 0, 5].into())
        );
    }
}
