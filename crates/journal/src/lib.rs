//! A log of records on disk: appended in batches, made durable by one sync for all that waits,
//! read from any record on, bounded by giving up its oldest segments.
//!
//! That is [`Journal`]; [`messages`] is a second log, of messages that are forgotten in any order, over the
//! same segments.
//!
//! It decides nothing and does not know what a record says. It is no database: no keys, no second
//! writer, no change of what was written. One task or thread owns a [`Journal`]; any number of
//! others read it through an [`Outline`] without asking that one.
//!
//! ```text
//!   0000000000000007.segment   0000000000000008.segment   0000000000000009.segment   spare.segment
//!   sealed: all of it durable  sealed                     newest: appended to        the next one
//! ```
//!
//! What is always true:
//!
//! - A record is durable only when [`Journal::sync`] returned, and then every one before it is.
//! - After a failed sync nothing is believed: the journal takes nothing more until it is opened anew,
//!   which writes again what is not known to be durable.
//! - What is found after a power loss is a prefix of what was appended, and holds all that was synced.
//! - Only the unsynced end of the newest segment is ever cut off; any other damage is an error that
//!   names file, offset and remedy, and changes nothing.
//!
//! Start reading at [`Journal`], then `format` for the bytes, `recovery` for what an opening does,
//! and [`Disk`] for what is assumed of a file system. [`SimulatedDisk`] breaks all of that on
//! purpose; `tests/power_loss.rs` lets the power fail at every step.

pub mod disk;
mod error;
mod format;
mod journal;
pub mod messages;
mod reader;
mod recovery;
pub mod simulated;
mod walk;

pub use disk::{Disk, HostDisk};
pub use error::{AppendError, Damage, OpenError, ReadError, Step, SyncError};
pub use format::{FORMAT, HEADER_LEN, RECORD_HEAD_LEN, RecordNumber, record_len};
pub use journal::{Appended, Durable, Journal, Limits, Retired};
pub use reader::{Outline, Reader, Record};
pub use simulated::SimulatedDisk;
