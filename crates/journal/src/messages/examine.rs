//! Looking at a log without changing it.
use std::path::PathBuf;

use crate::disk::Disk;
use crate::error::{Damage, OpenError};

/// What an examination found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The segments, the oldest first.
    pub segments: Vec<ExaminedSegment>,
    /// What is not as it was written; such a log does not open.
    pub damage: Vec<DamageAt>,
    /// How many messages there are, each counted once for each of its queues.
    pub messages: u64,
    /// How many definitions.
    pub definitions: u64,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExaminedSegment {
    /// Its file.
    pub path: PathBuf,
    /// How long the file is.
    pub len: u64,
    /// How many records it has.
    pub records: u64,
    /// The bytes of what is still needed.
    pub live: u64,
    /// The bytes of what is not.
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

/// Reads a whole log and changes nothing. An unfinished end of the newest segment, which an opening cuts off,
/// is no damage.
pub fn examine<D: Disk>(disk: &D) -> Result<Examined, OpenError> {
    let _ = disk;
    todo!()
}
