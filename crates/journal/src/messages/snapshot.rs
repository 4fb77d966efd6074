//! A copy of the log while it is written.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use super::index::{Index, SegmentFile};
use crate::disk::{Disk, HostDisk};
use crate::error::{OpenError, Step};
use crate::journal::Segment;
use crate::recovery::refused;

/// Is there for as long as a copy is not whole. Without it a copy of which the newest segments are missing
/// would pass for a log that ends there.
const UNFINISHED_FILE: &str = "unfinished.copy";

/// How much is copied at a time, and synced before more is: what others wait for behind it is no more than that.
const CHUNK_LEN: usize = 1024 * 1024;

/// The segments of a log at one moment. While this lives none of them is written to again but
/// behind the end that it knows, and their files take room even when the log does not need them any more.
pub struct Snapshot<D: Disk = HostDisk> {
    disk: Arc<D>,
    files: Vec<Arc<SegmentFile<D::File>>>,
    segments: Vec<SnapshotSegment>,
}

/// A segment's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSegment {
    /// Its name in the directory.
    pub name: String,
    /// How much of it belongs to the snapshot.
    pub len: u64,
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// How many files.
    pub segments: usize,
    /// How many bytes.
    pub bytes: u64,
}

/// Why a log was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There is something already.
    #[error("`{path}` is not empty: a log is copied into an empty directory only")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Nobody wants the rest.
    #[error("the copy to `{path}` was broken off")]
    BrokenOff {
        /// The directory.
        path: PathBuf,
    },
    /// A disk refused.
    #[error("cannot copy the log: cannot {step} `{path}`")]
    Disk {
        /// What was attempted.
        step: Step,
        /// On which file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

impl<D: Disk> fmt::Debug for Snapshot<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("Snapshot");
        told.field("segments", &self.segments)
            .finish_non_exhaustive()
    }
}

impl<D: Disk> Snapshot<D> {
    /// All segments, of which the newest ends at `end`.
    pub(super) fn of(disk: Arc<D>, index: &Index<D::File>, end: u64) -> Self {
        let volumes = index.volumes();
        let files: Vec<_> = volumes.iter().map(|volume| volume.file.clone()).collect();
        let segments = volumes.iter().map(|volume| SnapshotSegment {
            name: Segment::name(volume.file.sequence),
            len: volume.end,
        });
        let mut segments: Vec<_> = segments.collect();
        if let Some(newest) = segments.last_mut() {
            newest.len = end;
        }
        Self {
            disk,
            files,
            segments,
        }
    }

    /// The segments, the oldest first.
    pub fn segments(&self) -> &[SnapshotSegment] {
        &self.segments
    }

    /// How many bytes all of them have.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// Fills `into` with what segment `index` of [`Snapshot::segments`] has from byte `at` on; gives how
    /// much there was. Blocks.
    pub fn read_at(&self, index: usize, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let (Some(file), Some(segment)) = (self.files.get(index), self.segments.get(index)) else {
            return Ok(0);
        };
        let left = segment.len.saturating_sub(at);
        let len = usize::try_from(left).map_or(into.len(), |left| left.min(into.len()));
        self.disk.read_at(&file.file, at, &mut into[..len])
    }

    /// Copies all of it into an empty directory, durably: it opens as a log of its own. Blocks.
    pub fn copy_to<T: Disk>(&self, target: &T) -> Result<Copied, CopyError> {
        self.copy_at_pace(target, |_| ControlFlow::Continue(()))
    }

    /// As [`Snapshot::copy_to`], for who has others wait for the same disk, or for whom the copy may become needless:
    /// `pace` is called when so many bytes more are on disk, and may take its time. What was copied by the end of an
    /// error is of no use, and does not open.
    pub fn copy_at_pace<T: Disk>(
        &self,
        target: &T,
        mut pace: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Copied, CopyError> {
        let path = target.path().to_owned();
        let names = target.list().map_err(refused_at(target, "", Step::List))?;
        if !names.is_empty() {
            return Err(CopyError::NotEmpty { path });
        }
        let created = target.create(UNFINISHED_FILE);
        created.map_err(refused_at(target, UNFINISHED_FILE, Step::Create))?;
        let sync_dir = || {
            let synced = target.sync_dir();
            synced.map_err(refused_at(target, "", Step::SyncDirectory))
        };
        sync_dir()?;
        let mut copied = Copied::default();
        for index in 0..self.segments.len() {
            copied.bytes += self.copy_segment(index, target, &mut pace)?;
            copied.segments += 1;
        }
        sync_dir()?;
        let removed = target.remove(UNFINISHED_FILE);
        removed.map_err(refused_at(target, UNFINISHED_FILE, Step::Remove))?;
        sync_dir()?;
        Ok(copied)
    }

    fn copy_segment<T: Disk>(
        &self,
        index: usize,
        target: &T,
        pace: &mut impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<u64, CopyError> {
        let SnapshotSegment { name, len } = &self.segments[index];
        let file = target.create(name);
        let file = file.map_err(refused_at(target, name, Step::Create))?;
        let mut bytes = vec![0; CHUNK_LEN];
        let mut at = 0;
        while at < *len {
            let read = self.read_at(index, at, &mut bytes);
            let read = read.map_err(refused_at(&*self.disk, name, Step::Read))?;
            if read == 0 {
                let short = io::ErrorKind::UnexpectedEof.into();
                return Err(refused_at(&*self.disk, name, Step::Read)(short));
            }
            let written = target.write_at(&file, at, &bytes[..read]);
            written.map_err(refused_at(target, name, Step::Write))?;
            let synced = target.sync(&file);
            synced.map_err(refused_at(target, name, Step::Sync))?;
            at += read as u64;
            if pace(read as u64).is_break() {
                let path = target.path().to_owned();
                return Err(CopyError::BrokenOff { path });
            }
        }
        Ok(*len)
    }
}

fn refused_at<T: Disk>(
    disk: &T,
    name: &str,
    step: Step,
) -> impl FnOnce(io::Error) -> CopyError + use<T> {
    let path = disk.path().join(name);
    move |source| CopyError::Disk { step, path, source }
}

/// Refuses a copy that is not whole.
pub(super) fn refuse_unfinished<D: Disk>(disk: &D) -> Result<(), OpenError> {
    let path = disk.path().join(UNFINISHED_FILE);
    let found = disk.open(UNFINISHED_FILE);
    match found.map_err(refused(path.clone(), Step::Open))? {
        Some(_) => Err(OpenError::Unfinished { path }),
        None => Ok(()),
    }
}
