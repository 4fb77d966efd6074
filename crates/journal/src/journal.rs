//! The writing end.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, HostDisk};
use crate::error::{AppendError, OpenError, Step, SyncError};
use crate::format::{Content, HEADER_LEN, Header, Plain, RecordNumber, encode_record, record_len};
use crate::reader::{Outline, Record};
use crate::recovery::{Ending, Recovered, Spot, Visitor, Witness, recover, wipe};

/// A segment that is being made; it counts for nothing before it has its name.
const NEXT_FILE: &str = "next.segment";

/// A segment that was given up and waits to become the next one.
const SPARE_FILE: &str = "spare.segment";

/// The smallest segment that makes sense: a sector.
const SEGMENT_LEN_MIN: u64 = 512;

/// The largest: what an opening has to read again after a fault stays a matter of seconds.
const SEGMENT_LEN_MAX: u64 = 1024 * 1024 * 1024;

/// What a segment may be long.
pub(crate) const SEGMENT_LENS: std::ops::RangeInclusive<u64> = SEGMENT_LEN_MIN..=SEGMENT_LEN_MAX;

/// How much a journal may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The length of each segment's file in bytes; its room is reserved when it is begun.
    pub segment_len: u64,
    /// How many segments are kept, two at least. Before one more is begun the oldest is given up.
    pub segments_max: u32,
    /// How many bytes all kept segments may take. Two segments are kept whatever this says.
    pub bytes_max: u64,
    /// What becomes of a segment that is given up.
    pub retired: Retired,
}

/// What becomes of a segment that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
    /// It is removed. Who reads it at the moment reads on to its end.
    Remove,
    /// One is kept to be the next segment, so that at the limit no new room is needed and syncs do
    /// not wait for the file system to find some. Who reads it at the moment is told.
    Recycle,
}

impl Limits {
    /// The longest batch, with the heads of its records; see [`record_len`].
    pub fn batch_len_max(&self) -> u64 {
        self.segment_len - HEADER_LEN
    }

    fn check(&self) -> Result<(), OpenError> {
        if SEGMENT_LENS.contains(&self.segment_len) && self.segments_max >= 2 {
            Ok(())
        } else {
            Err(OpenError::Limits)
        }
    }
}

/// A log of records in the segments of one directory.
#[derive(Debug)]
pub struct Journal<D: Disk = HostDisk> {
    disk: Arc<D>,
    limits: Limits,
    /// Oldest first.
    sealed: VecDeque<Segment>,
    tail: Tail<D::File>,
    next: u64,
    /// The last record that is known to be durable.
    durable: u64,
    condition: Condition,
    ending: Ending,
    /// The bytes of a batch, kept to be used again.
    batch: Vec<u8>,
}

/// How much memory a batch may leave behind for the next one.
const BATCH_KEPT_MAX: usize = 4 * 1024 * 1024;

/// One file of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) sequence: u64,
    pub(crate) first: u64,
    pub(crate) salt: u64,
    /// The file's length, the room behind the last record included.
    pub(crate) len: u64,
}

/// The newest segment.
#[derive(Debug)]
pub(crate) struct Tail<F> {
    pub(crate) segment: Segment,
    pub(crate) file: F,
    /// Where the next record goes.
    pub(crate) end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// Behind the end of the newest segment there is nothing of this life of the file.
    Sound,
    /// A failed write may have left something there, up to `to`, which is to be got rid of before the next one.
    Torn { to: u64 },
    /// A sync failed: what is durable is not known.
    Poisoned,
}

/// What was appended, and is not durable yet.
#[must_use = "it is durable only when a sync that covers it returned"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The first record of the batch.
    pub first: RecordNumber,
    /// The last one.
    pub last: RecordNumber,
}

/// The proof of a sync: every record up to this one survives whatever happens. Only
/// [`Journal::sync`] and an opening give one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable(RecordNumber);

impl Durable {
    /// The last record that is durable; 0 if there is none.
    pub fn up_to(self) -> RecordNumber {
        self.0
    }

    /// Whether all of a batch is durable.
    pub fn covers(self, appended: Appended) -> bool {
        appended.last <= self.0
    }
}

impl Segment {
    pub(crate) fn name(sequence: u64) -> String {
        format!("{sequence:016}.segment")
    }

    pub(crate) fn header(&self) -> Header {
        Header {
            sequence: self.sequence,
            first: self.first,
            salt: self.salt,
        }
    }
}

impl<D: Disk> Journal<D> {
    /// Opens the journal of a directory, or begins one. `visit` is shown every record, the oldest
    /// first, so that who builds something from them need not read twice. All of them are durable
    /// when this returns.
    pub fn open(
        disk: Arc<D>,
        limits: Limits,
        visit: impl FnMut(Record<'_>),
    ) -> Result<Self, OpenError> {
        Self::open_with(disk, limits, Ending::Cut, &mut Visitor(visit))
    }

    /// Opens it and shows where each record is.
    pub(crate) fn open_with(
        disk: Arc<D>,
        limits: Limits,
        ending: Ending,
        witness: &mut dyn Witness,
    ) -> Result<Self, OpenError> {
        limits.check()?;
        let recovered = match recover(&*disk, ending, witness)? {
            Some(recovered) => recovered,
            None => begin(&*disk, &limits)?,
        };
        let Recovered { sealed, tail, next } = recovered;
        let mut journal = Self {
            disk,
            limits,
            sealed,
            tail,
            next,
            durable: next - 1,
            condition: Condition::Sound,
            ending,
            batch: Vec::new(),
        };
        journal.reserve();
        Ok(journal)
    }

    /// Appends a batch, all of it or nothing. It can be read at once, and is durable only after a
    /// [`Journal::sync`] that covers it.
    pub fn append<B: AsRef<[u8]>>(&mut self, bodies: &[B]) -> Result<Appended, AppendError> {
        let bodies: Vec<Plain<&[u8]>> = bodies.iter().map(|body| Plain(body.as_ref())).collect();
        let len = batch_len(&bodies);
        let len_max = self.limits.batch_len_max();
        if len > len_max {
            return Err(AppendError::TooLong { len, len_max });
        }
        self.make_sound()?;
        if self.tail.end + len > self.limits.segment_len.max(self.tail.segment.len) {
            self.roll()?;
        }
        let (appended, _) = self.append_here(&bodies)?;
        Ok(appended)
    }

    /// Appends a batch to the newest segment, in which there must be room; gives where its first record is.
    pub(crate) fn append_here(
        &mut self,
        bodies: &[impl Content],
    ) -> Result<(Appended, Spot), AppendError> {
        self.make_sound()?;
        if bodies.is_empty() {
            return Ok((self.nothing(), self.end_spot()));
        }
        let seed = self.tail.segment.header().seed();
        self.batch.clear();
        for (number, body) in (self.next..).zip(bodies) {
            encode_record(&mut self.batch, seed, number, self.durable, body);
        }
        let len = self.batch.len() as u64;
        let written = self
            .disk
            .write_at(&self.tail.file, self.tail.end, &self.batch);
        self.batch.clear();
        self.batch.shrink_to(BATCH_KEPT_MAX);
        if let Err(source) = written {
            let to = self.tail.end + len;
            self.condition = Condition::Torn { to };
            return Err(self.refused(Step::Write, source));
        }
        let spot = self.end_spot();
        let first = RecordNumber(self.next);
        self.tail.end += len;
        self.tail.segment.len = self.tail.segment.len.max(self.tail.end);
        self.next += bodies.len() as u64;
        let last = RecordNumber(self.next - 1);
        Ok((Appended { first, last }, spot))
    }

    fn end_spot(&self) -> Spot {
        Spot {
            sequence: self.tail.segment.sequence,
            at: self.tail.end,
            len: 0,
        }
    }

    fn nothing(&self) -> Appended {
        Appended {
            first: RecordNumber(self.next),
            last: RecordNumber(self.next - 1),
        }
    }

    /// Makes all that was appended durable.
    pub fn sync(&mut self) -> Result<Durable, SyncError> {
        if self.condition == Condition::Poisoned {
            let path = self.disk.path().to_owned();
            return Err(SyncError::Poisoned { path });
        }
        if self.durable + 1 < self.next {
            let synced = self.disk.sync(&self.tail.file);
            synced.map_err(|source| self.poisoned(Step::Sync, self.tail_path(), source))?;
            self.durable = self.next - 1;
        }
        Ok(Durable(RecordNumber(self.durable)))
    }

    /// Gives up the segments that hold nothing but records before `before`; the newest stays.
    pub fn release(&mut self, before: RecordNumber) -> Result<(), AppendError> {
        self.make_sound()?;
        while let Some(oldest) = self.sealed.front() {
            let next_first = self
                .sealed
                .get(1)
                .map_or(self.tail.segment.first, |next| next.first);
            if next_first > before.0 || oldest.first >= before.0 {
                break;
            }
            self.retire_oldest()?;
        }
        Ok(())
    }

    /// The record that the next append begins with.
    pub fn next(&self) -> RecordNumber {
        RecordNumber(self.next)
    }

    /// The last record that is durable.
    pub fn durable(&self) -> Durable {
        Durable(RecordNumber(self.durable))
    }

    /// The segments before the newest, the oldest first.
    pub(crate) fn sealed(&self) -> &VecDeque<Segment> {
        &self.sealed
    }

    /// The newest segment, and where its next record goes.
    pub(crate) fn newest(&self) -> (Segment, u64) {
        (self.tail.segment, self.tail.end)
    }

    /// What there is to read now.
    pub fn outline(&self) -> Outline<D> {
        let newest = std::iter::once(self.tail.segment);
        let segments = self.sealed.iter().copied().chain(newest).collect();
        Outline::new(self.disk.clone(), segments, self.next)
    }

    /// Cuts off what a failed write left. It must be gone durably before anything takes its place:
    /// else a power loss could bring a part of the one back behind the other.
    pub(crate) fn make_sound(&mut self) -> Result<(), AppendError> {
        let to = match self.condition {
            Condition::Sound => return Ok(()),
            Condition::Poisoned => {
                let path = self.disk.path().to_owned();
                return Err(SyncError::Poisoned { path }.into());
            }
            Condition::Torn { to } => to,
        };
        let (file, end) = (&self.tail.file, self.tail.end);
        let cut = match self.ending {
            Ending::Cut => self.disk.set_len(file, end),
            Ending::Wiped => wipe(&*self.disk, file, end, to),
        };
        cut.map_err(|source| self.refused(Step::Truncate, source))?;
        let synced = self.disk.sync(&self.tail.file);
        synced.map_err(|source| self.poisoned(Step::Sync, self.tail_path(), source))?;
        self.durable = self.next - 1;
        self.condition = Condition::Sound;
        if self.ending == Ending::Cut {
            self.tail.segment.len = self.tail.end;
            self.reserve();
        }
        Ok(())
    }

    /// Makes room again for what may still go into the newest segment. If there is none now, the
    /// append that needs it will say so.
    fn reserve(&mut self) {
        let (tail, len) = (&mut self.tail, self.limits.segment_len);
        if tail.segment.len < len && self.disk.reserve(&tail.file, len).is_ok() {
            tail.segment.len = len;
        }
    }

    /// Seals the newest segment and begins the next.
    fn roll(&mut self) -> Result<(), AppendError> {
        // Before the next one has its name: in a sealed segment nothing may be torn.
        self.sync()?;
        while self.is_at_limit() {
            self.retire_oldest()?;
        }
        let next = Segment {
            sequence: self.tail.segment.sequence + 1,
            first: self.next,
            salt: draw_salt(),
            len: self.limits.segment_len,
        };
        let made = make(&*self.disk, &next);
        self.seal(made)
    }

    /// Seals the newest segment, and begins the next with a file that is there, whatever is in it.
    pub(crate) fn roll_into(&mut self, name: &str) -> Result<(), AppendError> {
        self.make_sound()?;
        self.sync()?;
        let next = Segment {
            sequence: self.tail.segment.sequence + 1,
            first: self.next,
            salt: draw_salt(),
            len: 0,
        };
        let path = self.disk.path().join(name);
        let opened = self.disk.open(name).and_then(|file| {
            let missing = || io::Error::from(io::ErrorKind::NotFound);
            file.ok_or_else(missing)
        });
        let made = opened
            .map_err(refusal(Step::Open, &path))
            .and_then(|file| christen(&*self.disk, name, file, &next));
        self.seal(made)
    }

    fn seal(&mut self, made: Result<Tail<D::File>, Refusal>) -> Result<(), AppendError> {
        let tail = made.map_err(|refusal| self.not_made(refusal))?;
        let sealed = std::mem::replace(&mut self.tail, tail);
        self.sealed.push_back(sealed.segment);
        Ok(())
    }

    /// Whether one more segment is too much while there is an older one to give up.
    fn is_at_limit(&self) -> bool {
        let sealed: u64 = self.sealed.iter().map(|segment| segment.len).sum();
        let bytes = sealed + self.tail.segment.len + self.limits.segment_len;
        let segments = self.sealed.len() as u64 + 2;
        let too_much =
            bytes > self.limits.bytes_max || segments > u64::from(self.limits.segments_max);
        too_much && !self.sealed.is_empty()
    }

    fn retire_oldest(&mut self) -> Result<(), AppendError> {
        let recycle = match self.limits.retired {
            Retired::Remove => false,
            Retired::Recycle => matches!(self.disk.open(SPARE_FILE), Ok(None)),
        };
        self.retire_oldest_as(recycle.then_some(SPARE_FILE))
    }

    /// Gives up the oldest sealed segment: its file gets another name, or is removed.
    pub(crate) fn retire_oldest_as(&mut self, new_name: Option<&str>) -> Result<(), AppendError> {
        let Some(oldest) = self.sealed.front() else {
            return Ok(());
        };
        let name = Segment::name(oldest.sequence);
        let retired = match new_name {
            Some(new_name) => self.disk.rename(&name, new_name),
            None => self.disk.remove(&name),
        };
        retired.map_err(|source| {
            let path = self.disk.path().join(&name);
            let step = Step::Retire;
            AppendError::Disk { step, path, source }
        })?;
        self.sealed.pop_front();
        // One at a time: were the second gone and the first not, one would be missing in between.
        // And a spare must not be written to while a power loss could give it its old name back.
        let synced = self.disk.sync_dir();
        synced.map_err(|source| {
            let path = self.disk.path().to_owned();
            self.poisoned(Step::SyncDirectory, path, source)
        })?;
        Ok(())
    }

    fn not_made(&mut self, refusal: Refusal) -> AppendError {
        let Refusal { step, path, source } = refusal;
        match step {
            Step::Sync | Step::SyncDirectory => self.poisoned(step, path, source).into(),
            Step::List
            | Step::Open
            | Step::Read
            | Step::Create
            | Step::Write
            | Step::Truncate
            | Step::Rename
            | Step::Retire
            | Step::Remove => AppendError::Disk { step, path, source },
        }
    }

    fn tail_path(&self) -> PathBuf {
        self.disk
            .path()
            .join(Segment::name(self.tail.segment.sequence))
    }

    fn refused(&self, step: Step, source: io::Error) -> AppendError {
        let path = self.tail_path();
        AppendError::Disk { step, path, source }
    }

    fn poisoned(&mut self, step: Step, path: PathBuf, source: io::Error) -> SyncError {
        self.condition = Condition::Poisoned;
        SyncError::Disk { step, path, source }
    }
}

/// A step of making a segment that the disk refused.
struct Refusal {
    step: Step,
    path: PathBuf,
    source: io::Error,
}

fn refusal(step: Step, path: &Path) -> impl FnOnce(io::Error) -> Refusal {
    let path = path.to_owned();
    move |source| Refusal { step, path, source }
}

/// Begins a journal with its first segment.
fn begin<D: Disk>(disk: &D, limits: &Limits) -> Result<Recovered<D::File>, OpenError> {
    let segment = Segment {
        sequence: 1,
        first: 1,
        salt: draw_salt(),
        len: limits.segment_len,
    };
    let made = make(disk, &segment);
    let tail =
        made.map_err(|Refusal { step, path, source }| OpenError::Disk { step, path, source })?;
    Ok(Recovered {
        sealed: VecDeque::new(),
        tail,
        next: 1,
    })
}

/// Makes a segment with room for all its records, from the spare one if there is one. It gets its
/// name when its header is durable, so that a file with such a name always has one.
fn make<D: Disk>(disk: &D, segment: &Segment) -> Result<Tail<D::File>, Refusal> {
    let spare_path = disk.path().join(SPARE_FILE);
    let spare = disk.open(SPARE_FILE);
    let spare = spare.map_err(refusal(Step::Open, &spare_path))?;
    let (from, file) = if let Some(file) = spare {
        (SPARE_FILE, file)
    } else {
        let path = disk.path().join(NEXT_FILE);
        let created = disk.create(NEXT_FILE);
        (NEXT_FILE, created.map_err(refusal(Step::Create, &path))?)
    };
    let path = disk.path().join(from);
    let reserved = disk.reserve(&file, segment.len);
    if reserved.is_err() && from == NEXT_FILE {
        // Gives back what it got. Where even that fails the next attempt empties it.
        disk.remove(NEXT_FILE).ok();
    }
    reserved.map_err(refusal(Step::Create, &path))?;
    christen(disk, from, file, segment)
}

/// Makes a file a segment: writes its header, and gives it its name.
fn christen<D: Disk>(
    disk: &D,
    from: &str,
    file: D::File,
    segment: &Segment,
) -> Result<Tail<D::File>, Refusal> {
    let path = disk.path().join(from);
    let len = disk.len(&file).map_err(refusal(Step::Read, &path))?;
    let written = disk.write_at(&file, 0, &segment.header().encode());
    written.map_err(refusal(Step::Write, &path))?;
    disk.sync(&file).map_err(refusal(Step::Sync, &path))?;
    let renamed = disk.rename(from, &Segment::name(segment.sequence));
    renamed.map_err(refusal(Step::Rename, &path))?;
    let synced = disk.sync_dir();
    synced.map_err(refusal(Step::SyncDirectory, disk.path()))?;
    Ok(Tail {
        segment: Segment { len, ..*segment },
        file,
        end: HEADER_LEN,
    })
}

/// How long a batch becomes.
pub(crate) fn batch_len(bodies: &[impl Content]) -> u64 {
    bodies.iter().map(|body| record_len(body.len())).sum()
}

/// A number that nobody who chooses the records' bodies can know.
fn draw_salt() -> u64 {
    RandomState::new().hash_one(0_u64)
}
