//! The reading end.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::contract::Ref;
use super::index::{Index, SegmentFile};
use super::record::Entry;
use crate::disk::{Disk, HostDisk};
use crate::error::{Damage, ReadError};
use crate::format::Head;
use crate::journal::Segment;
use crate::recovery::Spot;

/// What both ends know.
pub(super) struct Shared<D: Disk> {
    pub(super) disk: Arc<D>,
    // Who reads bodies asks where they are without waiting for who writes: the lock is held while
    // memory changes, never while a disk works.
    index: RwLock<Index<D::File>>,
}

impl<D: Disk> Shared<D> {
    pub(super) fn new(disk: Arc<D>, index: Index<D::File>) -> Self {
        let index = RwLock::new(index);
        Self { disk, index }
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index<D::File>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index<D::File>> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where messages are, for any thread.
pub struct Places<D: Disk = HostDisk> {
    shared: Arc<Shared<D>>,
}

impl<D: Disk> Clone for Places<D> {
    fn clone(&self) -> Self {
        let shared = self.shared.clone();
        Self { shared }
    }
}

/// Where one message is. While this lives its segment is not written to again, whatever becomes of
/// the message: hold it to read, not to keep.
pub struct Place<D: Disk = HostDisk> {
    disk: Arc<D>,
    file: Arc<SegmentFile<D::File>>,
    spot: Spot,
}

impl<D: Disk> fmt::Debug for Places<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.shared.disk.path();
        let mut told = f.debug_struct("Places");
        told.field("path", &path).finish_non_exhaustive()
    }
}

impl<D: Disk> fmt::Debug for Place<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("Place");
        told.field("spot", &self.spot).finish_non_exhaustive()
    }
}

impl<D: Disk> Places<D> {
    pub(super) fn new(shared: Arc<Shared<D>>) -> Self {
        Self { shared }
    }

    /// Where a message is; `None`: it is not in the log.
    pub fn find(&self, message: Ref) -> Option<Place<D>> {
        let index = self.shared.index();
        let spot = index.get(message)?;
        Some(Place {
            disk: self.shared.disk.clone(),
            file: index.file(spot.sequence)?.clone(),
            spot,
        })
    }
}

impl<D: Disk> Place<D> {
    /// Reads the body from the disk and checks it. Blocks. What is not as it was written is an error
    /// that names file and place.
    pub fn read(&self) -> io::Result<Bytes> {
        let mut bytes = self.buffer()?;
        let read = self.disk.read_at(&self.file.file, self.spot.at, &mut bytes);
        bytes.truncate(read.map_err(|source| self.refused(source))?);
        self.checked(bytes)
    }

    /// Reads the body if that waits for no device, and checks it; `None`: [`Place::read`] may wait, or
    /// nobody knows whether it does.
    pub fn read_cached(&self) -> io::Result<Option<Bytes>> {
        let mut bytes = self.buffer()?;
        let read = self
            .disk
            .read_cached_at(&self.file.file, self.spot.at, &mut bytes);
        let Some(read) = read.map_err(|source| self.refused(source))? else {
            return Ok(None);
        };
        bytes.truncate(read);
        self.checked(bytes).map(Some)
    }

    /// Bytes that reading it brings: the body's and some more.
    pub fn record_len(&self) -> u64 {
        self.spot.len
    }

    fn buffer(&self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.spot.len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(vec![0; len])
    }

    fn refused(&self, source: io::Error) -> io::Error {
        let path = self.path();
        io::Error::new(source.kind(), ReadError::Disk { path, source })
    }

    fn checked(&self, record: Vec<u8>) -> io::Result<Bytes> {
        let bytes = Bytes::from(record);
        self.body_in(&bytes).ok_or_else(|| {
            let error = ReadError::Damaged {
                path: self.path(),
                offset: self.spot.at,
                damage: Damage::Unreadable,
            };
            io::Error::new(io::ErrorKind::InvalidData, error)
        })
    }

    fn body_in(&self, record: &Bytes) -> Option<Bytes> {
        let seed = self.file.seed;
        let (head, padded) = record.split_at_checked(24)?;
        let head = Head::decode(head.first_chunk()?, seed)?;
        let whole = head.record_len() == record.len() as u64 && seed.fits(&head, padded);
        let content = padded.get(..usize::try_from(head.body_len).ok()?)?;
        match Entry::decode(content)? {
            Entry::Message { body, .. } if whole => Some(record.slice_ref(body)),
            _ => None,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        let name = Segment::name(self.file.sequence);
        self.disk.path().join(name)
    }
}
