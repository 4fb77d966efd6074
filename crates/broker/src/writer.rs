//! The thread that writes the log. It takes everything that waits, appends it, syncs once, reports, and while it syncs the
//! next batch gathers: group commit without a timer. A virtual host that finds nobody at the desk, and nothing else to do, may
//! write there itself (`here`).
//!
//! ```text
//!   virtual hosts ── Batch ──► append ─► sync ─► Reports, each host's own ──► confirms, answers
//!                               │ no room
//!                               └► backlog: what frees room goes past it
//! ```

mod backlog;
mod here;
mod pace;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use mainstay_amqp::QueueId;
use mainstay_journal::messages::{AppendError, Change, Level, MessageLog, Room, Snapshot, Tidied};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::backlog::Backlog;
pub(crate) use self::here::{Here, is_small};
use self::pace::Pace;
use crate::limits::{BATCHES_MAX, SYNC_LEN_MAX, UNSYNCED_LEN_MAX};
use crate::seams::{Seams, Syncs};

/// Bytes that one step of reclaiming room reads and writes: a few milliseconds in which nothing is confirmed.
const TIDY_LEN: u64 = 1024 * 1024;
/// Syncs between two steps while batches never cease.
const TIDY_EVERY: u32 = 4;

/// Whether a change may go past what waits for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// After all before it: a dead letter is stored before its message is forgotten.
    Ordered,
    /// It comes of an acknowledgement, a purge or a deletion: nothing that waits must come first, and it makes room.
    Relief,
}

/// Whether somebody waits until a batch is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// A publisher, or who declares something, is told then.
    Now,
    /// Acknowledgements alone, to which nothing is answered: on disk with the next that cannot wait, or after a second
    /// (`LOOK_EVERY`). They are in the log before whatever comes after them.
    Later,
}

/// What a virtual host changed in one turn.
#[derive(Debug)]
pub(crate) struct Batch {
    /// From 1 on, without a gap.
    pub(crate) number: u64,
    pub(crate) haste: Haste,
    pub(crate) changes: Vec<Change>,
    /// Of each change.
    pub(crate) classes: Vec<Class>,
    /// The last position of each queue that is stored by it.
    pub(crate) through: Vec<(QueueId, u64)>,
    pub(crate) reports: Arc<Reports>,
}

/// What the writer is asked.
#[derive(Debug)]
pub(crate) enum Order {
    Write(Batch),
    /// Changes of accounts; the answer comes when they are on disk.
    Define(Vec<Change>, oneshot::Sender<()>),
    /// The log as it is after all that was ordered before, to be copied by somebody else.
    Snapshot(oneshot::Sender<Snapshot>),
    /// The same for what only takes away: it may go past what waits for room.
    Remove(Vec<Change>, oneshot::Sender<()>),
    /// A second has passed: there may be room again, and what waits for a sync has waited long enough.
    Retry,
}

/// What is on disk, for one virtual host.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    state: Mutex<Synced>,
    /// The last batch that was appended; changes at the desk alone.
    appended: AtomicU64,
    pub(crate) bell: Notify,
}

/// The news since it was asked last.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    /// All batches up to this one.
    pub(crate) number: u64,
    /// All of these queues up to these positions.
    pub(crate) through: BTreeMap<QueueId, u64>,
}

impl Reports {
    /// A lock between two threads, held for a few moves of memory.
    fn lock(&self) -> MutexGuard<'_, Synced> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self) -> Synced {
        let mut state = self.lock();
        let number = state.number;
        std::mem::replace(
            &mut *state,
            Synced {
                number,
                through: BTreeMap::new(),
            },
        )
    }

    fn report(&self, number: u64, through: Vec<(QueueId, u64)>) {
        let mut state = self.lock();
        state.number = number;
        state.through.extend(through);
        drop(state);
        self.bell.notify_one();
    }
}

/// What others see of the writer.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) syncs: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) on_disk: AtomicU64,
    pub(crate) live: AtomicU64,
    pub(crate) segments: AtomicU64,
    /// 0: plenty, 1: low, 2: full.
    pub(crate) level: AtomicU64,
    /// Changes that are in the log, and not synced since nobody waits for them.
    pub(crate) unsynced: AtomicU64,
}

impl Gauges {
    pub(crate) fn has_room(&self) -> bool {
        self.level.load(Ordering::Relaxed) == 0
    }

    /// Whether the writer is to be called once a second.
    pub(crate) fn wants_retry(&self) -> bool {
        !self.has_room() || self.unsynced.load(Ordering::Relaxed) > 0
    }
}

/// Why nothing more is written.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    reason: Mutex<Option<AppendError>>,
    pub(crate) token: CancellationToken,
}

impl Failure {
    fn set(&self, reason: AppendError) {
        // With what the operating system said.
        let error: &(dyn std::error::Error + 'static) = &reason;
        tracing::error!(error, "nothing more is stored, nothing more is confirmed");
        // The first one: what comes after it comes of it.
        self.reason().get_or_insert(reason);
        self.token.cancel();
    }

    /// A lock between two threads, of which none waits for anything with it.
    fn reason(&self) -> MutexGuard<'_, Option<AppendError>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's handle.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) here: Here,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) failure: Arc<Failure>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub(crate) fn start(log: MessageLog, seams: Seams) -> std::io::Result<Self> {
        let (orders, mut inbox) = mpsc::channel(BATCHES_MAX);
        let gauges = Arc::new(Gauges::default());
        let failure = Arc::new(Failure::default());
        // A lock: the thread holds it while it works, and a virtual host only tries whether it is free.
        let desk = Arc::new(Mutex::new(Desk {
            log,
            backlog: Backlog::default(),
            done: Vec::new(),
            unsynced: 0,
            unsynced_len: 0,
            haste: Haste::Later,
            written_here: 0,
            pace: Pace::default(),
            gauges: Arc::clone(&gauges),
            seams,
        }));
        let here = Here::new(Arc::clone(&desk), Arc::clone(&failure));
        let on_failure = Arc::clone(&failure);
        let work = move || {
            if let Err(error) = work(&desk, &mut inbox) {
                on_failure.set(error);
            }
        };
        let thread = std::thread::Builder::new()
            .name("writer".into())
            .spawn(work)?;
        Ok(Self {
            orders,
            here,
            gauges,
            failure,
            thread,
        })
    }

    /// Why it failed, if it did.
    pub(crate) fn into_reason(self) -> Option<AppendError> {
        self.failure.reason().take()
    }

    /// Ends it after all that was ordered; everybody else has let go of `orders`.
    pub(crate) async fn end(self) {
        drop(self.orders);
        // A panic of it was told by the hook, and the token is cancelled by none: what waits for it is the end anyhow.
        tokio::task::spawn_blocking(|| self.thread.join().ok())
            .await
            .ok();
    }
}

/// The thread: until nobody can order anything more.
fn work(desk: &Mutex<Desk>, inbox: &mut mpsc::Receiver<Order>) -> Result<(), AppendError> {
    // A virtual host that panicked with it ends the broker: nothing more is written.
    let at = || desk.lock().ok();
    let mut rounds: u32 = 0;
    if let Some(mut desk) = at() {
        desk.show(desk.log.room());
        if desk.log.has_past() {
            // What an earlier life left needs no traffic to be given back.
            desk.tidy(inbox)?;
        }
    }
    while let Some(first) = inbox.blocking_recv() {
        let Some(mut desk) = at() else { return Ok(()) };
        desk.append_all(first, inbox)?;
        if desk.haste == Haste::Now || desk.unsynced_len > UNSYNCED_LEN_MAX {
            desk.sync()?;
        }
        rounds += 1;
        if inbox.is_empty() || rounds.is_multiple_of(TIDY_EVERY) {
            desk.tidy(inbox)?;
        }
    }
    at().map_or(Ok(()), |mut desk| desk.sync())
}

/// Whom to tell after a sync.
#[derive(Debug)]
enum Told {
    Host {
        reports: Arc<Reports>,
        number: u64,
        through: Vec<(QueueId, u64)>,
    },
    Definer(oneshot::Sender<()>),
}

/// Where the log is written.
#[derive(Debug)]
struct Desk {
    log: MessageLog,
    backlog: Backlog,
    /// Appended, and not synced.
    done: Vec<Told>,
    /// Changes that were appended and not synced.
    unsynced: usize,
    /// And their bytes.
    unsynced_len: usize,
    /// Whether somebody waits for a sync of them.
    haste: Haste,
    /// Bytes that virtual hosts wrote since room was reclaimed last.
    written_here: usize,
    pace: Pace,
    gauges: Arc<Gauges>,
    seams: Seams,
}

impl Desk {
    /// Takes this and everything that waits.
    fn append_all(
        &mut self,
        first: Order,
        inbox: &mut mpsc::Receiver<Order>,
    ) -> Result<(), AppendError> {
        let mut len = self.take(first)?;
        while len < SYNC_LEN_MAX
            && let Ok(next) = inbox.try_recv()
        {
            len += self.take(next)?;
        }
        Ok(())
    }

    fn take(&mut self, order: Order) -> Result<usize, AppendError> {
        let (changes, classes, haste, told) = match order {
            Order::Write(mut batch) => {
                self.seams.spoil(&mut batch.changes);
                batch
                    .reports
                    .appended
                    .store(batch.number, Ordering::Relaxed);
                let told = Told::Host {
                    reports: batch.reports,
                    number: batch.number,
                    through: batch.through,
                };
                (batch.changes, batch.classes, batch.haste, Some(told))
            }
            Order::Define(changes, answer) => {
                (changes, Vec::new(), Haste::Now, Some(Told::Definer(answer)))
            }
            Order::Snapshot(answer) => {
                // Who asked may have gone away.
                answer.send(self.log.snapshot()?).ok();
                return Ok(0);
            }
            Order::Remove(changes, answer) => {
                let classes = vec![Class::Relief; changes.len()];
                let told = Some(Told::Definer(answer));
                (changes, classes, Haste::Now, told)
            }
            Order::Retry => (Vec::new(), Vec::new(), Haste::Now, None),
        };
        if haste == Haste::Now {
            self.haste = Haste::Now;
        }
        let len = changes.iter().map(len_of).sum();
        self.unsynced_len += len;
        if self.backlog.is_empty() {
            match self.log.append(&changes) {
                Ok(_) => {
                    self.done.extend(told);
                    self.unsynced += changes.len();
                    return Ok(len);
                }
                Err(error @ AppendError::Full { .. }) => {
                    tracing::warn!(%error, "publishers wait; consumers go on");
                }
                Err(error) => return Err(error),
            }
        }
        // What makes room is to be on disk soon.
        self.haste = Haste::Now;
        self.backlog.push(changes, &classes, told);
        self.backlog.append(&mut self.log, &mut self.done)?;
        self.unsynced += 1;
        if self.backlog.is_empty() {
            tracing::info!("there is room in the log again: what waited is stored");
        }
        Ok(len)
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        if self.unsynced > 0 {
            let start = Instant::now();
            if self.seams.syncs == Syncs::On {
                self.log.sync()?;
            }
            let now = Instant::now();
            self.pace.took(now, now.duration_since(start));
            self.gauges.syncs.fetch_add(1, Ordering::Relaxed);
            let records = u64::try_from(self.unsynced).unwrap_or(u64::MAX);
            self.gauges.records.fetch_add(records, Ordering::Relaxed);
            self.unsynced = 0;
        }
        self.unsynced_len = 0;
        self.haste = Haste::Later;
        for told in self.done.drain(..) {
            match told {
                Told::Host {
                    reports,
                    number,
                    through,
                } => reports.report(number, through),
                // Who asked may have gone away.
                Told::Definer(answer) => drop(answer.send(())),
            }
        }
        self.show(self.log.room());
        Ok(())
    }

    /// Reclaims room while nobody waits, and one step in any case.
    fn tidy(&mut self, inbox: &mpsc::Receiver<Order>) -> Result<(), AppendError> {
        self.written_here = 0;
        loop {
            match self.log.tidy(TIDY_LEN) {
                Ok(Tidied::More) if inbox.is_empty() => {}
                // Without room there is nothing to be moved; what is acknowledged makes some.
                Ok(Tidied::More | Tidied::Idle) | Err(AppendError::Full { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        self.show(self.log.room());
        Ok(())
    }

    fn show(&self, room: Room) {
        let level = match room.level {
            Level::Plenty if !self.backlog.is_empty() => 1,
            Level::Plenty => 0,
            Level::Low => 1,
            Level::Full => 2,
        };
        self.gauges.level.store(level, Ordering::Relaxed);
        self.gauges.on_disk.store(room.on_disk, Ordering::Relaxed);
        self.gauges.live.store(room.live, Ordering::Relaxed);
        let segments = u64::try_from(room.segments).unwrap_or(u64::MAX);
        self.gauges.segments.store(segments, Ordering::Relaxed);
        let unsynced = u64::try_from(self.unsynced).unwrap_or(u64::MAX);
        self.gauges.unsynced.store(unsynced, Ordering::Relaxed);
    }
}

/// Bytes of a change, near enough to end a batch by.
pub(crate) fn len_of(change: &Change) -> usize {
    /// What a record has besides.
    const HEAD: usize = 32;
    HEAD + match change {
        Change::Put { key, value } => key.len() + value.len(),
        Change::Remove { key } => key.len(),
        Change::Message { refs, head, body } => {
            let body = match body {
                mainstay_journal::messages::Body::Here(bytes) => bytes.len(),
                mainstay_journal::messages::Body::Stored(_) => 0,
            };
            refs.len() * 20 + head.len() + body
        }
        Change::Forget(_) | Change::ForgetQueue(_) => 0,
    }
}

#[cfg(test)]
mod tests;
