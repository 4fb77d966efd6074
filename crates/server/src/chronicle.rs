//! The events of the last weeks on disk, for people who look back.
//!
//! They are a journal in `control/history`, an event as JSON in each record. A task of its own
//! writes them, so that the centre never waits for them. What is true is in the state: an event
//! that is lost changes nothing but what people can read. So it is written at once, which is enough
//! to survive the end of the process, and synced in groups, once a second at most: a power loss may
//! take the events of the last second, and that there is a gap is told to who reads.
//!
//! For the same reason nothing that is wrong with the history keeps the control centre from
//! starting: a history that is damaged is set aside and a new one is begun; one that cannot be
//! written is tried again while the events wait in memory.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mainstay_journal::{
    AppendError, Durable, HostDisk, Journal, Limits, OpenError, Outline, Retired, SyncError,
};
use mainstay_model::Event;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;
use tokio::time::{Instant, sleep_until};

use crate::history::EVENTS_KEPT;
use crate::takeover;

/// The directory of the history in that of the control centre.
pub(crate) const HISTORY: &str = "history";

/// Some 60,000 events of 250 bytes: weeks of an ordinary cluster, two days of one with an instance
/// that crashes every ten seconds. Segments of 1 MiB, so that giving one up forgets a sixteenth, and
/// a small disk needs room for one only. Removed, not recycled: who reads the oldest events reads on.
const LIMITS: Limits = Limits {
    segment_len: 1024 * 1024,
    segments_max: 16,
    bytes_max: 16 * 1024 * 1024,
    retired: Retired::Remove,
};

/// The longest time between the writing of an event and its sync; see above why that is enough.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// The time between two attempts to write while the disk refuses.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Batches on their way to the task, each of what one turn of the centre decided. When it is full
/// the disk is slow: the centre keeps the events and hands them over at a later turn.
pub(crate) const QUEUE_LEN: usize = 16;

/// How many events are appended at a time: some 25 kB, far less than a segment.
const BATCH_LEN: usize = 100;

/// How many damaged histories are kept beside the new one. Behind that the disk itself is to be
/// looked at, and nothing more is written rather than anything be removed.
const ASIDE_MAX: u32 = 9;

/// What there is to read at the moment; `None`: the history cannot be opened.
pub(crate) type Shelf = watch::Receiver<Option<Outline>>;

/// The history on disk. Its methods block.
pub(crate) struct Chronicle {
    directory: PathBuf,
    /// Kept over a new opening: its lock lives as long as somebody reads.
    disk: Option<Arc<HostDisk>>,
    /// `None`: it could not be opened, or not be synced.
    journal: Option<Journal>,
    /// The number of the newest event in it.
    newest: u64,
    /// The newest event of the state at the start.
    last: u64,
    wrote: Wrote,
}

/// Whether this process has written to the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrote {
    Nothing,
    Events,
}

/// Why events are not in the history yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("cannot use history directory `{path}`")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("history directory `{path}` is in use by another process")]
    InUse { path: PathBuf },
    #[error(
        "cannot set the history `{path}` aside: {ASIDE_MAX} are there already; look at the disk and move them away"
    )]
    TooManyAside { path: PathBuf },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Sync(#[from] SyncError),
}

impl Chronicle {
    /// Opens the history in the control centre's directory; gives its newest events, too. Those
    /// behind number `last` are not of this state: somebody put an older one in place, and their
    /// numbers will be given away again.
    pub(crate) fn open(control: &Path, last: u64) -> (Self, Vec<Event>) {
        let mut chronicle = Self {
            directory: control.join(HISTORY),
            disk: None,
            journal: None,
            newest: 0,
            last,
            wrote: Wrote::Nothing,
        };
        let mut past = chronicle.begin().unwrap_or_else(|error| {
            let error = &error as &dyn Error;
            tracing::warn!(error, "the history cannot be used; events wait in memory");
            Vec::new()
        });
        past.drain(..past.len().saturating_sub(EVENTS_KEPT));
        (chronicle, past)
    }

    /// What there is to read.
    pub(crate) fn outline(&self) -> Option<Outline> {
        self.journal.as_ref().map(Journal::outline)
    }

    /// Writes events that are newer than what it holds. After an error it may be tried again with
    /// the same ones.
    pub(crate) fn append<E: Borrow<Event>>(&mut self, events: &[E]) -> Result<(), WriteError> {
        if self.journal.is_none() {
            self.begin()?;
        }
        let behind = events.partition_point(|event| event.borrow().number <= self.newest);
        for batch in events[behind..].chunks(BATCH_LEN) {
            let bodies: Vec<Vec<u8>> = batch.iter().map(|event| encode(event.borrow())).collect();
            let Some(journal) = &mut self.journal else {
                return Ok(()); // was opened above
            };
            match journal.append(&bodies) {
                // Durable within a second, see above.
                Ok(_unsynced) => self.wrote = Wrote::Events,
                Err(error @ AppendError::TooLong { .. }) => {
                    let error = &error as &dyn Error;
                    tracing::warn!(error, "events are missing in the history");
                }
                Err(error @ AppendError::Disk { .. }) => return Err(error.into()),
                Err(error @ AppendError::Sync(_)) => {
                    self.journal = None; // to be opened anew
                    return Err(error.into());
                }
            }
            self.newest = batch
                .last()
                .map_or(self.newest, |event| event.borrow().number);
        }
        Ok(())
    }

    /// Makes all that was written durable.
    pub(crate) fn sync(&mut self) -> Result<(), WriteError> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        let synced: Result<Durable, SyncError> = journal.sync();
        if synced.is_err() {
            self.journal = None;
        }
        synced?;
        Ok(())
    }

    /// Opens it with all that belongs to it; gives its newest events.
    fn begin(&mut self) -> Result<Vec<Event>, WriteError> {
        let mut past = self.open_or_set_aside()?;
        // Later on it is ahead of the state at the start by what was written since.
        if self.wrote == Wrote::Nothing && self.newest > self.last {
            let why = format!(
                "it goes up to event {}, the state to {}",
                self.newest, self.last
            );
            self.set_aside(&why)?;
            self.open_or_set_aside()?;
            past.retain(|event| event.number <= self.last);
            self.append_all(&past)?;
        }
        past.extend(self.take_over()?);
        Ok(past)
    }

    fn open_or_set_aside(&mut self) -> Result<Vec<Event>, WriteError> {
        match self.try_open() {
            Err(WriteError::Open(
                error @ (OpenError::Damaged { .. } | OpenError::Newer { .. }),
            )) => {
                self.set_aside(&error.to_string())?;
                self.try_open()
            }
            opened => opened,
        }
    }

    fn try_open(&mut self) -> Result<Vec<Event>, WriteError> {
        let path = self.directory.clone();
        // Kept only if it can be used: the directory may be another one at the next attempt.
        let disk = match self.disk.take() {
            Some(disk) => disk,
            None => match HostDisk::open(&path) {
                Ok(Some(disk)) => Arc::new(disk),
                Ok(None) => return Err(WriteError::InUse { path }),
                Err(source) => return Err(WriteError::Directory { path, source }),
            },
        };
        let mut newest: VecDeque<Vec<u8>> = VecDeque::new();
        let journal = Journal::open(disk.clone(), LIMITS, |record| {
            if newest.len() == EVENTS_KEPT {
                newest.pop_front();
            }
            newest.push_back(record.body.to_vec());
        })?;
        self.disk = Some(disk);
        self.journal = Some(journal);
        let events: Vec<Event> = newest.iter().filter_map(|body| decode(body)).collect();
        self.newest = events.last().map_or(0, |event| event.number);
        Ok(events)
    }

    /// Gives the directory another name, so that nothing of it is lost.
    fn set_aside(&mut self, why: &str) -> Result<(), WriteError> {
        self.journal = None;
        self.disk = None;
        self.newest = 0;
        let path = self.directory.clone();
        let aside = (1..=ASIDE_MAX)
            .map(|number| path.with_file_name(format!("{HISTORY}.aside-{number}")))
            .find(|aside| !aside.exists());
        let Some(aside) = aside else {
            return Err(WriteError::TooManyAside { path });
        };
        let renamed = fs::rename(&path, &aside).and_then(|()| match path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        });
        renamed.map_err(|source| WriteError::Directory { path, source })?;
        let aside = aside.display();
        tracing::warn!(%aside, why, "the history was set aside and a new one is begun");
        Ok(())
    }

    /// Takes the events of an earlier format over, once: their files are removed when they are
    /// durable here.
    fn take_over(&mut self) -> Result<Vec<Event>, WriteError> {
        let control = self.directory.parent().unwrap_or(Path::new("")).to_owned();
        let mut events = takeover::read(&control);
        events.retain(|event| event.number > self.newest && event.number <= self.last);
        self.append_all(&events)?;
        if takeover::remove(&control) {
            tracing::info!(
                events = events.len(),
                "the events of an earlier version were taken over"
            );
        }
        Ok(events)
    }

    fn append_all(&mut self, events: &[Event]) -> Result<(), WriteError> {
        self.append(events)?;
        self.sync()
    }
}

fn encode(event: &Event) -> Vec<u8> {
    serde_json::to_vec(event).expect("an event is JSON")
}

/// `None`: another version wrote something that this one does not know.
pub(crate) fn decode(body: &[u8]) -> Option<Event> {
    serde_json::from_slice(body).ok()
}

/// The task that writes what it is sent.
pub(crate) struct Scribe {
    /// `None` only while a thread writes.
    chronicle: Option<Chronicle>,
    events: mpsc::Receiver<Vec<Arc<Event>>>,
    shelf: watch::Sender<Option<Outline>>,
    /// What the disk refused, at most what the centre keeps in memory.
    waiting: Vec<Arc<Event>>,
    retry: Option<Instant>,
    sync_due: Option<Instant>,
}

impl Scribe {
    pub(crate) fn new(chronicle: Chronicle) -> (Self, mpsc::Sender<Vec<Arc<Event>>>, Shelf) {
        let (sender, events) = mpsc::channel(QUEUE_LEN);
        let (shelf, reading) = watch::channel(chronicle.outline());
        let scribe = Self {
            chronicle: Some(chronicle),
            events,
            shelf,
            waiting: Vec::new(),
            retry: None,
            sync_due: None,
        };
        (scribe, sender, reading)
    }

    /// Runs until the sender is gone, and then writes and syncs the rest. The error is the panic of
    /// the thread that wrote.
    pub(crate) async fn run(mut self) -> Result<(), JoinError> {
        loop {
            let ready = self.waiting.is_empty();
            tokio::select! {
                received = self.events.recv(), if ready => match received {
                    Some(events) => self.waiting = events,
                    None => break,
                },
                () = until(self.retry) => {}
                () = until(self.sync_due) => {
                    self.sync().await?;
                    continue;
                }
            }
            self.write().await?;
        }
        self.sync().await
    }

    async fn write(&mut self) -> Result<(), JoinError> {
        let events = std::mem::take(&mut self.waiting);
        let (written, events) = self
            .lend(move |chronicle| (chronicle.append(&events), events))
            .await?;
        match written {
            Ok(()) => {
                self.sync_due.get_or_insert(Instant::now() + SYNC_EVERY);
                if self.retry.take().is_some() {
                    tracing::info!("the history is written again");
                }
            }
            Err(error) => {
                if self.retry.is_none() {
                    tell(&error);
                }
                self.waiting = events;
                self.retry = Some(Instant::now() + RETRY_EVERY);
            }
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), JoinError> {
        self.sync_due = None;
        if let Err(error) = self.lend(Chronicle::sync).await? {
            tell(&error);
        }
        Ok(())
    }

    /// Lends the chronicle to a thread that may block.
    async fn lend<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Chronicle) -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let mut chronicle = self
            .chronicle
            .take()
            .expect("a panicked write ended the task");
        let written = tokio::task::spawn_blocking(move || {
            let outcome = work(&mut chronicle);
            (chronicle, outcome)
        });
        let (chronicle, outcome) = written.await?;
        self.shelf.send_replace(chronicle.outline());
        self.chronicle = Some(chronicle);
        Ok(outcome)
    }
}

fn tell(error: &WriteError) {
    let error = error as &dyn Error;
    tracing::warn!(error, "events wait in memory to be written to the history");
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::past::{PAGE_LEN, Past, Span};
    use mainstay_ids::Timestamp;
    use mainstay_model::EventKind;
    use mainstay_testkit::TempDir;

    fn event(number: u64) -> Event {
        Event {
            number,
            at: Timestamp(number * 10),
            service: None,
            kind: EventKind::RemovalStarted,
        }
    }

    fn events(numbers: std::ops::RangeInclusive<u64>) -> Vec<Event> {
        numbers.map(event).collect()
    }

    /// What is on disk of events `after..before`.
    fn on_disk(chronicle: &Chronicle, after: u64, before: u64, since: u64) -> Vec<u64> {
        let outline = chronicle.outline().expect("is open");
        let span = |after| Span {
            after,
            before,
            since: Timestamp(since),
        };
        let mut past = Past::find(&outline, span(after));
        let mut numbers = Vec::new();
        loop {
            let page = past.page(span(after));
            numbers.extend(page.iter().map(|event| event.number));
            if page.len() < PAGE_LEN {
                return numbers;
            }
        }
    }

    fn numbers(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn the_newest_events_come_back_and_older_ones_are_found_on_disk() {
        let dir = TempDir::new("chronicle");
        let (mut chronicle, past) = Chronicle::open(dir.path(), 0);
        assert_eq!(past, []);
        chronicle.append(&events(1..=20_000)).expect("appends");
        // What was written is not written twice.
        chronicle.append(&events(19_990..=20_010)).expect("appends");
        drop(chronicle);
        let (chronicle, past) = Chronicle::open(dir.path(), 20_010);
        assert_eq!(numbers(&past), (19_011..=20_010).collect::<Vec<_>>());
        let segments = chronicle.outline().expect("is open").beginnings().count();
        assert!(segments > 1, "{segments}");
        for (after, before) in [(0, 30_000), (0, 5), (7_000, 19_011), (20_009, u64::MAX)] {
            let expected = after + 1..before.min(20_011);
            assert_eq!(
                on_disk(&chronicle, after, before, 0),
                expected.collect::<Vec<_>>()
            );
        }
        // A reader that looks for a time begins in the segment that has it.
        let since = on_disk(&chronicle, 0, u64::MAX, 150_000);
        assert!(since.contains(&15_000) && since[0] > 1, "{}", since[0]);
    }

    #[test]
    fn the_history_stays_bounded_and_forgets_the_oldest() {
        let dir = TempDir::new("bounded");
        let (mut chronicle, _) = Chronicle::open(dir.path(), 0);
        for batch in 0..200 {
            let numbers = batch * 1000 + 1..=batch * 1000 + 1000;
            chronicle.append(&events(numbers)).expect("appends");
        }
        let files = fs::read_dir(dir.join(HISTORY)).expect("is there");
        let bytes: u64 = files
            .map(|file| {
                file.and_then(|file| file.metadata())
                    .expect("is there")
                    .len()
            })
            .sum();
        assert!(bytes <= LIMITS.bytes_max, "{bytes}");
        let kept = on_disk(&chronicle, 0, u64::MAX, 0);
        assert_eq!(kept.last(), Some(&200_000));
        assert!(
            kept.is_sorted_by(|a, b| a + 1 == *b) && kept[0] > 1,
            "{}",
            kept[0]
        );
    }

    #[test]
    fn a_damaged_history_is_set_aside_whole_and_at_last_nothing_more_is_written() {
        let dir = TempDir::new("aside");
        let segment = dir.join(HISTORY).join("0000000000000001.segment");
        for number in 1..=ASIDE_MAX {
            let (mut chronicle, past) = Chronicle::open(dir.path(), 5);
            assert_eq!(past, []);
            chronicle.append(&events(1..=5)).expect("appends");
            drop(chronicle);
            let mut bytes = fs::read(&segment).expect("is there");
            bytes[3] ^= 1;
            fs::write(&segment, &bytes).expect("writes");
            drop(Chronicle::open(dir.path(), 5));
            let aside = dir.join(format!("{HISTORY}.aside-{number}"));
            let aside = fs::read(aside.join("0000000000000001.segment"));
            assert_eq!(aside.expect("is there"), bytes);
        }
        let mut bytes = fs::read(&segment).expect("is there");
        bytes[3] ^= 1;
        fs::write(&segment, &bytes).expect("writes");
        let (mut chronicle, past) = Chronicle::open(dir.path(), 5);
        assert_eq!(past, []);
        let error = chronicle.append(&events(6..=7)).expect_err("is too much");
        assert!(error.to_string().contains("move them away"), "{error}");
        assert_eq!(fs::read(&segment).expect("is there"), bytes);
    }

    #[test]
    fn a_history_of_a_later_state_is_set_aside_and_what_is_of_this_one_is_kept() {
        let dir = TempDir::new("later");
        let (mut chronicle, _) = Chronicle::open(dir.path(), 0);
        chronicle.append(&events(1..=50)).expect("appends");
        drop(chronicle);
        let (mut chronicle, past) = Chronicle::open(dir.path(), 30);
        assert_eq!(numbers(&past), (1..=30).collect::<Vec<_>>());
        chronicle.append(&events(31..=32)).expect("appends");
        assert_eq!(
            on_disk(&chronicle, 0, u64::MAX, 0),
            (1..=32).collect::<Vec<_>>()
        );
        assert!(dir.join("history.aside-1").exists());
    }

    #[test]
    fn events_of_an_earlier_version_are_taken_over_once() {
        let dir = TempDir::new("takeover");
        let lines = |numbers: std::ops::RangeInclusive<u64>| {
            let lines = numbers.map(|number| encode(&event(number)));
            lines.collect::<Vec<_>>().join(&b'\n')
        };
        let torn = b"\n{\"number\":1201,\"at".to_vec();
        fs::write(dir.join("events.ndjson.1"), lines(1..=700)).expect("writes");
        fs::write(
            dir.join("events.ndjson"),
            [lines(701..=1200), torn].concat(),
        )
        .expect("writes");
        // Behind event 1190 the state knows nothing.
        let (chronicle, past) = Chronicle::open(dir.path(), 1190);
        assert_eq!(numbers(&past), (191..=1190).collect::<Vec<_>>());
        assert_eq!(
            on_disk(&chronicle, 0, u64::MAX, 0),
            (1..=1190).collect::<Vec<_>>()
        );
        assert!(!dir.join("events.ndjson").exists() && !dir.join("events.ndjson.1").exists());
        drop(chronicle);
        let (chronicle, _) = Chronicle::open(dir.path(), 1190);
        assert_eq!(on_disk(&chronicle, 0, u64::MAX, 0).len(), 1190);
    }

    #[test]
    fn a_power_loss_between_taking_over_and_removing_takes_nothing_over_twice() {
        let dir = TempDir::new("takeover-cut");
        let (mut chronicle, _) = Chronicle::open(dir.path(), 0);
        chronicle.append(&events(1..=3)).expect("appends");
        drop(chronicle);
        let lines: Vec<Vec<u8>> = events(1..=5).iter().map(encode).collect();
        fs::write(dir.join("events.ndjson"), lines.join(&b'\n')).expect("writes");
        let (chronicle, past) = Chronicle::open(dir.path(), 5);
        assert_eq!(numbers(&past), [1, 2, 3, 4, 5]);
        assert_eq!(on_disk(&chronicle, 0, u64::MAX, 0), [1, 2, 3, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn events_wait_for_a_disk_that_refuses_and_the_end_writes_the_rest() {
        let dir = TempDir::new("waits");
        fs::write(dir.join(HISTORY), "in the way").expect("writes");
        let (chronicle, _) = Chronicle::open(dir.path(), 0);
        let (scribe, sender, mut shelf) = Scribe::new(chronicle);
        let running = tokio::spawn(scribe.run());
        let shared = |numbers| {
            events(numbers)
                .into_iter()
                .map(Arc::new)
                .collect::<Vec<_>>()
        };
        sender.send(shared(1..=3)).await.expect("takes them");
        for _attempt in 0..3 {
            shelf.changed().await.expect("goes on");
            assert!(shelf.borrow_and_update().is_none());
        }
        fs::remove_file(dir.join(HISTORY)).expect("is removed");
        sender.send(shared(4..=5)).await.expect("takes them");
        drop(sender);
        running.await.expect("ends").expect("ends");
        drop(shelf);
        let (chronicle, past) = Chronicle::open(dir.path(), 5);
        assert_eq!(numbers(&past), [1, 2, 3, 4, 5]);
        assert_eq!(on_disk(&chronicle, 0, u64::MAX, 0), [1, 2, 3, 4, 5]);
    }
}
