//! Counting within one worker: bounded memory however much fails.

use std::collections::BTreeMap;
use std::time::Instant;

use hdrhistogram::Histogram;

use super::report::{Failure, Kind, Second};
use super::{REQUEST_DEADLINE, Request};

/// Failures that are kept whole, per worker and target: those of an outage of a second, ten times over, at
/// the rate of a demonstration. What is beyond this counts as failed without a hearing.
const FAILURES_KEPT: usize = 5000;

/// Unsafe requests lost in flight that are kept whole, per worker and target. A kill loses at most
/// one per connection; what is beyond this counts as failed without a hearing.
const LOST_KEPT: usize = 2000;

/// Kinds that are told apart. A status brings a word of the server's, so they could be endless;
/// what is beyond this counts under its status alone.
const KINDS_KEPT: usize = 64;

/// All counts of one worker.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) started: Instant,
    pub(super) planned: u64,
    pub(super) unsent: u64,
    pub(super) lateness: Histogram<u64>,
    pub(super) targets: Vec<TargetTally>,
    /// The second that is running.
    pub(super) second: Second,
}

#[derive(Debug)]
pub(super) struct TargetTally {
    pub(super) sent: u64,
    pub(super) ok: u64,
    pub(super) failed: BTreeMap<Kind, u64>,
    pub(super) latency: Histogram<u64>,
    pub(super) failures: Vec<Failure>,
    pub(super) lost_in_flight: Vec<Failure>,
}

/// A request that has ended.
pub(super) struct Ended<'a> {
    pub(super) target: usize,
    pub(super) request: &'a Request,
    pub(super) nonce: &'a [u8],
    pub(super) planned: Instant,
    pub(super) sent: Instant,
}

/// Microseconds with three digits, up to twice the deadline, which nothing exceeds by much.
pub(super) fn histogram() -> Histogram<u64> {
    let most = u64::try_from(2 * REQUEST_DEADLINE.as_micros()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, most, 3).expect("the bounds are those of the documentation")
}

impl Tally {
    pub(super) fn new(started: Instant, targets: usize) -> Self {
        let target = || TargetTally {
            sent: 0,
            ok: 0,
            failed: BTreeMap::new(),
            latency: histogram(),
            failures: Vec::new(),
            lost_in_flight: Vec::new(),
        };
        Self {
            started,
            planned: 0,
            unsent: 0,
            lateness: histogram(),
            targets: (0..targets).map(|_| target()).collect(),
            second: Second::new(0),
        }
    }

    fn since_start_us(&self, when: Instant) -> u64 {
        u64::try_from(when.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn late(&mut self, planned: Instant, now: Instant) {
        let late = now.saturating_duration_since(planned).as_micros();
        self.lateness
            .saturating_record(u64::try_from(late).unwrap_or(u64::MAX));
    }

    pub(super) fn answered(&mut self, ended: &Ended<'_>) {
        let took = ended.planned.elapsed().as_micros();
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        let target = &mut self.targets[ended.target];
        target.sent += 1;
        target.ok += 1;
        target.latency.saturating_record(took);
        self.second.sent += 1;
        self.second.ok += 1;
        self.second.latency.saturating_record(took);
    }

    pub(super) fn failed(&mut self, ended: &Ended<'_>, kind: Kind, instance: Option<String>) {
        let failure = Failure {
            planned_ms: self.since_start_us(ended.planned) / 1000,
            sent_us: self.since_start_us(ended.sent),
            ended_us: self.since_start_us(Instant::now()),
            method: ended.request.method,
            path: ended.request.path.clone(),
            nonce: String::from_utf8_lossy(ended.nonce).into_owned(),
            kind: kind.clone(),
            instance,
        };
        self.second.sent += 1;
        self.second.failed += 1;
        let target = &mut self.targets[ended.target];
        target.sent += 1;
        let lost = ended.request.method.is_unsafe() && kind.is_lost_in_flight();
        if lost && target.lost_in_flight.len() < LOST_KEPT {
            target.lost_in_flight.push(failure.clone());
        }
        if target.failures.len() < FAILURES_KEPT {
            target.failures.push(failure);
        }
        let kind = match kind {
            Kind::Status { code, .. } if target.failed.len() >= KINDS_KEPT => {
                Kind::Status { code, reason: None }
            }
            kind => kind,
        };
        *target.failed.entry(kind).or_default() += 1;
    }

    /// Ends the running second if `now` lies behind it.
    pub(super) fn turn_second(&mut self, now: Instant) -> Option<Second> {
        let second = now.saturating_duration_since(self.started).as_secs();
        (second > self.second.second)
            .then(|| std::mem::replace(&mut self.second, Second::new(second)))
    }

    /// Ends the running second, the last.
    pub(super) fn end_second(&mut self) -> Second {
        let after = self.second.second + 1;
        std::mem::replace(&mut self.second, Second::new(after))
    }
}
