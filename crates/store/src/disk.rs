//! The little that is asked of a file system, so that a simulation can stand in for it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// One directory of a file system that may lose power. Nothing is durable before it was synced:
/// a file's content by [`Disk::sync`], a file's creation or new name by [`Disk::sync_dir`]. Until
/// then each may be present, absent or, for content, torn; [`Disk::rename`] alone is atomic.
pub trait Disk {
    /// A file that is open for writing.
    type File;
    /// The whole content of `name`; `None` if there is no such file.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Makes `name` an empty file, whatever it was.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Writes all of `bytes` at the file's end.
    fn write(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file's content durable.
    fn sync(&self, file: &mut Self::File) -> io::Result<()>;
    /// Puts `from` in the place of `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes the directory's names durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Where the directory is, for messages.
    fn path(&self) -> &Path;
}

/// A directory of the machine, locked for as long as this lives.
#[derive(Debug)]
pub struct HostDisk {
    path: PathBuf,
    directory: File,
}

impl HostDisk {
    /// Makes the directory if it is missing, for its owner alone, and locks it; the kernel lets go
    /// of the lock when the process ends, however it ends. `None`: somebody else holds the lock.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        if !path.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
                File::open(parent)?.sync_all()?;
            }
        }
        let directory = File::open(path)?;
        match directory.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let path = path.to_owned();
        Ok(Some(Self { path, directory }))
    }
}

impl Disk for HostDisk {
    type File = File;

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut file = match File::open(self.path.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path.join(name))
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &mut File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
