//! The threads that read.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tokio::sync::mpsc;

/// Connections that read: one for a long read as a backup, one for what goes on meanwhile.
pub(crate) const READERS: usize = 2;

/// Read jobs that wait; when it is full, readers wait for their turn.
pub(crate) const READS_WAITING_MAX: usize = 256;

/// A read that answers by itself.
pub(crate) type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Reads that wait. The lock is held while waiting for the next one: whoever has it takes it, and
/// nobody needs it for anything else.
type Queue = Arc<Mutex<mpsc::Receiver<Read>>>;

/// Starts a thread for each connection; they end when the last sender is gone.
pub(crate) fn start(
    connections: Vec<Connection>,
    reads: mpsc::Receiver<Read>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let queue: Queue = Arc::new(Mutex::new(reads));
    let threads = connections.into_iter().map(|connection| {
        let queue = queue.clone();
        thread::Builder::new()
            .name("sqlite-read".to_owned())
            .spawn(move || work(&connection, &queue))
    });
    threads.collect()
}

fn work(connection: &Connection, queue: &Queue) {
    loop {
        // A read that panicked did so without the lock.
        let next = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv();
        let Some(read) = next else { return };
        read(connection);
    }
}
