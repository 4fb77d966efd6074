//! Supervisor, control centre and agent are killed at random, in any order and at any moment, and
//! nobody notices: no client, and no instance.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod running;
mod siege;

use std::env;
use std::fs;
use std::num::NonZeroU32;

use mainstay_testkit::kills::{Round, Script, Step, Victim};
use siege::{Outcome, Siege, summary};

/// What is done without being told otherwise.
const SEED: u64 = 1;
const ROUNDS: usize = 10;

/// Requests per second; light enough for a machine that is busy with other tests.
const RATE: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// `ROUNDS` and `SEED` in the environment ask for another script, `REPORT` for a file with the sums.
#[test]
fn system_ten_rounds_of_random_sigkill_cost_no_request() {
    let number = |name| env::var(name).ok().map(|text| text.parse().unwrap());
    let seed = number("SEED").unwrap_or(SEED);
    let rounds = number("ROUNDS").map_or(ROUNDS, |rounds| usize::try_from(rounds).unwrap());
    let mut siege = Siege::lay("siege", &[], RATE);
    let mut outcomes: Vec<Outcome> = Vec::new();
    for round in Script::new(seed).take(rounds) {
        println!("seed {seed}, {round}");
        let outcome = siege.round(round, seed);
        println!("  {}", outcome.line());
        let complaints = outcome.complaints.join("\n");
        let number = outcome.round.number;
        outcomes.push(outcome);
        if !complaints.is_empty() || outcomes.len() == rounds {
            report(seed, &outcomes);
        }
        assert!(
            complaints.is_empty(),
            "seed {seed}, round {number}:\n{complaints}"
        );
    }
}

fn report(seed: u64, outcomes: &[Outcome]) {
    if let Some(path) = env::var_os("REPORT") {
        fs::write(path, summary(seed, outcomes).to_string()).unwrap();
    }
}

/// The same judge, on an agent that does not adopt: it would see a failure.
#[test]
fn system_without_adoption_the_same_judge_complains() {
    let mut siege = Siege::lay("siege-red", &["--unsafe-no-adoption"], RATE);
    let round = Round {
        number: 1,
        steps: vec![Step::Kill(Victim::Agent)],
    };
    let outcome = siege.round(round, SEED);
    let complaints = outcome.complaints.join("\n");
    for part in ["web-1 was started again", "web-4 has a new process"] {
        assert!(
            complaints.contains(part),
            "`{part}` is not in:\n{complaints}"
        );
    }
}
