//! What is written to disk: the state, and beside it the events.

use std::path::Path;
use std::sync::Arc;

use mainstay_control::Snapshot;
use mainstay_model::Event;
use mainstay_store::{EventLog, OpenError, SaveError, Store};

/// The two files, written by one thread at a time.
pub(crate) struct Archive {
    store: Store,
    events: EventLog,
    writable: Writable,
}

/// Whether the last append of events succeeded: a failure is told once.
enum Writable {
    Yes,
    No,
}

impl Archive {
    /// Opens both; gives the state and the newest events.
    pub(crate) fn open(
        directory: &Path,
    ) -> Result<(Self, Option<Snapshot>, Vec<Event>), OpenError> {
        let (store, snapshot) = Store::open::<Snapshot>(directory)?;
        let (events, mut past) = EventLog::open(directory);
        let last = snapshot.as_ref().map_or(0, Snapshot::last_event);
        // Their numbers were not durable and will be given away again.
        past.retain(|event| event.number <= last);
        let archive = Self {
            store,
            events,
            writable: Writable::Yes,
        };
        Ok((archive, snapshot, past))
    }

    /// Makes the state durable.
    pub(crate) fn save(&mut self, snapshot: &Snapshot) -> Result<(), SaveError> {
        self.store.save(snapshot)
    }

    /// Appends events. They are for looking back: if the disk refuses they are missing there.
    pub(crate) fn append(&mut self, events: &[Arc<Event>]) {
        let appended = self.events.append(events.iter().map(Arc::as_ref));
        self.writable = match (appended, &self.writable) {
            (Ok(()), _) => Writable::Yes,
            (Err(_), Writable::No) => Writable::No,
            (Err(error), Writable::Yes) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "events are missing in their file");
                Writable::No
            }
        };
    }
}
