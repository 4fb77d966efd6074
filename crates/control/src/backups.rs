//! When a backup is due, when its absence is an alarm, and which are kept.
//!
//! All by the time of the wall: backups outlive processes and machines, and so do the times at which they were made. A
//! clock that was set back makes the next one due at once, and never later than it would be.

use alloc::vec::Vec;
use core::time::Duration;

use mainstay_ids::Timestamp;
use mainstay_model::backup::Standing;

/// A backup that failed is tried again after a twelfth of the time between two, but not sooner than this: what hinders
/// it, a full disk or one that is not there, takes somebody some minutes.
const RETRY_MIN: Duration = Duration::from_mins(1);
/// The share of the time between two after which one that failed is tried again.
const RETRY_SHARE: u32 = 12;
/// So many times the time between two, and the last one is late: one that failed and was made good is none.
const LATE_AFTER: u32 = 2;

/// What is known of the backups of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backups {
    /// How often one is made.
    pub every: Duration,
    /// Since when they are.
    pub since: Timestamp,
    /// When the last whole one was begun.
    pub last: Option<Timestamp>,
    /// When the last attempt failed, if no later one succeeded.
    pub failed: Option<Timestamp>,
}

impl Backups {
    /// When the next one is due: a time that has passed means now.
    pub fn due(&self, now: Timestamp) -> Timestamp {
        let regular = self
            .last
            .map_or(self.since, |last| after(last.min(now), self.every));
        let Some(failed) = self.failed else {
            return regular;
        };
        let pause = (self.every / RETRY_SHARE).max(RETRY_MIN).min(self.every);
        // Another one is not due before the one that failed is tried again.
        after(failed.min(now), pause)
    }

    /// How they stand.
    pub fn standing(&self, now: Timestamp) -> Standing {
        let newest = self.last.unwrap_or(self.since);
        if now > after(newest, self.every * LATE_AFTER) {
            Standing::Late
        } else if self.failed.is_some() {
            Standing::Failed
        } else {
            Standing::Fine
        }
    }
}

/// Those that go when the newest `keep` stay; the newest one always does.
pub fn superfluous<T>(mut made: Vec<(Timestamp, T)>, keep: u32) -> Vec<T> {
    // Stable: of two of one moment the one that comes later counts as newer.
    made.sort_by_key(|(begun, _)| *begun);
    let keep = usize::try_from(keep).unwrap_or(usize::MAX).max(1);
    let gone = made.len().saturating_sub(keep);
    made.truncate(gone);
    made.into_iter().map(|(_, one)| one).collect()
}

fn after(time: Timestamp, later: Duration) -> Timestamp {
    let ms = u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
    Timestamp(time.0.saturating_add(ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const HOUR: u64 = 3_600_000;
    const MINUTE: u64 = 60_000;

    fn backups(last: Option<u64>, failed: Option<u64>) -> Backups {
        Backups {
            every: Duration::from_hours(1),
            since: Timestamp(HOUR),
            last: last.map(Timestamp),
            failed: failed.map(Timestamp),
        }
    }

    #[test]
    fn the_first_is_due_at_once_and_the_next_an_hour_later() {
        let now = Timestamp(5 * HOUR);
        assert_eq!(backups(None, None).due(now), Timestamp(HOUR));
        assert_eq!(backups(Some(4 * HOUR), None).due(now), Timestamp(5 * HOUR));
    }

    #[test]
    fn one_that_failed_is_tried_again_before_the_next_is_due() {
        let now = Timestamp(5 * HOUR);
        let failed = backups(Some(4 * HOUR), Some(5 * HOUR));
        assert_eq!(failed.due(now), Timestamp(5 * HOUR + 5 * MINUTE));
        let often = Backups {
            every: Duration::from_secs(10),
            ..failed
        };
        assert_eq!(often.due(now), Timestamp(5 * HOUR + 10_000));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_the_next_one_no_later() {
        let now = Timestamp(2 * HOUR);
        assert_eq!(backups(Some(90 * HOUR), None).due(now), Timestamp(3 * HOUR));
        let failed = backups(None, Some(90 * HOUR));
        assert_eq!(failed.due(now), Timestamp(2 * HOUR + 5 * MINUTE));
    }

    #[test]
    fn two_hours_without_one_are_late_and_a_failure_is_told_at_once() {
        let standing = |last, failed, now| backups(last, failed).standing(Timestamp(now));
        assert_eq!(standing(None, None, 3 * HOUR), Standing::Fine);
        assert_eq!(standing(None, None, 3 * HOUR + 1), Standing::Late);
        assert_eq!(standing(Some(2 * HOUR), None, 4 * HOUR), Standing::Fine);
        assert_eq!(standing(Some(2 * HOUR), None, 4 * HOUR + 1), Standing::Late);
        let failed = Some(3 * HOUR);
        assert_eq!(standing(Some(2 * HOUR), failed, 3 * HOUR), Standing::Failed);
        assert_eq!(standing(Some(2 * HOUR), failed, 5 * HOUR), Standing::Late);
        assert!(Standing::Late.is_alarm() && !Standing::Fine.is_alarm());
    }

    #[test]
    fn the_newest_are_kept_and_one_in_any_case() {
        let made = vec![
            (Timestamp(3), 'c'),
            (Timestamp(1), 'a'),
            (Timestamp(3), 'd'),
            (Timestamp(2), 'b'),
        ];
        assert_eq!(superfluous(made.clone(), 2), ['a', 'b']);
        assert_eq!(superfluous(made.clone(), 0), ['a', 'b', 'c']);
        assert_eq!(superfluous(made, 9), [] as [char; 0]);
    }
}
