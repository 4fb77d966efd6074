//! The writing end.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::contract::{BATCH_LEN_MAX, Body, Change, Found, MessageLimits, Ref, Room};
use super::error::AppendError;
use super::index::{Index, SegmentFile};
use super::places::{Places, Shared};
use super::planted::{Bug, Planted};
use super::reclaim::Reclaim;
use super::record::{Draft, FORGET_MAX};
use super::replay::Replay;
use super::room::Purpose;
use super::snapshot::{self, Snapshot};
use super::spares::{RESERVED, Spares, is_spare};
use crate::disk::{Disk, HostDisk};
use crate::error::{Damage, OpenError, Step, SyncError};
use crate::format::{Content as _, HEADER_LEN, record_len};
use crate::journal::{Appended, Durable, Journal, Limits, Retired, Segment, batch_len};
use crate::recovery::{Ending, Spot, damaged, path_of, refused, sequences, wipe};

/// The log of messages and definitions in one directory. One thread owns it.
pub struct MessageLog<D: Disk = HostDisk> {
    pub(super) disk: Arc<D>,
    pub(super) limits: MessageLimits,
    pub(super) journal: Journal<D>,
    pub(super) shared: Arc<Shared<D>>,
    /// Where the value of each definition is.
    pub(super) definitions: HashMap<Bytes, Spot>,
    pub(super) spares: Spares<D::File>,
    /// The oldest segment while what is needed of it is moved.
    pub(super) reclaim: Option<Reclaim<D::File>>,
    /// The newest segment of which the log says that it is not needed.
    pub(super) released: u64,
    /// How many bytes were appended since the last step of tidying.
    pub(super) untidied: u64,
    pub(super) planted: Planted,
}

impl<D: Disk> fmt::Debug for MessageLog<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("MessageLog");
        told.field("path", &self.disk.path());
        told.field("room", &self.room()).finish_non_exhaustive()
    }
}

impl<D: Disk> MessageLog<D> {
    /// Opens the log of a directory, or begins one. All that it finds is durable when this returns.
    /// Nothing is changed when it fails because of damage.
    pub fn open(disk: Arc<D>, limits: MessageLimits) -> Result<(Self, Found), OpenError> {
        limits.check()?;
        snapshot::refuse_unfinished(&*disk)?;
        let mut replay = Replay::default();
        let segments = Limits {
            segment_len: limits.segment_len,
            segments_max: u32::MAX,
            bytes_max: u64::MAX,
            retired: Retired::Remove,
        };
        refuse_without_segments(&*disk)?;
        let journal = Journal::open_with(disk.clone(), segments, Ending::Wiped, &mut replay)?;
        if journal.next().0 == 1 {
            write_through(&*disk, &journal.newest().0)?;
        }
        let mut index = Index::default();
        let mut end = 0;
        for segment in journal.sealed().iter().chain([&journal.newest().0]) {
            index.begin(open_to_read(&*disk, segment)?, end);
            end = replay.end(segment.sequence);
        }
        let released = replay.released();
        let (found, definitions) = replay.conclude(&mut index);
        let spares = Spares::open(&*disk, limits.segment_len)?;
        let shared = Arc::new(Shared::new(disk.clone(), index));
        let log = Self {
            disk,
            limits,
            journal,
            shared,
            definitions,
            spares,
            reclaim: None,
            released,
            untidied: 0,
            planted: Planted::default(),
        };
        Ok((log, found))
    }

    /// Appends a batch, all of it or nothing. It can be read at once, and is durable only after a
    /// [`MessageLog::sync`] that covers it. A batch in which there is a message or a definition needs
    /// room: it is refused whole when there is none.
    pub fn append(&mut self, changes: &[Change]) -> Result<Appended, AppendError> {
        let drafts = self.draft(changes)?;
        let len = batch_len(&drafts);
        if len > BATCH_LEN_MAX {
            let len_max = BATCH_LEN_MAX;
            return Err(AppendError::TooLong { len, len_max });
        }
        let keeps = |change: &Change| matches!(change, Change::Message { .. } | Change::Put { .. });
        let purpose = if changes.iter().any(keeps) && !self.planted.has(Bug::NoReserve) {
            Purpose::Keep
        } else {
            Purpose::Forget
        };
        self.make_room(len, purpose)?;
        let (appended, spot) = self.journal.append_here(&drafts)?;
        self.untidied += len;
        self.apply(drafts, spot);
        Ok(appended)
    }

    /// Makes all that was appended durable, by one sync at most.
    pub fn sync(&mut self) -> Result<Durable, SyncError> {
        if self.planted.has(Bug::ConfirmsUnsynced) {
            return Ok(self.journal.durable());
        }
        self.journal.sync()
    }

    /// Where messages are, for other threads.
    pub fn places(&self) -> Places<D> {
        Places::new(self.shared.clone())
    }

    /// How much room there is.
    pub fn room(&self) -> Room {
        Room {
            level: self.level(),
            on_disk: self.on_disk(),
            live: self.shared.index().live(),
            segments: self.journal.sealed().len() + 1,
        }
    }

    /// Whether there is anything before the newest segment: only of that can room come back.
    pub fn has_past(&self) -> bool {
        !self.journal.sealed().is_empty()
    }

    /// Whether a batch of so many bytes goes into the newest segment as it is: no file is made, opened or gone
    /// through for it.
    pub fn takes_at_once(&self, len: u64) -> bool {
        let oldest = self.journal.sealed().front().copied();
        self.spares.count() >= RESERVED
            && oldest.is_none_or(|oldest| self.spares.count_of(oldest.len) > 0)
            && self.fits(len)
    }

    /// What is in the log now, after a sync. Another thread can copy it while this one goes on.
    pub fn snapshot(&mut self) -> Result<Snapshot<D>, SyncError> {
        self.journal.sync()?;
        let (_, end) = self.journal.newest();
        Ok(Snapshot::of(self.disk.clone(), &self.shared.index(), end))
    }

    /// What is to be written for these changes.
    fn draft<'c>(&self, changes: &'c [Change]) -> Result<Vec<Draft<'c>>, AppendError> {
        let mut drafts = Vec::with_capacity(changes.len());
        let mut new = HashSet::new();
        for change in changes {
            match change {
                Change::Put { key, value } => drafts.push(Draft::Put {
                    key: key.clone(),
                    value: value.clone(),
                }),
                Change::Remove { key } => drafts.push(Draft::Remove { key: key.clone() }),
                Change::Message { refs, head, body } => {
                    self.admit(refs, &mut new)?;
                    drafts.push(Draft::Message {
                        refs: refs.into(),
                        head: head.clone(),
                        body: self.body(body)?,
                    });
                }
                Change::Forget(message) => {
                    // Of what is not there, nothing needs to be written.
                    if new.contains(message) || self.shared.index().get(*message).is_some() {
                        draft_forget(&mut drafts, *message);
                    }
                    if self.planted.has(Bug::ForgetsInMemory) {
                        self.shared.index_mut().forget(*message);
                        drafts.pop_if(|draft| matches!(draft, Draft::Forget { .. }));
                    }
                }
                Change::ForgetQueue(queue) => {
                    let of_new = new.iter().any(|message: &Ref| message.queue == *queue);
                    if of_new || self.shared.index().has_queue(*queue) {
                        drafts.push(Draft::ForgetQueue(*queue));
                    }
                }
            }
        }
        Ok(drafts)
    }

    /// Whether a message may have these places.
    fn admit(&self, refs: &[Ref], new: &mut HashSet<Ref>) -> Result<(), AppendError> {
        if refs.is_empty() {
            return Err(AppendError::NoQueue);
        }
        let index = self.shared.index();
        for message in refs {
            if !new.insert(*message) || index.get(*message).is_some() {
                return Err(AppendError::Taken(*message));
            }
        }
        Ok(())
    }

    fn body(&self, body: &Body) -> Result<Bytes, AppendError> {
        match body {
            Body::Here(bytes) => Ok(bytes.clone()),
            Body::Stored(message) => {
                let place = self.places().find(*message);
                let place = place.ok_or(AppendError::Unknown(*message))?;
                place.read().map_err(|source| AppendError::Disk {
                    step: Step::Read,
                    path: place.path(),
                    source,
                })
            }
        }
    }

    /// Tells the index of records that were written one behind the other from `start` on.
    fn apply(&mut self, drafts: Vec<Draft<'_>>, start: Spot) {
        let mut index = self.shared.index_mut();
        let mut at = start.at;
        for draft in drafts {
            let len = record_len(draft.len());
            let spot = Spot { at, len, ..start };
            at += len;
            match draft {
                Draft::Put { key, .. } => {
                    index.hold(spot);
                    if let Some(before) = self.definitions.insert(key, spot) {
                        index.let_go(before);
                    }
                }
                Draft::Remove { key } => {
                    if let Some(before) = self.definitions.remove(&key) {
                        index.let_go(before);
                    }
                }
                Draft::Message { refs, .. } => index.add(&refs, spot),
                Draft::Forget { queue, positions } => {
                    for position in positions {
                        index.forget(Ref { queue, position });
                    }
                }
                Draft::ForgetQueue(queue) => index.forget_queue(queue),
                Draft::Released { .. } => {}
            }
        }
    }
}

/// Writes zeros into the first segment, as into all that follow: in a file whose blocks were never
/// written each sync costs several times as much.
fn write_through<D: Disk>(disk: &D, segment: &Segment) -> Result<(), OpenError> {
    let path = path_of(disk, segment.sequence);
    let opened = disk.open(&Segment::name(segment.sequence));
    let Some(file) = opened.map_err(refused(path.clone(), Step::Open))? else {
        return Ok(());
    };
    let written = wipe(disk, &file, HEADER_LEN, segment.len);
    written.map_err(refused(path.clone(), Step::Write))?;
    disk.sync(&file).map_err(refused(path, Step::Sync))
}

/// Spares without a segment: the segments were lost, and the log is not begun anew in their place.
fn refuse_without_segments<D: Disk>(disk: &D) -> Result<(), OpenError> {
    let directory = disk.path().to_owned();
    let names = disk.list().map_err(refused(directory, Step::List))?;
    if sequences(disk)?.is_empty() && names.iter().any(|name| is_spare(name)) {
        return Err(damaged(disk, 1, 0, Damage::Missing));
    }
    Ok(())
}

/// One more message is forgotten: with the one before, if it is of the same queue.
fn draft_forget(drafts: &mut Vec<Draft<'_>>, message: Ref) {
    if let Some(Draft::Forget { queue, positions }) = drafts.last_mut()
        && *queue == message.queue
        && positions.len() < FORGET_MAX
    {
        positions.push(message.position);
        return;
    }
    drafts.push(Draft::Forget {
        queue: message.queue,
        positions: vec![message.position],
    });
}

/// Opens a segment for those who read bodies.
fn open_to_read<D: Disk>(disk: &D, segment: &Segment) -> Result<SegmentFile<D::File>, OpenError> {
    let path = path_of(disk, segment.sequence);
    let opened = disk.open(&Segment::name(segment.sequence));
    let file = opened.map_err(refused(path.clone(), Step::Open))?;
    let missing = OpenError::Damaged {
        path,
        offset: 0,
        damage: Damage::Missing,
    };
    Ok(SegmentFile {
        file: file.ok_or(missing)?,
        sequence: segment.sequence,
        seed: segment.header().seed(),
    })
}
