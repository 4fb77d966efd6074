//! The reading end.

use std::io;
use std::sync::Arc;

use crate::disk::{Disk, HostDisk};
use crate::error::{Damage, ReadError};
use crate::format::RecordNumber;
use crate::journal::Segment;
use crate::recovery::read_header;
use crate::walk::{Found, Walk};

/// What there was to read in a journal at one moment. It can be sent to other threads; reading
/// asks nothing of the one that writes.
#[derive(Debug)]
pub struct Outline<D: Disk = HostDisk> {
    disk: Arc<D>,
    segments: Arc<[Segment]>,
    next: u64,
}

impl<D: Disk> Clone for Outline<D> {
    fn clone(&self) -> Self {
        Self {
            disk: self.disk.clone(),
            segments: self.segments.clone(),
            next: self.next,
        }
    }
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'r> {
    /// Its number.
    pub number: RecordNumber,
    /// What was appended.
    pub body: &'r [u8],
}

impl<D: Disk> Outline<D> {
    pub(crate) fn new(disk: Arc<D>, segments: Arc<[Segment]>, next: u64) -> Self {
        Self {
            disk,
            segments,
            next,
        }
    }

    /// The oldest record that is kept, or the next one if there is none.
    pub fn first(&self) -> RecordNumber {
        RecordNumber(self.segments.first().map_or(self.next, |first| first.first))
    }

    /// The record behind the last one.
    pub fn next(&self) -> RecordNumber {
        RecordNumber(self.next)
    }

    /// The first record of each segment, the oldest first: from these a reader gets going at once.
    pub fn beginnings(&self) -> impl DoubleEndedIterator<Item = RecordNumber> + '_ {
        self.segments
            .iter()
            .map(|segment| RecordNumber(segment.first))
    }

    /// Reads from record `from` on, or from the oldest if that one is no longer kept, up to the
    /// last that there was.
    pub fn reader(&self, from: RecordNumber) -> Reader<D> {
        let from = from.max(self.first()).0;
        let behind = self
            .segments
            .partition_point(|segment| segment.first <= from);
        Reader {
            outline: self.clone(),
            segment: behind.saturating_sub(1),
            walk: None,
            from,
        }
    }
}

/// A place in a journal between two records.
#[derive(Debug)]
pub struct Reader<D: Disk = HostDisk> {
    outline: Outline<D>,
    /// Which of the outline's segments it is in.
    segment: usize,
    walk: Option<Walk<D::File>>,
    /// The next record to give.
    from: u64,
}

impl<D: Disk> Reader<D> {
    /// The next record; `None` behind the last.
    #[expect(
        clippy::should_implement_trait,
        reason = "a record borrows the reader's memory, which an iterator cannot express"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        if self.from >= self.outline.next {
            return Ok(None);
        }
        let disk = self.outline.disk.clone();
        let following = self.outline.segments.get(self.segment + 1);
        if following.is_some_and(|following| following.first <= self.from) {
            self.segment += 1;
            self.walk = None;
        }
        let place = Place {
            segment: self.outline.segments[self.segment],
            number: RecordNumber(self.from),
        };
        let walk = match self.walk.take() {
            Some(walk) => walk,
            None => place.enter(&*disk)?,
        };
        let walk = self.walk.insert(walk);
        while walk.number() < self.from {
            let at = walk.at();
            match walk
                .next(&*disk)
                .map_err(|source| place.refused(&*disk, source))?
            {
                Found::Record { .. } => {}
                Found::Nothing(damage) => return Err(place.unreadable(&*disk, at, damage)),
            }
        }
        let at = walk.at();
        match walk
            .next(&*disk)
            .map_err(|source| place.refused(&*disk, source))?
        {
            Found::Record { head, body } => {
                self.from += 1;
                let number = RecordNumber(head.number);
                Ok(Some(Record { number, body }))
            }
            Found::Nothing(damage) => Err(place.unreadable(&*disk, at, damage)),
        }
    }
}

/// What is being read.
struct Place {
    segment: Segment,
    number: RecordNumber,
}

impl Place {
    fn enter<D: Disk>(&self, disk: &D) -> Result<Walk<D::File>, ReadError> {
        let file = disk.open(&Segment::name(self.segment.sequence));
        let file = file.map_err(|source| self.refused(disk, source))?;
        let number = self.number;
        let Some(file) = file else {
            return Err(ReadError::Forgotten { number });
        };
        let read = read_header(disk, &file);
        let (len, header) = read.map_err(|source| self.refused(disk, source))?;
        match header {
            Ok(header) if header.salt == self.segment.salt => Ok(Walk::new(file, len, header)),
            // Another journal has taken the directory.
            Ok(_) => Err(ReadError::Forgotten { number }),
            Err(_) => Err(self.damaged(disk, 0, Damage::HeaderChecksum)),
        }
    }

    /// Why there is no record where one was: perhaps the segment was given up meanwhile, and the
    /// file is another one now.
    fn unreadable<D: Disk>(&self, disk: &D, offset: u64, damage: Damage) -> ReadError {
        match self.enter(disk) {
            Ok(_) => self.damaged(disk, offset, damage),
            Err(gone) => gone,
        }
    }

    fn damaged<D: Disk>(&self, disk: &D, offset: u64, damage: Damage) -> ReadError {
        let path = disk.path().join(Segment::name(self.segment.sequence));
        ReadError::Damaged {
            path,
            offset,
            damage,
        }
    }

    fn refused<D: Disk>(&self, disk: &D, source: io::Error) -> ReadError {
        let path = disk.path().join(Segment::name(self.segment.sequence));
        ReadError::Disk { path, source }
    }
}
