//! What is sent when. Pure.

use std::time::Duration;

/// In the burst so many times the steady rate is published.
pub(super) const FACTOR: f64 = 10.0;
/// The consumer takes so many times the steady rate: the backlog grows by six for each second of the burst, and falls by three for each
/// after it, so that a burst of ten seconds is over after twenty more.
pub(super) const TAKES: f64 = 4.0;
/// The steady rate before the burst: what a calm queue has is seen in it.
const BEFORE: Duration = Duration::from_secs(3);

/// The plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plan {
    /// Messages per second, outside of the burst.
    pub(super) rate: f64,
    pub(super) burst: Duration,
}

impl Plan {
    /// When the burst begins.
    pub(super) const BURST_BEGINS: Duration = BEFORE;

    /// How many messages are to be published by this time since the start.
    pub(super) fn due(&self, elapsed: Duration) -> u64 {
        let before = elapsed.min(BEFORE);
        let burst = elapsed.saturating_sub(BEFORE).min(self.burst);
        let steady = elapsed.saturating_sub(BEFORE + self.burst) + before;
        let due = self.rate * (steady.as_secs_f64() + FACTOR * burst.as_secs_f64());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a number of messages"
        )]
        let due = due as u64;
        due
    }

    /// Between two messages that the consumer acknowledges.
    pub(super) fn takes_every(&self) -> Duration {
        Duration::from_secs_f64(1.0 / (self.rate * TAKES))
    }

    pub(super) fn burst_ends(&self) -> Duration {
        BEFORE + self.burst
    }

    /// What the backlog is at its peak, by the rates.
    pub(super) fn peak(&self) -> f64 {
        self.rate * (FACTOR - TAKES) * self.burst.as_secs_f64()
    }

    /// How long after the burst it is gone, by the rates.
    pub(super) fn falls_in(&self) -> Duration {
        self.burst.mul_f64((FACTOR - TAKES) / (TAKES - 1.0))
    }

    /// A backlog that is none: what comes in a tenth of a second, and at least ten.
    pub(super) fn calm(&self) -> u64 {
        self.due(Duration::from_millis(100).min(BEFORE)).max(10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        rate: 100.0,
        burst: Duration::from_secs(10),
    };

    #[test]
    fn the_rate_is_ten_times_as_high_in_the_burst_and_the_same_before_and_after() {
        let due = |ms| PLAN.due(Duration::from_millis(ms));
        assert_eq!(due(0), 0);
        assert_eq!(due(1000), 100);
        assert_eq!(due(3000), 300);
        assert_eq!(due(4000), 1300);
        assert_eq!(due(13_000), 10_300);
        assert_eq!(due(14_000), 10_400);
    }

    #[test]
    fn peak_and_fall_follow_from_the_rates() {
        assert!((PLAN.peak() - 6000.0).abs() < f64::EPSILON);
        assert_eq!(PLAN.falls_in(), Duration::from_secs(20));
        assert_eq!(PLAN.takes_every(), Duration::from_micros(2500));
        assert_eq!(PLAN.calm(), 10);
    }
}
