//! Durations, counted in buckets that are as wide as an eighth of the power of two below them.
//!
//! The unit is a 1024th of a millisecond, so that 1, 2, 4 ... 512 ms begin a power of two, and
//! 1.25, 2.5, 5, 10, 20 ... 640 ms an eighth of one: the bounds that are exported are bounds of
//! buckets, and their cumulative counts are exact. A quantile is the middle of its bucket, so it is
//! wrong by a sixteenth (6.3 %) at most.

use std::time::Duration;

use super::cell::Counter;

/// Each power of two is cut into this many buckets, as a power of two.
const PARTS_LOG2: u32 = 3;

/// Below the first power of two that is cut, each unit has a bucket.
const PARTS: u64 = 1 << PARTS_LOG2;

/// The powers of two that are cut: up to 2^31 units, which are 35 minutes. What takes longer is in
/// the last bucket.
const POWERS: u32 = 28;

/// All buckets, [`PARTS`] for each power and as many before: 1.8 KiB.
const BUCKETS: usize = 8 * (POWERS as usize + 1);

/// The longest duration that is told apart.
const UNITS_MAX: u64 = (PARTS << POWERS) - 1;

/// Durations of one worker.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_ns: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum_ns: Counter::default(),
        }
    }
}

impl Histogram {
    /// Counts a duration.
    #[inline]
    pub(crate) fn record(&self, took: Duration) {
        // Enough for 584 years.
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        let ns = took.as_nanos() as u64;
        self.buckets[bucket(units(ns))].add(1);
        self.sum_ns.add(ns);
    }
}

/// A duration in the histogram's unit. A nanosecond less, so that a bound belongs to the bucket below
/// it: Prometheus counts what is less than or equal.
#[inline]
fn units(ns: u64) -> u64 {
    ns.saturating_sub(1).min(u64::MAX >> 7) * 128 / 125_000
}

#[inline]
fn bucket(units: u64) -> usize {
    let units = units.min(UNITS_MAX);
    let power = (units | PARTS).ilog2() - PARTS_LOG2;
    // The first power holds the single units, too: there `units >> 0` is below 2 * PARTS.
    let index = u64::from(power) * PARTS + (units >> power);
    // Below BUCKETS, since `units` is at most UNITS_MAX.
    #[expect(clippy::cast_possible_truncation, reason = "see above")]
    let index = index as usize;
    index
}

/// The first unit of a bucket.
fn begin(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * PARTS {
        return bucket;
    }
    let power = bucket / PARTS - 1;
    (bucket - power * PARTS) << power
}

/// Durations of all workers, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    buckets: [u64; BUCKETS],
    sum_ns: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
            sum_ns: 0,
        }
    }
}

impl Counts {
    /// The sum of these.
    pub(crate) fn of<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut counts = Self::default();
        for histogram in histograms {
            for (count, cell) in counts.buckets.iter_mut().zip(&histogram.buckets) {
                *count = count.wrapping_add(cell.get());
            }
            counts.sum_ns = counts.sum_ns.wrapping_add(histogram.sum_ns.get());
        }
        counts
    }

    /// What came since then.
    pub(crate) fn since(&self, then: &Self) -> Self {
        let mut counts = self.clone();
        for (count, then) in counts.buckets.iter_mut().zip(&then.buckets) {
            *count = count.wrapping_sub(*then);
        }
        counts.sum_ns = counts.sum_ns.wrapping_sub(then.sum_ns);
        counts
    }

    /// How many durations there are.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum, in seconds.
    pub(crate) fn sum_seconds(&self) -> f64 {
        Duration::from_nanos(self.sum_ns).as_secs_f64()
    }

    /// Their mean; `None` if there are none.
    pub(crate) fn mean(&self) -> Option<Duration> {
        self.sum_ns
            .checked_div(self.count())
            .map(Duration::from_nanos)
    }

    /// The duration below which `thousandths` of them lie; `None` if there are none.
    pub(crate) fn quantile(&self, thousandths: u64) -> Option<Duration> {
        let all = self.count();
        let rank = all
            .saturating_mul(thousandths)
            .div_ceil(1000)
            .clamp(1, all.max(1));
        let mut before = 0;
        let found = self.buckets.iter().position(|count| {
            before += count;
            before >= rank
        })?;
        let twice_middle = begin(found) + begin(found + 1);
        Some(Duration::from_nanos(twice_middle * 125_000 / 256))
    }

    /// The longest of them, to the end of its bucket; `None` if there are none.
    pub(crate) fn longest(&self) -> Option<Duration> {
        let last = self.buckets.iter().rposition(|count| *count > 0)?;
        Some(Duration::from_nanos(begin(last + 1) * 125_000 / 128))
    }

    /// For each of [`BOUNDS`] how many durations are not longer.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (Bound, u64)> {
        let (mut next, mut below) = (0, 0);
        BOUNDS.into_iter().map(move |bound| {
            let end = bucket(bound.units);
            below += self.buckets[next..end].iter().sum::<u64>();
            next = end;
            (bound, below)
        })
    }
}

/// An upper bound of exported buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    units: u64,
    /// In seconds, as it is exported.
    pub(crate) text: &'static str,
}

const fn bound(units: u64, text: &'static str) -> Bound {
    Bound { units, text }
}

/// From what the gateway itself takes to where clients have given up: each twice the one before,
/// but where 1 ms begins.
pub(crate) const BOUNDS: [Bound; 18] = [
    bound(256, "0.00025"),
    bound(512, "0.0005"),
    bound(1024, "0.001"),
    bound(2560, "0.0025"),
    bound(5120, "0.005"),
    bound(10_240, "0.01"),
    bound(20_480, "0.02"),
    bound(40_960, "0.04"),
    bound(81_920, "0.08"),
    bound(163_840, "0.16"),
    bound(327_680, "0.32"),
    bound(655_360, "0.64"),
    bound(1_310_720, "1.28"),
    bound(2_621_440, "2.56"),
    bound(5_242_880, "5.12"),
    bound(10_485_760, "10.24"),
    bound(20_971_520, "20.48"),
    bound(41_943_040, "40.96"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::iter;

    fn counts(durations: impl IntoIterator<Item = Duration>) -> Counts {
        let histogram = Histogram::default();
        durations
            .into_iter()
            .for_each(|took| histogram.record(took));
        Counts::of(iter::once(&histogram))
    }

    #[test]
    fn buckets_follow_each_other_without_gap_and_each_begins_where_it_says() {
        for index in 0..BUCKETS {
            assert_eq!(bucket(begin(index)), index);
            assert_eq!(bucket(begin(index + 1) - 1), index);
        }
        assert_eq!(begin(BUCKETS), UNITS_MAX + 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket(units(u64::MAX)), BUCKETS - 1);
    }

    #[test]
    fn a_quantile_is_wrong_by_a_sixteenth_at_most() {
        let mut ns: u64 = 20_000;
        while ns < 2_000_000_000_000 {
            let seen = counts([Duration::from_nanos(ns)]).quantile(500).unwrap();
            let (seen, exact) = (seen.as_secs_f64(), Duration::from_nanos(ns).as_secs_f64());
            assert!(
                (seen / exact - 1.0).abs() <= 0.0626,
                "{ns} ns became {seen}"
            );
            ns = ns * 101 / 100;
        }
    }

    #[test]
    fn quantiles_of_many_are_where_they_belong() {
        let seen = counts((1..=1000).map(Duration::from_millis));
        for (thousandths, ms) in [(500, 500.0), (900, 900.0), (990, 990.0)] {
            let quantile = seen.quantile(thousandths).unwrap().as_secs_f64() * 1000.0;
            assert!((quantile / ms - 1.0).abs() <= 0.07, "{quantile} for {ms}");
        }
        assert_eq!(counts([]).quantile(500), None);
    }

    #[test]
    fn a_bound_counts_what_is_equal_to_it_and_nothing_that_is_longer() {
        for bound in BOUNDS {
            let exact = Duration::from_secs_f64(bound.text.parse().unwrap());
            let longer = exact + Duration::from_micros(1);
            let seen = counts([exact, longer]);
            let cumulative = seen.cumulative().find(|(other, _)| *other == bound);
            assert_eq!(
                cumulative.map(|(_, count)| count),
                Some(1),
                "{}",
                bound.text
            );
        }
    }

    #[test]
    fn what_came_since_is_a_difference() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(100));
        let then = Counts::of(iter::once(&histogram));
        histogram.record(Duration::from_millis(3));
        let since = Counts::of(iter::once(&histogram)).since(&then);
        assert_eq!(since.count(), 1);
        assert_eq!(since.mean(), Some(Duration::from_millis(3)));
        assert!(since.longest().unwrap() >= Duration::from_millis(3));
        assert!(since.longest().unwrap() < Duration::from_millis(4));
    }
}
