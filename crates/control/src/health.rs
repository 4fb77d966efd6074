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

/// A fall that comes sooner than this after a rise is a flap. From the second in a row on, each makes
/// the next rise take twice as many passes. Who passed for longer starts afresh.
pub const FLAP_WINDOW: Duration = Duration::from_mins(1);

/// How often the passes that a rise takes are doubled: 16 times `rise`, which at the default of one
/// probe a second keeps one that flaps out of the routes for most of the time.
const DOUBLINGS_MAX: u32 = 4;

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
    Starting { since: Instant, gap: Duration },
    /// Passes; so many probes failed in a row.
    Passing { since: Instant, failures: u32 },
    /// Passed once and fails now; so many probes passed in a row.
    Failing { since: Instant, successes: u32 },
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
    start: Option<Duration>,
    restart: Option<Duration>,
    /// Flaps in a row.
    flaps: u32,
}

/// How often something is probed, and what its results mean: all of a [`HealthSpec`] but what is
/// tried, so that also what Mainstay did not start is judged by the same rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The time between two probes.
    pub every: Duration,
    /// Failures in a row that turn a passing one into a failing one.
    pub fall: NonZeroU32,
    /// Successes in a row that turn a failing one into a passing one.
    pub rise: NonZeroU32,
    /// How long it may take to its first pass; `None`: for ever.
    pub start: Option<Duration>,
    /// How long it may fail; `None`: for ever.
    pub restart: Option<Duration>,
}

impl Health {
    /// The attempt was started or adopted at `now`: its first probe is due at once.
    pub fn new(spec: &HealthSpec, now: Instant) -> Self {
        let pace = Pace {
            every: spec.every,
            fall: spec.fall,
            rise: spec.rise,
            start: spec.start,
            restart: spec.restart,
        };
        Self::paced(pace, now)
    }

    /// The first probe is due at `now`.
    pub fn paced(pace: Pace, now: Instant) -> Self {
        Self {
            state: State::Starting {
                since: now,
                gap: FIRST_GAP.min(pace.every),
            },
            schedule: Schedule::Due(now),
            every: pace.every,
            fall: pace.fall,
            rise: pace.rise,
            start: pace.start,
            restart: pace.restart,
            flaps: 0,
        }
    }

    /// Somebody saw it fail otherwise than by a probe: the next one is due at `now`, unless one is
    /// under way.
    pub fn hasten(&mut self, now: Instant) {
        match self.schedule {
            Schedule::Due(at) => self.schedule = Schedule::Due(at.min(now)),
            Schedule::UnderWay { .. } => {}
        }
    }

    /// When the attempt is given up unless it passes before; `None`: never.
    pub fn give_up_at(&self) -> Option<Instant> {
        match self.state {
            State::Starting { since, .. } => self.start.map(|patience| since.after(patience)),
            State::Passing { .. } => None,
            State::Failing { since, .. } => self.restart.map(|patience| since.after(patience)),
        }
    }

    /// For how long it has not passed, if that is longer than its service allows.
    pub fn given_up(&self, now: Instant) -> Option<Duration> {
        let at = self.give_up_at()?;
        match self.state {
            State::Starting { since, .. } | State::Failing { since, .. } if at <= now => {
                Some(now.since(since))
            }
            State::Starting { .. } | State::Failing { .. } | State::Passing { .. } => None,
        }
    }

    /// How many passes in a row turn a failing attempt into a passing one now.
    fn rise(&self) -> u32 {
        // `rise` is 100 at most, so that nothing is shifted out.
        self.rise.get() << self.flaps.saturating_sub(1).min(DOUBLINGS_MAX)
    }

    /// The probe that is under way says nothing, whatever its end: the next one is due at `now`.
    pub fn put_back(&mut self, now: Instant) {
        match self.schedule {
            Schedule::UnderWay { .. } => self.schedule = Schedule::Due(now),
            Schedule::Due(_) => {}
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
                self.state = self.after_pass(now);
                self.schedule_after(now, self.every);
            }
            Probe::Failed => {
                let gap = match self.state {
                    State::Starting { gap, .. } => gap,
                    State::Passing { .. } | State::Failing { .. } => self.every,
                };
                self.state = self.after_failure(now);
                self.schedule_after(now, gap);
            }
        }
        let after = self.verdict();
        (after != before).then_some(after)
    }

    fn after_pass(&self, now: Instant) -> State {
        match self.state {
            State::Failing { since, successes } if successes + 1 < self.rise() => State::Failing {
                since,
                successes: successes + 1,
            },
            State::Passing { since, .. } => State::Passing { since, failures: 0 },
            // Before the first pass there was no fall, so there is nothing to rise from.
            State::Starting { .. } | State::Failing { .. } => State::Passing {
                since: now,
                failures: 0,
            },
        }
    }

    fn after_failure(&mut self, now: Instant) -> State {
        match self.state {
            State::Starting { since, gap } => State::Starting {
                since,
                gap: gap.saturating_mul(2).min(self.every),
            },
            State::Passing { since, failures } if failures + 1 < self.fall.get() => {
                State::Passing {
                    since,
                    failures: failures + 1,
                }
            }
            State::Passing { since, .. } => {
                self.flaps = if now.since(since) < FLAP_WINDOW {
                    self.flaps.saturating_add(1)
                } else {
                    0
                };
                State::Failing {
                    since: now,
                    successes: 0,
                }
            }
            State::Failing { since, .. } => State::Failing {
                since,
                successes: 0,
            },
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

    #[test]
    fn each_further_flap_doubles_the_passes_of_the_next_rise_and_a_minute_of_health_forgives_it() {
        let mut health = health(1, 1);
        health.handle(at(0), Probe::Passed);
        let mut now = 0;
        for expected in [1, 2, 4, 8, 16, 16] {
            now += 1000;
            assert_eq!(
                health.handle(at(now), Probe::Failed),
                Some(ProbedHealth::Failing)
            );
            let mut passes = 0;
            while health.verdict() == ProbedHealth::Failing {
                now += 1000;
                passes += 1;
                health.handle(at(now), Probe::Passed);
            }
            assert_eq!(passes, expected);
        }
        now += 60_000;
        health.handle(at(now), Probe::Failed);
        let rise = health.handle(at(now), Probe::Passed);
        assert_eq!(
            rise,
            Some(ProbedHealth::Passing),
            "one pass is enough again"
        );
    }

    #[test]
    fn an_attempt_is_given_up_when_it_does_not_start_or_fails_for_too_long_and_not_before() {
        let mut health = health(1, 2);
        assert_eq!(health.give_up_at(), None, "nobody asked for it");
        health.start = Some(Duration::from_secs(30));
        health.restart = Some(Duration::from_mins(1));
        health.handle(at(1000), Probe::Failed);
        assert_eq!(
            health.give_up_at(),
            Some(at(30_000)),
            "counted from the start"
        );
        assert_eq!(health.given_up(at(29_999)), None);
        assert_eq!(health.given_up(at(30_000)), Some(Duration::from_secs(30)));
        health.handle(at(20_000), Probe::Passed);
        assert_eq!(
            (health.give_up_at(), health.given_up(at(90_000))),
            (None, None)
        );
        health.handle(at(40_000), Probe::Failed);
        health.handle(at(50_000), Probe::Passed);
        health.handle(at(60_000), Probe::Failed);
        assert_eq!(
            health.give_up_at(),
            Some(at(100_000)),
            "one pass is no rise"
        );
        assert_eq!(health.given_up(at(100_000)), Some(Duration::from_mins(1)));
    }
}
