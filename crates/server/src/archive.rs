//! What is written to disk: the state, and beside it the events.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_control::Snapshot;
use mainstay_model::Event;
use mainstay_store::legacy::{self, LegacyError};
use mainstay_store::{EventLog, OpenError, SqliteStore, TokioClock};
use tokio::task::JoinError;

use crate::layout;
use crate::registry::{LoadError, Registry, SaveError};

/// The database's name in its directory.
pub(crate) const STATE_DB: &str = "state.db";

/// State and events.
pub(crate) struct Archive {
    registry: Registry,
    /// `None` only while a thread writes.
    events: Option<EventLog>,
    writable: Writable,
}

/// Whether the last append of events succeeded: a failure is told once.
enum Writable {
    Yes,
    No,
}

/// Why the state could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What is in it cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The state file of an older program cannot be taken over.
    #[error(transparent)]
    Legacy(#[from] LegacyError),
    /// What it says cannot be stored in the database.
    #[error("cannot take over the state file in `{directory}`; it was left as it is")]
    TakeOver {
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: SaveError,
    },
}

/// What was found on disk.
pub(crate) struct Opened {
    pub(crate) archive: Archive,
    /// The state, if one was ever saved.
    pub(crate) snapshot: Option<Snapshot>,
    /// The newest events, the oldest first.
    pub(crate) past: Vec<Event>,
    /// For whoever wants a copy of the whole.
    pub(crate) store: Arc<SqliteStore>,
}

/// Whether `directory` holds a state of any kind.
pub(crate) fn is_there(directory: &Path) -> bool {
    directory.join(STATE_DB).exists() || directory.join(legacy::STATE_FILE).exists()
}

impl Archive {
    /// Opens what is in `directory`, which is made if it is missing.
    pub(crate) async fn open(directory: &Path) -> Result<Opened, StateError> {
        let clock = Arc::new(TokioClock::start());
        let store = SqliteStore::open(&directory.join(STATE_DB), clock).await?;
        let store = Arc::new(store);
        let mut registry = Registry::load(store.clone()).await?;
        let mut snapshot = layout::join(registry.values()).map_err(|source| LoadError::Layout {
            path: registry.path().to_owned(),
            source,
        })?;
        if let Some(taken) = take_over(directory, &mut registry, snapshot.is_some()).await? {
            snapshot = Some(taken);
        }
        let (events, mut past) = EventLog::open(directory);
        let last = snapshot.as_ref().map_or(0, Snapshot::last_event);
        // Their numbers were not durable and will be given away again.
        past.retain(|event| event.number <= last);
        let archive = Self {
            registry,
            events: Some(events),
            writable: Writable::Yes,
        };
        Ok(Opened {
            archive,
            snapshot,
            past,
            store,
        })
    }

    /// Makes the state durable.
    pub(crate) async fn save(&mut self, snapshot: &Snapshot) -> Result<(), SaveError> {
        self.registry.save(layout::split(snapshot)?).await
    }

    /// Appends events, on a thread that may block. They are for looking back: if the disk refuses
    /// they are missing there.
    pub(crate) async fn append(&mut self, events: Vec<Arc<Event>>) -> Result<(), JoinError> {
        let mut log = self.events.take().expect("a panicked write ended the loop");
        let writing = tokio::task::spawn_blocking(move || {
            let appended = log.append(events.iter().map(Arc::as_ref));
            (log, appended)
        });
        let (log, appended) = writing.await?;
        self.events = Some(log);
        self.writable = match (appended, &self.writable) {
            (Ok(()), _) => Writable::Yes,
            (Err(_), Writable::No) => Writable::No,
            (Err(error), Writable::Yes) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "events are missing in their file");
                Writable::No
            }
        };
        Ok(())
    }
}

/// Takes over the state file that was there before the database, once. It is set aside only when
/// the database holds what it says; if that was so already, a crash came in between.
async fn take_over(
    directory: &Path,
    registry: &mut Registry,
    has_state: bool,
) -> Result<Option<Snapshot>, StateError> {
    if !directory.join(legacy::STATE_FILE).exists() {
        return Ok(None);
    }
    if has_state {
        tracing::info!("the state file of an older program is not read: the database is newer");
        legacy::set_aside(directory)?;
        return Ok(None);
    }
    let Some(snapshot) = legacy::read::<Snapshot>(directory)? else {
        return Ok(None);
    };
    let failed = |source| StateError::TakeOver {
        directory: directory.to_owned(),
        source,
    };
    let values = layout::split(&snapshot).map_err(|error| failed(error.into()))?;
    registry.save(values).await.map_err(failed)?;
    legacy::set_aside(directory)?;
    tracing::info!("the state file of an older program was taken over");
    Ok(Some(snapshot))
}
