//! What is written to disk before anything is answered: the state.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_control::Snapshot;
use mainstay_store::legacy::{self, LegacyError};
use mainstay_store::{OpenError, SqliteStore, TokioClock};

use crate::layout;
use crate::registry::{LoadError, Registry, SaveError};

/// The database's name in its directory.
pub(crate) const STATE_DB: &str = "state.db";

/// The state.
pub(crate) struct Archive {
    registry: Registry,
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
        let archive = Self { registry };
        Ok(Opened {
            archive,
            snapshot,
            store,
        })
    }

    /// Makes the state durable.
    pub(crate) async fn save(&mut self, snapshot: &Snapshot) -> Result<(), SaveError> {
        self.registry.save(layout::split(snapshot)?).await
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
