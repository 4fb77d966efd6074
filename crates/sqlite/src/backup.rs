//! A copy of a database that is in use.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::failure::Failure;
use crate::ground::{beside, directory_of, sync_directory};

/// Why there is no backup. There is no file of it either.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file exists.
    #[error("`{path}` exists already; a backup replaces no file: remove it or name another")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write backup `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The database cannot be copied.
    #[error("cannot copy the database to `{path}`")]
    Copy {
        /// The file of the backup.
        path: PathBuf,
        /// What SQLite saw.
        #[source]
        source: rusqlite::Error,
    },
    /// The database is not to be had.
    #[error(transparent)]
    Database(#[from] Failure),
}

/// Copies what `from` sees at one moment to `target`, one file with mode 0600 that is durable when
/// it has its name. Writers are not held up: they go on in the log.
pub(crate) fn copy(from: &Connection, target: &Path) -> Result<(), BackupError> {
    let path = target.to_owned();
    if target.exists() {
        return Err(BackupError::Exists { path });
    }
    let partial = beside(target, ".part");
    let copied = copy_to(from, &partial, target);
    if copied.is_err() {
        // What is there of it is of no use; the error that is told is the first.
        let _ = fs::remove_file(&partial);
    }
    copied
}

fn copy_to(from: &Connection, partial: &Path, target: &Path) -> Result<(), BackupError> {
    let write = |source| BackupError::Write {
        path: target.to_owned(),
        source,
    };
    let copy = |source| BackupError::Copy {
        path: target.to_owned(),
        source,
    };
    // Whatever an interrupted backup left.
    match fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(write(error)),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(partial)
        .map_err(write)?;
    let mut to = Connection::open(partial).map_err(copy)?;
    {
        let backup = Backup::new(from, &mut to).map_err(copy)?;
        // All pages in one step: a step that ends in between would begin anew after each write.
        match backup.step(-1).map_err(copy)? {
            StepResult::Done => {}
            _ => {
                return Err(copy(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                    None,
                )));
            }
        }
    }
    // One file that can be read without making others beside it.
    to.pragma_update(None, "journal_mode", "DELETE")
        .map_err(copy)?;
    to.close().map_err(|(_, error)| copy(error))?;
    File::open(partial)
        .and_then(|file| file.sync_all())
        .map_err(write)?;
    fs::rename(partial, target).map_err(write)?;
    sync_directory(directory_of(target)).map_err(write)
}
