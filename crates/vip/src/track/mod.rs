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
use crate::seams::Successor;

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
    pub(crate) fn new(spec: TrackSpec, successor: Successor) -> Self {
        let watch = match &spec.what {
            Tracked::Gateway => Watch::Gateway(Gateway::new(successor)),
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
    use crate::seams::AddressLife;
    use mainstay_testkit::{Netns, Segment, TempDir, is_root, program, skip, wait_until};
    use std::net::TcpListener;
    use std::process::Command;
    use std::time::Duration;

    fn track(spec: TrackSpec) -> Track {
        Track::new(spec, Successor::Followed)
    }

    fn port() -> Track {
        track(TrackSpec::of(Tracked::Tcp("127.0.0.1:1".parse().unwrap())))
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

    /// Looks as the process does, until something is known; how long that took.
    fn look(track: &mut Track, host: &Host, wanted: Works) -> Duration {
        let begun = host.now();
        wait_until(Duration::from_mins(1), "the look has its result", || {
            track.turn("entry", host);
            if track.against.is_some() && track.works == wanted {
                return Ok(host.now().since(begun));
            }
            Err(format!("{track:?}"))
        })
    }

    fn run(script: &str, timeout: Duration) -> Track {
        let shell = program("sh").display().to_string();
        let command = [&shell, "-c", script].map(str::to_owned);
        track(TrackSpec {
            timeout,
            every: Duration::from_millis(20),
            fall: std::num::NonZeroU32::MIN,
            ..TrackSpec::of(Tracked::Exec(command.to_vec()))
        })
    }

    #[test]
    fn system_a_program_that_fails_hangs_or_floods_is_dead_and_leaves_nothing_behind() {
        if !is_root() {
            return skip("needs root: opens sockets of the link");
        }
        let state = TempDir::new("vip-tracks");
        let host = Host::new(state.path(), AddressLife::Short).unwrap();
        let long = Duration::from_mins(1);
        look(&mut run("exit 0", long), &host, Works::Yes);
        look(&mut run("exit 7", long), &host, Works::No);
        look(&mut run("kill -9 $$", long), &host, Works::No);
        // What it says goes nowhere, however much.
        look(
            &mut run("head -c 50000000 /dev/zero", long),
            &host,
            Works::Yes,
        );
        let pid_file = state.join("pid");
        let hangs = format!("echo $$ > {}; sleep 1000 & wait", pid_file.display());
        let mut hanging = run(&hangs, Duration::from_millis(300));
        hanging.works = Works::Yes;
        let took = look(&mut hanging, &host, Works::No);
        assert!(took >= Duration::from_millis(300), "{took:?}");
        let pid: u32 = std::fs::read_to_string(&pid_file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        wait_until(Duration::from_mins(1), "it is killed", || {
            hanging.turn("entry", &host);
            let there = std::path::Path::new("/proc").join(pid.to_string()).exists();
            if there { Err(format!("{pid}")) } else { Ok(()) }
        });
        let nothing = vec!["/no/such/program".to_owned()];
        let mut missing = track(TrackSpec::of(Tracked::Exec(nothing)));
        look(&mut missing, &host, Works::No);
    }

    #[test]
    fn system_a_port_that_refuses_or_does_not_answer_is_dead() {
        if !is_root() {
            return skip("needs root: opens sockets of the link");
        }
        let state = TempDir::new("vip-ports");
        let (segment, netns) = (Segment::new(), Netns::new());
        segment.plug(&netns, "a", "10.9.0.1/24");
        netns.enter(|| {
            let host = Host::new(state.path(), AddressLife::Short).unwrap();
            let port = |address: &str| {
                track(TrackSpec {
                    every: Duration::from_millis(20),
                    timeout: Duration::from_millis(300),
                    ..TrackSpec::of(Tracked::Tcp(address.parse().unwrap()))
                })
            };
            Command::new(program("ip"))
                .args(["link", "set", "lo", "up"])
                .status()
                .unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let mut known = port(&address);
            look(&mut known, &host, Works::Yes);
            drop(listener);
            look(&mut known, &host, Works::No);
            // Nobody has this address, so that nobody answers at all; the kernel would try for seconds.
            let took = look(&mut port("10.9.0.77:80"), &host, Works::No);
            assert!(
                took >= Duration::from_millis(290) && took < Duration::from_secs(3),
                "{took:?}"
            );
        });
    }
}
