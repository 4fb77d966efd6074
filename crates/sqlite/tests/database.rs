//! The database on the machine's own file system.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use mainstay_power_loss::{Disk, Syncs};
use mainstay_sqlite::rusqlite::Connection;
use mainstay_sqlite::{Abort, BackupError, Database, Failure, JobError, Kind, Medium, OpenError};
use mainstay_testkit::TempDir;

const ID: i32 = 0x4d61_7431;

const KIND: Kind = Kind {
    what: "test database",
    application_id: ID,
    steps: &["CREATE TABLE number (n INTEGER PRIMARY KEY, text TEXT NOT NULL)"],
};

#[derive(Debug, PartialEq)]
struct TooBig(u64);

type Written = Result<(), JobError<TooBig>>;

async fn put(database: &Database, n: u64, text: &str) -> Written {
    let text = text.to_owned();
    let job = move |connection: &Connection| {
        connection.execute("INSERT INTO number VALUES (?1, ?2)", (n, text))?;
        if n > 1000 {
            return Err(Abort::Refused(TooBig(n)));
        }
        Ok(())
    };
    database.write(job).await
}

async fn numbers(database: &Database) -> Vec<u64> {
    let read = database.read(|connection| {
        let mut statement = connection.prepare("SELECT n FROM number ORDER BY n")?;
        statement.query_map([], |row| row.get(0))?.collect()
    });
    read.await.expect("reads")
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again_for_the_owner_alone() {
    let dir = TempDir::new("sqlite");
    let path = dir.join("inner/state.db");
    let database = Database::open(&path, &KIND).expect("opens");
    put(&database, 1, "one").await.expect("writes");
    let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode(&dir.join("inner")), 0o700);
    for file in ["state.db", "state.db-wal", "state.db-shm", "state.db.lock"] {
        assert_eq!(mode(&dir.join("inner").join(file)), 0o600, "{file}");
    }
    drop(database);
    let log = dir.join("inner/state.db-wal");
    assert!(!log.exists(), "what was closed is one file");
    let database = Database::open(&path, &KIND).expect("opens");
    assert_eq!(numbers(&database).await, [1]);
}

#[tokio::test]
async fn of_the_jobs_of_one_transaction_a_failing_one_fails_alone() {
    let dir = TempDir::new("sqlite");
    let database = Database::open(&dir.join("state.db"), &KIND).expect("opens");
    let jobs = (1..=200).map(|n| put(&database, if n % 10 == 0 { 1000 + n } else { n }, "x"));
    let outcomes = join_all(jobs.chain([put(&database, 1, "again")])).await;
    for (index, outcome) in outcomes.into_iter().enumerate() {
        let n = index as u64 + 1;
        match outcome {
            Ok(()) => assert_ne!(n % 10, 0, "{n}"),
            Err(JobError::Refused(refused)) => assert_eq!(refused, TooBig(1000 + n)),
            Err(JobError::Failed(Failure::Statement { path, .. })) => {
                assert_eq!((n, path), (201, dir.join("state.db")));
            }
            Err(other) => panic!("{n}: {other:?}"),
        }
    }
    let wanted: Vec<u64> = (1..=200).filter(|n| n % 10 != 0).collect();
    assert_eq!(numbers(&database).await, wanted);
}

#[tokio::test]
async fn jobs_that_wait_share_a_sync() {
    let disk = Disk::new(Syncs::Hold);
    let medium = Medium::Simulated(disk.name());
    let database = Database::open_on(medium, Path::new("/state.db"), &KIND).expect("opens");
    let before = disk.syncs();
    for outcome in join_all((1..=500).map(|n| put(&database, n, "x"))).await {
        outcome.expect("writes");
    }
    let together = disk.syncs() - before;
    let before = disk.syncs();
    for n in 501..=600 {
        put(&database, n, "x").await.expect("writes");
    }
    let alone = disk.syncs() - before;
    assert!(together < 100, "500 jobs that waited took {together} syncs");
    assert!(alone >= 100, "100 jobs one by one took {alone} syncs");
}

#[tokio::test]
async fn a_job_is_done_and_noted_though_nobody_waits_any_more() {
    let dir = TempDir::new("sqlite");
    let path = dir.join("state.db");
    let database = Database::open(&path, &KIND).expect("opens");
    let noted = Arc::new(AtomicU64::new(0));
    let note = noted.clone();
    let job = |connection: &Connection| -> Result<u64, Abort<TooBig>> {
        connection.execute("INSERT INTO number VALUES (7, 'x')", [])?;
        Ok(7)
    };
    let writing = database.write_and_note(job, move |n| note.store(*n, Ordering::SeqCst));
    // Polled once, so that the job is on its way, and given up.
    let given_up = tokio::time::timeout(std::time::Duration::ZERO, writing).await;
    drop(given_up);
    drop(database);
    assert_eq!(noted.load(Ordering::SeqCst), 7);
    let database = Database::open(&path, &KIND).expect("opens");
    assert_eq!(numbers(&database).await, [7]);
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let dir = TempDir::new("sqlite");
    let database = Database::open(&dir.join("state.db"), &KIND).expect("opens");
    let wrote = database.read(|connection| connection.execute("DELETE FROM number", []));
    let refused = wrote.await.expect_err("is refused");
    assert!(matches!(refused, Failure::ReadOnly { .. }), "{refused:?}");
}

#[test]
fn a_second_owner_is_refused_until_the_first_is_gone() {
    let dir = TempDir::new("sqlite");
    let path = dir.join("state.db");
    let first = Database::open(&path, &KIND).expect("opens");
    let refused = Database::open(&path, &KIND).expect_err("is in use");
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    assert!(
        refused.to_string().contains(path.to_str().expect("text")),
        "{refused}"
    );
    drop(first);
    Database::open(&path, &KIND).expect("opens");
}

#[test]
fn files_of_others_and_newer_ones_are_refused_and_left_as_they_are() {
    let dir = TempDir::new("sqlite");
    let refused = |name: &str| {
        let path = dir.join(name);
        let before = fs::read(&path).expect("reads");
        let error = Database::open(&path, &KIND).expect_err("is refused");
        assert_eq!(fs::read(&path).expect("reads"), before, "{name}");
        assert!(
            error.to_string().contains(path.to_str().expect("text")),
            "{error}"
        );
        error
    };
    fs::write(dir.join("text"), "no database ".repeat(1000)).expect("writes");
    let error = refused("text");
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");

    let make = |name: &str, sql: &str| {
        let connection = Connection::open(dir.join(name)).expect("opens");
        connection.execute_batch(sql).expect("runs");
    };
    make("other", "CREATE TABLE t (a); PRAGMA application_id = 77;");
    let error = refused("other");
    assert!(error.to_string().contains("application id 77"), "{error}");

    make(
        "newer",
        &format!("CREATE TABLE t (a); PRAGMA application_id = {ID}; PRAGMA user_version = 2;"),
    );
    let error = refused("newer");
    assert!(
        matches!(
            error,
            OpenError::Newer {
                found: 2,
                newest: 1,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_damaged_file_is_recognised_and_left_as_it_is() {
    let dir = TempDir::new("sqlite");
    let path = dir.join("state.db");
    let database = Database::open(&path, &KIND).expect("opens");
    for n in 1..=300 {
        put(&database, n, &"x".repeat(400)).await.expect("writes");
    }
    drop(database);
    let good = fs::read(&path).expect("reads");
    assert!(good.len() > 20 * 4096, "{} bytes", good.len());
    // The head of each page of the table: overwritten in turn.
    for page in 1..good.len() / 4096 {
        let mut bad = good.clone();
        bad[page * 4096..page * 4096 + 64].fill(0xa5);
        fs::write(&path, &bad).expect("writes");
        let error = Database::open(&path, &KIND).expect_err("is damaged");
        assert!(
            matches!(error, OpenError::Damaged { .. }),
            "page {page}: {error:?}"
        );
        assert_eq!(fs::read(&path).expect("reads"), bad, "page {page}");
    }
    fs::write(&path, &good[..good.len() / 2]).expect("writes");
    let error = Database::open(&path, &KIND).expect_err("is cut");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[test]
fn a_log_without_its_database_is_refused_and_not_removed() {
    let dir = TempDir::new("sqlite");
    fs::write(dir.join("state.db-wal"), "what was committed").expect("writes");
    let error = Database::open(&dir.join("state.db"), &KIND).expect_err("is refused");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert!(dir.join("state.db-wal").exists());
}

#[tokio::test]
async fn on_a_full_disk_nothing_is_lost_and_a_later_write_works() {
    let disk = Disk::new(Syncs::Hold);
    let medium = Medium::Simulated(disk.name());
    let database = Database::open_on(medium, Path::new("/state.db"), &KIND).expect("opens");
    put(&database, 1, "kept").await.expect("writes");
    disk.fill();
    let text = "x".repeat(100_000);
    for outcome in join_all((2..5).map(|n| put(&database, n, &text))).await {
        let Err(JobError::Failed(failure)) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(matches!(failure, Failure::Full { .. }), "{failure:?}");
        assert!(failure.to_string().contains("/state.db"), "{failure}");
    }
    assert_eq!(numbers(&database).await, [1]);
    disk.make_room();
    put(&database, 2, &text).await.expect("writes again");
    assert_eq!(numbers(&database).await, [1, 2]);
}

#[tokio::test]
async fn an_older_format_is_brought_to_the_newest() {
    const NEWER: Kind = Kind {
        steps: &[KIND.steps[0], "ALTER TABLE number ADD COLUMN more TEXT"],
        ..KIND
    };
    let dir = TempDir::new("sqlite");
    let path = dir.join("state.db");
    let database = Database::open(&path, &KIND).expect("opens");
    put(&database, 1, "one").await.expect("writes");
    drop(database);
    let database = Database::open(&path, &NEWER).expect("opens");
    let more = database.read(|connection| {
        connection.query_row("SELECT more IS NULL FROM number", [], |row| {
            row.get::<_, bool>(0)
        })
    });
    assert!(more.await.expect("has the column"));
    drop(database);
    let refused = Database::open(&path, &KIND).expect_err("is newer");
    assert!(matches!(refused, OpenError::Newer { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_backup_is_of_one_moment_while_writes_go_on_and_replaces_no_file() {
    let dir = TempDir::new("sqlite");
    let database = Database::open(&dir.join("state.db"), &KIND).expect("opens");
    for n in 1..=100 {
        put(&database, n, &"x".repeat(1000)).await.expect("writes");
    }
    let target = dir.join("backup.db");
    let writes = async {
        for n in 101..=300 {
            put(&database, n, "during").await.expect("writes");
        }
    };
    let (saved, ()) = tokio::join!(database.backup(&target), writes);
    saved.expect("is saved");
    let refused = database.backup(&target).await.expect_err("exists");
    assert!(matches!(refused, BackupError::Exists { .. }), "{refused}");

    let mode = fs::metadata(&target)
        .expect("is there")
        .permissions()
        .mode()
        & 0o777;
    assert_eq!(mode, 0o600);
    let copy = Database::open(&target, &KIND).expect("opens");
    let found = numbers(&copy).await;
    let whole: Vec<u64> = (1..=found.len() as u64).collect();
    assert_eq!(found, whole, "all up to one moment");
    assert!(found.len() >= 100);
}
