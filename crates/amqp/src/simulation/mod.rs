//! The shipped broker with clients that publish, consume, acknowledge, give back, stop reading and die, on a disk that
//! syncs late, and with crashes; judged after each step by what clients were told. The same seed gives the same run.
//!
//! A failure prints seed and last steps. `SEED=17 cargo test -p mainstay-amqp clients_that_die` plays one again,
//! `SEEDS=100000` with `--release` many.

mod disk;
mod judge;
mod random;
mod world;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use self::judge::{Broken, Promise, Tally};
use self::world::World;
use crate::planted::{Bug, Planted};

/// Seeds of a run without a number.
const SEEDS: u64 = 300;
/// A planted mistake must show within so many.
const SEEDS_OF_A_BUG: u64 = 1000;
/// The last steps are enough to see what broke a promise.
const STEPS_SHOWN: usize = 60;

struct Played {
    broken: Option<Broken>,
    steps: Vec<String>,
    happened: Tally,
}

fn play(seed: u64, planted: Option<Bug>) -> Played {
    let mut world = World::new(seed, Planted(planted));
    world.run();
    world.into_played()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

fn report(seed: u64, broken: &Broken, steps: &[String]) -> String {
    let mut text = String::new();
    for step in &steps[steps.len().saturating_sub(STEPS_SHOWN)..] {
        let _ = writeln!(text, "{step}");
    }
    let _ = writeln!(text, "seed {seed}: broken: {broken:?}");
    text
}

#[test]
fn clients_that_die_lose_nothing_that_was_confirmed_and_get_all_in_order() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    let many = seeds.end - seeds.start >= SEEDS;
    let mut happened = Tally::default();
    for seed in seeds {
        let played = play(seed, None);
        if let Some(broken) = &played.broken {
            panic!("{}", report(seed, broken, &played.steps));
        }
        for (what, count) in played.happened {
            *happened.entry(what).or_default() += count;
        }
    }
    std::println!("{happened:?}");
    // A simulation in which nothing happens proves nothing.
    for what in judge::EXPECTED {
        let count = happened.get(what).copied().unwrap_or(0);
        assert!(!many || count >= 50, "too little of `{what}`: {happened:?}");
    }
}

#[test]
fn each_planted_mistake_is_caught_by_its_promise() {
    for (bug, promises) in [
        (Bug::ConfirmsUnstored, &[Promise::ConfirmedIsSafe][..]),
        (Bug::RequeuesLast, &[Promise::Order, Promise::BodyIsThere]),
        (Bug::IgnoresPrefetch, &[Promise::Prefetch]),
        (Bug::HidesRedelivery, &[Promise::Redelivered]),
        (Bug::DropsUnacked, &[Promise::NothingLost, Promise::Counts]),
        (Bug::AcksOne, &[Promise::Counts, Promise::Order]),
        (Bug::ConfirmsAhead, &[Promise::ConfirmedIsSafe]),
        (Bug::SwallowsReturn, &[Promise::Returned]),
        (Bug::NoRefusal, &[Promise::Refused, Promise::OneWord]),
        (
            Bug::ForgetsLife,
            &[Promise::ConfirmedIsSafe, Promise::OneWord, Promise::Refused],
        ),
        (Bug::ForgetsCredit, &[Promise::NoStandstill]),
        (
            Bug::ForgetsAck,
            &[Promise::AckedIsGone, Promise::DiskEmpties],
        ),
        (Bug::ConfirmsDead, &[Promise::ConfirmedIsSafe]),
        (Bug::UnloadsUnstored, &[Promise::BodyIsThere]),
        (
            Bug::ForgetsFirst,
            &[Promise::BodyIsThere, Promise::NothingLost],
        ),
    ] {
        let mut seeds = 0..SEEDS_OF_A_BUG;
        let caught = seeds.find_map(|seed| {
            let played = play(seed, Some(bug));
            Some((seed, played.broken?, played.steps))
        });
        let Some((seed, broken, steps)) = caught else {
            panic!("{bug:?} was not caught in {SEEDS_OF_A_BUG} seeds");
        };
        std::println!("{bug:?}: seed {seed}, {broken:?}");
        assert!(
            promises.contains(&broken.promise),
            "{bug:?} was caught by chance:\n{}",
            report(seed, &broken, &steps)
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..10 {
        assert_eq!(play(seed, None).steps, play(seed, None).steps);
    }
}
