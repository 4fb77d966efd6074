//! The store of one machine: SQLite.
//!
//! `pair` holds what is, `log` what changed, written in the same transaction. A watch reads the log
//! from where it was each time the doorbell rings, so that it needs no queue and cannot miss a
//! change.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_sqlite::rusqlite::{self, Connection, OptionalExtension as _, Row, params};
use mainstay_sqlite::{Abort, BackupError, Database, Failure, JobError, Kind, Medium, OpenError};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::contract::{
    Answer, Event, Found, Illegal, LeaseId, More, Operation, Outcome, PAGE_LEN_MAX, PAGE_MAX, Pair,
    Revision, Store, StoreError, Test, Txn, Watch,
};
use crate::follow::{Enough, Follow, Gather, Log, Since, ring};
use crate::key::{Key, KeyRange};
use crate::lease::{Clock, Leases, check_ttl};

/// What the file is; the id reads `MstS`.
pub const KIND: Kind = Kind {
    what: "control centre's state",
    application_id: 0x4d73_7453,
    steps: &["
        CREATE TABLE pair (
            key BLOB NOT NULL PRIMARY KEY,
            value BLOB NOT NULL,
            created INTEGER NOT NULL,
            modified INTEGER NOT NULL,
            lease INTEGER REFERENCES lease (id)
        );
        CREATE INDEX pair_lease ON pair (lease) WHERE lease IS NOT NULL;
        CREATE TABLE log (
            revision INTEGER NOT NULL,
            key BLOB NOT NULL,
            value BLOB,
            created INTEGER,
            lease INTEGER,
            PRIMARY KEY (revision, key)
        );
        CREATE TABLE lease (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_ms INTEGER NOT NULL);
        CREATE TABLE counter (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            revision INTEGER NOT NULL,
            compacted INTEGER NOT NULL
        );
        INSERT INTO counter VALUES (1, 0, 0);
    "],
};

/// A [`Store`] in an SQLite database.
pub struct SqliteStore {
    shelf: Arc<Shelf>,
    leases: Arc<Leases>,
    /// Ends leases that are over.
    _reaper: AbortOnDropHandle<()>,
}

/// The database and its doorbell.
struct Shelf {
    database: Database,
    doorbell: watch::Sender<Revision>,
}

type Job<T> = Result<T, Abort<StoreError>>;

impl SqliteStore {
    /// Opens the database at `path`, made if it is missing. Blocks while it is checked; needs a
    /// runtime of tokio, on which leases end.
    pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_on(Medium::Files, path, clock).await
    }

    /// Opens a database on a medium of any kind.
    pub async fn open_on(
        medium: Medium<'_>,
        path: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let database = Database::open_on(medium, path, &KIND)?;
        let read = database.read(|connection| {
            let (revision, _) = counters(connection)?;
            let mut statement = connection.prepare("SELECT id, ttl_ms FROM lease")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let leases: Vec<(u64, u64)> = rows.collect::<Result<_, _>>()?;
            Ok((revision, leases))
        });
        let (revision, past) = read.await.map_err(|source| OpenError::Refused {
            path: path.to_owned(),
            source,
        })?;
        let leases = Arc::new(Leases::new(clock));
        for (id, ttl_ms) in past {
            leases.begin(LeaseId(id), Duration::from_millis(ttl_ms));
        }
        let (doorbell, _) = watch::channel(revision);
        let shelf = Arc::new(Shelf { database, doorbell });
        // The reaper does not keep the database open: whoever drops the store has it closed.
        let (weak, of) = (Arc::downgrade(&shelf), leases.clone());
        let end = move |lease| {
            let shelf = weak.upgrade();
            async move { shelf.ok_or(StoreError::Closed)?.end(lease).await }
        };
        let reaper = tokio::spawn(async move { of.reap(end).await });
        Ok(Self {
            shelf,
            leases,
            _reaper: AbortOnDropHandle::new(reaper),
        })
    }

    /// Copies the store to `target`, a new file, while it is in use.
    pub async fn backup(&self, target: &Path) -> Result<(), BackupError> {
        self.shelf.database.backup(target).await
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        self.shelf.database.path()
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SqliteStore")
            .field(&self.shelf.database)
            .finish()
    }
}

impl Store for SqliteStore {
    fn range(&self, range: &KeyRange, limit: usize) -> Answer<'_, Found> {
        let range = range.clone();
        let read = self
            .shelf
            .database
            .read(move |connection| find(connection, &range, limit.min(PAGE_MAX)));
        Box::pin(async { Ok(read.await?) })
    }

    fn txn(&self, txn: Txn) -> Answer<'_, Outcome> {
        Box::pin(async move {
            txn.check()?;
            self.shelf
                .commit(move |connection| apply(connection, &txn))
                .await
        })
    }

    fn watch(&self, range: &KeyRange, from: Revision) -> Box<dyn Watch> {
        Box::new(Follow::new(&self.shelf, range, from))
    }

    fn compact(&self, below: Revision) -> Answer<'_, ()> {
        let write = self.shelf.database.write(move |connection| {
            let (newest, compacted) = counters(connection)?;
            if below > newest {
                let asked = below;
                return Err(Abort::Refused(Illegal::Future { asked, newest }.into()));
            }
            if below > compacted {
                connection.execute("DELETE FROM log WHERE revision < ?1", [below.0])?;
                connection.execute("UPDATE counter SET compacted = ?1", [below.0])?;
            }
            Ok(())
        });
        Box::pin(async { write.await.map_err(lifted) })
    }

    fn grant(&self, ttl: Duration) -> Answer<'_, LeaseId> {
        Box::pin(async move {
            check_ttl(ttl)?;
            self.leases.check_room()?;
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            let grant = move |connection: &Connection| -> Job<i64> {
                connection.execute("INSERT INTO lease (ttl_ms) VALUES (?1)", [ttl_ms])?;
                Ok(connection.last_insert_rowid())
            };
            // Known to the table as soon as it is durable, whoever still waits: else it would
            // never end.
            let leases = self.leases.clone();
            let begin = move |id: &i64| leases.begin(LeaseId(id.unsigned_abs()), ttl);
            let granted = self.shelf.database.write_and_note(grant, begin).await;
            Ok(LeaseId(granted.map_err(lifted)?.unsigned_abs()))
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> Answer<'_, Duration> {
        let kept = self.leases.renew(lease);
        Box::pin(async { kept })
    }

    fn revoke(&self, lease: LeaseId) -> Answer<'_, ()> {
        Box::pin(async move {
            self.shelf.end(lease).await?;
            self.leases.forget(lease);
            Ok(())
        })
    }
}

impl Shelf {
    /// Writes, and rings the doorbell with the revision when it is durable.
    async fn commit(
        &self,
        job: impl FnOnce(&Connection) -> Job<Outcome> + Send + 'static,
    ) -> Result<Outcome, StoreError> {
        let doorbell = self.doorbell.clone();
        let rung = move |outcome: &Outcome| match outcome {
            Outcome::Committed(revision) => ring(&doorbell, *revision),
            Outcome::Conflict => {}
        };
        let written = self.database.write_and_note(job, rung);
        written.await.map_err(lifted)
    }

    async fn end(&self, lease: LeaseId) -> Result<(), StoreError> {
        let ended = self.commit(move |connection| end(connection, lease));
        ended.await.map(|_| ())
    }
}

impl Log for Shelf {
    fn since(&self, range: &KeyRange, from: Revision) -> Answer<'_, Since> {
        let range = range.clone();
        let read = self
            .database
            .read(move |connection| since(connection, &range, from));
        Box::pin(async { Ok(read.await?) })
    }

    fn doorbell(&self) -> watch::Receiver<Revision> {
        self.doorbell.subscribe()
    }
}

fn lifted(error: JobError<StoreError>) -> StoreError {
    match error {
        JobError::Refused(refused) => refused,
        JobError::Failed(Failure::Closed { .. }) => StoreError::Closed,
        JobError::Failed(failure) => StoreError::Storage(failure),
    }
}

/// The newest revision, and the one below which changes are forgotten.
fn counters(connection: &Connection) -> rusqlite::Result<(Revision, Revision)> {
    let mut statement = connection.prepare_cached("SELECT revision, compacted FROM counter")?;
    statement.query_row([], |row| Ok((Revision(row.get(0)?), Revision(row.get(1)?))))
}

fn key_of(bytes: Vec<u8>) -> rusqlite::Result<Key> {
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, error)
    };
    let text = String::from_utf8(bytes).map_err(|error| broken(error.into()))?;
    Key::new(text).map_err(|error| broken(error.into()))
}

/// A row of key, value, created, modified, lease.
fn pair_of(row: &Row<'_>) -> rusqlite::Result<Pair> {
    Ok(Pair {
        key: key_of(row.get(0)?)?,
        value: row.get(1)?,
        created: Revision(row.get(2)?),
        modified: Revision(row.get(3)?),
        lease: row.get::<_, Option<u64>>(4)?.map(LeaseId),
    })
}

fn find(connection: &Connection, range: &KeyRange, limit: usize) -> rusqlite::Result<Found> {
    const ALL: &str = "SELECT key, value, created, modified, lease FROM pair \
                       WHERE key >= ?1 ORDER BY key";
    const SOME: &str = "SELECT key, value, created, modified, lease FROM pair \
                        WHERE key >= ?1 AND key < ?2 ORDER BY key";
    let (revision, _) = counters(connection)?;
    let mut statement = connection.prepare_cached(match range.to {
        Some(_) => SOME,
        None => ALL,
    })?;
    let mut rows = match &range.to {
        Some(to) => statement.query(params![range.from, to])?,
        None => statement.query(params![range.from])?,
    };
    let (mut pairs, mut len, mut more) = (Vec::new(), 0, More::No);
    while let Some(row) = rows.next()? {
        if pairs.len() >= limit || len >= PAGE_LEN_MAX {
            more = More::Yes;
            break;
        }
        let pair = pair_of(row)?;
        len += pair.value.len();
        pairs.push(pair);
    }
    Ok(Found {
        revision,
        pairs,
        more,
    })
}

/// When a key was made and changed last.
fn standing(connection: &Connection, key: &Key) -> rusqlite::Result<Option<(Revision, Revision)>> {
    let mut statement =
        connection.prepare_cached("SELECT created, modified FROM pair WHERE key = ?1")?;
    statement
        .query_row([key.as_str().as_bytes()], |row| {
            Ok((Revision(row.get(0)?), Revision(row.get(1)?)))
        })
        .optional()
}

fn apply(connection: &Connection, txn: &Txn) -> Job<Outcome> {
    for compare in &txn.compares {
        let seen = standing(connection, &compare.key)?;
        let holds = match compare.test {
            Test::Absent => seen.is_none(),
            Test::CreatedAt(revision) => seen.is_some_and(|(created, _)| created == revision),
            Test::ModifiedAt(revision) => seen.is_some_and(|(_, modified)| modified == revision),
        };
        if !holds {
            return Ok(Outcome::Conflict);
        }
    }
    let (newest, _) = counters(connection)?;
    let next = newest.next();
    let mut changed = false;
    for operation in &txn.operations {
        changed |= match operation {
            Operation::Put { key, value, lease } => {
                put(connection, next, (key, value), *lease)?;
                true
            }
            Operation::Delete { key } => delete(connection, next, key)?,
        };
    }
    Ok(Outcome::Committed(if changed {
        count(connection, next)?
    } else {
        newest
    }))
}

fn count(connection: &Connection, next: Revision) -> rusqlite::Result<Revision> {
    let mut statement = connection.prepare_cached("UPDATE counter SET revision = ?1")?;
    statement.execute([next.0])?;
    Ok(next)
}

fn put(
    connection: &Connection,
    next: Revision,
    (key, value): (&Key, &[u8]),
    lease: Option<LeaseId>,
) -> Job<()> {
    if let Some(lease) = lease {
        let mut statement = connection.prepare_cached("SELECT 1 FROM lease WHERE id = ?1")?;
        if !statement.exists([lease.0])? {
            return Err(Abort::Refused(StoreError::NoSuchLease { lease }));
        }
    }
    let (key, lease) = (key.as_str().as_bytes(), lease.map(|lease| lease.0));
    let mut statement = connection.prepare_cached(
        "INSERT INTO pair VALUES (?1, ?2, ?3, ?3, ?4) ON CONFLICT (key) DO UPDATE \
         SET value = ?2, modified = ?3, lease = ?4 RETURNING created",
    )?;
    let created: u64 = statement.query_row(params![key, value, next.0, lease], |row| row.get(0))?;
    let mut statement = connection.prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5)")?;
    statement.execute(params![next.0, key, value, created, lease])?;
    Ok(())
}

/// `true`: the key was there.
fn delete(connection: &Connection, next: Revision, key: &Key) -> rusqlite::Result<bool> {
    let key = key.as_str().as_bytes();
    let mut statement = connection.prepare_cached("DELETE FROM pair WHERE key = ?1")?;
    if statement.execute([key])? == 0 {
        return Ok(false);
    }
    let mut statement =
        connection.prepare_cached("INSERT INTO log (revision, key) VALUES (?1, ?2)")?;
    statement.execute(params![next.0, key])?;
    Ok(true)
}

/// Ends a lease, and its keys with it.
fn end(connection: &Connection, lease: LeaseId) -> Job<Outcome> {
    let mut statement = connection.prepare_cached("SELECT key FROM pair WHERE lease = ?1")?;
    let rows = statement.query_map([lease.0], |row| row.get(0))?;
    let keys: Vec<Vec<u8>> = rows.collect::<Result<_, _>>()?;
    let (newest, _) = counters(connection)?;
    let next = newest.next();
    for key in &keys {
        delete(connection, next, &key_of(key.clone())?)?;
    }
    let mut statement = connection.prepare_cached("DELETE FROM lease WHERE id = ?1")?;
    if statement.execute([lease.0])? == 0 {
        return Err(Abort::Refused(StoreError::NoSuchLease { lease }));
    }
    Ok(Outcome::Committed(if keys.is_empty() {
        newest
    } else {
        count(connection, next)?
    }))
}

fn since(connection: &Connection, range: &KeyRange, from: Revision) -> rusqlite::Result<Since> {
    let (newest, compacted) = counters(connection)?;
    if from < compacted {
        return Ok(Since::Compacted(compacted));
    }
    let mut statement = connection.prepare_cached(
        "SELECT key, value, created, revision, lease FROM log WHERE revision >= ?1 \
         ORDER BY revision, key",
    )?;
    let mut rows = statement.query([from.0])?;
    let mut gather = Gather::new(range, from);
    while let Some(row) = rows.next()? {
        let event = if row.get_ref(1)?.as_blob_or_null()?.is_some() {
            Event::Put(pair_of(row)?)
        } else {
            Event::Deleted(key_of(row.get(0)?)?)
        };
        if gather.take(Revision(row.get(3)?), event) == Enough::Yes {
            return Ok(gather.finish(None));
        }
    }
    Ok(gather.finish(Some(newest)))
}
