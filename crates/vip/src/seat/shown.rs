//! A seat as it is shown.

use mainstay_vrrp::Counts;

use super::{Leaves, Seat};
use crate::journal::state;
use crate::track::Works;
use crate::view::{ShownCounts, ShownPeer, ShownTrack, ShownVip};

impl Seat {
    pub(crate) fn shown(&self) -> ShownVip {
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
            interface: self.spec.interface.clone(),
            vrid: self.spec.vrid.get(),
            priority: self.router.priority().0,
            advert_ms: u64::try_from(advert_ms).unwrap_or(u64::MAX),
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
        ShownCounts {
            heard,
            sent,
            took_over,
            gave_way,
            stalls,
            refused: self.refused.count,
        }
    }
}
