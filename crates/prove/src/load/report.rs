//! What became of every request that was planned.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Method;
use super::tally::{Tally, histogram};

/// How a request failed.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nobody listened.
    Refused,
    /// No connection was made for another reason.
    NotConnected,
    /// The connection ended before an answer's head was whole.
    Reset,
    /// The connection ended inside the body.
    CutBody,
    /// The nonce is missing or another request's, or the body is not the usual one.
    WrongBody,
    /// What came is not HTTP/1.1.
    Malformed,
    /// The answer's status is none of 200 to 399.
    Status {
        /// The status.
        code: u16,
        /// The gateway's word for it.
        reason: Option<String>,
    },
    /// No whole answer by the deadline.
    TimedOut,
}

/// One request that failed. Times count from the load's start.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Failure {
    /// When it was to be sent, in milliseconds.
    pub planned_ms: u64,
    /// When a connection took it up, in microseconds.
    pub sent_us: u64,
    /// When it had failed, in microseconds.
    pub ended_us: u64,
    /// Its method.
    pub method: Method,
    /// Its path, before a number was filled in.
    pub path: String,
    /// Its nonce.
    pub nonce: String,
    /// How it failed.
    pub kind: Kind,
    /// The instance that the gateway names.
    pub instance: Option<String>,
}

/// What one target's requests became. `sent` is `ok` plus all of `failed`.
#[derive(Debug)]
pub struct TargetReport {
    /// The target.
    pub name: String,
    /// Requests that a connection took up, or that waited for one until their deadline.
    pub sent: u64,
    /// Requests with a right answer.
    pub ok: u64,
    /// The others by kind.
    pub failed: BTreeMap<Kind, u64>,
    /// Microseconds from the planned time to the end of the right answer.
    pub latency: Histogram<u64>,
    /// The first failures; the counts above hold all of them.
    pub failures: Vec<Failure>,
    /// Unsafe requests of which the gateway says that they were lost in flight; each is also in
    /// `failed` and, if it was among the first, in `failures`.
    pub lost_in_flight: Vec<Failure>,
}

/// What a whole load became. `planned` is `unsent` plus what the targets sent.
#[derive(Debug)]
pub struct Report {
    /// The planned time of the first request.
    pub started: Instant,
    /// Requests whose time came.
    pub planned: u64,
    /// Requests that this generator was too slow to send in time.
    pub unsent: u64,
    /// Microseconds by which this generator was late itself.
    pub lateness: Histogram<u64>,
    /// One per target, in order.
    pub targets: Vec<TargetReport>,
}

/// What one worker saw in one second, by the end of the requests.
#[derive(Debug, Clone)]
pub struct Second {
    /// Which, counted from the load's start.
    pub second: u64,
    /// Requests sent.
    pub sent: u64,
    /// Requests answered rightly.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Microseconds of those answered rightly.
    pub latency: Histogram<u64>,
}

/// Adds up the seconds of several workers.
#[derive(Debug)]
pub struct Seconds {
    workers: usize,
    parts: usize,
    sum: Second,
}

impl Report {
    pub(crate) fn new(started: Instant, names: Vec<String>) -> Self {
        let target = |name| TargetReport {
            name,
            sent: 0,
            ok: 0,
            failed: BTreeMap::new(),
            latency: histogram(),
            failures: Vec::new(),
            lost_in_flight: Vec::new(),
        };
        let targets = names.into_iter().map(target).collect();
        Self {
            started,
            planned: 0,
            unsent: 0,
            lateness: histogram(),
            targets,
        }
    }

    pub(super) fn add(&mut self, tally: Tally) {
        self.planned += tally.planned;
        self.unsent += tally.unsent;
        self.lateness += &tally.lateness;
        for (sum, part) in self.targets.iter_mut().zip(tally.targets) {
            sum.sent += part.sent;
            sum.ok += part.ok;
            sum.latency += &part.latency;
            for (kind, count) in part.failed {
                *sum.failed.entry(kind).or_default() += count;
            }
            sum.failures.extend(part.failures);
            sum.failures.sort_by_key(|failure| failure.ended_us);
            sum.lost_in_flight.extend(part.lost_in_flight);
        }
    }

    /// Adds another load that ran beside this one to the same targets.
    pub(crate) fn merge(&mut self, other: Self) {
        let later = other.started.saturating_duration_since(self.started);
        let earlier = self.started.saturating_duration_since(other.started);
        self.started -= earlier;
        self.planned += other.planned;
        self.unsent += other.unsent;
        self.lateness += &other.lateness;
        for (sum, mut part) in self.targets.iter_mut().zip(other.targets) {
            sum.failures.iter_mut().for_each(|one| one.delay(earlier));
            part.failures.iter_mut().for_each(|one| one.delay(later));
            sum.sent += part.sent;
            sum.ok += part.ok;
            sum.latency += &part.latency;
            for (kind, count) in part.failed {
                *sum.failed.entry(kind).or_default() += count;
            }
            sum.failures.append(&mut part.failures);
            sum.failures.sort_by_key(|failure| failure.ended_us);
            // No gateway is asked by such loads, and nobody else says that a request was lost.
            sum.lost_in_flight.append(&mut part.lost_in_flight);
        }
    }

    /// All requests that were sent.
    pub fn sent(&self) -> u64 {
        self.targets.iter().map(|target| target.sent).sum()
    }

    /// All requests with a right answer.
    pub fn ok(&self) -> u64 {
        self.targets.iter().map(|target| target.ok).sum()
    }

    /// All requests that failed, by kind.
    pub fn failed(&self) -> BTreeMap<Kind, u64> {
        let mut sum = BTreeMap::new();
        for (kind, count) in self.targets.iter().flat_map(|target| &target.failed) {
            *sum.entry(kind.clone()).or_default() += count;
        }
        sum
    }

    /// The latencies of all targets.
    pub fn latency(&self) -> Histogram<u64> {
        let mut sum = histogram();
        for target in &self.targets {
            sum += &target.latency;
        }
        sum
    }
}

impl Second {
    pub(super) fn new(second: u64) -> Self {
        Self {
            second,
            sent: 0,
            ok: 0,
            failed: 0,
            latency: histogram(),
        }
    }
}

impl Seconds {
    /// For a load of so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            parts: 0,
            sum: Second::new(0),
        }
    }

    /// Takes one worker's second; gives the sum when each worker's part of it is there, or when
    /// a part of a later second shows that one was lost.
    pub fn add(&mut self, part: &Second) -> Option<Second> {
        let lost = self.parts > 0 && part.second > self.sum.second;
        let before = lost.then(|| self.take());
        if self.parts == 0 {
            self.sum.second = part.second;
        }
        self.parts += 1;
        self.sum.sent += part.sent;
        self.sum.ok += part.ok;
        self.sum.failed += part.failed;
        self.sum.latency += &part.latency;
        before.or_else(|| (self.parts == self.workers).then(|| self.take()))
    }

    fn take(&mut self) -> Second {
        self.parts = 0;
        std::mem::replace(&mut self.sum, Second::new(0))
    }
}

/// What was done to one instance, and when: counted from the load's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    /// The instance, as the gateway names it.
    pub instance: String,
    /// When it was struck.
    pub begin: Duration,
    /// Until when the gateway could not know: a request that was sent there later is no victim of
    /// the strike but of the gateway.
    pub end: Duration,
}

impl Failure {
    /// Whether it is an unsafe request that was under way to the struck instance at that moment.
    ///
    /// Nobody can tell whether such a request was done, so nobody may send it again. It counts only
    /// if the gateway says so by 502 and `lost-in-flight` and names the instance: a client that saw
    /// a reset or no answer knows nothing, and then it may have been the gateway.
    pub fn was_in_flight_on(&self, strike: &Strike) -> bool {
        self.method.is_unsafe()
            && self.kind.is_lost_in_flight()
            && self.instance.as_deref() == Some(strike.instance.as_str())
            && self.overlaps(strike.begin, strike.end)
    }

    /// Counts its times from a start that was so much earlier.
    fn delay(&mut self, earlier: Duration) {
        let us = u64::try_from(earlier.as_micros()).unwrap_or(u64::MAX);
        self.planned_ms = self.planned_ms.saturating_add(us / 1000);
        self.sent_us = self.sent_us.saturating_add(us);
        self.ended_us = self.ended_us.saturating_add(us);
    }

    /// Whether it was sent before `end` and failed after `begin`, both since the load's start.
    pub fn overlaps(&self, begin: Duration, end: Duration) -> bool {
        u128::from(self.sent_us) <= end.as_micros()
            && u128::from(self.ended_us) >= begin.as_micros()
    }
}

impl Kind {
    pub(super) fn of_connect(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::NotConnected,
        }
    }

    /// Whether it was answered, and not as its service would.
    pub(crate) fn is_wrong_answer(&self) -> bool {
        match self {
            Self::WrongBody | Self::Malformed | Self::Status { .. } => true,
            Self::Refused | Self::NotConnected | Self::Reset | Self::CutBody | Self::TimedOut => {
                false
            }
        }
    }

    /// The gateway's word that a request went to an instance and came to nothing there.
    pub(crate) fn is_lost_in_flight(&self) -> bool {
        matches!(self, Self::Status { code: 502, reason: Some(reason) } if reason == "lost-in-flight")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::NotConnected => f.write_str("no connection"),
            Self::Reset => f.write_str("connection closed without an answer"),
            Self::CutBody => f.write_str("body cut off"),
            Self::WrongBody => f.write_str("wrong body"),
            Self::Malformed => f.write_str("not HTTP"),
            Self::Status { code, reason: None } => write!(f, "status {code}"),
            Self::Status {
                code,
                reason: Some(reason),
            } => write!(f, "status {code} {reason}"),
            Self::TimedOut => f.write_str("timed out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(second: u64) -> Second {
        Second {
            sent: 1,
            ..Second::new(second)
        }
    }

    #[test]
    fn loads_that_ran_side_by_side_are_counted_from_the_earlier_start() {
        let began = Instant::now();
        let report = |later_ms: u64, failed_ms: u64| {
            let started = began + Duration::from_millis(later_ms);
            let mut report = Report::new(started, vec!["web".to_owned()]);
            report.planned = 1;
            let target = &mut report.targets[0];
            target.sent = 1;
            target.failed.insert(Kind::Reset, 1);
            target.failures.push(Failure {
                planned_ms: failed_ms,
                sent_us: failed_ms * 1000,
                ended_us: failed_ms * 1000,
                method: Method::Get,
                path: "/".to_owned(),
                nonce: String::new(),
                kind: Kind::Reset,
                instance: None,
            });
            report
        };
        for (mut sum, other) in [
            (report(0, 50), report(20, 10)),
            (report(20, 10), report(0, 50)),
        ] {
            sum.merge(other);
            assert_eq!((sum.started, sum.planned, sum.sent()), (began, 2, 2));
            assert_eq!(sum.failed(), BTreeMap::from([(Kind::Reset, 2)]));
            let failures = sum.targets[0].failures.iter();
            let times: Vec<u64> = failures.map(|failure| failure.planned_ms).collect();
            assert_eq!(times, [30, 50]);
        }
    }

    #[test]
    fn the_seconds_of_two_workers_are_added_up_and_a_lost_one_is_passed_over() {
        let mut seconds = Seconds::new(2);
        assert!(seconds.add(&part(0)).is_none());
        assert_eq!(
            seconds.add(&part(0)).map(|s| (s.second, s.sent)),
            Some((0, 2))
        );
        assert!(seconds.add(&part(1)).is_none());
        assert_eq!(
            seconds.add(&part(2)).map(|s| (s.second, s.sent)),
            Some((1, 1))
        );
        assert_eq!(
            seconds.add(&part(2)).map(|s| (s.second, s.sent)),
            Some((2, 2))
        );
    }
}
