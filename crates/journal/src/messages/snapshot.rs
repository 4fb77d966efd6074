//! A copy of the log while it is written.
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, HostDisk};
use crate::error::Step;

/// The segments of a log at one moment. While this lives none of them is written to again but
/// behind the end that it knows.
#[derive(Debug)]
pub struct Snapshot<D: Disk = HostDisk> {
    #[expect(dead_code, reason = "to come")]
    disk: Arc<D>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// How many files.
    pub segments: usize,
    /// How many bytes.
    pub bytes: u64,
}

/// Why a log was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There is a log already.
    #[error("`{path}` is not empty: a log is copied into an empty directory only")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The disk refused.
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

impl<D: Disk> Snapshot<D> {
    /// The segments, the oldest first.
    pub fn segments(&self) -> &[SnapshotSegment] {
        &self.segments
    }

    /// Fills `into` with what segment `index` has from byte `at` on; gives how much there was.
    pub fn read_at(&self, index: usize, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let _ = (index, at, into);
        todo!()
    }

    /// Copies all of it into an empty directory, durably: it opens as a log of its own.
    pub fn copy_to<T: Disk>(&self, target: &T) -> Result<Copied, CopyError> {
        let _ = target;
        todo!()
    }
}
