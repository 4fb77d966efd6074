//! Service addresses that another host on the network has, as its own or as somebody's container: asked
//! for when a service gets its address, beside the works, and told as an error. Who connects from here
//! reaches the service all the same; who connects from elsewhere may reach the other host.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mainstay_forward::host::ConcernKind;
use mainstay_kernel::occupied::{Asker, Owner};
use mainstay_model::Network;
use mainstay_model::forward::Ranges;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

/// Addresses that are asked for at once: 5,000 services are through after a minute and a half, and a link
/// has 256 small frames in a second.
const ADDRESSES_MAX: usize = 128;
/// Links that are asked; a host has some, and one with hundreds of containers has them on a bridge.
const LINKS_MAX: usize = 16;
/// How often each is asked for: one frame may be lost (RFC 5227 has three, over seconds, for addresses that
/// are not used before).
const PROBES: usize = 2;
/// How long answers are waited for, each time. On a link they take a millisecond.
const ANSWER_TIME: Duration = Duration::from_millis(400);
/// Between two rounds.
const ROUND_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked whether one that another host had is free again.
const AGAIN: Duration = Duration::from_secs(30);

type Found = BTreeMap<IpAddr, Owner>;

/// A round that is under way.
struct Round {
    asked: Vec<IpAddr>,
    answers: JoinHandle<io::Result<Found>>,
}

pub(super) struct Occupied {
    /// Networks of more than one address: one alone may be a floating one, which another node has now.
    networks: Vec<Network>,
    asked: BTreeSet<IpAddr>,
    /// With who has them.
    others: Found,
    round: Option<Round>,
    next: Instant,
    again: Instant,
    /// The kernel lets nobody ask: told once.
    is_barred: bool,
}

impl Occupied {
    pub(super) fn new(ranges: &Ranges) -> Self {
        let networks = ranges.networks().iter().filter(|one| {
            let single = if one.address().is_ipv4() { 32 } else { 128 };
            !one.address().is_loopback() && one.prefix() < single
        });
        Self {
            networks: networks.copied().collect(),
            asked: BTreeSet::new(),
            others: Found::new(),
            round: None,
            next: Instant::now(),
            again: Instant::now(),
            is_barred: false,
        }
    }

    /// What is to be told beside other hindrances.
    pub(super) fn concern(&self) -> Option<ConcernKind> {
        (!self.others.is_empty()).then_some(ConcernKind::AddressInUse)
    }

    /// Takes in a round that has ended.
    pub(super) async fn take_in(&mut self) {
        let Some(Round { asked, answers }) =
            self.round.take_if(|round| round.answers.is_finished())
        else {
            return;
        };
        match answers.await {
            Ok(Ok(found)) => self.tell(&asked, &found),
            Ok(Err(error)) if !self.is_barred => {
                self.is_barred = true;
                tracing::warn!(%error, "the network cannot be asked whether another host has a service's address");
            }
            Ok(Err(_)) => {}
            Err(error) => {
                tracing::error!(%error, "asking for service addresses panicked");
            }
        }
    }

    /// Begins a round that is due, for those that were not asked for yet.
    pub(super) fn ask_if_due<'a>(&mut self, used: impl Iterator<Item = &'a SocketAddr>) {
        let now = Instant::now();
        if self.round.is_some() || now < self.next {
            return;
        }
        self.next = now + ROUND_EVERY;
        let addresses = self.due(used, now);
        if addresses.is_empty() {
            return;
        }
        self.asked.extend(&addresses);
        let asked = addresses.clone();
        let answers = spawn_blocking(move || ask(&addresses));
        self.round = Some(Round { asked, answers });
    }

    fn due<'a>(&mut self, used: impl Iterator<Item = &'a SocketAddr>, now: Instant) -> Vec<IpAddr> {
        let is_asked_for = |ip: &IpAddr| self.networks.iter().any(|one| one.contains(*ip));
        let used: BTreeSet<IpAddr> = used.map(SocketAddr::ip).filter(is_asked_for).collect();
        // One that comes again is asked for again.
        self.asked.retain(|address| used.contains(address));
        self.others.retain(|address, _| used.contains(address));
        if now >= self.again {
            self.again = now + AGAIN;
            self.asked
                .retain(|address| !self.others.contains_key(address));
        }
        let new = used.into_iter().filter(|one| !self.asked.contains(one));
        new.take(ADDRESSES_MAX).collect()
    }

    fn tell(&mut self, asked: &[IpAddr], found: &Found) {
        for address in asked {
            match (self.others.remove(address), found.get(address)) {
                (before, Some(owner)) => {
                    if before.map(|before| before.mac) != Some(owner.mac) {
                        let mac = owner
                            .mac
                            .map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
                        let mac = mac.unwrap_or_default();
                        tracing::error!(%address, %mac, "another host on the network has the address of a service: others reach that host or this service, by chance; choose a `range` that nothing uses, or take the address from that host (unless it is a node with `answer_arp`, which is to have it)");
                    }
                    self.others.insert(*address, *owner);
                }
                (Some(_), None) => {
                    tracing::info!(%address, "no other host has the address of the service any more");
                }
                (None, None) => {}
            }
        }
    }
}

/// Blocks for a second.
fn ask(addresses: &[IpAddr]) -> io::Result<Found> {
    let asker = Asker::open(LINKS_MAX)?;
    let wanted: BTreeSet<&IpAddr> = addresses.iter().collect();
    let mut found = Found::new();
    for _ in 0..PROBES {
        for address in addresses {
            asker.ask(*address);
        }
        asker.hear(ANSWER_TIME, |owner| {
            if wanted.contains(&owner.address) {
                found.insert(owner.address, owner);
            }
        })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Ranges {
        let networks = texts.iter().map(|text| Network::parse(text).unwrap());
        Ranges::new(networks.collect()).unwrap()
    }

    #[test]
    fn each_address_is_asked_for_once_and_an_occupied_one_again() {
        let mut occupied =
            Occupied::new(&ranges(&["10.96.0.0/16", "10.97.0.1/32", "127.1.0.0/16"]));
        let used: Vec<SocketAddr> = (1..=200_u8)
            .map(|last| SocketAddr::from(([10, 96, 0, last], 80)))
            .chain(["10.97.0.1:80", "127.1.0.1:80"].map(|one| one.parse().unwrap()))
            .collect();
        let start = Instant::now();
        let due = |occupied: &mut Occupied, used: &[SocketAddr], now| {
            let due = occupied.due(used.iter(), now);
            occupied.asked.extend(&due);
            due
        };
        assert_eq!(due(&mut occupied, &used, start).len(), ADDRESSES_MAX);
        let rest = due(&mut occupied, &used, start);
        assert_eq!(rest.len(), 200 - ADDRESSES_MAX);
        assert_eq!(due(&mut occupied, &used, start), Vec::<IpAddr>::new());
        let address = used[0].ip();
        let owner = Owner { address, mac: None };
        occupied.tell(&[address], &Found::from([(address, owner)]));
        assert_eq!(occupied.concern(), Some(ConcernKind::AddressInUse));
        let later = start + AGAIN + ROUND_EVERY;
        assert_eq!(due(&mut occupied, &used, later), [address]);
        occupied.tell(&[address], &Found::new());
        assert_eq!(occupied.concern(), None);
        // Of one that is used no more nothing is known.
        assert_eq!(due(&mut occupied, &used[1..], later), Vec::<IpAddr>::new());
        assert_eq!(due(&mut occupied, &used, later), [address]);
    }
}
