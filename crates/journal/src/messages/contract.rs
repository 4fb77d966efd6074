//! The words between the log and who keeps messages in it.

use bytes::Bytes;

use crate::error::OpenError;

/// A queue: its virtual host's number, and its own in it. A number is not given to another queue
/// before [`Change::ForgetQueue`] is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueKey {
    /// The virtual host.
    pub vhost: u32,
    /// The queue.
    pub queue: u64,
}

/// A message in a queue. No two messages that are in the log at the same time have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ref {
    /// In which queue.
    pub queue: QueueKey,
    /// Its place among the messages of the queue; later ones have larger ones, with gaps.
    pub position: u64,
}

/// The body of a message that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// It is here.
    Here(Bytes),
    /// It is that of a message in the log, such as the one whose dead letter this is. It is copied, so
    /// the other one can be forgotten in the same batch, behind this.
    Stored(Ref),
}

/// What is appended. After a loss of power the log is as if some first part of all changes had been
/// made: at least all that were synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A definition: the last value of a key counts.
    Put {
        /// Whose.
        key: Bytes,
        /// What is defined.
        value: Bytes,
    },
    /// There is no such definition any more.
    Remove {
        /// Whose.
        key: Bytes,
    },
    /// A message, stored once for all of its queues.
    Message {
        /// In which queues, one at least.
        refs: Vec<Ref>,
        /// What is kept in memory of it; an opening gives it back.
        head: Bytes,
        /// The rest, which is read by [`super::Place::read`].
        body: Body,
    },
    /// A message need not be kept any more for this queue. Nothing is done if it is not there.
    Forget(Ref),
    /// Nothing of this queue that came before need be kept any more.
    ForgetQueue(QueueKey),
}

/// The most bytes of one change, and of one batch: a record and its segment count in 32 bits with
/// room to spare, and a batch is in memory once more while it is written.
pub const BATCH_LEN_MAX: u64 = 512 * 1024 * 1024;

/// How much a log takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// The length of a segment's file in bytes, 512 bytes to 1 GiB. A batch that is longer gets a segment of its own.
    pub segment_len: u64,
    /// How many bytes all files may take. Five segments are made whatever this says: the one that is
    /// written, the next one, two in reserve, and one for the transition.
    pub bytes_max: u64,
}

impl Default for MessageLimits {
    /// Segments of 16 MiB: some 15,000 messages of 1 KiB between two of them, an open file for each,
    /// and 100 MiB for a log that is used and empty. No limit but that of the disk.
    fn default() -> Self {
        Self {
            segment_len: 16 * 1024 * 1024,
            bytes_max: u64::MAX,
        }
    }
}

impl MessageLimits {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if crate::journal::SEGMENT_LENS.contains(&self.segment_len) {
            Ok(())
        } else {
            Err(OpenError::Limits)
        }
    }
}

/// What an opening found. All of it is durable.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    /// The definitions, by key.
    pub definitions: Vec<(Bytes, Bytes)>,
    /// The queues that have messages, by key.
    pub queues: Vec<FoundQueue>,
}

/// A queue with messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundQueue {
    /// Which.
    pub key: QueueKey,
    /// Its messages, by position.
    pub messages: Vec<FoundMessage>,
}

/// A message in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundMessage {
    /// Its place.
    pub position: u64,
    /// Its head; queues that share the message share its memory.
    pub head: Bytes,
    /// How long its body is.
    pub body_len: u32,
}

/// Whether [`super::MessageLog::tidy`] has more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tidied {
    /// Not before something else is appended.
    Idle,
    /// It has.
    More,
}

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What can be appended.
    pub level: Level,
    /// What all files take, in bytes.
    pub on_disk: u64,
    /// What of it is needed, in bytes: messages that are not forgotten, and definitions.
    pub live: u64,
    /// How many files those are that hold something.
    pub segments: usize,
}

/// What can be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Plenty,
    /// Everything for now, but the disk refused room for the next segment, or the limit is reached.
    Low,
    /// No messages and definitions; what is forgotten or removed is still taken, and makes room.
    Full,
}
