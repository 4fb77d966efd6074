//! The log on a disk that loses power at every step, refuses steps, fails syncs and is full, over many
//! seeds: `SEEDS=10000 cargo nextest run --release -p mainstay-journal simulation` for more of them, `SEED=17` for
//! one again.
//!
//! The check holds only with its control: each mistake of `planted` must be found.

mod life;
mod oracle;

use std::env;
use std::ops::Range;
use std::sync::Arc;

use self::life::{LONG, Life, Outcome, SHORT};
use super::planted::Bug;
use crate::simulated::{Fault, Lie, SimulatedDisk};

/// In how many lives of a seed the power fails, unless it is asked to fail at every step.
const LOSSES: usize = 6;

/// What is wrong on purpose.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wrong {
    bug: Option<Bug>,
    lie: Option<Lie>,
}

/// One life up to a loss of power, or the end of the process, at `step`, a second one up to another
/// loss, and a last look. Gives the steps of the first.
fn lose_power(seed: u64, step: usize, wrong: Wrong) -> Result<usize, String> {
    let first = Arc::new(SimulatedDisk::new(seed ^ (step as u64) << 32));
    first.lie(wrong.lie);
    first.plan([Fault::PowerAt(step)]);
    let mut life = Life::new(seed, SHORT, wrong.bug);
    life.live(&first)?;
    let steps = first.steps();
    let second = if life.rng.bool() {
        Arc::new(first.crash())
    } else {
        first.process_ended();
        first
    };
    second.plan([Fault::PowerAt(second.steps() + life.rng.usize(0..60))]);
    life.live(&second)?;
    let third = Arc::new(second.crash());
    // While it is opened, too.
    third.plan([Fault::PowerAt(life.rng.usize(0..8))]);
    if let Outcome::Dead = life.look(&third)? {
        life.look(&Arc::new(third.crash()))?;
    }
    Ok(steps)
}

/// Some steps of one seed's life, other ones for each seed.
fn lose_power_at_some_steps(seed: u64, losses: usize, wrong: Wrong) -> Result<usize, String> {
    let steps = lose_power(seed, usize::MAX, wrong)?;
    let stride = (steps / losses).max(1);
    let from = usize::try_from(seed).unwrap_or(0) % stride;
    let mut lost = 0;
    for step in (from..steps).step_by(stride) {
        lose_power(seed, step, wrong)
            .map_err(|broken| format!("seed {seed}, power lost at step {step}: {broken}"))?;
        lost += 1;
    }
    Ok(lost)
}

/// A disk that refuses room for a while and fails a sync, and then loses power.
fn refuse(seed: u64, wrong: Wrong) -> Result<(), String> {
    let disk = Arc::new(SimulatedDisk::new(seed));
    let mut life = Life::new(seed, SHORT, wrong.bug);
    for _ in 0..4 {
        let at = disk.steps() + life.rng.usize(0..60);
        disk.plan([if life.rng.bool() {
            Fault::FullFrom(at, life.rng.usize(1..10))
        } else {
            Fault::SyncAt(at)
        }]);
        life.live(&disk)?;
    }
    let at = disk.steps() + life.rng.usize(0..60);
    let power = at + life.rng.usize(1..8);
    disk.plan([Fault::FullFrom(at, 2), Fault::PowerAt(power)]);
    life.live(&disk)?;
    match life.look(&Arc::new(disk.crash()))? {
        Outcome::Alive => Ok(()),
        Outcome::Dead => Err("dead".to_owned()),
    }
}

/// A disk that becomes full, from which the messages are consumed, also over a loss of power.
fn fill(seed: u64, wrong: Wrong) -> Result<(), String> {
    let disk = Arc::new(SimulatedDisk::new(seed));
    let mut life = Life::new(seed, LONG, wrong.bug);
    disk.hold_at_most(LONG * life.rng.u64(16..32));
    life.fill_and_drain(&disk)?;
    let at = disk.steps() + life.rng.usize(0..400);
    disk.plan([Fault::PowerAt(at)]);
    life.fill_and_drain(&disk)?;
    let disk = Arc::new(disk.crash());
    life.fill_and_drain(&disk)
}

fn seeds(usual: u64) -> Range<u64> {
    let number = |name| {
        env::var(name)
            .ok()
            .and_then(|text: String| text.parse().ok())
    };
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(usual),
    }
}

#[test]
fn after_a_power_loss_all_that_was_synced_is_there_once_and_nothing_that_was_forgotten() {
    let mut lost = 0;
    for seed in seeds(500) {
        let done = lose_power_at_some_steps(seed, LOSSES, Wrong::default());
        lost += done.unwrap_or_else(|broken| panic!("{broken}"));
    }
    println!("power was lost at {lost} steps");
    assert!(lost >= LOSSES * seeds(500).count() / 2);
}

#[test]
fn after_a_power_loss_at_every_step_of_some_lives_the_same_holds() {
    let mut lost = 0;
    for seed in seeds(500).step_by(50) {
        let done = lose_power_at_some_steps(seed, usize::MAX, Wrong::default());
        lost += done.unwrap_or_else(|broken| panic!("{broken}"));
    }
    println!("power was lost at {lost} steps");
}

#[test]
fn when_the_disk_refuses_or_a_sync_fails_nothing_synced_is_lost_and_later_changes_work() {
    for seed in seeds(500) {
        let done = refuse(seed, Wrong::default());
        done.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn a_full_disk_refuses_messages_takes_what_is_forgotten_and_then_has_room_again() {
    for seed in seeds(100) {
        let done = fill(seed, Wrong::default());
        done.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn each_planted_mistake_is_found() {
    const BUGS: [Bug; 10] = [
        Bug::ConfirmsUnsynced,
        Bug::RetiresUnsynced,
        Bug::MovesForgotten,
        Bug::AsksFirstQueue,
        Bug::LeavesDefinitions,
        Bug::ForgetsMove,
        Bug::RecyclesRead,
        Bug::NoReserve,
        Bug::ForgetsInMemory,
        Bug::GivesUpLittle,
    ];
    for bug in BUGS {
        let bug = Some(bug);
        let broken = find(Wrong { bug, lie: None });
        println!(
            "{bug:?}: {}",
            broken.unwrap_or_else(|| panic!("{bug:?} was not noticed"))
        );
    }
    for lie in [Lie::Sync, Lie::SyncDir] {
        let lie = Some(lie);
        let broken = find(Wrong { bug: None, lie });
        println!(
            "{lie:?}: {}",
            broken.unwrap_or_else(|| panic!("{lie:?} was not noticed"))
        );
    }
}

/// What is found of something wrong.
fn find(wrong: Wrong) -> Option<String> {
    (0..50).find_map(|seed| {
        let filled = fill(seed, wrong).and_then(|()| refuse(seed, wrong));
        let lost = filled.and_then(|()| lose_power_at_some_steps(seed, 2 * LOSSES, wrong));
        lost.err()
    })
}
