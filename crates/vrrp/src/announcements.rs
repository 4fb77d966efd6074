//! When the holder tells everybody whose the address is, by gratuitous ARP or unsolicited neighbour advertisements.
//!
//! At once, after 50 ms (the first may be lost while switches learn), three times every half second (who was
//! starting just then), and then now and then.

use core::time::Duration;

use mainstay_ids::Instant;

const SECOND_AFTER: Duration = Duration::from_millis(50);
const LATER_EVERY: Duration = Duration::from_millis(500);
/// Repetitions after the first: one soon and three later.
const REPEATED: u8 = 4;

/// What is still to be announced. The first announcement is the caller's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announcements {
    next: Instant,
    left: u8,
}

impl Announcements {
    /// After an announcement just now.
    pub(crate) fn begun(now: Instant) -> Self {
        Self {
            next: now.after(SECOND_AFTER),
            left: REPEATED,
        }
    }

    /// Another holder was there: all repetitions once more. However often that is called, the next one comes no later
    /// than it was to come.
    pub(crate) fn again(&mut self, now: Instant) {
        self.next = self.next.min(now.after(SECOND_AFTER));
        self.left = REPEATED;
    }

    /// Whether one is due; then it counts as made.
    pub(crate) fn take_due(&mut self, now: Instant, refresh: Option<Duration>) -> bool {
        if now < self.next {
            return false;
        }
        self.left = self.left.saturating_sub(1);
        self.next = match (self.left, refresh) {
            (1.., _) => now.after(LATER_EVERY),
            (0, Some(refresh)) => now.after(refresh),
            (0, None) => Instant::NEVER,
        };
        true
    }

    /// When the next is due.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn ms(ms: u64) -> Instant {
        Instant::from_start(Duration::from_millis(ms))
    }

    fn due_until(
        end: u64,
        announcements: &mut Announcements,
        refresh: Option<Duration>,
    ) -> Vec<u64> {
        let due = |at: &u64| announcements.take_due(ms(*at), refresh);
        (0..end).filter(due).collect()
    }

    #[test]
    fn it_is_told_again_soon_then_thrice_then_now_and_then() {
        let mut announcements = Announcements::begun(ms(0));
        let minute = Some(Duration::from_mins(1));
        assert_eq!(
            due_until(122_000, &mut announcements, minute),
            [50, 550, 1050, 1550, 61_550, 121_550]
        );
        let mut announcements = Announcements::begun(ms(0));
        assert_eq!(
            due_until(200_000, &mut announcements, None),
            [50, 550, 1050, 1550]
        );
        assert_eq!(announcements.next(), Instant::NEVER);
    }

    #[test]
    fn a_flood_of_rivals_neither_delays_nor_multiplies_it() {
        let mut announcements = Announcements::begun(ms(0));
        let mut count = 0;
        for at in 0..1000 {
            announcements.again(ms(at));
            count += u32::from(announcements.take_due(ms(at), None));
        }
        assert!((19..=20).contains(&count), "{count}");
    }
}
