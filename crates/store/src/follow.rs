//! A watch that reads a log by itself, each time from where it was.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::contract::{
    Answer, Event, Notice, PAGE_LEN_MAX, PROGRESS_EVERY, Revision, StoreError, Watch,
};
use crate::key::KeyRange;

/// Revisions in one read: enough that a reader that lags catches up fast, and few to hold.
const REVISIONS_PER_READ: usize = 256;

/// Changes that are looked at in one read, whether they are in the range or not.
const CHANGES_PER_READ: usize = 10_000;

/// The changes of the past, by revision.
pub(crate) trait Log: Send + Sync + 'static {
    /// What changed in `range` from `from` on, as far as one read goes.
    fn since(&self, range: &KeyRange, from: Revision) -> Answer<'_, Since>;

    /// Rings after each commit, with its revision.
    fn doorbell(&self) -> watch::Receiver<Revision>;
}

/// Rings; revisions only grow, in whatever order those who committed them get here.
pub(crate) fn ring(doorbell: &watch::Sender<Revision>, revision: Revision) {
    doorbell.send_if_modified(|newest| {
        let grows = *newest < revision;
        *newest = (*newest).max(revision);
        grows
    });
}

/// One read of a log.
#[derive(Debug)]
pub(crate) enum Since {
    /// What changed, up to and with `upto`.
    Changes {
        changes: Vec<(Revision, Vec<Event>)>,
        upto: Revision,
    },
    /// It is forgotten below this revision.
    Compacted(Revision),
}

/// Collects the changes of one read, whole revisions only.
pub(crate) struct Gather<'a> {
    range: &'a KeyRange,
    changes: Vec<(Revision, Vec<Event>)>,
    upto: Revision,
    looked_at: usize,
    len: usize,
}

/// Whether a read goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enough {
    No,
    Yes,
}

impl<'a> Gather<'a> {
    /// Nothing yet, of what comes from `from` on.
    pub(crate) fn new(range: &'a KeyRange, from: Revision) -> Self {
        Self {
            range,
            changes: Vec::new(),
            upto: Revision(from.0.saturating_sub(1)),
            looked_at: 0,
            len: 0,
        }
    }

    /// Takes the next change, ordered by revision. `Yes`: it was not taken, the read is over.
    pub(crate) fn take(&mut self, revision: Revision, event: Event) -> Enough {
        let new = revision > self.upto;
        let full = self.changes.len() >= REVISIONS_PER_READ
            || self.looked_at >= CHANGES_PER_READ
            || self.len >= PAGE_LEN_MAX;
        if new && full {
            return Enough::Yes;
        }
        self.upto = revision;
        self.looked_at += 1;
        if self.range.contains(event.key()) {
            if let Event::Put(pair) = &event {
                self.len += pair.value.len();
            }
            match self.changes.last_mut() {
                Some((last, events)) if *last == revision => events.push(event),
                Some(_) | None => self.changes.push((revision, vec![event])),
            }
        }
        Enough::No
    }

    /// What was gathered; `end` is the newest revision, if the read came to the log's end.
    pub(crate) fn finish(self, end: Option<Revision>) -> Since {
        Since::Changes {
            changes: self.changes,
            upto: end.map_or(self.upto, |newest| newest.max(self.upto)),
        }
    }
}

/// A watch on a [`Log`].
pub(crate) struct Follow<L> {
    /// A watch does not keep a store open.
    log: Weak<L>,
    range: KeyRange,
    /// What to read next.
    from: Revision,
    read: VecDeque<(Revision, Vec<Event>)>,
    doorbell: watch::Receiver<Revision>,
    progress_due: Instant,
}

impl<L: Log> Follow<L> {
    pub(crate) fn new(log: &Arc<L>, range: &KeyRange, from: Revision) -> Self {
        Self {
            doorbell: log.doorbell(),
            log: Arc::downgrade(log),
            range: range.clone(),
            // There is no revision 0.
            from: from.max(Revision(1)),
            read: VecDeque::new(),
            progress_due: Instant::now() + PROGRESS_EVERY,
        }
    }

    /// Between two awaits nothing is held that is not in `self`: the future may be dropped.
    async fn advance(&mut self) -> Result<Notice, StoreError> {
        loop {
            if let Some((revision, events)) = self.read.pop_front() {
                self.progress_due = Instant::now() + PROGRESS_EVERY;
                return Ok(Notice::Events(revision, events));
            }
            let newest = *self.doorbell.borrow_and_update();
            if newest >= self.from {
                let log = self.log.upgrade().ok_or(StoreError::Closed)?;
                match log.since(&self.range, self.from).await? {
                    Since::Compacted(revision) => return Ok(Notice::Compacted(revision)),
                    Since::Changes { changes, upto } => {
                        self.from = self.from.max(upto.next());
                        self.read = changes.into();
                    }
                }
                continue;
            }
            tokio::select! {
                rung = self.doorbell.changed() => rung.map_err(|_| StoreError::Closed)?,
                () = sleep_until(self.progress_due) => {
                    self.progress_due = Instant::now() + PROGRESS_EVERY;
                    return Ok(Notice::Progress(newest));
                }
            }
        }
    }
}

impl<L: Log> Watch for Follow<L> {
    fn next(&mut self) -> Answer<'_, Notice> {
        Box::pin(self.advance())
    }
}
