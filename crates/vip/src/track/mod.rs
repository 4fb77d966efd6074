//! What must work for an address to be here, and whether it does.

mod exec;
mod gateway;
mod namesake;
mod tcp;

use mainstay_ids::Instant;
use mainstay_kernel::{Child, Place, Spawn};
use mainstay_model::vip::{TrackSpec, Tracked};

use self::exec::Run;
use self::gateway::Gateway;
use self::namesake::Namesake;
use self::tcp::Port;
use crate::host::Host;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It is known at once: a process that has ended has ended.
    Surely(Works),
    /// One of several looks.
    Once(Works),
    /// Nothing new.
    Nothing,
}

/// Whether it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Works {
    Yes,
    No,
}

#[derive(Debug)]
enum Watch {
    Gateway(Gateway),
    Process(Namesake),
    Port(Port),
    Run(Run),
}

/// One thing that is tracked.
#[derive(Debug)]
pub(crate) struct Track {
    spec: TrackSpec,
    watch: Watch,
    works: Works,
    /// Looks in a row that say otherwise than `works`; `None`: there was none yet.
    against: Option<u32>,
    /// What was started again, until it was reaped.
    restarts: Vec<Child>,
}

/// Commands of a restart that may run at once; with more, something is wrong that another one does not mend.
const RESTARTS_MAX: usize = 8;

impl Track {
    pub(crate) fn new(spec: TrackSpec) -> Self {
        let watch = match &spec.what {
            Tracked::Gateway => Watch::Gateway(Gateway::default()),
            Tracked::Process(name) => Watch::Process(Namesake::of(name)),
            Tracked::Tcp(address) => Watch::Port(Port::new(*address, spec.every, spec.timeout)),
            Tracked::Exec(command) => Watch::Run(Run::new(command, spec.every, spec.timeout)),
        };
        Self {
            spec,
            watch,
            works: Works::No,
            against: None,
            restarts: Vec::new(),
        }
    }

    pub(crate) fn works(&self) -> Works {
        self.works
    }

    pub(crate) fn what(&self) -> &Tracked {
        &self.spec.what
    }

    /// Looks. What has died is started again, if there is a command for that.
    pub(crate) fn turn(&mut self, seat: &str, host: &Host) {
        self.restarts
            .retain(|child| matches!(child.try_reap(), Ok(None)));
        let found = match &mut self.watch {
            Watch::Gateway(gateway) => gateway.turn(host),
            Watch::Process(process) => process.turn(host),
            Watch::Port(port) => port.turn(host),
            Watch::Run(run) => run.turn(host),
        };
        let before = self.works;
        self.take_in(found);
        if self.works == before {
            return;
        }
        let what = &self.spec.what;
        match self.works {
            Works::Yes => tracing::info!("({seat}) {what} works"),
            Works::No => {
                tracing::warn!("({seat}) {what} does not work any more");
                self.start_again(seat);
            }
        }
    }

    fn take_in(&mut self, found: Found) {
        let works = match found {
            Found::Nothing => return,
            Found::Surely(works) => works,
            Found::Once(works) if works == self.works => {
                self.against = Some(0);
                return;
            }
            Found::Once(works) => {
                let enough = match works {
                    Works::Yes => self.spec.rise.get(),
                    Works::No => self.spec.fall.get(),
                };
                // The first look of all counts: nothing was known before.
                let seen = self.against.map_or(enough, |seen| seen + 1);
                if seen < enough {
                    self.against = Some(seen);
                    return;
                }
                works
            }
        };
        self.works = works;
        self.against = Some(0);
    }

    fn start_again(&mut self, seat: &str) {
        let Some((program, arguments)) = self.spec.restart.split_first() else {
            return;
        };
        if self.restarts.len() == RESTARTS_MAX {
            tracing::error!(
                "({seat}) `{program}` was started {RESTARTS_MAX} times and did not end"
            );
            return;
        }
        let started = Spawn::new(program)
            .arguments(arguments)
            .own_environment()
            .place(Place::OwnSession)
            .start();
        match started {
            // It goes on without us; what it brings back is seen by the next look.
            Ok(child) => {
                tracing::info!("({seat}) started `{program}` as {}", child.pid());
                self.restarts.push(child);
            }
            Err(error) => tracing::error!("({seat}) {error}"),
        }
    }

    /// When it looks again.
    pub(crate) fn next_deadline(&self) -> Instant {
        match &self.watch {
            Watch::Gateway(gateway) => gateway.next_deadline(),
            Watch::Process(process) => process.next_deadline(),
            Watch::Port(port) => port.next_deadline(),
            Watch::Run(run) => run.next_deadline(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> Track {
        Track::new(TrackSpec::of(Tracked::Tcp("127.0.0.1:1".parse().unwrap())))
    }

    #[test]
    fn the_first_look_counts_and_then_as_many_in_a_row_as_is_written() {
        let mut track = port();
        track.take_in(Found::Once(Works::Yes));
        assert_eq!(track.works, Works::Yes);
        // One failure may be an accident, and a pass in between begins anew.
        for works in [Works::No, Works::Yes, Works::No] {
            track.take_in(Found::Once(works));
            assert_eq!(track.works, Works::Yes);
        }
        track.take_in(Found::Once(Works::No));
        assert_eq!(track.works, Works::No);
        track.take_in(Found::Nothing);
        assert_eq!(track.works, Works::No);
        track.take_in(Found::Once(Works::Yes));
        assert_eq!(track.works, Works::Yes);
    }

    #[test]
    fn what_is_sure_counts_at_once() {
        let mut track = port();
        track.take_in(Found::Surely(Works::Yes));
        track.take_in(Found::Surely(Works::No));
        assert_eq!(track.works, Works::No);
    }
}
