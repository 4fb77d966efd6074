//! The messages and definitions of a broker in one log.
//!
//! It knows no protocol: queues are numbers, heads and bodies are bytes. It decides nothing: what is to be
//! kept and what is not is said by [`Change`]s. One thread owns the [`MessageLog`]; others read bodies through
//! its [`Places`] without asking that one. It is no queue: nothing is taken from it, and in which order messages
//! are delivered is not its business.
//!
//! ```text
//!   0000000000000007.segment   ...08.segment   ...09.segment   spare-4.segment   spare-5, spare-6
//!   the oldest: what is        sealed          newest:         the next one      in reserve for a
//!   needed of it moves ──────────────────────► appended to                       disk that is full
//!          └── then it is a spare ────────────────────────────► spare-7
//! ```
//!
//! Over the segments, the walk and the recovery of the [`crate::Journal`]. What is always true, beside what is
//! true of that:
//!
//! - Messages, acknowledgements and definitions are in one order. What is found after a power loss is what some
//!   first part of them comes to, at least all that was synced: no acknowledgement without its message, no
//!   message twice, none that was forgotten.
//! - A message of many queues is stored once, and needed until the last of them forgets it.
//! - Only the oldest segment is given up, when nothing of it is needed and the log says so durably. One that is
//!   missing without that is damage.
//! - All segments together take at most twice what is needed and two of them; three spares come to that.
//! - A full disk refuses messages and definitions, never what is forgotten (one batch of that no longer than a segment).
//! - While somebody reads in a segment its file is not written to, whatever becomes of what is in it.
//!
//! In memory a message takes 20 bytes for each of its queues, 25 while that grows, and its queue some
//! hundred. Bodies and heads are not kept in memory.
//!
//! Start reading at [`MessageLog`], then `record` for the bytes, `reclaim` and `room` for how room comes back,
//! `replay` for what an opening makes of the records. `simulation` lets the power fail.

mod contract;
mod error;
mod examine;
mod index;
mod log;
mod places;
mod planted;
mod reclaim;
mod record;
mod replay;
mod room;
#[cfg(test)]
mod simulation;
mod snapshot;
mod spares;

pub use contract::{
    BATCH_LEN_MAX, Body, Change, Found, FoundMessage, FoundQueue, Level, MessageLimits, QueueKey,
    Ref, Room, Tidied,
};
pub use error::AppendError;
pub use examine::{DamageAt, Examined, ExaminedQueue, ExaminedSegment, examine};
pub use log::MessageLog;
pub use places::{Place, Places};
pub use snapshot::{Copied, CopyError, Snapshot, SnapshotSegment};
