//! One instance's program: what it does, and what its agent makes of that.

use std::net::SocketAddr;
use std::time::Duration;

use mainstay_control::restart::Restart;
use mainstay_ids::{Attempt, InstanceId, Instant, Timestamp, Version};
use mainstay_model::{Exit, InstanceReport, Phase, ProbedHealth, ServiceSpec};

use crate::world::WALL_START_MS;

/// What a program does, by the name in `exec`: a word, and often a number of milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// `good-N`: passes after so long, for ever.
    Good {
        /// Milliseconds.
        after: u64,
    },
    /// `stubborn-N`: as good, and does not end on SIGTERM.
    Stubborn {
        /// Milliseconds.
        after: u64,
    },
    /// `crash-N`: ends after so long without having passed.
    Crash {
        /// Milliseconds.
        after: u64,
    },
    /// `never`: never passes.
    Never,
    /// `flap-N`: passes and fails in turn, each for so long.
    Flap {
        /// Milliseconds.
        every: u64,
    },
    /// `late-N`: passes at once and ends after so long.
    Late {
        /// Milliseconds.
        after: u64,
    },
    /// `done-N`: ends well after so long, as a migration.
    Done {
        /// Milliseconds.
        after: u64,
    },
}

impl Behaviour {
    /// The behaviour that `spec` runs.
    pub fn of(spec: &ServiceSpec) -> Self {
        let text = spec.exec.first().map_or("good".into(), ToString::to_string);
        let (word, number) = text.split_once('-').unwrap_or((&text, "100"));
        let ms = number.parse().expect("a number of milliseconds");
        match word {
            "good" => Self::Good { after: ms },
            "stubborn" => Self::Stubborn { after: ms },
            "crash" => Self::Crash { after: ms },
            "never" => Self::Never,
            "flap" => Self::Flap { every: ms },
            "late" => Self::Late { after: ms },
            "done" => Self::Done { after: ms },
            other => panic!("no behaviour {other}"),
        }
    }

    /// Whether it serves for ever if it is left alone.
    pub fn is_good(self) -> bool {
        match self {
            Self::Good { .. } | Self::Stubborn { .. } => true,
            Self::Crash { .. }
            | Self::Never
            | Self::Flap { .. }
            | Self::Late { .. }
            | Self::Done { .. } => false,
        }
    }

    fn exit(self) -> Exit {
        match self {
            Self::Done { .. } => Exit::Code(0),
            Self::Good { .. }
            | Self::Stubborn { .. }
            | Self::Crash { .. }
            | Self::Never
            | Self::Flap { .. }
            | Self::Late { .. } => Exit::Code(1),
        }
    }

    fn health(self, age: u64) -> ProbedHealth {
        match self {
            Self::Good { after } | Self::Stubborn { after } if age >= after => {
                ProbedHealth::Passing
            }
            Self::Late { .. } => ProbedHealth::Passing,
            Self::Flap { every } if age / every % 2 == 1 => ProbedHealth::Passing,
            Self::Flap { every } if age >= every => ProbedHealth::Failing,
            Self::Good { .. }
            | Self::Stubborn { .. }
            | Self::Crash { .. }
            | Self::Never
            | Self::Done { .. }
            | Self::Flap { .. } => ProbedHealth::Starting,
        }
    }

    fn ends(self, age: u64) -> bool {
        match self {
            Self::Crash { after } | Self::Late { after } | Self::Done { after } => age >= after,
            Self::Good { .. } | Self::Stubborn { .. } | Self::Never | Self::Flap { .. } => false,
        }
    }
}

/// Where a program stands, as the agent's table has it.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Running { since: u64 },
    BackingOff { exit: Exit, until: u64 },
    Stopping { until: u64 },
    Stopped { exit: Option<Exit> },
}

/// What the newest plan wants of a program that is not to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Run,
    Hold,
    RunOnce,
}

/// One instance at the agent.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) version: Version,
    pub(crate) behaviour: Behaviour,
    pub(crate) attempt: Attempt,
    pub(crate) state: State,
    pub(crate) order: Order,
    grace: u64,
    pub(crate) memory_bytes: u64,
    restart: Restart,
    last_exit: Option<Exit>,
    pub(crate) failing_until: u64,
    pub(crate) frozen_until: u64,
    pub(crate) unprobed_until: u64,
    /// Whether this attempt has passed a probe.
    passed: bool,
}

impl Program {
    pub(crate) fn started(version: Version, spec: &ServiceSpec, now: u64) -> Self {
        Self {
            version,
            behaviour: Behaviour::of(spec),
            attempt: Attempt::FIRST,
            state: State::Running { since: now },
            order: Order::Run,
            grace: spec.grace.as_millis() as u64,
            memory_bytes: spec.limits.memory_bytes.unwrap_or(0),
            restart: Restart::new(),
            last_exit: None,
            failing_until: 0,
            frozen_until: 0,
            unprobed_until: 0,
            passed: false,
        }
    }

    /// What is told to stop before it was ever started.
    pub(crate) fn never_started(version: Version, spec: &ServiceSpec) -> Self {
        Self {
            state: State::Stopped { exit: None },
            ..Self::started(version, spec, 0)
        }
    }

    pub(crate) fn stop(&mut self, now: u64, takes: u64) {
        match self.state {
            State::Running { .. } => {
                let takes = match self.behaviour {
                    Behaviour::Stubborn { .. } => self.grace,
                    Behaviour::Good { .. }
                    | Behaviour::Crash { .. }
                    | Behaviour::Never
                    | Behaviour::Flap { .. }
                    | Behaviour::Late { .. }
                    | Behaviour::Done { .. } => takes.min(self.grace),
                };
                // A frozen one does not hear SIGTERM.
                let until = (now + takes).max(self.frozen_until.min(now + self.grace));
                self.state = State::Stopping { until };
            }
            State::BackingOff { exit, .. } => self.state = State::Stopped { exit: Some(exit) },
            State::Stopping { .. } | State::Stopped { .. } => {}
        }
    }

    pub(crate) fn end(&mut self, now: u64, exit: Exit) {
        match self.order {
            Order::Run | Order::Hold => {}
            Order::RunOnce => {
                self.state = State::Stopped { exit: Some(exit) };
                return;
            }
        }
        let retry = self.restart.ended(instant(now));
        self.state = State::BackingOff {
            exit,
            until: retry.until.since_start().as_millis() as u64,
        };
        self.last_exit = Some(exit);
    }

    pub(crate) fn step(&mut self, now: u64, agent_lives: bool) {
        match self.state {
            State::Running { since } => {
                if self.frozen_until <= now && self.behaviour.ends(now - since) {
                    self.end(now, self.behaviour.exit());
                } else {
                    match self.health(now, since) {
                        ProbedHealth::Passing => {
                            self.passed = true;
                            self.restart.passing(instant(now));
                        }
                        ProbedHealth::Starting | ProbedHealth::Failing => {
                            self.restart.failing(instant(now));
                        }
                    }
                }
            }
            State::BackingOff { until, .. }
                if agent_lives && now >= until && self.order != Order::Hold =>
            {
                self.attempt = self.attempt.next();
                self.state = State::Running { since: now };
                self.failing_until = 0;
                self.frozen_until = 0;
                self.unprobed_until = 0;
                self.passed = false;
            }
            State::Stopping { until } if now >= until => {
                let exit = Some(Exit::Signal(15));
                self.state = State::Stopped { exit };
            }
            State::BackingOff { .. } | State::Stopping { .. } | State::Stopped { .. } => {}
        }
    }

    fn health(&self, now: u64, since: u64) -> ProbedHealth {
        let upset = now < self.failing_until || now < self.frozen_until;
        match self.behaviour.health(now - since) {
            _ if now < self.unprobed_until => ProbedHealth::Starting,
            ProbedHealth::Passing if !upset => ProbedHealth::Passing,
            ProbedHealth::Passing | ProbedHealth::Failing if self.passed => ProbedHealth::Failing,
            ProbedHealth::Passing | ProbedHealth::Failing | ProbedHealth::Starting => {
                ProbedHealth::Starting
            }
        }
    }

    pub(crate) fn report(&self, id: &InstanceId, now: u64) -> InstanceReport {
        let port = 20_000 + (id.number * 50 + u64::from(self.attempt.0)) % 10_000;
        InstanceReport {
            instance: id.clone(),
            version: self.version,
            attempt: self.attempt,
            phase: match self.state {
                State::Running { since } => Phase::Running {
                    pid: 1,
                    address: SocketAddr::from(([127, 0, 0, 1], port as u16)),
                    health: self.health(now, since),
                    since: Timestamp(WALL_START_MS + since),
                },
                State::BackingOff { exit, until } => Phase::BackingOff {
                    exit,
                    until: Timestamp(WALL_START_MS + until),
                    crash_looping: self.restart.crash_looping(),
                },
                State::Stopping { .. } => Phase::Stopping { pid: 1 },
                State::Stopped { exit } => Phase::Stopped { exit },
            },
            last_exit: self.last_exit,
            probe_failure: None,
            log_dropped: 0,
        }
    }
}

fn instant(ms: u64) -> Instant {
    Instant::from_start(Duration::from_millis(ms))
}
