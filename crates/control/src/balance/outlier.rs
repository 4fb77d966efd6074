//! Endpoints that fail more often than the others do, though never five times in a row.
//!
//! Envoy's success rate detection with its defaults: of at least five endpoints that had a hundred
//! requests each within ten seconds, one whose share of good answers lies more than 1.9 standard
//! deviations below their mean is ejected as if it had failed five times. With fewer there is no
//! telling who is the odd one.

use alloc::vec::Vec;
use core::time::Duration;

use mainstay_ids::Instant;

/// How often shares are compared (`interval`).
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Between how many at least (`success_rate_minimum_hosts`).
pub const ENDPOINTS_MIN: usize = 5;
/// Of how many requests at least (`success_rate_request_volume`).
pub const REQUESTS_MIN: u32 = 100;
/// How many standard deviations below the mean (`success_rate_stdev_factor`).
pub const DEVIATIONS: f64 = 1.9;

/// The answers of one endpoint within an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    good: u32,
    all: u32,
}

/// How an answer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It speaks for the endpoint.
    Good,
    /// It is a 5xx, or none came.
    Bad,
}

impl Share {
    /// Counts one.
    pub fn count(&mut self, mark: Mark) {
        self.all = self.all.saturating_add(1);
        self.good = self.good.saturating_add(u32::from(mark == Mark::Good));
    }

    fn known(self) -> Option<f64> {
        (self.all >= REQUESTS_MIN).then(|| f64::from(self.good) / f64::from(self.all))
    }
}

/// When the shares are compared next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    due: Instant,
}

impl Comparison {
    /// An interval from now.
    pub fn new(now: Instant) -> Self {
        Self {
            due: now.after(INTERVAL),
        }
    }

    /// When.
    pub fn due(self) -> Instant {
        self.due
    }
}

/// Below which share an endpoint is an outlier; `None`: nobody is.
pub fn threshold(shares: impl Iterator<Item = Share>) -> Option<f64> {
    let known: Vec<f64> = shares.filter_map(Share::known).collect();
    if known.len() < ENDPOINTS_MIN {
        return None;
    }
    let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
    for share in known {
        sum += share;
        squares += share * share;
        count += 1.0;
    }
    let mean = sum / count;
    let deviation = libm::sqrt((squares / count - mean * mean).max(0.0));
    Some(mean - DEVIATIONS * deviation)
}

/// Whether one of these answers lies below.
pub fn is_below(share: Share, threshold: f64) -> bool {
    share.known().is_some_and(|known| known < threshold)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(good: u32, all: u32) -> Share {
        Share { good, all }
    }

    #[test]
    fn one_of_five_that_fails_every_third_request_stands_out_and_equals_do_not() {
        let mut shares = [share(198, 200); 5];
        let even = threshold(shares.iter().copied()).expect("five");
        assert!(!shares.iter().any(|one| is_below(*one, even)));
        shares[3] = share(130, 200);
        let odd = threshold(shares.iter().copied()).expect("five");
        let below: Vec<bool> = shares.iter().map(|one| is_below(*one, odd)).collect();
        assert_eq!(below, [false, false, false, true, false]);
    }

    #[test]
    fn of_four_or_of_few_requests_nobody_can_tell() {
        let few = [
            share(200, 200),
            share(200, 200),
            share(200, 200),
            share(0, 200),
            share(0, 99),
        ];
        assert_eq!(threshold(few.iter().copied()), None);
    }
}
