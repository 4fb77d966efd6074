//! How long a service's answers took of late: a quantile over a sliding window in fixed memory.
//!
//! Two histograms take turns. Each has eight buckets for each doubling, so that a quantile is at most
//! an eighth too high, and costs 800 bytes whatever comes.

use core::time::Duration;

use mainstay_ids::Instant;

/// How long one of the two histograms is filled: together they know the last 5 to 10 s.
pub const WINDOW: Duration = Duration::from_secs(5);

/// So few answers say nothing about one in twenty. A histogram that has fewer is filled on beyond
/// [`WINDOW`]: a quiet service is judged by its last twenty answers, however long ago they were.
pub const SAMPLES_MIN: u32 = 20;

/// How old a computed quantile may be: a request costs no walk through the buckets.
const REFRESH: Duration = Duration::from_millis(100);

/// Which quantile: one in twenty took longer.
const ABOVE: u32 = 20;

/// Values of `SUB` buckets for each doubling of microseconds, up to two minutes, which no answer
/// takes longer than.
const SUB_BITS: u32 = 3;
const SUB: usize = 1 << SUB_BITS;
const OCTAVES: usize = 25;
const BUCKETS: usize = OCTAVES * SUB;

#[derive(Debug, Clone)]
struct Histogram {
    buckets: [u32; BUCKETS],
    count: u32,
}

impl Histogram {
    const EMPTY: Self = Self {
        buckets: [0; BUCKETS],
        count: 0,
    };
}

/// The answers of one service as one worker sees them.
#[derive(Debug, Clone)]
pub struct RecentLatencies {
    filling: Histogram,
    filled: Histogram,
    began: Instant,
    p95: Option<Duration>,
    computed: Option<Instant>,
}

impl RecentLatencies {
    /// Nothing is known yet.
    pub fn new(now: Instant) -> Self {
        Self {
            filling: Histogram::EMPTY,
            filled: Histogram::EMPTY,
            began: now,
            p95: None,
            computed: None,
        }
    }

    /// An answer's head came after `took`, or had not come after `took` when nobody waited any more:
    /// leaving those out would make each quantile a quantile of the fast ones alone.
    pub fn observe(&mut self, now: Instant, took: Duration) {
        self.turn(now);
        let bucket = &mut self.filling.buckets[bucket_of(took)];
        *bucket = bucket.saturating_add(1);
        self.filling.count = self.filling.count.saturating_add(1);
    }

    /// What nineteen of twenty answers took at most; `None` before there are [`SAMPLES_MIN`].
    pub fn p95(&mut self, now: Instant) -> Option<Duration> {
        let fresh = self.computed.is_some_and(|at| now.since(at) < REFRESH);
        if !fresh {
            self.turn(now);
            self.p95 = self.compute();
            self.computed = Some(now);
        }
        self.p95
    }

    fn turn(&mut self, now: Instant) {
        if now.since(self.began) >= WINDOW && self.filling.count >= SAMPLES_MIN {
            self.filled = core::mem::replace(&mut self.filling, Histogram::EMPTY);
            self.began = now;
        }
    }

    fn compute(&self) -> Option<Duration> {
        let count = self.filling.count.saturating_add(self.filled.count);
        if count < SAMPLES_MIN {
            return None;
        }
        let mut above = 0_u32;
        let both = self.filling.buckets.iter().zip(&self.filled.buckets);
        for (index, (one, other)) in both.enumerate().rev() {
            above = above.saturating_add(*one).saturating_add(*other);
            if above > count / ABOVE {
                return Some(upper_end(index));
            }
        }
        None
    }
}

fn bucket_of(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if us < SUB as u64 {
        return usize::try_from(us).unwrap_or(0);
    }
    let exponent = us.ilog2();
    let sub = usize::try_from((us >> (exponent - SUB_BITS)) & (SUB as u64 - 1)).unwrap_or(0);
    let octave = usize::try_from(exponent - SUB_BITS + 1).unwrap_or(OCTAVES);
    (octave * SUB + sub).min(BUCKETS - 1)
}

/// The end of a bucket: what is in it took less.
fn upper_end(index: usize) -> Duration {
    let (octave, sub) = (index / SUB, index % SUB);
    let us = match octave {
        0 => sub as u64 + 1,
        _ => ((SUB + sub + 1) as u64) << (octave - 1),
    };
    Duration::from_micros(us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_start(Duration::from_millis(ms))
    }

    fn is_about(found: Option<Duration>, expected_ms: u64) -> bool {
        let expected = Duration::from_millis(expected_ms);
        found.is_some_and(|found| found >= expected && found <= expected.mul_f64(1.13))
    }

    #[test]
    fn every_duration_lies_below_the_end_of_its_bucket_and_not_far() {
        for us in (0..5_000).chain((1..7_000).map(|at| at * 17_001)) {
            let took = Duration::from_micros(us);
            let end = upper_end(bucket_of(took));
            assert!(end > took, "{took:?} {end:?}");
            let most = took.mul_f64(1.126) + Duration::from_micros(1);
            assert!(end <= most, "{took:?} {end:?}");
        }
        assert_eq!(bucket_of(Duration::from_secs(1_000_000)), BUCKETS - 1);
    }

    #[test]
    fn one_in_twenty_is_slower_and_nothing_is_said_before_there_are_twenty() {
        let mut recent = RecentLatencies::new(at(0));
        for ms in 1..20 {
            recent.observe(at(0), Duration::from_millis(ms));
            assert_eq!(recent.p95(at(ms * 200)), None);
        }
        for ms in 20..=100 {
            recent.observe(at(3_900), Duration::from_millis(ms));
        }
        assert!(is_about(recent.p95(at(4_000)), 95), "{recent:?}");
    }

    #[test]
    fn what_was_slow_ten_seconds_ago_is_forgotten_and_a_quiet_service_is_still_known() {
        let mut recent = RecentLatencies::new(at(0));
        for ms in 0..100 {
            recent.observe(at(ms), Duration::from_millis(400));
        }
        assert!(is_about(recent.p95(at(60_000)), 400), "nothing newer came");
        for second in 60..72 {
            for _ in 0..50 {
                recent.observe(at(second * 1_000), Duration::from_millis(3));
            }
        }
        assert!(is_about(recent.p95(at(72_000)), 3), "{recent:?}");
    }
}
