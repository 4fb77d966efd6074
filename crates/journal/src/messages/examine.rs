//! Looking at a log without changing it.

use std::path::PathBuf;

use bytes::Bytes;

use super::contract::QueueKey;
use super::replay::Replay;
use super::snapshot::refuse_unfinished;
use crate::disk::Disk;
use crate::error::{Damage, OpenError, Step};
use crate::format::{HEADER_LEN, RecordNumber};
use crate::journal::Segment;
use crate::reader::Record;
use crate::recovery::{Spot, Witness as _, open_segment, path_of, refused, sequences};
use crate::walk::{Found, Rest, Walk};

/// What an examination found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// The segments that could be read, the oldest first.
    pub segments: Vec<ExaminedSegment>,
    /// What is not as it was written; a log with any does not open.
    pub damage: Vec<DamageAt>,
    /// Bytes behind the end of the newest segment that an opening gets rid of: they were never durable.
    pub unfinished: u64,
    /// How many messages there are, each counted once for each of its queues. With damage this is
    /// what the rest comes to.
    pub messages: u64,
    /// The definitions, by key.
    pub definitions: Vec<(Bytes, Bytes)>,
    /// The queues that have messages, by key.
    pub queues: Vec<ExaminedQueue>,
}

/// A queue with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExaminedQueue {
    /// Which.
    pub key: QueueKey,
    /// How many messages it has.
    pub messages: u64,
    /// How long their bodies are, in bytes.
    pub bytes: u64,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExaminedSegment {
    /// Its file.
    pub path: PathBuf,
    /// Its number.
    pub sequence: u64,
    /// How long the file is.
    pub len: u64,
    /// How many records it has.
    pub records: u64,
    /// The bytes of records that are still needed.
    pub live: u64,
    /// The bytes of those that are not.
    pub dead: u64,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamageAt {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub damage: Damage,
}

/// Reads a whole log and changes nothing. Damage is no error here, but what it is about; behind it a segment
/// is not read. An unfinished end of the newest segment, which an opening gets rid of, is none. The log must not be
/// in use: examine a copy of one that is.
pub fn examine<D: Disk>(disk: &D) -> Result<Examined, OpenError> {
    refuse_unfinished(disk)?;
    let sequences = sequences(disk)?;
    let mut examination = Examination::default();
    let mut opened: Option<(Segment, Walk<D::File>)> = None;
    for sequence in &sequences {
        if let Some((before, _)) = &opened
            && before.sequence + 1 != *sequence
        {
            examination.note(disk, before.sequence + 1, 0, Damage::Missing);
        }
        let next = match open_segment(disk, *sequence) {
            Ok(next) => Some(next),
            Err(OpenError::Damaged {
                path,
                offset,
                damage,
            }) => {
                let damage = DamageAt {
                    path,
                    offset,
                    damage,
                };
                examination.found.damage.push(damage);
                None
            }
            Err(error) => return Err(error),
        };
        let until = next.as_ref().map(|(next, _)| next.first);
        if let Some((segment, walk)) = opened.take() {
            examination.read(
                disk,
                segment,
                walk,
                until.map_or(Until::Unknown, Until::Record),
            )?;
        }
        opened = next;
    }
    if let Some((segment, walk)) = opened {
        examination.read(disk, segment, walk, Until::Newest)?;
    }
    if let Some(missing) = sequences
        .first()
        .and_then(|oldest| examination.replay.missing_before(*oldest))
    {
        examination.note(disk, missing, 0, Damage::Missing);
    }
    Ok(examination.conclude())
}

/// Where a segment's records are to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Before this record, with which the next one begins.
    Record(u64),
    /// Somewhere: the next one cannot be read.
    Unknown,
    /// At the end of the log.
    Newest,
}

#[derive(Debug, Default)]
struct Examination {
    found: Examined,
    replay: Replay,
}

impl Examination {
    fn note<D: Disk>(&mut self, disk: &D, sequence: u64, offset: u64, damage: Damage) {
        let path = path_of(disk, sequence);
        self.found.damage.push(DamageAt {
            path,
            offset,
            damage,
        });
    }

    fn read<D: Disk>(
        &mut self,
        disk: &D,
        segment: Segment,
        mut walk: Walk<D::File>,
        until: Until,
    ) -> Result<(), OpenError> {
        let unreadable = || refused(path_of(disk, segment.sequence), Step::Read);
        let mut end = None;
        while until != Until::Record(walk.number()) {
            let at = walk.at();
            match walk.next(disk).map_err(unreadable())? {
                Found::Record { head, body } => {
                    let spot = Spot {
                        sequence: segment.sequence,
                        at,
                        len: head.record_len(),
                    };
                    let number = RecordNumber(head.number);
                    if let Err(damage) = self.replay.see(spot, Record { number, body }) {
                        self.note(disk, segment.sequence, at, damage);
                    }
                }
                Found::Nothing(damage) => {
                    end = Some((at, damage));
                    break;
                }
            }
        }
        match (until, end) {
            (Until::Record(_), Some((at, damage))) => self.note(disk, segment.sequence, at, damage),
            (Until::Newest | Until::Unknown, Some((at, damage))) => {
                match walk.look_behind(disk).map_err(unreadable())? {
                    Rest::Durable => self.note(disk, segment.sequence, at, damage),
                    Rest::Unfinished { to } => self.found.unfinished = to - at,
                }
            }
            (Until::Record(_) | Until::Unknown | Until::Newest, None) => {}
        }
        self.found.segments.push(ExaminedSegment {
            path: path_of(disk, segment.sequence),
            sequence: segment.sequence,
            len: segment.len,
            records: walk.number() - segment.first,
            live: 0,
            dead: walk.at() - HEADER_LEN,
        });
        Ok(())
    }

    fn conclude(self) -> Examined {
        let Self { mut found, replay } = self;
        found.queues = replay.queues();
        found.messages = found.queues.iter().map(|queue| queue.messages).sum();
        let live = replay.live();
        found.definitions = replay.definitions();
        for segment in &mut found.segments {
            segment.live = live.get(&segment.sequence).copied().unwrap_or(0);
            segment.dead -= segment.live;
        }
        found
    }
}
