//! Addresses that are about to move on purpose: first the gateway lets its clients go, then they are offered.

use mainstay_ids::{Instant, VipName};

use crate::host::Host;
use crate::leave::Leave;
use crate::seat::{Leaves, Seat};

/// Why they move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Somebody wants them elsewhere.
    Move,
    /// The process ends.
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The gateway lets its clients go.
    Leaving,
    /// Another machine may have them; the gateway lets nobody in until one has.
    Offered,
}

/// One departure, of one seat or of all.
#[derive(Debug)]
pub(crate) struct Departure {
    purpose: Purpose,
    seats: Vec<VipName>,
    leave: Leave,
    stage: Stage,
}

impl Departure {
    /// Begins with those of `seats` that hold addresses.
    pub(crate) fn begin(purpose: Purpose, seats: &mut [&mut Seat], host: &Host) -> Self {
        let mut names = Vec::new();
        let mut addresses = Vec::new();
        for seat in seats.iter_mut().filter(|seat| seat.holds()) {
            seat.set_leave(Leaves::Now);
            names.push(seat.vip().clone());
            addresses.extend(seat.addresses());
        }
        Self {
            purpose,
            seats: names,
            leave: Leave::begin(host, &addresses),
            stage: Stage::Leaving,
        }
    }

    /// Goes on; whether it is over.
    pub(crate) fn turn(&mut self, seats: &mut [Seat], host: &Host) -> bool {
        let leaves = |seat: &&mut Seat| self.seats.contains(seat.vip());
        match self.stage {
            Stage::Leaving => {
                let left = self.leave.turn(host);
                // What has become unfit meanwhile, or somebody else's, is not waited for.
                let holds = seats
                    .iter_mut()
                    .filter(leaves)
                    .any(|seat| seat.holds_well());
                if holds && !left {
                    return false;
                }
                for seat in seats.iter_mut().filter(leaves) {
                    seat.set_leave(Leaves::No);
                    match self.purpose {
                        Purpose::Move => seat.give_away(host),
                        Purpose::Stop => seat.stop(host),
                    }
                }
                self.stage = Stage::Offered;
                false
            }
            Stage::Offered => !seats.iter_mut().filter(leaves).any(|seat| seat.offers()),
        }
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        self.leave.next_deadline()
    }

    /// Something else begins: what was not offered yet stays as it is.
    pub(crate) fn give_up(self, seats: &mut [Seat]) {
        for seat in seats
            .iter_mut()
            .filter(|seat| self.seats.contains(seat.vip()))
        {
            seat.set_leave(Leaves::No);
        }
    }
}
