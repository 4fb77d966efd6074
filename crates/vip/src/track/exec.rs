//! Whether a program says that it works: it ends with code 0.

use std::time::Duration;

use mainstay_ids::Instant;
use mainstay_kernel::{Child, Ended, Life, Place, Spawn};
use rustix::process::Signal;

use super::{Found, Works};
use crate::host::Host;

#[derive(Debug)]
enum State {
    Resting {
        until: Instant,
    },
    Running {
        child: Child,
        until: Instant,
    },
    /// It took too long and was killed; its end is awaited.
    Killed {
        child: Child,
    },
}

/// A program that is run again and again.
#[derive(Debug)]
pub(super) struct Run {
    command: Vec<String>,
    every: Duration,
    timeout: Duration,
    state: State,
}

impl Run {
    pub(super) fn new(command: &[String], every: Duration, timeout: Duration) -> Self {
        let until = Instant::START;
        Self {
            command: command.to_vec(),
            every,
            timeout,
            state: State::Resting { until },
        }
    }

    pub(super) fn turn(&mut self, host: &Host) -> Found {
        let now = host.now();
        match &self.state {
            State::Resting { until } if now < *until => Found::Nothing,
            State::Resting { .. } => self.start(host, now),
            State::Running { child, until } => match child.try_reap() {
                Ok(None) if now < *until => Found::Nothing,
                Ok(None) => {
                    child.signal_group(Signal::KILL).ok();
                    self.await_the_killed(now);
                    Found::Once(Works::No)
                }
                Ok(Some(Ended::Code(0))) => self.ended(now, Works::Yes),
                Ok(Some(_)) | Err(_) => self.ended(now, Works::No),
            },
            State::Killed { child } => {
                // Its failure was told when it was killed.
                if !matches!(child.try_reap(), Ok(None)) {
                    self.ended(now, Works::No);
                }
                Found::Nothing
            }
        }
    }

    fn start(&mut self, host: &Host, now: Instant) -> Found {
        let Some((program, arguments)) = self.command.split_first() else {
            return self.ended(now, Works::No);
        };
        let started = Spawn::new(program)
            .arguments(arguments)
            .own_environment()
            .place(Place::OwnGroup)
            .life(Life::EndsWithParent)
            .start();
        let watched = started.map(|child| host.watch(child.handle()).map(|()| child));
        let Ok(Ok(child)) = watched else {
            return self.ended(now, Works::No);
        };
        let until = now.after(self.timeout);
        self.state = State::Running { child, until };
        Found::Nothing
    }

    fn ended(&mut self, now: Instant, works: Works) -> Found {
        let until = now.after(self.every);
        self.state = State::Resting { until };
        Found::Once(works)
    }

    fn await_the_killed(&mut self, now: Instant) {
        let until = now.after(self.every);
        let before = std::mem::replace(&mut self.state, State::Resting { until });
        if let State::Running { child, .. } = before {
            self.state = State::Killed { child };
        }
    }

    pub(super) fn next_deadline(&self) -> Instant {
        match &self.state {
            State::Resting { until } | State::Running { until, .. } => *until,
            // Its handle wakes us.
            State::Killed { .. } => Instant::NEVER,
        }
    }
}
