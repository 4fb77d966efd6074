//! A database and its opening.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use crate::backup::{self, BackupError};
use crate::failure::{Abort, Failure, JobError};
use crate::ground::{self, Right, beside};
use crate::reader::{self, READERS, READS_WAITING_MAX, Read};
use crate::writer::{self, JOBS_WAITING_MAX, Job, Pending};

/// How long SQLite waits for a lock that another program holds: an operator's `sqlite3`, say.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What `PRAGMA synchronous` reads when every commit is synced.
const SYNCHRONOUS_FULL: i64 = 2;

/// Which databases a program takes for its own.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// What it is, for messages: "control centre's state".
    pub what: &'static str,
    /// Stands in the file's header; a file with another is somebody else's.
    pub application_id: i32,
    /// `steps[n]` is the SQL that makes format n+1 of format n, where format 0 is an empty file.
    /// Their number is the format that this program writes, and the newest that it reads.
    pub steps: &'static [&'static str],
}

impl Kind {
    /// The format that this program writes.
    pub fn format(&self) -> i64 {
        i64::try_from(self.steps.len()).unwrap_or(i64::MAX)
    }
}

/// Where a database is.
#[derive(Debug, Clone, Copy)]
pub enum Medium<'a> {
    /// In the machine's file system, locked and for its owner alone.
    Files,
    /// In a VFS of SQLite that a test registered; nothing but SQLite touches it.
    Simulated(&'a str),
    /// As [`Medium::Simulated`], but without asking for syncs: the control of the test.
    SimulatedUnsynced(&'a str),
}

impl<'a> Medium<'a> {
    fn vfs(self) -> Option<&'a str> {
        match self {
            Self::Files => None,
            Self::Simulated(name) | Self::SimulatedUnsynced(name) => Some(name),
        }
    }
}

/// An open database; cheap to clone. When the last one is dropped, what waits is done, the threads
/// are joined and the right to the file is given back: that blocks for as long as a commit takes.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// `None` only while this is dropped.
    queues: Option<Queues>,
    readers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
    _right: Option<Right>,
}

struct Queues {
    jobs: mpsc::Sender<Box<dyn Job>>,
    reads: mpsc::Sender<Read>,
}

/// Why a database could not be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file beside the database cannot be used.
    #[error("cannot use database `{path}`")]
    Ground {
        /// The database's file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("database `{path}` is in use by another process; stop that one first")]
    InUse {
        /// The database's file.
        path: PathBuf,
    },
    /// It is a database of another kind, or no database at all.
    #[error("`{path}` is no {what} of Mainstay: {seen}; it was left as it is")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is there.
        seen: String,
    },
    /// A newer program wrote it.
    #[error(
        "database `{path}` has format {found}, this program reads up to format {newest}; \
         start the newer program that wrote it"
    )]
    Newer {
        /// The database's file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that is understood.
        newest: i64,
    },
    /// It is not as it was written.
    #[error(
        "database `{path}` is damaged: {damage}; it was left as it is. Put a good copy in its \
         place (a backup), or move it away with the files beside it"
    )]
    Damaged {
        /// The database's file.
        path: PathBuf,
        /// What is wrong with it.
        damage: String,
    },
    /// SQLite does not keep commits as it must here.
    #[error("database `{path}` cannot promise that commits survive: `{setting}` is `{value}`")]
    Unsafe {
        /// The database's file.
        path: PathBuf,
        /// The setting.
        setting: &'static str,
        /// What it is.
        value: String,
    },
    /// SQLite or the disk refuses.
    #[error("cannot open database `{path}`")]
    Refused {
        /// The database's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Failure,
    },
}

impl Database {
    /// Opens the database at `path`, made if it is missing, with its directory. Blocks for as long
    /// as the disk takes to check it.
    pub fn open(path: &Path, kind: &Kind) -> Result<Self, OpenError> {
        Self::open_on(Medium::Files, path, kind)
    }

    /// Opens a database that is on a medium of any kind.
    pub fn open_on(medium: Medium<'_>, path: &Path, kind: &Kind) -> Result<Self, OpenError> {
        let right = match medium {
            Medium::Files => Some(stand_on(path)?),
            Medium::Simulated(_) | Medium::SimulatedUnsynced(_) => None,
        };
        let opening = Opening { medium, path, kind };
        let writer = opening.writer()?;
        let readers = (0..READERS).map(|_| opening.reader());
        let readers = readers.collect::<Result<Vec<_>, _>>()?;
        let (jobs, waiting_jobs) = mpsc::channel(JOBS_WAITING_MAX);
        let (reads, waiting_reads) = mpsc::channel(READS_WAITING_MAX);
        let ground = |source| OpenError::Ground {
            path: path.to_owned(),
            source,
        };
        let readers = reader::start(readers, waiting_reads).map_err(ground)?;
        let writer = writer::start(path.to_owned(), writer, waiting_jobs).map_err(ground)?;
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                queues: Some(Queues { jobs, reads }),
                readers,
                writer: Some(writer),
                _right: right,
            }),
        })
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Does `job` in a transaction. `Ok`: it is durable. `Err`: nothing of it is there, see
    /// [`Failure`]. Whoever stops waiting does not stop the job.
    pub async fn write<T, R, W>(&self, job: W) -> Result<T, JobError<R>>
    where
        T: Send + 'static,
        R: Send + 'static,
        W: FnOnce(&Connection) -> Result<T, Abort<R>> + Send + 'static,
    {
        self.write_and_note(job, |_| ()).await
    }

    /// As [`Database::write`]; `noted` is called by the writer once the job is durable, even when
    /// nobody waits any more, in the order of the jobs. It must not block.
    pub async fn write_and_note<T, R, W, N>(&self, job: W, noted: N) -> Result<T, JobError<R>>
    where
        T: Send + 'static,
        R: Send + 'static,
        W: FnOnce(&Connection) -> Result<T, Abort<R>> + Send + 'static,
        N: FnOnce(&T) + Send + 'static,
    {
        let (answer, outcome) = oneshot::channel();
        let pending = Pending::new(self.inner.path.clone(), job, noted, answer);
        let queues = self.queues()?;
        queues
            .jobs
            .send(Box::new(pending))
            .await
            .map_err(|_| self.closed())?;
        outcome.await.map_err(|_| self.closed())?
    }

    /// Reads with `job` what was committed, on a connection that cannot write.
    pub async fn read<T, J>(&self, job: J) -> Result<T, Failure>
    where
        T: Send + 'static,
        J: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let path = self.inner.path.clone();
        let read = self.lend(move |connection| {
            // One transaction: all statements of the job see the same moment.
            let within = connection.unchecked_transaction()?;
            let seen = job(&within)?;
            within.finish()?;
            Ok(seen)
        });
        read.await?.map_err(|error| Failure::of(&path, error))
    }

    /// Copies the database to `target`, a new file, while it is in use.
    pub async fn backup(&self, target: &Path) -> Result<(), BackupError> {
        let target = target.to_owned();
        self.lend(move |connection| backup::copy(connection, &target))
            .await?
    }

    async fn lend<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (answer, outcome) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            // Whoever asked may have gone.
            let _ = answer.send(job(connection));
        });
        let queues = self.queues()?;
        queues.reads.send(read).await.map_err(|_| self.closed())?;
        outcome.await.map_err(|_| self.closed())
    }

    fn queues(&self) -> Result<&Queues, Failure> {
        self.inner.queues.as_ref().ok_or_else(|| self.closed())
    }

    fn closed(&self) -> Failure {
        Failure::Closed {
            path: self.inner.path.clone(),
        }
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(Queues { jobs, reads }) = self.queues.take() else {
            return;
        };
        // The writer goes last: only the last connection writes the log back and leaves one file,
        // and of two that go at the same time neither is.
        drop(reads);
        for reader in self.readers.drain(..) {
            // A panic in it has been printed, and its jobs were answered with `Closed`.
            let _ = reader.join();
        }
        drop(jobs);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Makes what the database stands on, and takes the right to it.
fn stand_on(path: &Path) -> Result<Right, OpenError> {
    let ground = |source| OpenError::Ground {
        path: path.to_owned(),
        source,
    };
    ground::make_directory(path).map_err(ground)?;
    let right = ground::take(path)
        .map_err(ground)?
        .ok_or_else(|| OpenError::InUse {
            path: path.to_owned(),
        })?;
    let log = beside(path, "-wal");
    if ground::len(path).map_err(ground)? == 0 && ground::len(&log).map_err(ground)? > 0 {
        // SQLite would take it for a new database, and remove the log with what was committed.
        return Err(OpenError::Damaged {
            path: path.to_owned(),
            damage: format!("it is missing or empty although `{}` is not", log.display()),
        });
    }
    ground::prepare(path).map_err(ground)?;
    Ok(right)
}

/// One opening of a database.
struct Opening<'a> {
    medium: Medium<'a>,
    path: &'a Path,
    kind: &'a Kind,
}

impl Opening<'_> {
    /// The connection that writes: the file is checked, brought to the newest format, and every
    /// commit on it is synced.
    fn writer(&self) -> Result<Connection, OpenError> {
        let connection = self.connect()?;
        let found = self.check(&connection)?;
        self.pragma(&connection, "journal_mode", "WAL", "wal")?;
        let (asked, expected) = match self.medium {
            Medium::Files | Medium::Simulated(_) => ("FULL", SYNCHRONOUS_FULL),
            Medium::SimulatedUnsynced(_) => ("OFF", 0),
        };
        self.pragma(&connection, "synchronous", asked, &expected.to_string())?;
        let newest = self.kind.format();
        if found < newest {
            self.upgrade(&connection, found)
                .map_err(|error| self.refused(error))?;
        }
        Ok(connection)
    }

    fn reader(&self) -> Result<Connection, OpenError> {
        let connection = self.connect()?;
        connection
            .pragma_update(None, "query_only", true)
            .map_err(|error| self.refused(error))?;
        Ok(connection)
    }

    fn connect(&self) -> Result<Connection, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match self.medium.vfs() {
            None => Connection::open_with_flags(self.path, flags),
            Some(vfs) => Connection::open_with_flags_and_vfs(self.path, flags, vfs),
        };
        let connection = connection.map_err(|error| self.refused(error))?;
        connection
            .busy_timeout(BUSY_TIMEOUT)
            .and_then(|()| connection.pragma_update(None, "trusted_schema", false))
            .and_then(|()| connection.pragma_update(None, "cell_size_check", true))
            .map_err(|error| self.refused(error))?;
        Ok(connection)
    }

    /// Whether the file is ours and whole; gives its format. Nothing is written.
    fn check(&self, connection: &Connection) -> Result<i64, OpenError> {
        let refused = |error| self.refused(error);
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let id = number("application_id").map_err(refused)?;
        let found = number("user_version").map_err(refused)?;
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(refused)?;
        let path = self.path.to_owned();
        if id == 0 && found == 0 && tables == 0 {
            return Ok(0);
        }
        if id != i64::from(self.kind.application_id) {
            return Err(OpenError::Foreign {
                path,
                what: self.kind.what,
                seen: format!("it is a database with application id {id}"),
            });
        }
        let newest = self.kind.format();
        if found > newest {
            return Err(OpenError::Newer {
                path,
                found,
                newest,
            });
        }
        let damage = connection
            .pragma_query_value(None, "quick_check", |row| row.get::<_, String>(0))
            .map_err(refused)?;
        if damage != "ok" {
            return Err(OpenError::Damaged { path, damage });
        }
        Ok(found)
    }

    /// Brings the schema to the newest format: all of it, or nothing.
    fn upgrade(&self, connection: &Connection, found: i64) -> rusqlite::Result<()> {
        let upgrade = connection.unchecked_transaction()?;
        let done = usize::try_from(found).unwrap_or(0);
        for step in &self.kind.steps[done..] {
            upgrade.execute_batch(step)?;
        }
        upgrade.pragma_update(None, "application_id", self.kind.application_id)?;
        upgrade.pragma_update(None, "user_version", self.kind.format())?;
        upgrade.commit()
    }

    /// Sets a pragma and believes only what is read back.
    fn pragma(
        &self,
        connection: &Connection,
        name: &'static str,
        asked: &str,
        expected: &str,
    ) -> Result<(), OpenError> {
        let refused = |error| self.refused(error);
        connection
            .pragma_update(None, name, asked)
            .map_err(refused)?;
        let value = connection
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            .map_err(refused)?;
        let value = match value {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        };
        if value != expected {
            return Err(OpenError::Unsafe {
                path: self.path.to_owned(),
                setting: name,
                value,
            });
        }
        Ok(())
    }

    fn refused(&self, error: rusqlite::Error) -> OpenError {
        let path = self.path.to_owned();
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) {
            return OpenError::Foreign {
                path,
                what: self.kind.what,
                seen: "it is no database".to_owned(),
            };
        }
        match Failure::of(self.path, error) {
            Failure::Damaged { source, .. } => OpenError::Damaged {
                path,
                damage: source.to_string(),
            },
            source => OpenError::Refused { path, source },
        }
    }
}
