//! How long the disk takes, and what follows from it for the thread of all clients: whether it may wait for a sync itself.

use std::time::{Duration, Instant};

/// A sync that takes longer is not for the thread of all clients. Disks without moving parts take a tenth of it; what a
/// client says meanwhile waits no longer than it does for a long turn of a virtual host.
pub(super) const SYNC_HERE_MAX: Duration = Duration::from_millis(1);
/// After a longer one it makes none for twenty times as long: a disk that hiccups holds up all clients for a twentieth of
/// the time at most. With a hundred times, two hiccups a second take the gain away from who waits for each confirm.
const REST: u32 = 20;

/// What is known of the disk.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// From when on it is thought to be fast; `None`: nobody has seen it.
    fast_from: Option<Instant>,
}

impl Pace {
    /// A sync has ended at `now`.
    pub(super) fn took(&mut self, now: Instant, took: Duration) {
        if took > SYNC_HERE_MAX {
            self.fast_from = Some(now + took.saturating_mul(REST));
        } else if self.fast_from.is_none() {
            self.fast_from = Some(now);
        }
    }

    pub(super) fn is_fast(&self, now: Instant) -> bool {
        self.fast_from.is_some_and(|from| from <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_was_slow_is_given_a_rest() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert!(!pace.is_fast(start), "nobody knows yet");
        pace.took(start, Duration::from_micros(100));
        assert!(pace.is_fast(start));
        pace.took(at(10), Duration::from_millis(7));
        assert!(!pace.is_fast(at(149)));
        pace.took(at(100), Duration::from_micros(100));
        assert!(!pace.is_fast(at(149)), "one fast sync is no reason");
        assert!(pace.is_fast(at(150)));
    }
}
