//! How fast an endpoint answers: an exponentially weighted moving average by time that follows a
//! rise at once (peak) and a fall slowly.

use core::time::Duration;

use mainstay_ids::Instant;

/// The time constant: after so long without news, an old measurement counts 1/e.
pub const TAU: Duration = Duration::from_secs(10);

/// What is assumed of an endpoint that was never used when no other tells better.
pub const DEFAULT_RTT: Duration = Duration::from_millis(30);

/// What a failure counts as at least, so that an endpoint that fails fast does not attract traffic.
pub const FAILURE_RTT: Duration = Duration::from_secs(5);

/// The longest that an endpoint's own wish (`Retry-After`) makes a failure count.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// The latency of one endpoint as one worker sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    nanoseconds: f64,
    updated: Instant,
}

impl Latency {
    /// An endpoint that was never used and is assumed to take `assumed`. The assumption fades like
    /// a measurement, so that a wrong one cannot keep traffic away for ever.
    pub fn new(now: Instant, assumed: Duration) -> Self {
        Self {
            nanoseconds: nanoseconds(assumed),
            updated: now,
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
        if nanoseconds(took) > self.estimate(now) {
            self.observe(now, took);
        }
    }

    /// A request failed after `took`; the endpoint may have wished for a pause.
    pub fn observe_failure(&mut self, now: Instant, took: Duration, retry_after: Option<Duration>) {
        let wish = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        self.observe(now, took.max(FAILURE_RTT).max(wish));
    }

    /// The expected cost of one more request, in nanoseconds: latency x (pending + 1).
    pub fn load(&self, now: Instant, pending: f64) -> f64 {
        self.estimate(now) * (pending + 1.0)
    }

    /// The present estimate in nanoseconds.
    pub fn estimate(&self, now: Instant) -> f64 {
        // Never nothing: two idle endpoints must still differ by what is pending.
        (self.nanoseconds * self.weight(now)).max(1.0)
    }

    fn weight(&self, now: Instant) -> f64 {
        let age = now.since(self.updated);
        libm::exp(-(age.as_secs_f64() / TAU.as_secs_f64()))
    }
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
    fn a_fast_failure_counts_five_seconds_and_a_wish_for_a_pause_more() {
        let mut latency = Latency::new(at(0), MS);
        latency.observe_failure(at(1), MS, None);
        assert!(is_about(latency.estimate(at(1)), FAILURE_RTT));
        latency.observe_failure(at(1), MS, Some(Duration::from_mins(150)));
        assert!(is_about(latency.estimate(at(1)), RETRY_AFTER_MAX));
    }

    #[test]
    fn load_grows_with_what_is_pending_even_without_any_latency() {
        let latency = Latency::new(at(0), Duration::ZERO);
        assert!(latency.load(at(9), 3.0) > latency.load(at(9), 2.0));
    }
}
