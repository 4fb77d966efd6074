//! Room for what is appended.
//!
//! Three spares are wanted: the next segment, and two in reserve. When the disk gives no more, what
//! is new is refused while there are fewer than two. What is forgotten takes one of the two for its
//! segment; the other is for reclaiming alone:
//!
//! - What is needed of the oldest segment fits into the rest of the newest and one spare, since it
//!   came out of one file. Then the oldest becomes the spare. So whoever has one spare can reclaim any
//!   number of segments, one after the other, and still has one.
//! - Going once through all segments leaves nothing of what is not needed, acknowledgements among it. Those
//!   filled a segment since the reserve was touched, so as much is free then, if not in one piece: an
//!   acknowledgement fits into any piece of 100 bytes. So a log in which something was forgotten never
//!   stands still, as long as it has fewer segments than a hundredth of a segment's bytes: 160,000
//!   segments of 16 MiB.
//!
//! For this to hold every segment keeps [`SLACK`] for the record with which it is said that the oldest
//! one is not needed. A batch that is longer than a segment gets a file of twice that length, or four
//! times, and so on; as long as there is one, a spare of the same length is kept for it alone.

use super::contract::Level;
use super::error::AppendError;
use super::index::SegmentFile;
use super::log::MessageLog;
use super::spares::{RESERVED, TARGET};
use crate::disk::Disk;
use crate::error::{Damage, Step};
use crate::format::{HEADER_LEN, RECORD_HEAD_LEN};
use crate::journal::Segment;

/// What a record of a released segment takes.
pub(super) const SLACK: u64 = RECORD_HEAD_LEN + 16;

/// Five segments are made whatever the limit is: the newest, the spares, and the oldest.
const FILES_MIN: usize = TARGET + 2;

/// What is to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Messages and definitions.
    Keep,
    /// What makes room later.
    Forget,
}

impl<D: Disk> MessageLog<D> {
    pub(super) fn level(&self) -> Level {
        match self.spares.refusal() {
            None => Level::Plenty,
            Some(_) if self.spares.count() < RESERVED => Level::Full,
            Some(_) => Level::Low,
        }
    }

    pub(super) fn on_disk(&self) -> u64 {
        self.used_files() + self.spares.bytes()
    }

    /// The bytes of all segments' files.
    fn used_files(&self) -> u64 {
        let sealed = self.journal.sealed().iter();
        sealed.map(|segment| segment.len).sum::<u64>() + self.journal.newest().0.len
    }

    /// The bytes of all segments, without what is still free in the newest.
    pub(super) fn used(&self) -> u64 {
        let (newest, end) = self.journal.newest();
        self.used_files() - newest.len + end
    }

    /// Whether the newest segment has room for so many bytes, and for the record of a released one.
    pub(super) fn fits(&self, len: u64) -> bool {
        let (newest, end) = self.journal.newest();
        end + len + SLACK <= newest.len
    }

    /// Makes the newest segment one with room for `len` bytes.
    pub(super) fn make_room(&mut self, len: u64, purpose: Purpose) -> Result<(), AppendError> {
        self.journal.make_sound()?;
        match purpose {
            Purpose::Keep => self.make_room_to_keep(len),
            Purpose::Forget => self.make_room_to_forget(len),
        }
    }

    fn make_room_to_keep(&mut self, len: u64) -> Result<(), AppendError> {
        while self.spares.count() < RESERVED {
            self.make_spare(self.limits.segment_len)?;
        }
        self.keep_movable()?;
        if self.fits(len) {
            return Ok(());
        }
        let file_len = HEADER_LEN + len + SLACK;
        // Of a long one another is kept: what will be in it can be moved only into one that is as long.
        let is_long = file_len > self.limits.segment_len;
        let kept = if is_long { 1 } else { RESERVED };
        while self.spares.count_of(file_len) <= kept || self.spares.choose(file_len).is_none() {
            self.make_spare(file_len)?;
        }
        self.roll(file_len)
    }

    fn make_room_to_forget(&mut self, len: u64) -> Result<(), AppendError> {
        if let Err(refused) = self.keep_movable()
            && !self.fits(len)
        {
            return Err(refused);
        }
        let file_len = HEADER_LEN + len + SLACK;
        let mut segments = self.journal.sealed().len() + 2;
        while !self.fits(len) {
            let spares = self.spares.count();
            if spares >= RESERVED && self.spares.choose(file_len).is_some() {
                self.roll(file_len)?;
                continue;
            }
            let refused = match self.make_spare(file_len) {
                Ok(()) => continue,
                Err(refused) => refused,
            };
            if segments == 0 || self.journal.sealed().is_empty() {
                return Err(refused);
            }
            segments -= 1;
            self.reclaim_whole()?;
        }
        Ok(())
    }

    /// Sees to it that what is needed of the oldest segment has a place. It has none only while it moves into
    /// the newest: then nothing else may take the rest of that.
    fn keep_movable(&mut self) -> Result<(), AppendError> {
        let Some(oldest) = self.journal.sealed().front().copied() else {
            return Ok(());
        };
        if self.spares.count_of(oldest.len) > 0 {
            return Ok(());
        }
        match self.make_spare(oldest.len) {
            Err(AppendError::Full { .. }) => self.reclaim_whole(),
            made => made,
        }
    }

    /// Begins a segment for what is needed of the oldest one, as long as that one: all of it fits.
    pub(super) fn make_room_to_move(&mut self) -> Result<(), AppendError> {
        let file_len = self.journal.sealed().front().map_or(0, |oldest| oldest.len);
        if self.spares.choose(file_len).is_none() {
            self.make_spare(file_len)?;
        }
        self.roll(file_len)
    }

    /// The length of the longest segment's file.
    pub(super) fn longest(&self) -> u64 {
        let sealed = self.journal.sealed().iter();
        let longest = sealed.map(|segment| segment.len).max().unwrap_or(0);
        longest.max(self.journal.newest().0.len)
    }

    /// One more spare for segments of `len` bytes, at once.
    fn make_spare(&mut self, len: u64) -> Result<(), AppendError> {
        let len = self.spares.class(len);
        self.check_limit(len)?;
        self.spares.make_now(&*self.disk, len)
    }

    pub(super) fn check_limit(&mut self, len: u64) -> Result<(), AppendError> {
        let files = self.journal.sealed().len() + 1 + self.spares.count();
        if files < FILES_MIN || self.on_disk().saturating_add(len) <= self.limits.bytes_max {
            return Ok(());
        }
        self.spares.limit();
        let path = self.disk.path().to_owned();
        let source = None;
        Err(AppendError::Full { path, source })
    }

    /// Begins the next segment with a spare of at least `len` bytes.
    fn roll(&mut self, len: u64) -> Result<(), AppendError> {
        let Some(at) = self.spares.choose(len) else {
            let source = self
                .spares
                .refusal()
                .and_then(super::spares::Refusal::source);
            let path = self.disk.path().to_owned();
            return Err(AppendError::Full { path, source });
        };
        let name = self.spares.name(at).to_owned();
        let path = self.disk.path().join(&name);
        let (_, end) = self.journal.newest();
        // Before it is the newest: it must not be one that nobody can read.
        let opened = self.disk.open(&name).map_err(|source| {
            let (step, path) = (Step::Open, path.clone());
            AppendError::Disk { step, path, source }
        })?;
        let file = opened.ok_or(AppendError::Damaged {
            path,
            offset: 0,
            damage: Damage::Missing,
        })?;
        self.journal.roll_into(&name)?;
        self.spares.remove(at);
        let newest: Segment = self.journal.newest().0;
        let file = SegmentFile {
            file,
            sequence: newest.sequence,
            seed: newest.header().seed(),
        };
        self.shared.index_mut().begin(file, end);
        Ok(())
    }
}
