//! What a database stands on: a directory for its owner alone, a file, and the right to it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The exclusive right to a database, for as long as this lives. The kernel takes it back when the
/// process ends, however it ends.
///
/// The lock is on a file of its own: POSIX drops the locks that SQLite holds on the database as
/// soon as anybody in the process closes another descriptor of that file.
#[derive(Debug)]
pub(crate) struct Right {
    _lock: File,
}

/// `path` with `suffix` at its end, as SQLite names what is beside a database.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The directory of `path`.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Makes the directory of `path`, with mode 0700, if it is missing.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    let directory = directory_of(path);
    if directory.exists() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    sync_directory(directory_of(directory))
}

/// Takes the right to `path`; `None`: somebody else has it.
pub(crate) fn take(path: &Path) -> io::Result<Option<Right>> {
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside(path, ".lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(Right { _lock: lock })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Makes an empty file with mode 0600 where none is, and restricts one that is there. SQLite gives
/// what it makes beside it the same mode. Its name is durable afterwards.
pub(crate) fn prepare(path: &Path) -> io::Result<()> {
    if path.exists() {
        let mode = fs::metadata(path)?.permissions().mode() & 0o777;
        if mode != 0o600 {
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
        }
        return Ok(());
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    sync_directory(directory_of(path))
}

/// Makes the names in `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The length of a file, 0 if there is none.
pub(crate) fn len(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(file) => Ok(file.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}
