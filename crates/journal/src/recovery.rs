//! What an opening does: looks at every record, and makes the end of the newest segment one that
//! can be appended to.
//!
//! The unsynced end may be torn, and is cut off at the first record that is not whole. If a record
//! behind that place says that it was written when the missing one was durable, then this is no torn
//! end, but damage: an error. Segments before the newest were synced before the next was begun, so
//! in them everything that does not fit is damage.
//!
//! What is kept of the end is written once more before the sync. If the last process ended because
//! a sync had failed, the pages are clean for the kernel although the disk does not have them, and a
//! sync alone would succeed without doing anything.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use crate::disk::Disk;
use crate::error::{Damage, OpenError, Step};
use crate::format::{Head, Header, HeaderFault, RecordNumber};
use crate::journal::{Segment, Tail};
use crate::reader::Record;
use crate::walk::{Found, Rest, Walk};

/// How the unfinished end of the newest segment is got rid of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The file is cut off there.
    Cut,
    /// Zeros are written over it: the file keeps its room, which a full disk would not give again.
    Wiped,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Spot {
    /// In which segment.
    pub(crate) sequence: u64,
    /// Where in its file.
    pub(crate) at: u64,
    /// How long it is, with its head.
    pub(crate) len: u64,
}

/// Who is shown what an opening finds, before it changes anything.
pub(crate) trait Witness {
    /// Each record, the oldest first; what this says is wrong with one is damage.
    fn see(&mut self, spot: Spot, record: Record<'_>) -> Result<(), Damage>;

    /// The oldest segment, when all records were seen; `Some`: one that is missing before it.
    fn missing_before(&self, _oldest: u64) -> Option<u64> {
        None
    }
}

/// Who looks at records alone.
pub(crate) struct Visitor<V>(pub(crate) V);

impl<V: FnMut(Record<'_>)> Witness for Visitor<V> {
    fn see(&mut self, _: Spot, record: Record<'_>) -> Result<(), Damage> {
        (self.0)(record);
        Ok(())
    }
}

/// What was found on disk.
pub(crate) struct Recovered<F> {
    pub(crate) sealed: VecDeque<Segment>,
    pub(crate) tail: Tail<F>,
    /// The number of the next record; all before it are durable now.
    pub(crate) next: u64,
}

/// Reads all segments of `disk`, oldest first. `None`: there is none.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    ending: Ending,
    witness: &mut dyn Witness,
) -> Result<Option<Recovered<D::File>>, OpenError> {
    let sequences = sequences(disk)?;
    let oldest = sequences.first().copied();
    let mut sealed = VecDeque::new();
    let mut newest: Option<(Segment, Walk<D::File>)> = None;
    for sequence in sequences {
        if let Some((before, _)) = &newest
            && before.sequence + 1 != sequence
        {
            return Err(damaged(disk, before.sequence + 1, 0, Damage::Missing));
        }
        let (segment, walk) = open_segment(disk, sequence)?;
        if let Some((before, walk_before)) = newest.replace((segment, walk)) {
            read_sealed(disk, &before, walk_before, segment.first, witness)?;
            sealed.push_back(before);
        }
    }
    let Some((segment, walk)) = newest else {
        return Ok(None);
    };
    let end = read_newest(disk, &segment, walk, witness)?;
    if let Some(sequence) = oldest.and_then(|oldest| witness.missing_before(oldest)) {
        return Err(damaged(disk, sequence, 0, Damage::Missing));
    }
    let next = end.walk.number();
    let tail = make_durable(disk, segment, end, ending)?;
    // A name that can be seen need not be durable: the process before may have ended in between.
    let directory = disk.path().to_owned();
    disk.sync_dir()
        .map_err(refused(directory, Step::SyncDirectory))?;
    Ok(Some(Recovered { sealed, tail, next }))
}

/// The numbers of all segments, in order.
pub(crate) fn sequences<D: Disk>(disk: &D) -> Result<Vec<u64>, OpenError> {
    let directory = disk.path().to_owned();
    let names = disk.list().map_err(refused(directory, Step::List))?;
    let mut sequences: Vec<u64> = names.iter().filter_map(|name| sequence_of(name)).collect();
    sequences.sort_unstable();
    Ok(sequences)
}

pub(crate) fn open_segment<D: Disk>(
    disk: &D,
    sequence: u64,
) -> Result<(Segment, Walk<D::File>), OpenError> {
    let path = path_of(disk, sequence);
    let name = Segment::name(sequence);
    let opened = disk
        .open(&name)
        .map_err(refused(path.clone(), Step::Open))?;
    let Some(file) = opened else {
        return Err(damaged(disk, sequence, 0, Damage::Missing));
    };
    let read = read_header(disk, &file).map_err(refused(path.clone(), Step::Read))?;
    let (len, header) = read;
    let header = match header {
        Ok(header) => header,
        Err(HeaderFault::Newer(found)) => return Err(OpenError::Newer { path, found }),
        Err(HeaderFault::Short) => return Err(damaged(disk, sequence, len, Damage::HeaderShort)),
        Err(HeaderFault::Magic) => return Err(damaged(disk, sequence, 0, Damage::Magic)),
        Err(HeaderFault::Checksum) => {
            return Err(damaged(disk, sequence, 0, Damage::HeaderChecksum));
        }
    };
    if header.sequence != sequence {
        let found = header.sequence;
        return Err(damaged(disk, sequence, 16, Damage::Sequence { found }));
    }
    let segment = Segment {
        sequence,
        first: header.first,
        salt: header.salt,
        len,
    };
    Ok((segment, Walk::new(file, len, header)))
}

/// The file's length, and what its header says.
pub(crate) fn read_header<D: Disk>(
    disk: &D,
    file: &D::File,
) -> io::Result<(u64, Result<Header, HeaderFault>)> {
    let len = disk.len(file)?;
    let mut bytes = [0; Header::LEN];
    let read = disk.read_at(file, 0, &mut bytes)?;
    Ok((len, Header::decode(&bytes[..read])))
}

/// All records up to the first of the next segment must be there.
fn read_sealed<D: Disk>(
    disk: &D,
    segment: &Segment,
    mut walk: Walk<D::File>,
    next_first: u64,
    witness: &mut dyn Witness,
) -> Result<(), OpenError> {
    if next_first < segment.first {
        let damage = Damage::First {
            found: next_first,
            expected: segment.first,
        };
        return Err(damaged(disk, segment.sequence + 1, 24, damage));
    }
    while walk.number() < next_first {
        let at = walk.at();
        let found = walk.next(disk);
        match found.map_err(refused(path_of(disk, segment.sequence), Step::Read))? {
            Found::Record { head, body } => show(disk, segment.sequence, at, &head, body, witness)?,
            Found::Nothing(damage) => return Err(damaged(disk, segment.sequence, at, damage)),
        }
    }
    Ok(())
}

fn show<D: Disk>(
    disk: &D,
    sequence: u64,
    at: u64,
    head: &Head,
    body: &[u8],
    witness: &mut dyn Witness,
) -> Result<(), OpenError> {
    let len = head.record_len();
    let number = RecordNumber(head.number);
    let spot = Spot { sequence, at, len };
    witness
        .see(spot, Record { number, body })
        .map_err(|damage| damaged(disk, sequence, at, damage))
}

/// The end of the newest segment.
struct End<F> {
    walk: Walk<F>,
    /// Where the first record is that no later one says to be durable.
    unsure: Option<u64>,
    /// What is wrong with what comes next.
    damage: Damage,
}

/// Reads the newest segment up to its end.
fn read_newest<D: Disk>(
    disk: &D,
    segment: &Segment,
    mut walk: Walk<D::File>,
    witness: &mut dyn Witness,
) -> Result<End<D::File>, OpenError> {
    // Where the records begin that no later one says to be durable.
    let mut unsure: VecDeque<(u64, u64)> = VecDeque::new();
    let damage = loop {
        let at = walk.at();
        let found = walk.next(disk);
        match found.map_err(refused(path_of(disk, segment.sequence), Step::Read))? {
            Found::Record { head, body } => {
                unsure.retain(|(number, _)| *number > head.durable);
                unsure.push_back((head.number, at));
                show(disk, segment.sequence, at, &head, body, witness)?;
            }
            Found::Nothing(damage) => break damage,
        }
    };
    let unsure = unsure.front().map(|(_, at)| *at);
    Ok(End {
        walk,
        unsure,
        damage,
    })
}

/// Gets rid of what is behind the end of the newest segment, and makes durable what is before it.
fn make_durable<D: Disk>(
    disk: &D,
    mut segment: Segment,
    end: End<D::File>,
    ending: Ending,
) -> Result<Tail<D::File>, OpenError> {
    let End {
        mut walk,
        unsure,
        damage,
    } = end;
    let path = path_of(disk, segment.sequence);
    let unreadable = || refused(path.clone(), Step::Read);
    let end = walk.at();
    let clean = ending == Ending::Cut && walk.only_zeros_follow(disk).map_err(unreadable())?;
    let rest = if clean {
        Rest::Unfinished { to: end }
    } else {
        walk.look_behind(disk).map_err(unreadable())?
    };
    let Rest::Unfinished { to } = rest else {
        return Err(damaged(disk, segment.sequence, end, damage));
    };
    let file = walk.into_file();
    let from = unsure.unwrap_or(end);
    match ending {
        Ending::Cut if clean => {}
        Ending::Cut => {
            disk.set_len(&file, end)
                .map_err(refused(path.clone(), Step::Truncate))?;
            segment.len = end;
        }
        Ending::Wiped => {
            wipe(disk, &file, end, to).map_err(refused(path.clone(), Step::Truncate))?;
        }
    }
    rewrite(disk, &file, from, end).map_err(refused(path.clone(), Step::Write))?;
    disk.sync(&file).map_err(refused(path, Step::Sync))?;
    Ok(Tail { segment, file, end })
}

/// Writes what is there once more, so that the next sync really takes it to the disk.
fn rewrite<D: Disk>(disk: &D, file: &D::File, from: u64, to: u64) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    let mut at = from;
    while at < to {
        let len = usize::try_from(to - at).map_or(bytes.len(), |left| left.min(bytes.len()));
        let read = disk.read_at(file, at, &mut bytes[..len])?;
        if read < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        disk.write_at(file, at, &bytes[..len])?;
        at += len as u64;
    }
    Ok(())
}

/// Writes zeros over what is there.
pub(crate) fn wipe<D: Disk>(disk: &D, file: &D::File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; 64 * 1024];
    let mut at = from;
    while at < to {
        let len = usize::try_from(to - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        disk.write_at(file, at, &zeros[..len])?;
        at += len as u64;
    }
    Ok(())
}

fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    let sequence = digits.parse().ok()?;
    (name == Segment::name(sequence)).then_some(sequence)
}

pub(crate) fn path_of<D: Disk>(disk: &D, sequence: u64) -> PathBuf {
    disk.path().join(Segment::name(sequence))
}

pub(crate) fn damaged<D: Disk>(disk: &D, sequence: u64, offset: u64, damage: Damage) -> OpenError {
    OpenError::Damaged {
        path: path_of(disk, sequence),
        offset,
        damage,
    }
}

pub(crate) fn refused(path: PathBuf, step: Step) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Disk { step, path, source }
}
