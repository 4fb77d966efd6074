//! What can go wrong while messages are appended.

use std::io;
use std::path::PathBuf;

use super::contract::Ref;
use crate::error::{Damage, Step, SyncError};

/// Why changes were not appended, or room was not reclaimed. None of the batch counts as appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// There is no room for messages and definitions.
    #[error(
        "no room for another segment in `{path}`: messages and definitions are refused until what \
         is consumed or removed makes room, or the disk has some again"
    )]
    Full {
        /// The log's directory.
        path: PathBuf,
        /// What the disk said; `None`: the log's own limit is reached.
        #[source]
        source: Option<io::Error>,
    },
    /// The batch is too long.
    #[error("a batch of {len} bytes is too long for the log, which takes {len_max}")]
    TooLong {
        /// What it needs, with the heads of its records.
        len: u64,
        /// What is taken.
        len_max: u64,
    },
    /// A message that was said to be in the log is not there.
    #[error("there is no message {} of queue {} in the log", .0.position, .0.queue.queue)]
    Unknown(Ref),
    /// Another message of the log has this place, or the message names it twice.
    #[error("message {} of queue {} is in the log already", .0.position, .0.queue.queue)]
    Taken(Ref),
    /// A message for no queue.
    #[error("a message for no queue cannot be stored")]
    NoQueue,
    /// A segment is not as it was written. It was left as it is.
    #[error("journal segment `{path}` is damaged at byte {offset}: {damage}; it was left as it is")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// The disk refused. A later attempt may succeed.
    #[error("cannot write to the log: cannot {step} `{path}`")]
    Disk {
        /// What was attempted.
        step: Step,
        /// On which file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// Something was not made durable: the log takes nothing more until it is opened anew.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

impl From<crate::error::AppendError> for AppendError {
    fn from(error: crate::error::AppendError) -> Self {
        match error {
            crate::error::AppendError::TooLong { len, len_max } => Self::TooLong { len, len_max },
            crate::error::AppendError::Disk { step, path, source } => {
                Self::Disk { step, path, source }
            }
            crate::error::AppendError::Sync(error) => Self::Sync(error),
        }
    }
}
