//! What is remembered between two looks at the counters: rates, highest values, durations of the
//! last seconds, changes of status. No clock: the time is passed in.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use mainstay_ids::Instant;

use super::rows::{Checks, Flow, Quantiles, Status};
use crate::metrics::Counts;

/// A rate is counted over at least this long.
const RATE_SPAN: Duration = Duration::from_secs(1);

/// Durations are remembered at this distance...
const WINDOW_STEP: Duration = Duration::from_secs(10);

/// ...and so many times: quantiles are those of the last 20 to 30 seconds, which is long enough for
/// a service with one request per second, and short enough to see a change.
const WINDOWS: usize = 3;

/// What is remembered of everything that is shown.
#[derive(Debug)]
pub(crate) struct Past<K> {
    subjects: HashMap<K, Subject>,
}

impl<K: Eq + Hash> Past<K> {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            subjects: HashMap::new(),
        }
    }

    /// What is remembered of `key`, which is seen at `now`.
    pub(crate) fn of(&mut self, key: K, now: Instant) -> &mut Subject {
        let subject = self.subjects.entry(key).or_default();
        subject.seen = now;
        subject
    }

    /// Forgets whatever was not seen at `now`.
    pub(crate) fn forget_others(&mut self, now: Instant) {
        self.subjects.retain(|_, subject| subject.seen == now);
    }
}

/// What is remembered of one thing.
#[derive(Debug, Default)]
pub(crate) struct Subject {
    seen: Instant,
    sessions: Rate,
    requests: Rate,
    highest: u64,
    status: Option<Lasting>,
    downs: u64,
    downtime: Duration,
    active: Option<Instant>,
    pub(crate) queue: Window,
    pub(crate) connect: Window,
    pub(crate) first_byte: Window,
    pub(crate) total: Window,
}

/// A status and its begin.
#[derive(Debug, Clone, Copy)]
struct Lasting {
    status: Status,
    since: Instant,
}

impl Subject {
    /// Takes in how many sessions there were so far.
    pub(crate) fn sessions(&mut self, now: Instant, total: u64) -> Flow {
        if self.sessions.has_grown(total) {
            self.active = Some(now);
        }
        self.sessions.look(now, total)
    }

    /// Takes in how many requests there were so far.
    pub(crate) fn requests(&mut self, now: Instant, total: u64) -> Flow {
        self.requests.look(now, total)
    }

    /// The time since a session last came.
    pub(crate) fn idle(&self, now: Instant) -> Option<Duration> {
        self.active.map(|at| now.since(at))
    }

    /// The highest of all values so far.
    pub(crate) fn highest(&mut self, value: u64) -> u64 {
        self.highest = self.highest.max(value);
        self.highest
    }

    /// Takes in the present status; gives how long it has lasted.
    pub(crate) fn status(&mut self, now: Instant, status: Status) -> Duration {
        let before = *self.status.get_or_insert(Lasting { status, since: now });
        if before.status != status {
            if before.status == Status::Down {
                self.downtime += now.since(before.since);
            }
            if status == Status::Down {
                self.downs += 1;
            }
            self.status = Some(Lasting { status, since: now });
            return Duration::ZERO;
        }
        now.since(before.since)
    }

    /// What the checks said so far, and `last`.
    pub(crate) fn checks(&self, now: Instant, last: String) -> Checks {
        let present = match self.status {
            Some(Lasting {
                status: Status::Down,
                since,
            }) => now.since(since),
            Some(_) | None => Duration::ZERO,
        };
        Checks {
            downs: self.downs,
            downtime: self.downtime + present,
            last,
            verdict: None,
        }
    }
}

/// A total, and its growth within a second.
#[derive(Debug, Default)]
struct Rate {
    /// At the begin of the second that is under way.
    from: Option<(Instant, u64)>,
    last: u64,
    now: u64,
    max: u64,
}

impl Rate {
    fn has_grown(&self, total: u64) -> bool {
        total > self.last
    }

    fn look(&mut self, now: Instant, total: u64) -> Flow {
        let (begin, from) = *self.from.get_or_insert((now, total));
        let span = now.since(begin);
        if span >= RATE_SPAN {
            let grown = u128::from(total.saturating_sub(from)) * 1_000_000_000;
            let rate = grown.div_ceil(span.as_nanos());
            self.now = u64::try_from(rate).unwrap_or(u64::MAX);
            self.max = self.max.max(self.now);
            self.from = Some((now, total));
        }
        self.last = total;
        Flow {
            total,
            rate: self.now,
            rate_max: self.max,
        }
    }
}

/// Durations of the last seconds: the difference to what there was then.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The oldest first; at most [`WINDOWS`].
    then: Vec<(Instant, Counts)>,
}

impl Window {
    /// Takes in all durations so far.
    pub(crate) fn look(&mut self, now: Instant, counts: &Counts) -> Quantiles {
        let nothing = Counts::default();
        if counts.count() == 0 {
            return Quantiles::default();
        }
        let due = self
            .then
            .last()
            .is_none_or(|(at, _)| now.since(*at) >= WINDOW_STEP);
        let oldest = self.then.first().map_or(&nothing, |(_, counts)| counts);
        let recent = counts.since(oldest);
        if due {
            if self.then.is_empty() {
                // Whatever came before the first look is recent.
                self.then.push((now, nothing));
            } else {
                if self.then.len() == WINDOWS {
                    self.then.remove(0);
                }
                self.then.push((now, counts.clone()));
            }
        }
        Quantiles {
            p50: recent.quantile(500),
            p90: recent.quantile(900),
            p99: recent.quantile(990),
            mean: recent.mean(),
            longest: counts.longest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Histogram;
    use std::iter;

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn a_rate_is_what_came_in_the_last_second_and_the_highest_is_kept() {
        let mut past = Past::new();
        assert_eq!(past.of("a", at(1)).sessions(at(1), 100).rate, 0);
        assert_eq!(past.of("a", at(2)).sessions(at(2), 150).rate, 50);
        let flow = past.of("a", at(4)).sessions(at(4), 160);
        assert_eq!((flow.rate, flow.rate_max, flow.total), (5, 50, 160));
        assert_eq!(
            past.of("a", at(9)).idle(at(9)),
            Some(Duration::from_secs(5))
        );
    }

    #[test]
    fn what_is_no_longer_seen_is_forgotten() {
        let mut past = Past::new();
        past.of("a", at(1)).highest(7);
        past.of("b", at(1)).highest(7);
        past.of("b", at(2));
        past.forget_others(at(2));
        assert_eq!(past.of("a", at(3)).highest(1), 1);
        assert_eq!(past.of("b", at(3)).highest(1), 7);
    }

    #[test]
    fn the_time_that_something_was_down_adds_up() {
        let mut subject = Subject::default();
        let seen = [
            (0, Status::Up),
            (10, Status::Down),
            (13, Status::Up),
            (20, Status::Down),
        ];
        for (second, status) in seen {
            subject.status(at(second), status);
        }
        assert_eq!(subject.status(at(24), Status::Down), Duration::from_secs(4));
        let checks = subject.checks(at(24), String::new());
        assert_eq!((checks.downs, checks.downtime.as_secs()), (2, 7));
    }

    #[test]
    fn quantiles_are_of_the_last_half_minute() {
        let histogram = Histogram::default();
        let mut window = Window::default();
        let mut look = |second, ms| {
            histogram.record(Duration::from_millis(ms));
            window.look(at(second), &Counts::of(iter::once(&histogram)))
        };
        let near = |seen: Quantiles, ms: u64| {
            let seen = seen.p99.unwrap().as_secs_f64() * 1000.0;
            assert!((seen / Duration::from_millis(ms).as_secs_f64() / 1000.0 - 1.0).abs() < 0.07);
        };
        near(look(1, 500), 500);
        for second in 2..=25 {
            near(look(second, 1), 500);
        }
        for second in 26..=60 {
            look(second, 1);
        }
        let late = look(61, 1);
        near(late, 1);
        assert!(late.longest.unwrap() >= Duration::from_millis(500));
    }
}
