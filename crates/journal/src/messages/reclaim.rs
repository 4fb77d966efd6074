//! Room that is needed no longer.
//!
//! The oldest segment is walked through; what is needed of it is appended again, and then its file is
//! a spare. No other is ever given up: a message is never younger than what says that it is
//! forgotten, so of acknowledgements in the oldest segment nothing needs to be kept.
//!
//! In which order: the records that moved, and the one that says that the segment is not needed any
//! more; a sync, which makes durable, too, what was forgotten and is not moved for that reason; then
//! the segment's name goes, durably, before its file is written to.
//!
//! What that costs: it begins when the segments take more than twice what is needed and two segments, so
//! going through all of them moves at most what is needed, less than what it frees, and for each byte that is
//! appended at most one is moved and two are read. When there is no room it begins when an eighth is not needed:
//! seven bytes moved for one.

use super::contract::{Level, Ref, Tidied};
use super::error::AppendError;
use super::log::MessageLog;
use super::planted::Bug;
use super::record::{Draft, Entry};
use super::spares::TARGET;
use crate::disk::Disk;
use crate::error::{Damage, Step};
use crate::format::{Content as _, record_len};
use crate::journal::Segment;
use crate::recovery::{Spot, path_of};
use crate::walk::{Found, Walk};

use bytes::Bytes;

/// How many bytes a step of tidying reads and writes for each that was appended since the last one,
/// whatever its budget: with less the log would grow beyond its bound.
const PACE: u64 = 4;

/// How many segments of what is not needed are left alone.
const UNTIDY_SEGMENTS: u64 = 2;

/// The share of a full log that is not needed at which it is gone through.
const FULL_SHARE: u64 = 8;

/// How many bytes are collected before they are appended again.
const MOVE_LEN: u64 = 1024 * 1024;

/// The oldest segment while it is gone through.
#[derive(Debug)]
pub(super) struct Reclaim<F> {
    walk: Walk<F>,
    sequence: u64,
    /// The first record behind it.
    until: u64,
}

/// Records that are appended again.
#[derive(Debug, Default)]
struct Moving {
    drafts: Vec<Draft<'static>>,
    from: Vec<Spot>,
    len: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walked {
    Through,
    Partly,
}

impl<D: Disk> MessageLog<D> {
    /// Reclaims room and prepares segments: a step that reads and writes about `budget` bytes, or four times what
    /// was appended since the last one if that is more. To be called between batches, and while there is
    /// nothing else to do until it is idle; while the level of [`MessageLog::room`] is not
    /// [`Level::Plenty`] now and then, since the disk may have room again. It may make a sync of its own.
    pub fn tidy(&mut self, budget: u64) -> Result<Tidied, AppendError> {
        self.journal.make_sound()?;
        let mut left = budget.max(PACE * self.untidied).max(1);
        while left > 0 && (self.reclaim.is_some() || self.is_worth_reclaiming()) {
            left = left.saturating_sub(self.reclaim_step(left)?.max(1));
        }
        self.untidied = 0;
        if left == 0 || self.reclaim.is_some() {
            return Ok(Tidied::More);
        }
        self.restock(left)
    }

    /// Goes on making a spare if there are too few.
    fn restock(&mut self, budget: u64) -> Result<Tidied, AppendError> {
        let segment_len = self.limits.segment_len;
        let longest = self.longest();
        self.spares.remove_longer_than(&*self.disk, longest)?;
        if self.spares.count() >= TARGET {
            return Ok(Tidied::Idle);
        }
        let limited = self.check_limit(segment_len);
        let made = limited.and_then(|()| self.spares.make_step(&*self.disk, budget));
        match made {
            Ok(()) if self.spares.count() < TARGET => Ok(Tidied::More),
            // No room: the level says so.
            Ok(()) | Err(AppendError::Full { .. }) => Ok(Tidied::Idle),
            Err(error) => Err(error),
        }
    }

    fn is_worth_reclaiming(&self) -> bool {
        if self.journal.sealed().is_empty() {
            return false;
        }
        let index = self.shared.index();
        if index
            .volumes()
            .front()
            .is_some_and(|oldest| oldest.live == 0)
        {
            return true;
        }
        let (used, live, segment) = (self.used(), index.live(), self.limits.segment_len);
        drop(index);
        match self.level() {
            Level::Plenty => used > 2 * live + UNTIDY_SEGMENTS * segment,
            Level::Low | Level::Full => used - live >= segment.max(used / FULL_SHARE),
        }
    }

    /// Goes through the whole oldest segment.
    pub(super) fn reclaim_whole(&mut self) -> Result<(), AppendError> {
        loop {
            self.reclaim_step(u64::MAX)?;
            if self.reclaim.is_none() {
                return Ok(());
            }
        }
    }

    /// Goes on with the oldest segment; gives how much was read and written. What is not whole begins anew
    /// after an error: what has moved already is not needed there any more.
    fn reclaim_step(&mut self, budget: u64) -> Result<u64, AppendError> {
        let reclaim = match self.reclaim.take() {
            Some(reclaim) => reclaim,
            None => match self.begin_reclaim()? {
                Some(reclaim) => reclaim,
                None => return Ok(0),
            },
        };
        let mut reclaim = reclaim;
        let from = reclaim.walk.at();
        let (walked, moving) = self.collect(&mut reclaim, budget.min(MOVE_LEN))?;
        let cost = reclaim.walk.at() - from + moving.len;
        self.append_again(moving)?;
        match walked {
            Walked::Partly => self.reclaim = Some(reclaim),
            Walked::Through => self.retire(reclaim.sequence)?,
        }
        Ok(cost)
    }

    fn begin_reclaim(&mut self) -> Result<Option<Reclaim<D::File>>, AppendError> {
        let Some(oldest) = self.journal.sealed().front().copied() else {
            return Ok(None);
        };
        let index = self.shared.index();
        let little = if self.planted.has(Bug::GivesUpLittle) {
            100
        } else {
            0
        };
        let oldest_live = index.volumes().front().map(|volume| volume.live);
        drop(index);
        let needed = oldest_live.is_some_and(|live| live > little);
        let next = self.journal.sealed().get(1).map(|segment| segment.first);
        let next = next.unwrap_or(self.journal.newest().0.first);
        let sequence = oldest.sequence;
        let opened = self.disk.open(&Segment::name(sequence));
        let opened = opened.map_err(|source| self.unreadable(sequence, Step::Open, source))?;
        let Some(file) = opened else {
            return Err(self.damaged(sequence, 0, Damage::Missing));
        };
        let walk = Walk::new(file, oldest.len, oldest.header());
        // Of a segment of which nothing is needed nothing is read.
        let until = if needed { next } else { oldest.first };
        Ok(Some(Reclaim {
            walk,
            sequence,
            until,
        }))
    }

    /// Walks on; gives what is needed of what it went over.
    fn collect(
        &self,
        reclaim: &mut Reclaim<D::File>,
        budget: u64,
    ) -> Result<(Walked, Moving), AppendError> {
        let mut moving = Moving::default();
        let from = reclaim.walk.at();
        let sequence = reclaim.sequence;
        while reclaim.walk.number() < reclaim.until {
            let at = reclaim.walk.at();
            if at - from + moving.len >= budget {
                return Ok((Walked::Partly, moving));
            }
            let found = reclaim.walk.next(&*self.disk);
            match found.map_err(|source| self.unreadable(sequence, Step::Read, source))? {
                Found::Record { head, body } => {
                    let len = head.record_len();
                    let spot = Spot { sequence, at, len };
                    if let Some(draft) = self.needed(spot, body) {
                        moving.len += record_len(draft.len());
                        moving.drafts.push(draft);
                        moving.from.push(spot);
                    }
                }
                Found::Nothing(damage) => return Err(self.damaged(sequence, at, damage)),
            }
        }
        Ok((Walked::Through, moving))
    }

    /// What is still needed of a record.
    fn needed(&self, spot: Spot, body: &[u8]) -> Option<Draft<'static>> {
        match Entry::decode(body)? {
            Entry::Put { key, value } => {
                let needed = self.definitions.get(key) == Some(&spot);
                let needed = needed && !self.planted.has(Bug::LeavesDefinitions);
                needed.then(|| Draft::Put {
                    key: Bytes::copy_from_slice(key),
                    value: Bytes::copy_from_slice(value),
                })
            }
            Entry::Message { refs, head, body } => {
                let index = self.shared.index();
                let is_needed = |message: &Ref| index.get(*message) == Some(spot);
                let mut needed: Vec<Ref> = refs.iter().filter(is_needed).collect();
                if self.planted.has(Bug::AsksFirstQueue) && !is_needed(&refs.iter().next()?) {
                    needed.clear();
                }
                if self.planted.has(Bug::MovesForgotten) && !needed.is_empty() {
                    needed = refs.iter().collect();
                }
                (!needed.is_empty()).then(|| Draft::Message {
                    refs: needed.into(),
                    head: Bytes::copy_from_slice(head),
                    body: Bytes::copy_from_slice(body),
                })
            }
            Entry::Remove { .. }
            | Entry::Forget { .. }
            | Entry::ForgetQueue(_)
            | Entry::Released { .. } => None,
        }
    }

    fn append_again(&mut self, mut moving: Moving) -> Result<(), AppendError> {
        while !moving.drafts.is_empty() {
            let mut len = 0;
            let lens = moving.drafts.iter().map(|draft| record_len(draft.len()));
            let fitting = lens.take_while(|next| {
                len += next;
                self.fits(len)
            });
            let count = fitting.count();
            if count == 0 {
                self.make_room_to_move()?;
                continue;
            }
            let (_, start) = self.journal.append_here(&moving.drafts[..count])?;
            let drafts = moving.drafts.drain(..count);
            let from = moving.from.drain(..count);
            self.relocate(drafts.zip(from).collect(), start);
        }
        Ok(())
    }

    /// Tells the index where records are now.
    fn relocate(&mut self, moved: Vec<(Draft<'static>, Spot)>, start: Spot) {
        if self.planted.has(Bug::ForgetsMove) {
            return;
        }
        let mut index = self.shared.index_mut();
        let mut at = start.at;
        for (draft, from) in moved {
            let len = record_len(draft.len());
            let to = Spot { at, len, ..start };
            at += len;
            match draft {
                Draft::Message { refs, .. } => index.relocate(&refs, from, to),
                Draft::Put { key, .. } => {
                    self.definitions.insert(key, to);
                    index.hold(to);
                    index.let_go(from);
                }
                Draft::Remove { .. }
                | Draft::Forget { .. }
                | Draft::ForgetQueue(_)
                | Draft::Released { .. } => {}
            }
        }
    }

    /// Gives up the oldest segment, of which nothing is needed any more.
    fn retire(&mut self, sequence: u64) -> Result<(), AppendError> {
        let index = self.shared.index();
        let bytes = index.volumes().front().map_or(0, |oldest| oldest.live);
        let end = index.volumes().front().map_or(0, |oldest| oldest.end);
        drop(index);
        let trusting = self.planted.has(Bug::ForgetsMove)
            || self.planted.has(Bug::LeavesDefinitions)
            || self.planted.has(Bug::AsksFirstQueue)
            || self.planted.has(Bug::GivesUpLittle);
        if bytes > 0 && !trusting {
            return Err(self.damaged(sequence, end, Damage::Incomplete { bytes }));
        }
        // Once: the slack for it is there once, and a power loss may come before the name is gone.
        if self.released < sequence {
            if !self.fits(0) {
                self.make_room_to_move()?;
            }
            let released = Draft::Released { through: sequence };
            let (_, _) = self.journal.append_here(&[released])?;
            self.released = sequence;
        }
        if !self.planted.has(Bug::RetiresUnsynced) {
            self.journal.sync()?;
        }
        let len = self.journal.sealed().front().map_or(0, |oldest| oldest.len);
        let is_long = self.spares.class(len) > self.limits.segment_len;
        // A long one was moved into one that is as long: it is the spare for that, if it is needed.
        let spare = if is_long {
            self.spares.count_of(len) == 0
        } else {
            self.spares.count() < TARGET && len >= self.limits.segment_len
        };
        let name = spare.then(|| self.spares.next_name());
        self.journal.retire_oldest_as(name.as_deref())?;
        let file = self.shared.index_mut().retire_oldest();
        let file = file.filter(|_| !self.planted.has(Bug::RecyclesRead));
        if let Some(name) = name {
            self.spares.add(name, len, file);
        }
        Ok(())
    }

    fn damaged(&self, sequence: u64, offset: u64, damage: Damage) -> AppendError {
        AppendError::Damaged {
            path: path_of(&*self.disk, sequence),
            offset,
            damage,
        }
    }

    fn unreadable(&self, sequence: u64, step: Step, source: std::io::Error) -> AppendError {
        let path = path_of(&*self.disk, sequence);
        AppendError::Disk { step, path, source }
    }
}
