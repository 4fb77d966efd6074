//! A copy of all that is on disk, while the broker serves or where none runs.
//!
//! While it serves: the writer gives the log as it is at one moment, between two batches; a thread of its own copies that,
//! and rests as long as it works, so that clients who wait for the same disk have half of it. What whoever asked no longer
//! waits for is removed.

use std::convert::Infallible;
use std::error::Error;
use std::fs::{self, DirBuilder};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use mainstay_amqp::Record;
use mainstay_journal::HostDisk;
use mainstay_journal::messages::{Copied, CopyError, Snapshot, examine};
use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};

use crate::house::House;
use crate::opening::{DIRECTORY, LOG, OpenError, open_log};
use crate::record::{self, RecordError, queue_key};
use crate::seams::Seams;
use crate::view::Answer;
use crate::writer::Order;

/// What stays free on a disk that is not the broker's own: directories and the manifest.
const MARGIN: u64 = 4 * 1024 * 1024;
/// The longest rest between two pieces: a disk that took longer for one is behind, and waiting longer does not help it.
const REST_MAX: Duration = Duration::from_millis(250);

/// Why there is no copy. There is nothing of it either.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is nothing to copy.
    #[error("there is no log of a broker in `{path}`")]
    Nothing {
        /// Where it would be.
        path: PathBuf,
    },
    /// A file is not replaced.
    #[error("cannot make `{path}`")]
    Make {
        /// The directory.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// There is not enough room.
    #[error(
        "no room for {bytes} bytes of messages in `{path}`: {free} bytes are free there, and {kept} are to stay free"
    )]
    Room {
        /// The directory.
        path: PathBuf,
        /// What the copy takes.
        bytes: u64,
        /// What there is.
        free: u64,
        /// What is not to be touched.
        kept: u64,
    },
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A disk refused, or nobody waits any more.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// What copies of this broker go by.
#[derive(Debug)]
pub(crate) struct Copying {
    /// One at a time: two would only take longer, and keep more segments from being given up. The next waits.
    turn: Semaphore,
    own: Own,
}

/// The broker's own disk.
#[derive(Debug, Clone)]
struct Own {
    directory: PathBuf,
    disk_free_min: u64,
}

impl Copying {
    pub(crate) fn new(directory: PathBuf, disk_free_min: u64) -> Self {
        Self {
            turn: Semaphore::new(1),
            own: Own {
                directory,
                disk_free_min,
            },
        }
    }
}

impl Own {
    /// What has to stay free where `beside` is: on the broker's own disk so much that its publishers go on.
    fn kept(&self, beside: &Path) -> u64 {
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
        if device(beside) == device(&self.directory) {
            self.disk_free_min.saturating_add(MARGIN)
        } else {
            MARGIN
        }
    }
}

/// Copies the log to `to`, which is made, for as long as who asked is not `gone`.
pub(crate) async fn copy(
    house: &House,
    to: PathBuf,
    gone: impl Future<Output = ()>,
) -> Result<Answer, String> {
    let mut gone = pin!(gone);
    if !to.is_absolute() {
        return Err(format!("`{}` is not an absolute path", to.display()));
    }
    let ends = || "the broker ends".to_owned();
    let went = || Err("who asked went away".to_owned());
    // It is never closed.
    let _turn = tokio::select! {
        turn = house.copying.turn.acquire() => turn,
        () = &mut gone => return went(),
    };
    let (answer, taken) = oneshot::channel();
    let ordered = house.orders().send(Order::Snapshot(answer)).await;
    ordered.map_err(|_| ends())?;
    let snapshot = taken.await.map_err(|_| ends())?;
    let own = house.copying.own.clone();
    // Dropped with us, whoever drops us: then the thread breaks off. Nothing is ever sent.
    let (_wanted, unwanted) = sync_channel::<Infallible>(1);
    let work = tokio::task::spawn_blocking(move || copy_slowly(&snapshot, &to, &own, &unwanted));
    let copied = tokio::select! {
        copied = work => copied,
        () = gone => return went(),
    };
    let copied = copied.map_err(|error| error.to_string())?;
    let copied = copied.map_err(|error| chain(&error))?;
    Ok(Answer::Copied {
        segments: copied.segments,
        bytes: copied.bytes,
    })
}

/// Rests after each piece as long as it took, until `unwanted` is closed at its other end.
fn copy_slowly(
    snapshot: &Snapshot,
    to: &Path,
    own: &Own,
    unwanted: &Receiver<Infallible>,
) -> Result<Copied, BackupError> {
    let kept = own.kept(to.parent().unwrap_or(Path::new("/")));
    let mut since = Instant::now();
    let pace = |_| {
        let rested = unwanted.recv_timeout(since.elapsed().min(REST_MAX));
        since = Instant::now();
        match rested {
            Err(RecvTimeoutError::Timeout) => ControlFlow::Continue(()),
            Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(()),
            Ok(never) => match never {},
        }
    };
    copy_into(snapshot, to, kept, pace)
}

/// Copies into a new directory, of which nothing is left after an error.
fn copy_into(
    snapshot: &Snapshot,
    to: &Path,
    kept: u64,
    pace: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<Copied, BackupError> {
    let path = to.to_owned();
    check_room(to, snapshot.bytes(), kept)?;
    let made = DirBuilder::new().mode(0o700).create(to);
    made.map_err(|source| BackupError::Make { path, source })?;
    let copied = disk(to).and_then(|disk| Ok(snapshot.copy_at_pace(&disk, pace)?));
    if copied.is_err() {
        // The error that is told is the first; what stays is marked as no whole copy.
        let _ = fs::remove_dir_all(to);
    }
    copied
}

fn disk(path: &Path) -> Result<HostDisk, BackupError> {
    let opened = HostDisk::open(path).map_err(|source| BackupError::Make {
        path: path.to_owned(),
        source,
    })?;
    let path = path.to_owned();
    Ok(opened.ok_or(OpenError::InUse { path })?)
}

fn check_room(to: &Path, bytes: u64, kept: u64) -> Result<(), BackupError> {
    let beside = to.parent().unwrap_or(Path::new("/"));
    let found = statvfs(beside).map_err(|error| BackupError::Make {
        path: to.to_owned(),
        source: error.into(),
    })?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free < bytes.saturating_add(kept) {
        let path = beside.to_owned();
        return Err(BackupError::Room {
            path,
            bytes,
            free,
            kept,
        });
    }
    Ok(())
}

/// Copies the log of a state directory on which no broker runs to `to`, which is made.
pub fn copy_closed(state: &Path, to: &Path) -> Result<(), BackupError> {
    let path = state.join(DIRECTORY).join(LOG);
    if !path.exists() {
        return Err(BackupError::Nothing { path });
    }
    let (mut log, _) = open_log(&path, Seams::default())?;
    let snapshot = log.snapshot().map_err(|error| BackupError::Make {
        path,
        source: io::Error::other(error),
    })?;
    copy_into(&snapshot, to, MARGIN, |_| ControlFlow::Continue(()))?;
    Ok(())
}

/// What a log comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Virtual hosts.
    pub vhosts: u64,
    /// Users.
    pub users: u64,
    /// Queues that outlive the broker.
    pub queues: u64,
    /// Their messages, and those that wait in an exchange for their time; each counted once for each of its queues.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// Reads the whole log in the directory `log`, which nobody has open, with every checksum, and changes nothing. What
/// is damaged is an error.
pub fn count(log: &Path) -> Result<Counts, OpenError> {
    let directory = |source| OpenError::Directory {
        path: log.to_owned(),
        source,
    };
    if !log.is_dir() {
        return Err(directory(io::ErrorKind::NotFound.into()));
    }
    let disk = HostDisk::open(log).map_err(directory)?;
    let path = log.to_owned();
    let disk = disk.ok_or(OpenError::InUse { path })?;
    let examined = examine(&disk)?;
    if let Some(first) = examined.damage.first() {
        let damaged = mainstay_journal::OpenError::Damaged {
            path: first.path.clone(),
            offset: first.offset,
            damage: first.damage,
        };
        return Err(damaged.into());
    }
    let definitions = record::read(&examined.definitions)?;
    let definitions = definitions.ok_or_else(|| nothing_defined(log))?;
    let mut counts = Counts {
        vhosts: definitions.accounts.vhosts.len() as u64,
        users: definitions.accounts.users.len() as u64,
        queues: 0,
        messages: 0,
        bytes: 0,
    };
    // What is in a queue that is not declared any more is forgotten at the next start.
    let mut keys = Vec::new();
    for (vhost, records) in &definitions.records {
        for record in records {
            if let Record::Queue(id, _) | Record::Delays(id, _) = record {
                keys.push(queue_key(*vhost, *id));
            }
            counts.queues += u64::from(matches!(record, Record::Queue(..)));
        }
    }
    keys.sort_unstable();
    for queue in &examined.queues {
        if keys.binary_search(&queue.key).is_ok() {
            counts.messages += queue.messages;
            counts.bytes += queue.bytes;
        }
    }
    Ok(counts)
}

/// A broker's first start writes definitions before anything else.
fn nothing_defined(log: &Path) -> RecordError {
    RecordError::Definition {
        key: format!("of the format in `{}`", log.display()),
        why: "there is none".to_owned(),
    }
}

/// An error with its causes, in a line.
fn chain(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}
