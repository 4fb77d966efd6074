//! The messages and definitions of a broker in one log.

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
pub use examine::{DamageAt, Examined, ExaminedSegment, examine};
pub use log::MessageLog;
pub use places::{Place, Places};
pub use snapshot::{Copied, CopyError, Snapshot, SnapshotSegment};
