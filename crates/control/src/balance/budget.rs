//! How many requests may be sent again, or a second time at once, so that retries and hedges cannot
//! make an overload worse.
//!
//! The shape is Linkerd's and Finagle's: a share of the requests (0.2), a reserve (10 per second), and
//! a memory (10 s). Envoy's budget is a share of what is in flight instead (20 %, at least 3 at once),
//! which gives a service of fast answers hardly any. Connects that fail cost nothing of it: nothing
//! was sent, and an endpoint that refuses one is ejected at once.

use core::time::Duration;

use mainstay_ids::Instant;

/// Retries are at most this share of requests.
pub const RETRY_SHARE: f64 = 0.2;
/// The time over which both are counted.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Retries per second that each worker may make however few requests there are: with one request
/// a second, a share alone would forbid the only retry that matters.
pub const RESERVE_PER_SECOND: f64 = 10.0;

/// The retries of one worker. Both counts fade with time, so no list of past requests is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    requests: f64,
    retries: f64,
    updated: Instant,
}

impl RetryBudget {
    /// A budget of which nothing is used.
    pub fn new(now: Instant) -> Self {
        Self {
            requests: 0.0,
            retries: 0.0,
            updated: now,
        }
    }

    /// A request came in (not a retry).
    pub fn deposit(&mut self, now: Instant) {
        self.fade(now);
        self.requests += 1.0;
    }

    /// Takes one retry out of the budget if it holds one.
    #[must_use]
    pub fn withdraw(&mut self, now: Instant) -> bool {
        self.fade(now);
        let allowed = self.requests * RETRY_SHARE + RESERVE_PER_SECOND * WINDOW.as_secs_f64();
        let fits = self.retries + 1.0 <= allowed;
        if fits {
            self.retries += 1.0;
        }
        fits
    }

    fn fade(&mut self, now: Instant) {
        let age = now.since(self.updated);
        let weight = libm::exp(-(age.as_secs_f64() / WINDOW.as_secs_f64()));
        self.requests *= weight;
        self.retries *= weight;
        self.updated = self.updated.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries_of(requests_per_second: u32, seconds: u32) -> u32 {
        let mut budget = RetryBudget::new(Instant::START);
        let mut retries = 0;
        for request in 0..requests_per_second * seconds {
            let now = Instant::START.after(Duration::from_secs(1) * request / requests_per_second);
            budget.deposit(now);
            retries += u32::from(budget.withdraw(now));
        }
        retries
    }

    #[test]
    fn a_service_that_fails_wholly_is_not_sent_much_more_than_a_fifth_again() {
        let (requests, retries) = (1000 * 60, retries_of(1000, 60));
        assert!(
            retries < requests / 5 + 60 * 11 + 200,
            "{retries} of {requests}"
        );
        assert!(retries > requests / 6, "{retries} of {requests}");
    }

    #[test]
    fn with_few_requests_each_may_be_sent_again() {
        assert_eq!(retries_of(5, 60), 5 * 60);
    }
}
