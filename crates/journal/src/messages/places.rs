//! Where bodies are read.
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::contract::Ref;
use crate::disk::{Disk, HostDisk};

/// Where messages are, for any thread.
#[derive(Debug)]
pub struct Places<D: Disk = HostDisk> {
    disk: Arc<D>,
}

impl<D: Disk> Clone for Places<D> {
    fn clone(&self) -> Self {
        let disk = self.disk.clone();
        Self { disk }
    }
}

/// Where one message is. While this lives its segment is not written to again, whatever becomes of
/// the message: hold it to read, not to keep.
#[derive(Debug)]
pub struct Place<D: Disk = HostDisk> {
    disk: Arc<D>,
}

impl<D: Disk> Places<D> {
    /// Where a message is; `None`: it is not in the log.
    pub fn find(&self, message: Ref) -> Option<Place<D>> {
        let _ = (message, &self.disk);
        todo!()
    }
}

impl<D: Disk> Place<D> {
    /// Reads the body from the disk and checks it.
    pub fn read(&self) -> io::Result<Bytes> {
        let _ = &self.disk;
        todo!()
    }
}
