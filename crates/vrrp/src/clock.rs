//! The router's own time, which the driver's clock drives and cannot turn back.

use mainstay_ids::Instant;

/// Runs as the driver's clock runs. Where that one jumps back, this one stands still for that call and then goes on: no
/// deadline comes late by the size of the jump.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clock {
    outside: Instant,
    inside: Instant,
}

impl Clock {
    /// Reads the driver's clock; the router's own time.
    pub(crate) fn read(&mut self, outside: Instant) -> Instant {
        self.inside = self.inside.after(outside.since(self.outside));
        self.outside = outside;
        self.inside
    }

    /// When an own time comes by the driver's clock; now, if it is over.
    pub(crate) fn outside(self, inside: Instant) -> Instant {
        if inside == Instant::NEVER {
            return inside;
        }
        self.outside.after(inside.since(self.inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_jump_back_costs_no_time_and_moves_no_deadline_away() {
        let at = |seconds| Instant::from_start(SECOND * seconds);
        let mut clock = Clock::default();
        let deadline = clock.read(at(1000)).after(SECOND * 3);
        clock.read(at(1001));
        assert_eq!(clock.outside(deadline), at(1003));
        clock.read(at(5));
        assert_eq!(clock.outside(deadline), at(7));
        clock.read(at(6));
        assert_eq!(clock.outside(deadline), at(7));
        assert!(clock.read(at(7)) >= deadline);
        assert_eq!(clock.outside(Instant::NEVER), Instant::NEVER);
    }
}
