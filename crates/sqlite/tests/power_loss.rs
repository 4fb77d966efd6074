//! Commits on a disk that loses power at every step, and what is found on it then.
//!
//! The check holds only with its control: without syncs, or on a disk whose syncs lie, it must
//! fail, and that is a test, too.

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::future::join_all;
use mainstay_power_loss::{Disk, Syncs};
use mainstay_sqlite::rusqlite::Connection;
use mainstay_sqlite::{Abort, Database, Kind, Medium};

const KIND: Kind = Kind {
    what: "test database",
    application_id: 0x4d61_7431,
    steps: &["CREATE TABLE part (job INTEGER, part INTEGER, bytes BLOB, PRIMARY KEY (job, part))"],
};

/// Rows of one job: together some pages, so that a job can be torn.
const PARTS: u64 = 3;

/// Jobs that are handed in together.
const TOGETHER: u64 = 4;

const ROUNDS: u64 = 6;

/// How many different disks are looked at for each step, the two extremes among them.
const SEEDS: u64 = 5;

#[derive(Clone, Copy)]
enum Asks {
    ForSyncs,
    ForNone,
}

fn medium(disk: &Disk, asks: Asks) -> Medium<'_> {
    match asks {
        Asks::ForSyncs => Medium::Simulated(disk.name()),
        Asks::ForNone => Medium::SimulatedUnsynced(disk.name()),
    }
}

async fn write(database: &Database, job: u64) -> Result<(), String> {
    let write = move |connection: &Connection| -> Result<(), Abort<()>> {
        // A log that is soon written back, so that the power is lost in that, too.
        connection.pragma_update(None, "wal_autocheckpoint", 12)?;
        for part in 0..PARTS {
            connection.execute(
                "INSERT INTO part VALUES (?1, ?2, zeroblob(3000))",
                (job, part),
            )?;
        }
        Ok(())
    };
    let written = database.write(write).await;
    written.map_err(|error| format!("{error:?}"))
}

/// Writes until all is written or the power goes; gives the jobs that were answered.
async fn work(disk: &Disk, asks: Asks) -> BTreeSet<u64> {
    let mut answered = BTreeSet::new();
    let Ok(database) = Database::open_on(medium(disk, asks), Path::new("/state.db"), &KIND) else {
        return answered;
    };
    for round in 0..ROUNDS {
        let jobs = (0..TOGETHER).map(|job| round * TOGETHER + job);
        let outcomes = join_all(jobs.clone().map(|job| write(&database, job))).await;
        let done = jobs.zip(outcomes).filter(|(_, outcome)| outcome.is_ok());
        answered.extend(done.map(|(job, _)| job));
    }
    answered
}

/// Whether all that was answered is there, and no job in part.
async fn look(disk: &Disk, answered: &BTreeSet<u64>) -> Result<(), String> {
    let medium = Medium::Simulated(disk.name());
    let database = Database::open_on(medium, Path::new("/state.db"), &KIND)
        .map_err(|error| format!("does not open: {error} ({error:?})"))?;
    let read = database.read(|connection| {
        let whole: String =
            connection.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
        let mut statement = connection
            .prepare("SELECT job, count(*), min(length(bytes)) FROM part GROUP BY job")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let rows: Vec<(u64, u64, u64)> = rows.collect::<Result<_, _>>()?;
        Ok((whole, rows))
    });
    let (whole, rows) = read.await.map_err(|error| format!("{error:?}"))?;
    if whole != "ok" {
        return Err(format!("damaged: {whole}"));
    }
    if let Some((job, parts, _)) = rows.iter().find(|row| (row.1, row.2) != (PARTS, 3000)) {
        return Err(format!("of job {job} there are {parts} of {PARTS} parts"));
    }
    let found: BTreeSet<u64> = rows.iter().map(|row| row.0).collect();
    if let Some(lost) = answered.difference(&found).next() {
        return Err(format!("job {lost} was answered and is not there"));
    }
    // It goes on from there.
    if !found.contains(&9999) {
        write(&database, 9999).await?;
    }
    Ok(())
}

/// Takes the power away at each `stride`th step. Gives how many disks were looked at, or what was
/// wrong with one.
async fn check(syncs: Syncs, asks: Asks, stride: usize) -> Result<u64, String> {
    let whole = Disk::new(syncs);
    let all = work(&whole, asks).await;
    assert_eq!(
        all.len() as u64,
        ROUNDS * TOGETHER,
        "with power all is done"
    );
    let mut looked = 0;
    // The number of steps differs a little from run to run: which jobs share a commit is chance.
    for step in (0..whole.steps() + 20).step_by(stride) {
        let disk = Disk::new(syncs);
        disk.lose_power_at(step);
        let answered = work(&disk, asks).await;
        for seed in 0..SEEDS {
            // Seed 0 and 1 are the extremes, the others differ from step to step.
            let seed = if seed < 2 { seed } else { step * SEEDS + seed };
            let found = look(&disk.survivor(seed), &answered).await;
            found.map_err(|what| format!("power lost at step {step}, seed {seed}: {what}"))?;
            looked += 1;
        }
    }
    Ok(looked)
}

#[tokio::test]
async fn whenever_the_power_goes_what_was_answered_is_there_and_nothing_in_part() {
    let looked = check(Syncs::Hold, Asks::ForSyncs, 1).await.expect("holds");
    println!("looked at {looked} disks");
    assert!(looked > 500, "only {looked} disks were looked at");
}

#[tokio::test]
async fn without_syncs_the_same_check_fails() {
    let wrong = check(Syncs::Hold, Asks::ForNone, 7).await;
    println!("without syncs: {wrong:?}");
    wrong.expect_err("must be found");
}

#[tokio::test]
async fn with_syncs_that_lie_the_same_check_fails() {
    let wrong = check(Syncs::Lie, Asks::ForSyncs, 7).await;
    println!("with syncs that lie: {wrong:?}");
    wrong.expect_err("must be found");
}
