//! Between repairs: what is told of them, and when the next look is due. A program that changes our
//! rules again and again must neither fill the log nor have us read them without a pause.

use std::time::{Duration, Instant};

/// Between two lines in the log.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// A look that takes long is followed by a pause of so many times its length: one fifth of a core is
/// spent on it at most, however fast somebody else changes rules.
const REST_FACTOR: u32 = 4;

/// No longer: with 200 ms between two looks what somebody did is undone within a second.
const REST_MAX: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Repairs {
    total: u64,
    /// What was wrong the last time, and how often anything was since it was told.
    untold: Option<Told>,
    told_at: Option<Instant>,
    not_before: Option<Instant>,
}

/// What the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) what: String,
    pub(super) times: u64,
}

impl Repairs {
    /// Whether it is time for a look.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|when| when <= now)
    }

    /// How many there were.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Takes note of a repair.
    pub(super) fn note(&mut self, what: String) {
        self.total += 1;
        let before = self.untold.take().map_or(0, |told| told.times);
        let times = before + 1;
        self.untold = Some(Told { what, times });
    }

    /// Takes note of how long a look took.
    pub(super) fn rest(&mut self, now: Instant, took: Duration) {
        self.not_before = now.checked_add((took * REST_FACTOR).min(REST_MAX));
    }

    /// What is to be told now: the first repair at once, later ones together.
    pub(super) fn tell(&mut self, now: Instant) -> Option<Told> {
        let is_early = |told: Instant| now.saturating_duration_since(told) < TELL_EVERY;
        if self.untold.is_none() || self.told_at.is_some_and(is_early) {
            return None;
        }
        self.told_at = Some(now);
        self.untold.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_repair_is_told_at_once_and_the_next_ones_together_after_a_minute() {
        let mut repairs = Repairs::default();
        let begin = Instant::now();
        assert_eq!(repairs.tell(begin), None);
        repairs.note("a".to_owned());
        let told = |what: &str, times| {
            let what = what.to_owned();
            Some(Told { what, times })
        };
        assert_eq!(repairs.tell(begin), told("a", 1));
        for second in 1..60 {
            repairs.note("b".to_owned());
            assert_eq!(repairs.tell(begin + Duration::from_secs(second)), None);
        }
        let later = begin + Duration::from_mins(1);
        assert_eq!(repairs.tell(later), told("b", 59));
        assert_eq!(repairs.tell(later + Duration::from_mins(2)), None);
    }

    #[test]
    fn a_long_look_is_followed_by_a_long_pause_but_not_a_longer_one_than_a_repair_may_take() {
        let mut repairs = Repairs::default();
        let begin = Instant::now();
        assert!(repairs.is_due(begin));
        repairs.rest(begin, Duration::from_millis(20));
        assert!(!repairs.is_due(begin + Duration::from_millis(79)));
        assert!(repairs.is_due(begin + Duration::from_millis(80)));
        repairs.rest(begin, Duration::from_secs(3));
        assert!(repairs.is_due(begin + Duration::from_millis(500)));
    }
}
