//! What can go wrong, in the words of an operator.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::format::{FORMAT, RecordNumber};

/// Why a journal could not be opened. Nothing that it holds was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The limits make no sense.
    #[error("a journal needs segments of 512 bytes to 1 GiB, and at least two of them")]
    Limits,
    /// The disk refused.
    #[error("cannot open journal: cannot {step} `{path}`")]
    Disk {
        /// What was attempted.
        step: Step,
        /// On which file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A newer program wrote it.
    #[error(
        "journal segment `{path}` has format {found}, this program reads up to format {FORMAT}; \
         start the newer program that wrote it"
    )]
    Newer {
        /// The segment.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is a copy that was not finished.
    #[error(
        "the copy of a log with `{path}` was not finished: copy it again into an empty directory"
    )]
    Unfinished {
        /// The file that says so.
        path: PathBuf,
    },
    /// It is not as it was written.
    #[error(
        "journal segment `{path}` is damaged at byte {offset}: {damage}; it was left as it is. Put \
         a good copy in its place, or move the directory of the journal away to begin a new one \
         without its records"
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
}

/// What is wrong with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is missing between its neighbours.
    #[error("the file is missing")]
    Missing,
    /// The file is shorter than its header.
    #[error("it is shorter than its header")]
    HeaderShort,
    /// It begins like something else.
    #[error("it does not begin as a segment does")]
    Magic,
    /// Its header was changed.
    #[error("its header does not match its checksum")]
    HeaderChecksum,
    /// The file has another's name.
    #[error("its header is that of segment {found}")]
    Sequence {
        /// The number in its header.
        found: u64,
    },
    /// Its records do not go on from the segment before.
    #[error("its header says that record {found} is its first, not {expected}")]
    First {
        /// What the header says.
        found: u64,
        /// What comes next.
        expected: u64,
    },
    /// There is no record where one should be.
    #[error("record {number} should be there")]
    Record {
        /// The record's number.
        number: u64,
    },
    /// The record says something that is not known.
    #[error("record {number} says what this program does not know; perhaps a newer one wrote it")]
    Content {
        /// The record's number.
        number: u64,
    },
    /// The record that was written there is not.
    #[error("the record there is not the one that was written")]
    Unreadable,
    /// What is needed is not there.
    #[error("{bytes} bytes that are needed were not found in it")]
    Incomplete {
        /// How many bytes of records.
        bytes: u64,
    },
    /// The record's content was changed.
    #[error("the body of record {number} does not match its checksum")]
    Body {
        /// The record's number.
        number: u64,
    },
}

/// Why records were not appended. None of the batch counts as appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// It does not fit into one segment.
    #[error(
        "a batch of {len} bytes does not fit into a segment of the journal, which takes {len_max}"
    )]
    TooLong {
        /// What it needs, with the heads of its records.
        len: u64,
        /// What there is.
        len_max: u64,
    },
    /// The disk refused. A later append may succeed: when there is room, for instance.
    #[error("cannot append to journal: cannot {step} `{path}`")]
    Disk {
        /// What was attempted.
        step: Step,
        /// On which file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// Something was not made durable.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// Why nothing more is believed to be durable. The journal takes nothing until it is opened anew.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The disk refused.
    #[error("cannot make journal durable: cannot {step} `{path}`; it must be opened anew")]
    Disk {
        /// What was attempted.
        step: Step,
        /// On which file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// It refused before.
    #[error("journal `{path}` was not made durable before; it must be opened anew")]
    Poisoned {
        /// The journal's directory.
        path: PathBuf,
    },
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its segment was given up.
    #[error("record {} is no longer kept", number.0)]
    Forgotten {
        /// The record that was to be read.
        number: RecordNumber,
    },
    /// The segment is not as it was written.
    #[error("journal segment `{path}` is damaged at byte {offset}: {damage}")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// The disk refused.
    #[error("cannot read journal segment `{path}`")]
    Disk {
        /// The segment.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

/// What is asked of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Listing the directory.
    List,
    /// Opening a segment.
    Open,
    /// Reading it.
    Read,
    /// Making a new one, with room for all its records.
    Create,
    /// Writing to it.
    Write,
    /// Cutting off what a failed write left.
    Truncate,
    /// Making its content durable.
    Sync,
    /// Giving it its name.
    Rename,
    /// Giving up the oldest one.
    Retire,
    /// Removing what is needed no longer.
    Remove,
    /// Making names durable.
    SyncDirectory,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "list",
            Self::Open => "open",
            Self::Read => "read",
            Self::Create => "create or make room for",
            Self::Write => "write to",
            Self::Truncate => "cut off the unfinished end of",
            Self::Sync => "sync",
            Self::Rename => "rename",
            Self::Retire => "give up the oldest segment",
            Self::Remove => "remove",
            Self::SyncDirectory => "sync the names in",
        })
    }
}
