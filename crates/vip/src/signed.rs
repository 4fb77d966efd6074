//! One of this node's own processes, by the claim that it signed: the file that it holds open to its end, where its
//! identity stands, and where its threads say that they go on. There is nothing to be asked over a connection that a
//! busy process would answer late.

use std::fs;
use std::path::Path;
use std::time::Duration;

use mainstay_ids::Instant;
use mainstay_kernel::pulse::{Beat, Pulses};
use mainstay_kernel::{Identity, Pidfd};
use serde::Deserialize;

/// What a claim says, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Claim {
    pub(crate) stage: Stage,
    /// Older versions have none.
    pulse: Option<i32>,
    #[serde(flatten)]
    pub(crate) identity: Identity,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    Runs,
    Serves,
}

impl Claim {
    /// What stands in the file now. One that is being signed is nothing yet, and is read again at the next look.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// A handle on the process that signed it, if it lives, and what its threads say.
    pub(crate) fn open(&self, now: Instant) -> Option<(Pidfd, Option<Progress>)> {
        let handle = self.identity.open().ok()??;
        let pulses = self.pulse.and_then(|descriptor| {
            let opened = Pulses::open(self.identity.pid, descriptor);
            if let Err(error) = &opened {
                let pid = self.identity.pid;
                tracing::warn!("cannot see whether the threads of process {pid} go on: {error}");
            }
            opened.ok()
        });
        Some((handle, pulses.map(|pulses| Progress::new(pulses, now))))
    }
}

/// How the threads of a process get on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    GoesOn,
    /// One of them has not said anything for so long.
    Stuck(Duration),
    /// It ends on purpose, and takes nothing new.
    Leaving,
}

/// What its threads said, and when it changed.
#[derive(Debug)]
pub(crate) struct Progress {
    pulses: Pulses,
    seen: Seen,
}

impl Progress {
    fn new(pulses: Pulses, now: Instant) -> Self {
        let seen = Seen {
            threads: Vec::new(),
            looked: now,
        };
        Self { pulses, seen }
    }

    /// Looks. `after`: the silence that counts.
    pub(crate) fn look(&mut self, now: Instant, after: Duration) -> Pace {
        match self.pulses.read() {
            Ok(beats) => self.seen.look(now, after, beats),
            // The process has ended, which its handle tells.
            Err(_) => Pace::GoesOn,
        }
    }
}

/// Looks that come so much later than they should are of a machine, or a process, that slept. Pure, as all of this.
const SLEPT: Duration = Duration::from_millis(600);

#[derive(Debug)]
struct Seen {
    threads: Vec<(Beat, Instant)>,
    looked: Instant,
}

impl Seen {
    fn look(
        &mut self,
        now: Instant,
        after: Duration,
        beats: impl ExactSizeIterator<Item = Beat>,
    ) -> Pace {
        // Who slept does not know for how long others were silent.
        let slept = now.since(self.looked) >= SLEPT;
        self.looked = now;
        let mut pace = Pace::GoesOn;
        if self.threads.len() != beats.len() {
            self.threads = vec![(Beat::Counted(0), now); beats.len()];
        }
        for ((last, since), beat) in self.threads.iter_mut().zip(beats) {
            if beat == Beat::Leaving {
                return Pace::Leaving;
            }
            if *last != beat || slept {
                (*last, *since) = (beat, now);
            }
            let silent = now.since(*since);
            if silent >= after {
                pace = Pace::Stuck(silent);
            }
        }
        pace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant::from_start(Duration::from_millis(ms))
    }

    const AFTER: Duration = Duration::from_secs(1);

    /// Two threads, looked at every 50 ms; the second stands still from `from` on.
    fn stands_still(seen: &mut Seen, from: u64, until: u64) -> Option<u64> {
        (0..until).step_by(50).find(|at| {
            let second = Beat::Counted(from.min(*at));
            let beats = [Beat::Counted(*at), second].into_iter();
            matches!(seen.look(ms(*at), AFTER, beats), Pace::Stuck(_))
        })
    }

    fn fresh() -> Seen {
        Seen {
            threads: Vec::new(),
            looked: ms(0),
        }
    }

    #[test]
    fn one_thread_that_stands_still_is_seen_after_a_second_and_the_others_do_not_hide_it() {
        assert_eq!(stands_still(&mut fresh(), 500, 5000), Some(1500));
        assert_eq!(stands_still(&mut fresh(), 5000, 5000), None);
    }

    #[test]
    fn who_slept_does_not_take_its_own_sleep_for_the_silence_of_others() {
        let mut seen = fresh();
        let mut look = |at| seen.look(ms(at), AFTER, [Beat::Counted(1)].into_iter());
        assert_eq!(look(0), Pace::GoesOn);
        assert_eq!(look(60_000), Pace::GoesOn);
        for at in (60_100..61_000).step_by(100) {
            assert_eq!(look(at), Pace::GoesOn, "{at}");
        }
        assert_eq!(look(61_000), Pace::Stuck(AFTER));
    }

    #[test]
    fn one_that_leaves_is_not_stuck() {
        let mut seen = fresh();
        for at in (0..5000).step_by(100) {
            let beats = [Beat::Counted(1), Beat::Leaving].into_iter();
            assert_eq!(seen.look(ms(at), AFTER, beats), Pace::Leaving);
        }
    }
}
