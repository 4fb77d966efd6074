//! A seat as it is shown.

use mainstay_ids::Instant;
use mainstay_vrrp::{Counts, Oddity, Role};

use super::{Leaves, Seat};
use crate::journal::state;
use crate::refusals::Reason;
use crate::track::Works;
use crate::view::{ShownCounts, ShownPeer, ShownRefused, ShownTrack, ShownVip};

impl Seat {
    pub(crate) fn shown(&self, now: Instant) -> ShownVip {
        let options = self.router.options();
        let peers = self.router.peers().map(|peer| ShownPeer {
            address: peer.address,
            priority: peer.priority.0,
        });
        let tracks = self.tracks.iter().map(|track| ShownTrack {
            what: track.what().to_string(),
            works: track.works() == Works::Yes,
        });
        let agent = self.agent.map(|works| ShownTrack {
            what: "the agent".to_owned(),
            works: works == Works::Yes,
        });
        let advert_ms = options.interval.duration().as_millis();
        ShownVip {
            name: self.spec.name.clone(),
            state: state(self.router.role()),
            offers: self.router.offers_addresses(),
            leaves: self.leaves == Leaves::Now,
            fault: self.fault.as_ref().map(ToString::to_string),
            addresses: self
                .spec
                .addresses
                .iter()
                .map(ToString::to_string)
                .collect(),
            held: match self.router.role() {
                Role::Master => self.spec.addresses.len(),
                Role::Init | Role::Backup => 0,
            },
            interface: self.spec.interface.clone(),
            vrid: self.spec.vrid.get(),
            priority: self.router.priority().0,
            advert_ms: u64::try_from(advert_ms).unwrap_or(u64::MAX),
            advert_age_ms: self.heard_at.map(|heard| {
                let age = now.since(heard).as_millis();
                u64::try_from(age).unwrap_or(u64::MAX)
            }),
            master: self.router.master(),
            peers: peers.collect(),
            tracks: tracks.chain(agent).collect(),
            counts: self.counts(),
            past: self.past.moments(),
        }
    }

    fn counts(&self) -> ShownCounts {
        let Counts {
            heard,
            sent,
            took_over,
            gave_way,
            stalls,
        } = self.router.counts();
        let refused_by = self.refused_by();
        ShownCounts {
            heard,
            sent,
            took_over,
            gave_way,
            stalls,
            refused: refused_by.iter().map(|refused| refused.count).sum(),
            refused_by,
            entered: self.past.entered(),
        }
    }

    /// What the election did not believe is counted there.
    fn refused_by(&self) -> Vec<ShownRefused> {
        let counted = Reason::ALL.into_iter().map(|reason| {
            let by_election = match reason {
                Reason::Version => self.router.odd(Oddity::Version),
                Reason::OwnAddress => self.router.odd(Oddity::OwnAddress),
                Reason::Stranger => self.router.odd(Oddity::Stranger),
                Reason::HopLimit
                | Reason::Length
                | Reason::Checksum
                | Reason::Authentication
                | Reason::Content => 0,
            };
            let count = self.refusals.count(reason) + by_election;
            ShownRefused { reason, count }
        });
        counted.collect()
    }
}
