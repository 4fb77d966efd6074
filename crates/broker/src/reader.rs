//! Bodies that are on disk alone. What the page cache has is read at once; for all else a thread waits, so that a slow
//! disk is felt by who wants that message and by nobody else.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_journal::messages::Place;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::limits::{READ_AT_ONCE_MAX, READERS_MAX};

/// A body that a thread reads.
pub(crate) struct Coming(Pin<Box<dyn Future<Output = io::Result<Bytes>>>>);

impl fmt::Debug for Coming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Coming")
    }
}

impl Future for Coming {
    type Output = io::Result<Bytes>;

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// What became of asking for a body.
#[derive(Debug)]
pub(crate) enum Asked {
    Here(io::Result<Bytes>),
    Coming(Coming),
}

/// Reads bodies for all connections.
#[derive(Debug)]
pub(crate) struct Reader {
    /// For so many threads. Who waits for one is a connection or a caller, and waits for one body at a time.
    room: Arc<Semaphore>,
    #[cfg(test)]
    pub(crate) slow: tests::SlowDisk,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            room: Arc::new(Semaphore::new(READERS_MAX)),
            #[cfg(test)]
            slow: tests::SlowDisk::default(),
        }
    }

    /// Asks for a body. Whoever drops what comes of it is not waited for.
    pub(crate) fn ask(&self, place: Arc<Place>) -> Asked {
        #[cfg(test)]
        let at_hand = !self.slow.is_on();
        #[cfg(not(test))]
        let at_hand = true;
        if at_hand && place.record_len() <= READ_AT_ONCE_MAX {
            match place.read_cached() {
                Ok(Some(body)) => return Asked::Here(Ok(body)),
                Ok(None) => {}
                Err(error) => return Asked::Here(Err(error)),
            }
        }
        let room = Arc::clone(&self.room);
        #[cfg(test)]
        let slow = self.slow.clone();
        Asked::Coming(Coming(Box::pin(async move {
            // It is never closed.
            let permit = room.acquire_owned().await.map_err(io::Error::other)?;
            let read = spawn_blocking(move || {
                #[cfg(test)]
                slow.wait();
                let body = place.read();
                // Not before: who asked may be gone, and the disk is busy all the same.
                drop(permit);
                body
            });
            read.await.map_err(io::Error::other)?
        })))
    }

    /// Reads a body.
    pub(crate) async fn read(&self, place: Arc<Place>) -> io::Result<Bytes> {
        match self.ask(place) {
            Asked::Here(body) => body,
            Asked::Coming(coming) => coming.await,
        }
    }
}

#[cfg(test)]
mod tests;
