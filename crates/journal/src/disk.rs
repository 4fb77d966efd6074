//! The little that is asked of a file system, so that a simulation can stand in for it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, IoSliceMut, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// How much is written at a time where a file system cannot reserve room by itself.
const ZEROS_LEN: usize = 64 * 1024;

/// One directory of a file system that may lose power. Nothing is durable before it was synced:
/// a file's content and length by [`Disk::sync`], a file's creation, new name or removal by
/// [`Disk::sync_dir`]. Until then each may be present, absent or, for content, torn between
/// sectors of 512 bytes; [`Disk::rename`] alone is atomic. After a failed sync what was to be synced
/// may be lost although it can be read and a later sync succeeds: it must be written again.
pub trait Disk {
    /// An open file.
    type File;
    /// Where the directory is, for messages.
    fn path(&self) -> &Path;
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// The whole content of `name`, for small files; `None` if there is no such file.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Makes `name` an empty file, whatever it was.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens `name` for reading and writing; `None` if there is no such file.
    fn open(&self, name: &str) -> io::Result<Option<Self::File>>;
    /// The file's length in bytes.
    fn len(&self, file: &Self::File) -> io::Result<u64>;
    /// Fills `into` from byte `at` on; gives how much there was, less than asked for at the end only.
    fn read_at(&self, file: &Self::File, at: u64, into: &mut [u8]) -> io::Result<usize>;
    /// The same without waiting for a device: `None` if not all of it is in memory, or if nobody knows.
    fn read_cached_at(
        &self,
        file: &Self::File,
        at: u64,
        into: &mut [u8],
    ) -> io::Result<Option<usize>>;
    /// Writes all of `bytes` from byte `at` on. After an error a part of them may be written.
    fn write_at(&self, file: &Self::File, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file off at `len`, or lengthens it by zeros that need no room.
    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Lengthens the file to `len` by zeros, with room on the disk for all of it.
    fn reserve(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Makes the file's content and length durable.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Puts `from` in the place of `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes `name`.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the directory's names durable.
    fn sync_dir(&self) -> io::Result<()>;
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
        if !directory.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
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

    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is no text is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

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
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path.join(name))
    }

    fn open(&self, name: &str) -> io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        match options.read(true).write(true).open(self.path.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read_at(&self, file: &File, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match file.read_at(&mut into[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_cached_at(&self, file: &File, at: u64, into: &mut [u8]) -> io::Result<Option<usize>> {
        let mut filled = 0;
        while filled < into.len() {
            let mut rest = [IoSliceMut::new(&mut into[filled..])];
            match preadv2(file, &mut rest, at + filled as u64, ReadWriteFlags::NOWAIT) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                // The last two: a file system, or a kernel, that cannot say.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(filled))
    }

    fn write_at(&self, file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn reserve(&self, file: &File, len: u64) -> io::Result<()> {
        let now = self.len(file)?;
        if now >= len {
            return Ok(());
        }
        match fallocate(file, FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, now, len),
            reserved => reserved.map_err(io::Error::from),
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data() // the length, too: without it the content could not be found
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }
}

fn write_zeros(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_LEN];
    let mut at = from;
    while at < to {
        let len = usize::try_from(to - at).map_or(ZEROS_LEN, |left| left.min(ZEROS_LEN));
        file.write_all_at(&zeros[..len], at)?;
        at += len as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    #[test]
    fn the_machines_disk_does_what_the_simulated_one_does() {
        use crate::SimulatedDisk;
        let dir = TempDir::new("disk");
        let host = HostDisk::open(dir.path()).unwrap().unwrap();
        let simulated = SimulatedDisk::new(1);
        assert_eq!(exercise(&host), exercise(&simulated));
    }

    /// Does a little of everything; gives what can be seen of it.
    fn exercise<D: Disk>(disk: &D) -> Vec<String> {
        let mut seen = Vec::new();
        let file = disk.create("one").unwrap();
        disk.write_at(&file, 3, b"abcdef").unwrap();
        disk.reserve(&file, 20).unwrap();
        seen.push(format!("{:?}", disk.read("one").unwrap()));
        disk.set_len(&file, 5).unwrap();
        disk.reserve(&file, 4).unwrap();
        disk.sync(&file).unwrap();
        disk.rename("one", "two").unwrap();
        disk.sync_dir().unwrap();
        seen.push(format!("{:?}", disk.read("one").unwrap()));
        let file = disk.open("two").unwrap().unwrap();
        let mut into = [9; 4];
        seen.push(format!("{:?}", disk.read_at(&file, 2, &mut into).unwrap()));
        seen.push(format!("{into:?} of {}", disk.len(&file).unwrap()));
        disk.create("two").unwrap();
        seen.push(format!("{:?}", disk.read("two").unwrap()));
        disk.create("three").unwrap();
        disk.remove("two").unwrap();
        let missing = disk.remove("two").unwrap_err().kind();
        seen.push(format!("{missing:?} {:?}", disk.list().unwrap()));
        seen.push(format!("{}", disk.open("two").unwrap().is_none()));
        seen
    }

    #[test]
    fn where_room_cannot_be_reserved_zeros_are_written() {
        let dir = TempDir::new("zeros");
        let disk = HostDisk::open(dir.path()).unwrap().unwrap();
        let file = disk.create("file").unwrap();
        disk.write_at(&file, 0, b"abc").unwrap();
        write_zeros(&file, 3, 2 * ZEROS_LEN as u64 + 10).unwrap();
        let bytes = disk.read("file").unwrap().unwrap();
        assert_eq!(bytes.len(), 2 * ZEROS_LEN + 10);
        assert!(bytes.starts_with(b"abc\0") && bytes[3..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_directory_belongs_to_one_at_a_time() {
        let dir = TempDir::new("lock");
        let first = HostDisk::open(dir.path()).unwrap();
        assert!(first.is_some() && HostDisk::open(dir.path()).unwrap().is_none());
        drop(first);
        assert!(HostDisk::open(dir.path()).unwrap().is_some());
        fs::write(dir.join("file"), "in the way").unwrap();
        let error = HostDisk::open(&dir.join("file")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }
}
