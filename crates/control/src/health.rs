//! Whether one attempt of an instance can serve, by its probes; and when the next probe is due.
//!
//! The agent makes one [`Health`] for each attempt that it starts or adopts. An adopted attempt
//! begins like a new one: it has to pass once, which it does at its first probe.

use core::num::NonZeroU32;
use core::time::Duration;

use mainstay_ids::Instant;
use mainstay_model::ProbedHealth;
use mainstay_model::service::HealthSpec;

/// The gap after the first probe that did not pass. A program that listens within a few
/// milliseconds must not wait for the ordinary interval, which is a second by default.
pub const FIRST_GAP: Duration = Duration::from_millis(25);

/// What happened with a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// It was sent.
    Started,
    /// It passed.
    Passed,
    /// It failed or ran into its timeout.
    Failed,
}

/// Where an attempt stands. `Starting` -> `Passing` <-> `Failing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Never passed; the next gap between probes doubles up to the ordinary one.
    Starting { gap: Duration },
    /// Passes; so many probes failed in a row.
    Passing { failures: u32 },
    /// Passed once and fails now; so many probes passed in a row.
    Failing { successes: u32 },
}

/// When the next probe is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Schedule {
    Due(Instant),
    UnderWay { since: Instant },
}

/// The health of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    state: State,
    schedule: Schedule,
    every: Duration,
    fall: NonZeroU32,
    rise: NonZeroU32,
}

impl Health {
    /// The attempt was started or adopted at `now`: its first probe is due at once.
    pub fn new(spec: &HealthSpec, now: Instant) -> Self {
        Self {
            state: State::Starting {
                gap: FIRST_GAP.min(spec.every),
            },
            schedule: Schedule::Due(now),
            every: spec.every,
            fall: spec.fall,
            rise: spec.rise,
        }
    }

    /// What the probes say up to now.
    pub fn verdict(&self) -> ProbedHealth {
        match self.state {
            State::Starting { .. } => ProbedHealth::Starting,
            State::Passing { .. } => ProbedHealth::Passing,
            State::Failing { .. } => ProbedHealth::Failing,
        }
    }

    /// When the next probe is to be sent; `None` while one is under way.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.schedule {
            Schedule::Due(at) => Some(at),
            Schedule::UnderWay { .. } => None,
        }
    }

    /// Takes in what happened with a probe. `Some` is a changed verdict.
    pub fn handle(&mut self, now: Instant, probe: Probe) -> Option<ProbedHealth> {
        let before = self.verdict();
        match probe {
            Probe::Started => self.schedule = Schedule::UnderWay { since: now },
            Probe::Passed => {
                self.state = self.after_pass();
                self.schedule_after(now, self.every);
            }
            Probe::Failed => {
                let gap = match self.state {
                    State::Starting { gap } => gap,
                    State::Passing { .. } | State::Failing { .. } => self.every,
                };
                self.state = self.after_failure();
                self.schedule_after(now, gap);
            }
        }
        let after = self.verdict();
        (after != before).then_some(after)
    }

    fn after_pass(&self) -> State {
        match self.state {
            State::Failing { successes } if successes + 1 < self.rise.get() => State::Failing {
                successes: successes + 1,
            },
            // Before the first pass there was no fall, so there is nothing to rise from.
            State::Starting { .. } | State::Passing { .. } | State::Failing { .. } => {
                State::Passing { failures: 0 }
            }
        }
    }

    fn after_failure(&self) -> State {
        match self.state {
            State::Starting { gap } => State::Starting {
                gap: gap.saturating_mul(2).min(self.every),
            },
            State::Passing { failures } if failures + 1 < self.fall.get() => State::Passing {
                failures: failures + 1,
            },
            State::Passing { .. } | State::Failing { .. } => State::Failing { successes: 0 },
        }
    }

    /// The gap counts from the start of the probe, so that a slow probe does not slow the pace.
    fn schedule_after(&mut self, now: Instant, gap: Duration) {
        let started = match self.schedule {
            Schedule::UnderWay { since } => since,
            Schedule::Due(_) => now,
        };
        self.schedule = Schedule::Due(started.after(gap).max(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_model::service::Check;

    fn at(ms: u64) -> Instant {
        Instant::from_start(Duration::from_millis(ms))
    }

    fn health(fall: u32, rise: u32) -> Health {
        let spec = HealthSpec {
            check: Check::Tcp,
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            fall: NonZeroU32::new(fall).expect("not zero"),
            rise: NonZeroU32::new(rise).expect("not zero"),
            start: None,
            restart: None,
        };
        Health::new(&spec, at(0))
    }

    #[test]
    fn the_first_pass_is_enough_and_rise_counts_only_after_a_fall() {
        let mut health = health(2, 2);
        let mut probe = |probe| health.handle(at(0), probe);
        assert_eq!(probe(Probe::Failed), None);
        assert_eq!(probe(Probe::Passed), Some(ProbedHealth::Passing));
        assert_eq!(probe(Probe::Failed), None);
        assert_eq!(probe(Probe::Passed), None, "a pass forgets the failure");
        assert_eq!(probe(Probe::Failed), None);
        assert_eq!(probe(Probe::Failed), Some(ProbedHealth::Failing));
        assert_eq!(probe(Probe::Passed), None);
        assert_eq!(probe(Probe::Failed), None, "a failure forgets the pass");
        assert_eq!(probe(Probe::Passed), None);
        assert_eq!(probe(Probe::Passed), Some(ProbedHealth::Passing));
    }

    #[test]
    fn probes_come_fast_until_the_first_pass_and_then_at_the_ordinary_interval() {
        let mut health = health(1, 1);
        let mut sent = alloc::vec::Vec::new();
        for _ in 0..8 {
            let due = health.next_deadline().expect("no probe is under way");
            sent.push(due.since_start().as_millis());
            health.handle(due, Probe::Started);
            assert_eq!(health.next_deadline(), None);
            health.handle(due, Probe::Failed);
        }
        assert_eq!(sent, [0, 25, 75, 175, 375, 775, 1575, 2575]);
        let due = health.next_deadline().expect("no probe is under way");
        health.handle(due, Probe::Started);
        health.handle(due.after(Duration::from_millis(300)), Probe::Passed);
        let gap = due.after(Duration::from_secs(1));
        assert_eq!(
            health.next_deadline(),
            Some(gap),
            "counted from the start of the probe"
        );
    }
}
