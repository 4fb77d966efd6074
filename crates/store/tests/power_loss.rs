//! Transactions on a disk that loses power at every step.
//!
//! That SQLite keeps a commit is shown by `mainstay-sqlite`; here, that a transaction of the store is
//! one: its pairs, its changes in the log and its revision come together or not at all. The check
//! holds only with its control: on a disk whose syncs lie it must fail.

use std::path::Path;
use std::sync::Arc;

use mainstay_power_loss::{Disk, Syncs};
use mainstay_store::{
    Key, KeyRange, Medium, Notice, Operation, Outcome, Revision, SqliteStore, Store, Test,
    TokioClock, Txn,
};

/// Each transaction gives all of these the same value.
const KEYS: [&str; 3] = ["/a", "/b", "/c"];

const TRANSACTIONS: u64 = 12;

/// How many disks are looked at for each step, the two extremes among them.
const SEEDS: u64 = 4;

async fn open(disk: &Disk) -> Result<SqliteStore, String> {
    let medium = Medium::Simulated(disk.name());
    let clock = Arc::new(TokioClock::start());
    let opened = SqliteStore::open_on(medium, Path::new("/state.db"), clock).await;
    opened.map_err(|error| format!("does not open: {error} ({error:?})"))
}

/// The transaction with this number, which is also its revision.
fn txn(number: u64) -> Txn {
    let test = match number {
        1 => Test::Absent,
        later => Test::ModifiedAt(Revision(later - 1)),
    };
    KEYS.iter().fold(Txn::default(), |txn, key| {
        let put = Operation::Put {
            key: Key::new(*key).expect("legal"),
            // Some pages, so that it can be torn.
            value: format!("{number}{}", " ".repeat(3000)).into_bytes(),
            lease: None,
        };
        txn.with(test, put)
    })
}

/// Commits until all is done or the power goes. Gives the last that was answered.
async fn work(disk: &Disk) -> u64 {
    let Ok(store) = open(disk).await else {
        return 0;
    };
    for number in 1..=TRANSACTIONS {
        match store.txn(txn(number)).await {
            Ok(Outcome::Committed(revision)) => assert_eq!(revision, Revision(number)),
            Ok(Outcome::Conflict) => panic!("a conflict without another writer"),
            Err(_) => return number - 1,
        }
    }
    TRANSACTIONS
}

/// Whether the store is as after one transaction, at least the last that was answered.
async fn look(disk: &Disk, answered: u64) -> Result<(), String> {
    let store = open(disk).await?;
    let found = store.range(&KeyRange::prefix("/"), 10).await;
    let found = found.map_err(|error| format!("{error:?}"))?;
    let Revision(newest) = found.revision;
    if newest < answered || newest > answered + 1 {
        return Err(format!("revision {newest}, answered was {answered}"));
    }
    for pair in &found.pairs {
        let value = String::from_utf8_lossy(&pair.value);
        if value.trim() != newest.to_string() || pair.modified != found.revision {
            return Err(format!("{} is {} at {newest}", pair.key, value.trim()));
        }
    }
    if found.pairs.len() != if newest == 0 { 0 } else { KEYS.len() } {
        return Err(format!("{} keys at {newest}", found.pairs.len()));
    }
    let mut watch = store.watch(&KeyRange::prefix("/"), Revision(1));
    for revision in 1..=newest {
        match watch.next().await {
            Ok(Notice::Events(seen, events)) if seen.0 == revision && events.len() == 3 => {}
            other => return Err(format!("the log has {other:?} at {revision}")),
        }
    }
    // And it goes on from there.
    let next = store.txn(txn(newest + 1)).await;
    match next {
        Ok(Outcome::Committed(revision)) if revision.0 == newest + 1 => Ok(()),
        other => Err(format!("after it: {other:?}")),
    }
}

async fn check(syncs: Syncs, stride: usize) -> Result<u64, String> {
    let whole = Disk::new(syncs);
    assert_eq!(work(&whole).await, TRANSACTIONS, "with power all is done");
    let mut looked = 0;
    for step in (0..whole.steps()).step_by(stride) {
        let disk = Disk::new(syncs);
        disk.lose_power_at(step);
        let answered = work(&disk).await;
        for seed in 0..SEEDS {
            let seed = if seed < 2 { seed } else { step * SEEDS + seed };
            let found = look(&disk.survivor(seed), answered).await;
            found.map_err(|what| format!("power lost at step {step}, seed {seed}: {what}"))?;
            looked += 1;
        }
    }
    Ok(looked)
}

#[tokio::test]
async fn whenever_the_power_goes_the_store_is_as_after_one_transaction() {
    let looked = check(Syncs::Hold, 1).await.expect("holds");
    println!("looked at {looked} disks");
    assert!(looked > 300, "only {looked} disks were looked at");
}

#[tokio::test]
async fn with_syncs_that_lie_the_same_check_fails() {
    let wrong = check(Syncs::Lie, 5).await;
    println!("with syncs that lie: {wrong:?}");
    wrong.expect_err("must be found");
}
