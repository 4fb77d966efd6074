//! How fast an endpoint answers: an exponentially weighted moving average by time that follows a
//! rise at once (peak) and a fall slowly.

use core::time::Duration;

use mainstay_ids::Instant;

/// The time constant: after so long without news, an old measurement counts 1/e.
pub const TAU: Duration = Duration::from_secs(10);
/// News of an endpoint that is used come more often than this.
pub const IDLE_AFTER: Duration = Duration::from_secs(2);
/// The time constant of one that is not. It is short: what was once much slower than the others gets
/// nothing, and so cannot show that it no longer is. By [`TAU`] alone one answer of a second, beside
/// two endpoints that take ten milliseconds, would cost an endpoint its traffic for three quarters of a
/// minute; so it is seven seconds. One that is ten times slower still gets a request in four seconds.
pub const IDLE_TAU: Duration = Duration::from_secs(1);

/// What is assumed of an endpoint that was never used when no other tells better.
pub const DEFAULT_RTT: Duration = Duration::from_millis(30);

/// What a failure counts as at least, so that an endpoint that fails fast does not attract traffic.
pub const FAILURE_RTT: Duration = Duration::from_secs(5);

/// The time constant by which a failure is forgotten, for the same reason: after seven seconds it counts
/// five milliseconds. One that still fails costs its clients a request in some seconds, until it is
/// ejected for five in a row.
pub const FAILURE_TAU: Duration = Duration::from_secs(1);

/// The latency of one endpoint as one worker sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    nanoseconds: f64,
    updated: Instant,
    /// What its last failure counted when it happened.
    failure: f64,
    failed: Instant,
}

impl Latency {
    /// An endpoint that was never used and is assumed to take `assumed`. The assumption fades like
    /// a measurement, so that a wrong one cannot keep traffic away for ever.
    pub fn new(now: Instant, assumed: Duration) -> Self {
        Self {
            nanoseconds: nanoseconds(assumed),
            updated: now,
            failure: 0.0,
            failed: now,
        }
    }

    /// An answer took `rtt`, to the first byte of its body or to its end if it has none.
    pub fn observe(&mut self, now: Instant, rtt: Duration) {
        let sample = nanoseconds(rtt);
        let weight = self.weight(now);
        let faded = self.nanoseconds * weight;
        self.nanoseconds = if sample > faded {
            sample
        } else {
            faded + sample * (1.0 - weight)
        };
        self.updated = self.updated.max(now);
    }

    /// No answer had come after `took` when nobody waited any more.
    pub fn observe_at_least(&mut self, now: Instant, took: Duration) {
        if nanoseconds(took) > self.usual(now) {
            self.observe(now, took);
        }
    }

    /// A request failed after `took`.
    pub fn observe_failure(&mut self, now: Instant, took: Duration) {
        let counts = nanoseconds(took.max(FAILURE_RTT));
        self.failure = counts.max(self.failure * fading(now, self.failed, FAILURE_TAU));
        self.failed = self.failed.max(now);
    }

    /// The expected cost of one more request, in nanoseconds: latency x (pending + 1).
    pub fn load(&self, now: Instant, pending: f64) -> f64 {
        self.estimate(now) * (pending + 1.0)
    }

    /// The present estimate in nanoseconds.
    pub fn estimate(&self, now: Instant) -> f64 {
        let failure = self.failure * fading(now, self.failed, FAILURE_TAU);
        self.usual(now).max(failure)
    }

    /// What an answer takes, in nanoseconds, whatever failed.
    pub fn usual(&self, now: Instant) -> f64 {
        // Never nothing: two idle endpoints must still differ by what is pending.
        (self.nanoseconds * self.weight(now)).max(1.0)
    }

    /// How much the last measurement still counts.
    fn weight(&self, now: Instant) -> f64 {
        let idle_since = self.updated.after(IDLE_AFTER);
        fading(now.min(idle_since), self.updated, TAU) * fading(now, idle_since, IDLE_TAU)
    }
}

/// What is left of what was known at `known`.
fn fading(now: Instant, known: Instant, tau: Duration) -> f64 {
    libm::exp(-(now.since(known).as_secs_f64() / tau.as_secs_f64()))
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u32) -> Instant {
        Instant::START.after(MS * ms)
    }

    fn is_about(value: f64, expected: Duration) -> bool {
        (value / nanoseconds(expected) - 1.0).abs() < 0.01
    }

    #[test]
    fn a_rise_counts_at_once_and_a_fall_slowly() {
        let mut latency = Latency::new(at(0), MS);
        latency.observe(at(10), MS * 100);
        assert!(is_about(latency.estimate(at(10)), MS * 100));
        latency.observe(at(20), MS);
        assert!(
            is_about(latency.estimate(at(20)), MS * 100),
            "one fast answer proves little"
        );
        for ms in (20..60_020).step_by(10) {
            latency.observe(at(ms), MS);
        }
        assert!(latency.estimate(at(60_020)) < nanoseconds(MS * 2));
    }

    #[test]
    fn a_peak_that_nothing_renews_is_forgotten_within_some_seconds() {
        let mut latency = Latency::new(at(0), MS * 10);
        latency.observe(at(10), MS * 1_000);
        assert!(latency.estimate(at(1_010)) > nanoseconds(MS * 900));
        assert!(latency.estimate(at(8_010)) < nanoseconds(MS * 10));
        latency.observe(at(8_010), MS * 10);
        let usual = latency.estimate(at(8_010));
        assert!(usual < nanoseconds(MS * 20), "one answer shows it: {usual}");
    }

    #[test]
    fn a_fast_failure_counts_five_seconds_and_is_forgotten_within_eight() {
        let mut latency = Latency::new(at(0), MS);
        latency.observe_failure(at(1), MS);
        assert!(is_about(latency.estimate(at(1)), FAILURE_RTT));
        assert!(latency.estimate(at(2_001)) > nanoseconds(MS * 500));
        assert!(latency.estimate(at(8_001)) < nanoseconds(MS * 2));
        let usual = latency.usual(at(1));
        assert!(is_about(usual, MS), "others are not judged by it: {usual}");
    }

    #[test]
    fn what_failed_slowly_is_not_forgiven_for_a_fast_failure_after_it() {
        let mut latency = Latency::new(at(0), MS);
        latency.observe_failure(at(1), MS * 30_000);
        latency.observe_failure(at(101), MS);
        assert!(latency.estimate(at(101)) > nanoseconds(MS * 27_000));
    }

    #[test]
    fn load_grows_with_what_is_pending_even_without_any_latency() {
        let latency = Latency::new(at(0), Duration::ZERO);
        assert!(latency.load(at(9), 3.0) > latency.load(at(9), 2.0));
    }
}
