//! What can go wrong with a database that is open, in words that say what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::ffi;

/// Why a job was not done. Nothing of it is in the database, except perhaps after [`Failure::Io`]
/// at the commit itself: then it may be there after a restart. Later jobs work again as soon as
/// the cause is gone.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no room.
    #[error("no room on the disk of database `{path}`: No space left on device")]
    Full {
        /// The database's file.
        path: PathBuf,
    },
    /// It may not be written.
    #[error(
        "database `{path}` cannot be written: its file system or its permissions are read-only"
    )]
    ReadOnly {
        /// The database's file.
        path: PathBuf,
    },
    /// Another program has it locked for longer than the writer waits.
    #[error("database `{path}` is locked by another program, which must let go of it")]
    Busy {
        /// The database's file.
        path: PathBuf,
    },
    /// Its content is not as it was written.
    #[error("database `{path}` is damaged; stop the program and put a backup of it in its place")]
    Damaged {
        /// The database's file.
        path: PathBuf,
        /// What SQLite saw.
        #[source]
        source: rusqlite::Error,
    },
    /// The disk refused in another way.
    #[error("the disk of database `{path}` refuses")]
    Io {
        /// The database's file.
        path: PathBuf,
        /// What SQLite saw.
        #[source]
        source: rusqlite::Error,
    },
    /// A statement is wrong, or a rule of the schema was broken.
    #[error("database `{path}` refuses a statement")]
    Statement {
        /// The database's file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The thread that works on the database has ended.
    #[error("database `{path}` is being closed")]
    Closed {
        /// The database's file.
        path: PathBuf,
    },
}

impl Failure {
    /// What an error of SQLite on the database at `path` means.
    pub(crate) fn of(path: &Path, error: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let Some(code) = error.sqlite_error() else {
            return Self::Statement {
                path,
                source: error,
            };
        };
        match code.code {
            // The log's index is a file, too; SQLite has a code of its own for that it cannot grow.
            _ if code.extended_code == ffi::SQLITE_IOERR_SHMSIZE => Self::Full { path },
            ffi::ErrorCode::DiskFull => Self::Full { path },
            ffi::ErrorCode::ReadOnly => Self::ReadOnly { path },
            ffi::ErrorCode::DatabaseBusy | ffi::ErrorCode::DatabaseLocked => Self::Busy { path },
            ffi::ErrorCode::DatabaseCorrupt | ffi::ErrorCode::NotADatabase => Self::Damaged {
                path,
                source: error,
            },
            ffi::ErrorCode::SystemIoFailure | ffi::ErrorCode::CannotOpen => Self::Io {
                path,
                source: error,
            },
            _ => Self::Statement {
                path,
                source: error,
            },
        }
    }

    /// The same once more, for the others of the transaction that it ended.
    pub(crate) fn again(&self) -> Self {
        let copy = |source: &rusqlite::Error| match source {
            rusqlite::Error::SqliteFailure(code, text) => {
                rusqlite::Error::SqliteFailure(*code, text.clone())
            }
            other => rusqlite::Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_ERROR),
                Some(other.to_string()),
            ),
        };
        match self {
            Self::Full { path } => Self::Full { path: path.clone() },
            Self::ReadOnly { path } => Self::ReadOnly { path: path.clone() },
            Self::Busy { path } => Self::Busy { path: path.clone() },
            Self::Closed { path } => Self::Closed { path: path.clone() },
            Self::Damaged { path, source } => Self::Damaged {
                path: path.clone(),
                source: copy(source),
            },
            Self::Io { path, source } => Self::Io {
                path: path.clone(),
                source: copy(source),
            },
            Self::Statement { path, source } => Self::Statement {
                path: path.clone(),
                source: copy(source),
            },
        }
    }
}

/// How a job gives up; what it wrote is taken back, and the other jobs of its transaction go on.
#[derive(Debug)]
pub enum Abort<R> {
    /// For a reason of its own.
    Refused(R),
    /// A statement failed.
    Sql(rusqlite::Error),
}

impl<R> From<rusqlite::Error> for Abort<R> {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Why a job has no result.
#[derive(Debug)]
pub enum JobError<R> {
    /// It gave up for a reason of its own.
    Refused(R),
    /// The database could not do it.
    Failed(Failure),
}

impl<R: fmt::Display> fmt::Display for JobError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => reason.fmt(f),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl<R: std::error::Error> std::error::Error for JobError<R> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(reason) => reason.source(),
            Self::Failed(failure) => failure.source(),
        }
    }
}

impl<R> From<Failure> for JobError<R> {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
