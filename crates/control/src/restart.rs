//! When an instance that ended is started again, and when it counts as crash-looping.
//!
//! The agent keeps one [`Restart`] per instance, over all of its attempts, and needs nobody else
//! for it: instances come back while the control centre is away.

use core::time::Duration;

use mainstay_ids::Instant;
use mainstay_model::report::CrashLooping;

/// The delay after a first end: short, because most ends are single events.
pub const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest delay between two attempts.
pub const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Healthy for so long, and what happened before is forgotten.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(10);
/// So many ends in a row without [`FORGIVEN_AFTER`] of health are a crash loop.
pub const CRASH_LOOP_ENDS: u32 = 5;

/// When to try again after an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// When the next attempt is due.
    pub until: Instant,
    /// How long that is from the end.
    pub delay: Duration,
    /// Whether it ends again and again.
    pub crash_looping: CrashLooping,
}

/// The restarts of one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restart {
    /// Ends in a row without [`FORGIVEN_AFTER`] of health in between.
    ends: u32,
    passing_since: Option<Instant>,
}

impl Restart {
    /// An instance that never ended.
    pub fn new() -> Self {
        Self::default()
    }

    /// An instance of which `ends` ends in a row are known from before the agent's own restart.
    pub fn resumed(ends: u32) -> Self {
        Self {
            ends,
            passing_since: None,
        }
    }

    /// The ends in a row, to be kept for [`Restart::resumed`].
    pub fn ends(&self) -> u32 {
        self.ends
    }

    /// The attempt passes its probes since `now`.
    pub fn passing(&mut self, now: Instant) {
        self.passing_since.get_or_insert(now);
    }

    /// The attempt fails its probes since `now`.
    pub fn failing(&mut self, now: Instant) {
        let healthy = self.passing_since.take();
        if healthy.is_some_and(|since| now.since(since) >= FORGIVEN_AFTER) {
            self.ends = 0;
        }
    }

    /// The attempt ended, or could not be started, at `now`.
    pub fn ended(&mut self, now: Instant) -> Retry {
        self.failing(now);
        let delay = 2_u32
            .checked_pow(self.ends)
            .and_then(|factor| FIRST_DELAY.checked_mul(factor))
            .map_or(LONGEST_DELAY, |delay| delay.min(LONGEST_DELAY));
        self.ends = self.ends.saturating_add(1);
        Retry {
            until: now.after(delay),
            delay,
            crash_looping: self.crash_looping(),
        }
    }

    /// Whether it ends again and again.
    pub fn crash_looping(&self) -> CrashLooping {
        if self.ends >= CRASH_LOOP_ENDS {
            CrashLooping::Yes
        } else {
            CrashLooping::No
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn the_delay_doubles_up_to_the_longest_and_the_fifth_end_is_a_crash_loop() {
        let mut restart = Restart::new();
        let mut delays = alloc::vec::Vec::new();
        for end in 1..=40 {
            let retry = restart.ended(at(0));
            delays.push(retry.delay.as_millis());
            assert_eq!(
                retry.crash_looping == CrashLooping::Yes,
                end >= 5,
                "end {end}"
            );
        }
        assert_eq!(delays[..6], [100, 200, 400, 800, 1600, 3200]);
        assert_eq!(delays[8..11], [25_600, 30_000, 30_000]);
        assert_eq!(delays[39], 30_000);
    }

    #[test]
    fn ten_seconds_of_health_forgive_and_less_does_not() {
        let mut restart = Restart::resumed(5);
        restart.passing(at(0));
        restart.passing(at(5));
        assert_eq!(restart.ended(at(9)).crash_looping, CrashLooping::Yes);
        restart.passing(at(20));
        restart.failing(at(30));
        assert_eq!(restart.ends(), 0);
        assert_eq!(restart.ended(at(31)).delay, FIRST_DELAY);
    }
}
