//! The command that is run at each change, as keepalived's `notify`.

use std::collections::VecDeque;

use mainstay_ids::Instant;
use mainstay_kernel::{Child, Ended, Life, Place, Spawn};
use rustix::process::Signal;
use std::time::Duration;

use crate::host::Host;
use crate::view::State;

/// Changes that wait for the command to end. An address that flaps faster than its command runs loses the oldest: what
/// counts is the last.
const WAITING_MAX: usize = 8;
/// How long a command may take. Calls of a cloud's API take seconds.
const TIME_MAX: Duration = Duration::from_mins(1);

/// What changed.
#[derive(Debug, Clone, Copy)]
struct Occasion {
    state: State,
    priority: u8,
}

/// The commands of one seat: one at a time, in order.
#[derive(Debug)]
pub(crate) struct Hooks {
    command: Vec<String>,
    waiting: VecDeque<Occasion>,
    running: Option<(Child, Instant)>,
}

impl Hooks {
    pub(crate) fn new(command: Vec<String>) -> Self {
        Self {
            command,
            waiting: VecDeque::with_capacity(WAITING_MAX),
            running: None,
        }
    }

    /// Has the command run for this change.
    pub(crate) fn call(&mut self, name: &str, state: State, priority: u8) {
        if self.command.is_empty() {
            return;
        }
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
            tracing::warn!("({name}) notify is slower than the changes; one was left out");
        }
        self.waiting.push_back(Occasion { state, priority });
    }

    /// Whether nothing runs or waits any more.
    pub(crate) fn rest(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty()
    }

    /// Sees to the one that runs, and starts the next.
    pub(crate) fn turn(&mut self, name: &str, host: &Host) {
        let now = host.now();
        if let Some((child, until)) = &mut self.running {
            match child.try_reap() {
                Ok(None) => {
                    if now >= *until {
                        tracing::warn!("({name}) notify did not end in {TIME_MAX:?} and is killed");
                        child.signal_group(Signal::KILL).ok();
                        *until = Instant::NEVER;
                    }
                    return;
                }
                Ok(Some(Ended::Code(0))) => {}
                Ok(Some(ended)) => tracing::warn!("({name}) notify failed: {ended:?}"),
                Err(error) => tracing::warn!("({name}) cannot tell how notify ended: {error}"),
            }
            self.running = None;
        }
        let Some(next) = self.waiting.pop_front() else {
            return;
        };
        let Some((program, arguments)) = self.command.split_first() else {
            return;
        };
        // The arguments are those of keepalived's `notify`.
        let started = Spawn::new(program)
            .arguments(arguments)
            .arguments(["INSTANCE", name])
            .argument(next.state.to_string())
            .argument(next.priority.to_string())
            .own_environment()
            .place(Place::OwnGroup)
            .life(Life::OfItsOwn)
            .start();
        match started {
            Ok(child) => {
                host.watch(child.handle()).ok();
                self.running = Some((child, now.after(TIME_MAX)));
            }
            Err(error) => tracing::error!("({name}) cannot run notify: {error}"),
        }
    }

    /// When the one that runs is killed.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.running
            .as_ref()
            .map_or(Instant::NEVER, |(_, until)| *until)
    }
}
