//! What is written to disk before anything is answered: the state.

use std::path::Path;

use mainstay_control::Snapshot;
use mainstay_store::{OpenError, SaveError, Store};

/// The state's file, written by one thread at a time.
pub(crate) struct Archive {
    store: Store,
}

impl Archive {
    /// Opens it; gives the state.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Option<Snapshot>), OpenError> {
        let (store, snapshot) = Store::open::<Snapshot>(directory)?;
        Ok((Self { store }, snapshot))
    }

    /// Makes the state durable.
    pub(crate) fn save(&mut self, snapshot: &Snapshot) -> Result<(), SaveError> {
        self.store.save(snapshot)
    }
}
