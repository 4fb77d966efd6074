//! Many seeds, on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::broken::Broken;
use crate::conditions::Conditions;
use crate::simulation::{Trace, run};
use crate::tally::Tally;

/// A seed that broke a promise.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed that replays it.
    pub seed: u64,
    /// What was broken.
    pub broken: Vec<Broken>,
}

/// How far a campaign has come.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Seeds that have run.
    pub seeds: u64,
    /// Milliseconds that were simulated.
    pub simulated_ms: u64,
    /// What happened in all of them.
    pub tally: Tally,
    /// The failure with the lowest seed.
    pub failure: Option<Failure>,
}

/// Seeds to run.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The first.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// Under which conditions.
    pub conditions: Conditions,
    /// On how many threads.
    pub threads: usize,
}

/// So many seeds are run between two looks at what all have done.
const ROUND: u64 = 16;

impl Campaign {
    /// Runs them, until all have run or one has failed; `look` sees how far it is, now and then.
    pub fn run(&self, look: impl Fn(&Progress) + Sync) -> Progress {
        let next = AtomicU64::new(self.from);
        let failed = AtomicBool::new(false);
        // The threads meet here once a round, so it is not what they wait for.
        let progress = Mutex::new(Progress::default());
        let end = self.from + self.seeds;
        thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    while !failed.load(Ordering::Relaxed) {
                        let first = next.fetch_add(ROUND, Ordering::Relaxed);
                        if first >= end {
                            return;
                        }
                        let round = self.round(first..end.min(first + ROUND));
                        failed.fetch_or(round.failure.is_some(), Ordering::Relaxed);
                        let mut all = progress.lock().expect("no thread panics with it");
                        all.add(round);
                        look(&all);
                    }
                });
            }
        });
        progress.into_inner().expect("no thread panics with it")
    }

    fn round(&self, seeds: std::ops::Range<u64>) -> Progress {
        let mut round = Progress::default();
        for seed in seeds {
            let outcome = run(seed, &self.conditions, Trace::Off);
            round.seeds += 1;
            round.simulated_ms += outcome.simulated_ms;
            round.tally.add(&outcome.tally);
            if !outcome.broken.is_empty() {
                let broken = outcome.broken;
                round.failure = Some(Failure { seed, broken });
                break;
            }
        }
        round
    }
}

impl Progress {
    fn add(&mut self, round: Self) {
        let Self {
            seeds,
            simulated_ms,
            tally,
            failure,
        } = round;
        self.seeds += seeds;
        self.simulated_ms += simulated_ms;
        self.tally.add(&tally);
        self.failure = match (self.failure.take(), failure) {
            (Some(one), Some(other)) if other.seed < one.seed => Some(other),
            (one, other) => one.or(other),
        };
    }
}
