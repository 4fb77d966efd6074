//! Files that wait to become segments: written full of zeros and synced, or of an earlier life, so
//! that a sync of them later needs nothing of the file system but their own blocks.

use std::io;
use std::sync::Arc;

use super::error::AppendError;
use super::index::SegmentFile;
use crate::disk::Disk;
use crate::error::{OpenError, Step};
use crate::recovery::{refused, wipe};

/// A spare that is being made; it counts for nothing before it has its name.
const MAKING_FILE: &str = "making.segment";

/// How many are kept back when there is no room for another: one so that what is forgotten always
/// has a place, and one into which what is needed of the oldest segment moves, which then takes its
/// place. With these two a log that is full of what is needed still drains; see `room`.
pub(super) const RESERVED: usize = 2;

/// How many there are to be: those and the next segment.
pub(super) const TARGET: usize = RESERVED + 1;

/// The files that there are ready, and the one that is being made.
#[derive(Debug)]
pub(super) struct Spares<F> {
    /// The length of a usual segment.
    segment_len: u64,
    ready: Vec<Spare<F>>,
    making: Option<Making<F>>,
    /// Why there is no room for another.
    refusal: Option<Refusal>,
    /// The number in the name of the next one.
    number: u64,
}

#[derive(Debug)]
pub(super) struct Spare<F> {
    pub(super) name: String,
    pub(super) len: u64,
    /// Who reads its earlier life; until then it is not to be written to.
    read: Option<Arc<SegmentFile<F>>>,
}

#[derive(Debug)]
struct Making<F> {
    file: F,
    /// How much of it is written and synced.
    done: u64,
    len: u64,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refusal {
    Disk(io::ErrorKind),
    Limit,
}

impl Refusal {
    pub(super) fn source(self) -> Option<io::Error> {
        match self {
            Self::Disk(kind) => Some(kind.into()),
            Self::Limit => None,
        }
    }
}

impl<F> Spare<F> {
    fn is_free(&mut self) -> bool {
        self.read
            .as_mut()
            .is_none_or(|file| Arc::get_mut(file).is_some())
    }
}

impl<F> Spares<F> {
    /// Those that an earlier process left; what is too short, or was being made, is removed.
    pub(super) fn open<D: Disk<File = F>>(disk: &D, segment_len: u64) -> Result<Self, OpenError> {
        let mut spares = Self {
            segment_len,
            ready: Vec::new(),
            making: None,
            refusal: None,
            number: 1,
        };
        let directory = disk.path().to_owned();
        let mut names = disk.list().map_err(refused(directory, Step::List))?;
        names.sort();
        for name in names {
            let path = disk.path().join(&name);
            let Some(number) = number_of(&name) else {
                if name == MAKING_FILE {
                    disk.remove(&name).map_err(refused(path, Step::Remove))?;
                }
                continue;
            };
            spares.number = spares.number.max(number.saturating_add(1));
            let file = disk
                .open(&name)
                .map_err(refused(path.clone(), Step::Open))?;
            let Some(file) = file else { continue };
            let len = disk.len(&file).map_err(refused(path.clone(), Step::Read))?;
            if len < segment_len {
                disk.remove(&name).map_err(refused(path, Step::Remove))?;
            } else {
                let read = None;
                spares.ready.push(Spare { name, len, read });
            }
        }
        Ok(spares)
    }

    /// How many there are of the length of usual segments.
    pub(super) fn count(&self) -> usize {
        self.count_of(self.segment_len)
    }

    /// How many there are for segments of this length, read or not.
    pub(super) fn count_of(&self, len: u64) -> usize {
        let class = self.class(len);
        let alike = self
            .ready
            .iter()
            .filter(|spare| self.class(spare.len) == class);
        alike.count()
    }

    /// The length of files that segments of `len` bytes have: the usual one, or that times a power of
    /// two. So the file of a long segment that is not needed any more is a spare for the next long one.
    pub(super) fn class(&self, len: u64) -> u64 {
        let times = len.div_ceil(self.segment_len).max(1);
        self.segment_len.saturating_mul(times.next_power_of_two())
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    pub(super) fn bytes(&self) -> u64 {
        let making = self.making.as_ref().map_or(0, |making| making.len);
        self.ready.iter().map(|spare| spare.len).sum::<u64>() + making
    }

    /// One for a segment of `len` bytes that nobody reads: the one that was added last, since that was
    /// written to before.
    pub(super) fn choose(&mut self, len: u64) -> Option<usize> {
        let class = self.class(len);
        (0..self.ready.len())
            .rev()
            .find(|at| self.class(self.ready[*at].len) == class && self.ready[*at].is_free())
    }

    pub(super) fn name(&self, at: usize) -> &str {
        &self.ready[at].name
    }

    /// It has become a segment.
    pub(super) fn remove(&mut self, at: usize) {
        self.ready.remove(at);
    }

    /// The name of the next one.
    pub(super) fn next_name(&mut self) -> String {
        let name = format!("spare-{}.segment", self.number);
        self.number += 1;
        name
    }

    /// A segment was given up and has this name now.
    pub(super) fn add(&mut self, name: String, len: u64, read: Option<Arc<SegmentFile<F>>>) {
        let mut spare = Spare { name, len, read };
        if spare.is_free() {
            spare.read = None;
        }
        self.ready.push(spare);
        if self.count() >= TARGET {
            self.refusal = None;
        }
    }

    /// The log's own limit does not allow another one.
    pub(super) fn limit(&mut self) {
        self.refusal = Some(Refusal::Limit);
    }

    /// Goes on making a spare for usual segments: reserves its room, and writes it in pieces.
    pub(super) fn make_step<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        budget: u64,
    ) -> Result<(), AppendError> {
        let mut making = self.take_making(disk, self.segment_len)?;
        let to = making.len.min(making.done.saturating_add(budget.max(1)));
        let written = wipe(disk, &making.file, making.done, to);
        self.judge(disk, Step::Write, written)?;
        // In pieces, so that who waits for a sync of messages does not wait for all of it.
        let synced = disk.sync(&making.file);
        self.judge(disk, Step::Sync, synced)?;
        making.done = to;
        if to < making.len {
            self.making = Some(making);
            return Ok(());
        }
        self.finish(disk, making.len)
    }

    /// Makes a spare for segments of `len` bytes at once: its room is reserved, but not written.
    pub(super) fn make_now<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        len: u64,
    ) -> Result<(), AppendError> {
        let len = self.class(len);
        let making = self.take_making(disk, len)?;
        let reserved = disk.reserve(&making.file, len);
        self.judge(disk, Step::Create, reserved)?;
        let synced = disk.sync(&making.file);
        self.judge(disk, Step::Sync, synced)?;
        self.finish(disk, making.len.max(len))
    }

    /// Removes those that are longer than any segment is.
    pub(super) fn remove_longer_than<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        len: u64,
    ) -> Result<(), AppendError> {
        let class = self.class(len);
        while let Some(at) = self
            .ready
            .iter()
            .position(|spare| self.class(spare.len) > class)
        {
            let removed = disk.remove(&self.ready[at].name);
            removed.map_err(|source| at_file(disk, &self.ready[at].name, Step::Remove, source))?;
            self.ready.remove(at);
        }
        Ok(())
    }

    fn take_making<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        len: u64,
    ) -> Result<Making<F>, AppendError> {
        if let Some(making) = self.making.take() {
            return Ok(making);
        }
        let created = disk.create(MAKING_FILE);
        let file = self.judge(disk, Step::Create, created)?;
        // All at once, so that a disk that is full says so before anything is written.
        let reserved = disk.reserve(&file, len);
        self.judge(disk, Step::Create, reserved)?;
        let done = 0;
        Ok(Making { file, done, len })
    }

    fn finish<D: Disk<File = F>>(&mut self, disk: &D, len: u64) -> Result<(), AppendError> {
        let name = self.next_name();
        let renamed = disk.rename(MAKING_FILE, &name);
        self.judge(disk, Step::Rename, renamed)?;
        self.ready.push(Spare {
            name,
            len,
            read: None,
        });
        self.refusal = None;
        // When this does not last the next opening finds it under its old name and removes it.
        let synced = disk.sync_dir();
        synced.map_err(|source| AppendError::Disk {
            step: Step::SyncDirectory,
            path: disk.path().to_owned(),
            source,
        })
    }

    /// What a step of making one came to. A full disk gets its room back.
    fn judge<D: Disk<File = F>, T>(
        &mut self,
        disk: &D,
        step: Step,
        done: io::Result<T>,
    ) -> Result<T, AppendError> {
        done.map_err(|source| {
            self.making = None;
            // Where even that fails the next attempt empties it.
            disk.remove(MAKING_FILE).ok();
            let kind = source.kind();
            if matches!(
                kind,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) {
                self.refusal = Some(Refusal::Disk(kind));
                let path = disk.path().to_owned();
                let source = Some(source);
                return AppendError::Full { path, source };
            }
            at_file(disk, MAKING_FILE, step, source)
        })
    }
}

fn at_file<D: Disk>(disk: &D, name: &str, step: Step, source: io::Error) -> AppendError {
    let path = disk.path().join(name);
    AppendError::Disk { step, path, source }
}

/// Whether a file of this name is a spare.
pub(super) fn is_spare(name: &str) -> bool {
    number_of(name).is_some()
}

fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix("spare-")?.strip_suffix(".segment")?;
    number.parse().ok()
}
