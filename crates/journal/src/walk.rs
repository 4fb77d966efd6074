//! From record to record through one segment, with a window of the file in memory.

use std::io;

use crate::disk::Disk;
use crate::error::Damage;
use crate::format::{ALIGNMENT, HEADER_LEN, Head, Header, RECORD_HEAD_LEN, Seed};

/// How much is read at a time: some hundred small records, and little beside a reader's other memory.
const WINDOW_LEN: u64 = 64 * 1024;

/// A place in a segment between two records.
#[derive(Debug)]
pub(crate) struct Walk<F> {
    file: F,
    file_len: u64,
    seed: Seed,
    /// Where the next record begins.
    at: u64,
    /// Its number.
    number: u64,
    window: Window,
}

#[derive(Debug, Default)]
struct Window {
    from: u64,
    bytes: Vec<u8>,
}

/// What lies at a place.
#[derive(Debug)]
pub(crate) enum Found<'w> {
    /// The next record.
    Record { head: Head, body: &'w [u8] },
    /// No record; what is there instead, if one was expected.
    Nothing(Damage),
}

/// What lies behind the last record that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// A record that was written when the one that is missing was durable.
    Durable,
    /// No record of this life of the file from `to` on, and before it none that was ever durable.
    Unfinished { to: u64 },
}

impl<F> Walk<F> {
    /// At the first record of a segment.
    pub(crate) fn new(file: F, file_len: u64, header: Header) -> Self {
        Self {
            file,
            file_len,
            seed: header.seed(),
            at: HEADER_LEN,
            number: header.first,
            window: Window::default(),
        }
    }

    /// Where it is.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The number of the record that comes next.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn into_file(self) -> F {
        self.file
    }

    /// Goes over the next record, if it is whole and has the number that comes next.
    pub(crate) fn next<D: Disk<File = F>>(&mut self, disk: &D) -> io::Result<Found<'_>> {
        let (at, number, seed) = (self.at, self.number, self.seed);
        let missing = Damage::Record { number };
        self.load(disk, at, RECORD_HEAD_LEN)?;
        let head = self.window.get(at, RECORD_HEAD_LEN);
        let head = head.and_then(|bytes| Head::decode(bytes.first_chunk()?, seed));
        let Some(head) = head.filter(|head| head.number == number) else {
            return Ok(Found::Nothing(missing));
        };
        // The length is trusted no further than the file reaches.
        if head.record_len() > self.file_len.saturating_sub(at) {
            return Ok(Found::Nothing(missing));
        }
        self.load(disk, at, head.record_len())?;
        let Some(record) = self.window.get(at, head.record_len()) else {
            return Ok(Found::Nothing(missing)); // the file was cut meanwhile
        };
        let (_, padded) = record.split_at(24);
        if !seed.fits(&head, padded) {
            return Ok(Found::Nothing(Damage::Body { number }));
        }
        self.at += head.record_len();
        self.number += 1;
        let body = &padded[..head.body_len as usize];
        Ok(Found::Record { head, body })
    }

    /// Whether only zeros follow: then nothing was begun here that is not finished.
    pub(crate) fn only_zeros_follow<D: Disk<File = F>>(&mut self, disk: &D) -> io::Result<bool> {
        let mut at = self.at;
        while at < self.file_len {
            self.load(disk, at, 1)?;
            let rest = self.window.rest(at);
            if rest.is_empty() {
                break;
            }
            if rest.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += rest.len() as u64;
        }
        Ok(true)
    }

    /// What of this life of the file lies behind the end.
    /// Heads alone are looked for: their checksum cannot fit by intent, and one look at each place
    /// keeps the search linear.
    pub(crate) fn look_behind<D: Disk<File = F>>(&mut self, disk: &D) -> io::Result<Rest> {
        let numbers = self.number..self.number.saturating_add(self.file_len / RECORD_HEAD_LEN);
        let (mut at, mut unfinished_to) = (self.at, self.at);
        while at + RECORD_HEAD_LEN <= self.file_len {
            self.load(disk, at, RECORD_HEAD_LEN)?;
            let rest = self.window.rest(at);
            if (rest.len() as u64) < RECORD_HEAD_LEN {
                break; // the file was cut meanwhile
            }
            let mut places = 0;
            for bytes in rest.windows(24).step_by(8) {
                let bytes = bytes.first_chunk().expect("a window has 24 bytes");
                places += 1;
                // The number first: it is cheap, and what an earlier life left has a smaller one.
                if !numbers.contains(&Head::number_of(bytes)) {
                    continue;
                }
                let Some(head) = Head::decode(bytes, self.seed) else {
                    continue;
                };
                if head.durable >= self.number {
                    return Ok(Rest::Durable);
                }
                let place = at + (places - 1) * ALIGNMENT;
                unfinished_to = unfinished_to.max(place + head.record_len());
            }
            at += places * ALIGNMENT;
        }
        let to = unfinished_to.min(self.file_len);
        Ok(Rest::Unfinished { to })
    }

    /// Makes the window hold `len` bytes from `at` on, or those that there are.
    fn load<D: Disk<File = F>>(&mut self, disk: &D, at: u64, len: u64) -> io::Result<()> {
        if self.window.get(at, len).is_some() {
            return Ok(());
        }
        let len = len.max(WINDOW_LEN).min(self.file_len.saturating_sub(at));
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.window.from = at;
        self.window.bytes.resize(len, 0);
        let read = disk.read_at(&self.file, at, &mut self.window.bytes)?;
        self.window.bytes.truncate(read);
        Ok(())
    }
}

impl Window {
    fn get(&self, at: u64, len: u64) -> Option<&[u8]> {
        let from = usize::try_from(at.checked_sub(self.from)?).ok()?;
        let to = from.checked_add(usize::try_from(len).ok()?)?;
        self.bytes.get(from..to)
    }

    fn rest(&self, at: u64) -> &[u8] {
        let from = at.checked_sub(self.from);
        let from = from.and_then(|from| usize::try_from(from).ok());
        from.and_then(|from| self.bytes.get(from..)).unwrap_or(&[])
    }
}
