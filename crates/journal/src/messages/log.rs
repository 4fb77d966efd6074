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
}

impl<D: Disk> MessageLog<D> {
    /// Opens the log of a directory, or begins one.
    pub fn open(disk: Arc<D>, limits: MessageLimits) -> Result<(Self, Found), OpenError> {
        limits.check()?;
        Ok((Self { disk }, Found::default()))
    }

    /// Appends a batch, all of it or nothing. It is durable only after a [`MessageLog::sync`] that covers it.
    pub fn append(&mut self, changes: &[Change]) -> Result<Appended, AppendError> {
        let _ = (changes, &self.disk);
        todo!()
    }

    /// Makes all that was appended durable, by one sync at most.
    pub fn sync(&mut self) -> Result<Durable, SyncError> {
        todo!()
    }

    /// Reclaims room and prepares segments: a step that reads and writes about `budget` bytes. To be
    /// called between batches, and again while it gives [`Tidied::More`].
    pub fn tidy(&mut self, budget: u64) -> Result<Tidied, AppendError> {
        let _ = budget;
        todo!()
    }

    /// Where messages are, for other threads.
    pub fn places(&self) -> Places<D> {
        todo!()
    }

    /// How much room there is.
    pub fn room(&self) -> Room {
        todo!()
    }

    /// What is in the log now, after a sync, to be copied by another thread while this one goes on.
    pub fn snapshot(&mut self) -> Result<Snapshot<D>, SyncError> {
        todo!()
    }
}
