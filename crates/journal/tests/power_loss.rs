//! The journal on a disk that loses power at every step, refuses steps and fails syncs, over many
//! seeds: `SEEDS=5000 cargo nextest run -p mainstay-journal power` for more of them, `SEED=17` for one.
//!
//! The check holds only with its control: on a disk that forgets one of the two syncs it must fail.

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;
use std::sync::Arc;

use mainstay_journal::simulated::{Fault, Lie};
use mainstay_journal::{
    AppendError, Appended, Journal, Limits, OpenError, RecordNumber, Retired, SimulatedDisk,
};

const SEGMENTS_MAX: u32 = 3;

/// Small, so that a short run begins many segments.
fn limits(retired: Retired) -> Limits {
    Limits {
        segment_len: 1024,
        segments_max: SEGMENTS_MAX,
        bytes_max: u64::MAX,
        retired,
    }
}

/// What a journal may hold.
#[derive(Clone, Default)]
struct Model {
    /// What was, or may have been, appended under each number.
    bodies: BTreeMap<u64, Vec<Vec<u8>>>,
    durable: u64,
    next: u64,
    /// Bodies that were made; each is another one.
    made: u64,
    /// The first record when it was looked at last.
    first: u64,
}

impl Model {
    fn new() -> Self {
        Self {
            next: 1,
            first: 1,
            ..Self::default()
        }
    }

    fn make_body(&mut self, rng: &mut fastrand::Rng) -> Vec<u8> {
        self.made += 1;
        let mut body = self.made.to_le_bytes().to_vec();
        // Few lengths, so that what a failed write left often lies where a record could begin.
        body.resize(8 + 100 * rng.usize(0..4), 0xA5);
        body
    }

    fn attempt(&mut self, batch: &[Vec<u8>]) {
        for (number, body) in (self.next..).zip(batch) {
            self.bodies.entry(number).or_default().push(body.clone());
        }
    }

    fn appended(&mut self, batch: &[Vec<u8>], appended: Appended) {
        assert_eq!(appended.first, RecordNumber(self.next));
        for (number, body) in (self.next..).zip(batch) {
            // An earlier attempt under this number must not come back from now on.
            self.bodies.insert(number, vec![body.clone()]);
        }
        self.next += batch.len() as u64;
        assert_eq!(appended.last.0 + 1, self.next);
    }

    /// Compares with what an opening found, which counts as durable from then on.
    fn check(
        &mut self,
        found: &[(u64, Vec<u8>)],
        first: u64,
        segments: usize,
    ) -> Result<(), String> {
        let last = first + found.len() as u64 - 1;
        for (index, (number, body)) in found.iter().enumerate() {
            if *number != first + index as u64 {
                return Err(format!("{number} is out of order"));
            }
            let may_be = self.bodies.get(number);
            if !may_be.is_some_and(|bodies| bodies.contains(body)) {
                return Err(format!("record {number} was never appended like this"));
            }
        }
        if last < self.durable {
            return Err(format!("{} was synced, {last} is the last", self.durable));
        }
        if first < self.first {
            return Err(format!("{first} came back, {} was the first", self.first));
        }
        if first > 1 && segments + 1 < SEGMENTS_MAX as usize {
            return Err(format!("only {segments} segments are left"));
        }
        self.durable = last;
        self.next = last + 1;
        self.bodies.retain(|number, _| *number <= last);
        for (number, body) in found {
            self.bodies.insert(*number, vec![body.clone()]);
        }
        Ok(())
    }
}

/// Opens the journal and compares it with the model. `None`: the disk is dead.
fn open(
    disk: &Arc<SimulatedDisk>,
    model: &mut Model,
    retired: Retired,
) -> Result<Option<Journal<SimulatedDisk>>, String> {
    let mut found = Vec::new();
    // A fault that is planned may meet an opening; the next one gets on.
    for _ in 0..20 {
        found.clear();
        let visit = |record: mainstay_journal::Record<'_>| {
            found.push((record.number.0, record.body.to_vec()));
        };
        match Journal::open(disk.clone(), limits(retired), visit) {
            Ok(journal) => {
                let outline = journal.outline();
                model.check(&found, outline.first().0, outline.beginnings().count())?;
                assert_eq!(journal.next(), RecordNumber(model.next));
                assert_eq!(read_all(&journal)?, found);
                return Ok(Some(journal));
            }
            Err(_) if disk.is_dead() => return Ok(None),
            Err(OpenError::Disk { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("does not open".to_owned())
}

fn read_all(journal: &Journal<SimulatedDisk>) -> Result<Vec<(u64, Vec<u8>)>, String> {
    let mut reader = journal.outline().reader(RecordNumber(0));
    let mut read = Vec::new();
    while let Some(record) = reader.next().map_err(|error| error.to_string())? {
        read.push((record.number.0, record.body.to_vec()));
    }
    Ok(read)
}

/// Appends and syncs at random, until the disk is dead or enough is done.
fn live(
    disk: &Arc<SimulatedDisk>,
    model: &mut Model,
    retired: Retired,
    rng: &mut fastrand::Rng,
) -> Result<(), String> {
    let Some(mut journal) = open(disk, model, retired)? else {
        return Ok(());
    };
    for _ in 0..rng.usize(5..20) {
        model.first = model.first.max(journal.outline().first().0);
        let batch: Vec<Vec<u8>> = (0..rng.usize(1..4)).map(|_| model.make_body(rng)).collect();
        let batch = if rng.u8(0..4) == 0 {
            &batch[..1]
        } else {
            &batch[..]
        };
        let fits = batch
            .iter()
            .map(|body| mainstay_journal::record_len(body.len()))
            .sum::<u64>()
            <= limits(retired).batch_len_max();
        if fits {
            model.attempt(batch);
        }
        let mut poisoned = false;
        match journal.append(batch) {
            Ok(appended) => model.appended(batch, appended),
            Err(AppendError::TooLong { .. }) => assert!(!fits),
            Err(AppendError::Disk { .. }) => {}
            Err(AppendError::Sync(_)) => poisoned = true,
        }
        if rng.bool() && !poisoned {
            match journal.sync() {
                Ok(durable) => {
                    assert_eq!(durable.up_to().0 + 1, model.next, "all of it");
                    model.durable = durable.up_to().0;
                }
                Err(_) => poisoned = true,
            }
        }
        if disk.is_dead() {
            return Ok(());
        }
        if poisoned {
            assert!(journal.append(&[[0_u8; 8]]).is_err() && journal.sync().is_err());
            drop(journal);
            let Some(again) = open(disk, model, retired)? else {
                return Ok(());
            };
            journal = again;
        }
    }
    Ok(())
}

fn retired(seed: u64) -> Retired {
    if seed.is_multiple_of(2) {
        Retired::Recycle
    } else {
        Retired::Remove
    }
}

/// One life up to a loss of power, or the end of the process, at `step`, a second one up to another loss, and a last look.
/// Gives the steps of the first.
fn lose_power(seed: u64, step: usize, lie: Option<Lie>) -> Result<usize, String> {
    let retired = retired(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut model = Model::new();
    let first = Arc::new(SimulatedDisk::new(seed ^ (step as u64) << 32));
    first.lie(lie);
    first.plan([Fault::PowerAt(step)]);
    live(&first, &mut model, retired, &mut rng)?;
    let steps = first.steps();
    let second = if rng.bool() {
        Arc::new(first.crash())
    } else {
        first.process_ended();
        first
    };
    second.plan([Fault::PowerAt(second.steps() + rng.usize(0..40))]);
    live(&second, &mut model, retired, &mut rng)?;
    open(&Arc::new(second.crash()), &mut model, retired)?;
    Ok(steps)
}

/// Every step of one seed's life.
fn lose_power_everywhere(seed: u64, lie: Option<Lie>) -> Result<usize, String> {
    let steps = lose_power(seed, usize::MAX, lie)?;
    for step in 0..steps {
        lose_power(seed, step, lie)
            .map_err(|wrong| format!("seed {seed}, power lost at step {step}: {wrong}"))?;
    }
    Ok(steps)
}

/// A disk that is full for a while and fails a sync, and then loses power.
fn refuse(seed: u64) -> Result<(), String> {
    let retired = retired(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut model = Model::new();
    let disk = Arc::new(SimulatedDisk::new(seed));
    for _ in 0..4 {
        let at = disk.steps() + rng.usize(0..30);
        disk.plan([if rng.bool() {
            Fault::FullFrom(at, rng.usize(1..10))
        } else {
            Fault::SyncAt(at)
        }]);
        live(&disk, &mut model, retired, &mut rng)?;
    }
    let at = disk.steps() + rng.usize(0..30);
    let power = at + rng.usize(1..8);
    disk.plan([Fault::FullFrom(at, 2), Fault::PowerAt(power)]);
    live(&disk, &mut model, retired, &mut rng)?;
    let found = open(&Arc::new(disk.crash()), &mut model, retired)?;
    found.map(|_| ()).ok_or("dead".to_owned())
}

fn seeds() -> Range<u64> {
    let number = |name| {
        env::var(name)
            .ok()
            .and_then(|text: String| text.parse().ok())
    };
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(500),
    }
}

#[test]
fn after_a_power_loss_at_any_step_all_that_was_synced_is_there_and_nothing_else() {
    let mut steps = 0;
    for seed in seeds() {
        steps += lose_power_everywhere(seed, None).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    println!("power was lost at {steps} steps");
    assert!(steps > 20 * seeds().count());
}

#[test]
fn when_the_disk_is_full_or_a_sync_fails_nothing_synced_is_lost_and_later_appends_work() {
    for seed in seeds().start..seeds().end.max(seeds().start + 1) * 4 {
        refuse(seed).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
}

#[test]
fn a_disk_that_forgets_to_sync_is_found_out_after_a_power_loss() {
    for lie in [Lie::Sync, Lie::SyncDir] {
        let found = (0..20).find_map(|seed| lose_power_everywhere(seed, Some(lie)).err());
        let wrong = found.unwrap_or_else(|| panic!("{lie:?} was not noticed"));
        println!("{lie:?}: {wrong}");
    }
}
