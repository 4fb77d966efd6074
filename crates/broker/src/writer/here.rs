//! Writing on the thread of all clients, when that has nothing else to do: two wakes of threads for each message of a client
//! that waits for each of its confirms are a fifth of the time that it waits.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use mainstay_journal::messages::{AppendError, Body, Change};

use super::{Batch, Desk, Failure, Haste, Order, len_of};
use crate::limits::WRITTEN_HERE_MAX;

/// Changes of a batch that is written here, at most: what one client says at a time. More come of a load under which the
/// other thread does not sleep anyway.
const CHANGES_MAX: usize = 4;
/// And bytes of them: some ten microseconds.
const LEN_MAX: usize = 64 * 1024;

/// The way to the log without the writer's thread.
#[derive(Debug, Clone)]
pub(crate) struct Here {
    pub(super) desk: Arc<Mutex<Desk>>,
    failure: Arc<Failure>,
}

impl Here {
    pub(super) fn new(desk: Arc<Mutex<Desk>>, failure: Arc<Failure>) -> Self {
        Self { desk, failure }
    }

    /// Whether it is worth asking: nobody is at the desk, and the disk is fast.
    pub(crate) fn is_free(&self) -> bool {
        let desk = self.desk.try_lock();
        desk.is_ok_and(|desk| desk.pace.is_fast(Instant::now()))
    }

    /// Writes a batch, and syncs it if somebody waits for that. Gives it back if that would take long, if the writer is at
    /// work, or if an earlier batch of the same virtual host is still on its way to it.
    pub(crate) fn write(&self, batch: Batch) -> Option<Batch> {
        if !is_small(&batch) {
            return Some(batch);
        }
        // It is at work; or somebody panicked with it, and the broker ends.
        let Ok(mut desk) = self.desk.try_lock() else {
            return Some(batch);
        };
        if !desk.takes_at_once(&batch) {
            return Some(batch);
        }
        if let Err(error) = desk.take_at_once(batch) {
            self.failure.set(error);
        }
        None
    }
}

pub(crate) fn is_small(batch: &Batch) -> bool {
    let is_read = |change: &Change| {
        let body = match change {
            Change::Message { body, .. } => body,
            Change::Put { .. }
            | Change::Remove { .. }
            | Change::Forget(_)
            | Change::ForgetQueue(_) => {
                return false;
            }
        };
        matches!(body, Body::Stored(_))
    };
    batch.changes.len() <= CHANGES_MAX
        && batch.changes.iter().map(len_of).sum::<usize>() <= LEN_MAX
        // It is copied, and for that read from the disk.
        && !batch.changes.iter().any(is_read)
}

impl Desk {
    fn takes_at_once(&self, batch: &Batch) -> bool {
        // Of a virtual host that wrote nothing yet the first is 1.
        let is_next = batch.reports.appended() + 1 == batch.number;
        let len: usize = batch.changes.iter().map(len_of).sum();
        // What is written besides is no more than this.
        let len = 2 * len as u64 + 4096;
        is_next
            // Else the writer is to have a turn, since only it reclaims room.
            && self.written_here <= WRITTEN_HERE_MAX
            && self.backlog.is_empty()
            && self.pace.is_fast(Instant::now())
            && self.log.takes_at_once(len)
    }

    fn take_at_once(&mut self, batch: Batch) -> Result<(), AppendError> {
        let haste = batch.haste;
        self.written_here += self.take(Order::Write(batch))?;
        match haste {
            Haste::Now => self.sync(),
            Haste::Later => {
                self.show(self.log.room());
                Ok(())
            }
        }
    }
}
