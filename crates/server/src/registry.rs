//! The state in the store: what changed is written, and nothing else.
//!
//! A change that fits into one transaction is one. A larger one (hundreds of services at once) is
//! first written beside the state, key by key under `/pending/`, then decided by one transaction
//! that puts `/pending-decided`, then done, then cleared away. Whoever opens the state does again
//! what was decided, and clears away what was not: a crash in between leaves the state before the
//! change or the one after it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_store::{
    Key, KeyRange, More, OPERATIONS_MAX, Operation, Outcome, PAGE_MAX, REQUEST_LEN_MAX, Revision,
    SqliteStore, Store, StoreError, Test, Txn,
};

use crate::layout::{LayoutError, PREFIX, Values};

/// Where a change that needs several transactions waits.
const PENDING: &str = "/pending/";

/// Says that the waiting change is to be done.
const DECIDED: &str = "/pending-decided";

/// The largest value: it must fit into a transaction with its key, also while it is pending.
const VALUE_LEN_MAX: usize = REQUEST_LEN_MAX - 4 * 1024;

/// After so many changes the oldest are forgotten: rarely, since that is a write of its own.
const COMPACT_EVERY: u64 = 1000;

/// Changes that are kept for whoever watches: some minutes of a busy time.
const CHANGES_KEPT: u64 = 1000;

/// What is saved, and where.
pub(crate) struct Registry {
    store: Arc<SqliteStore>,
    saved: BTreeMap<Key, Saved>,
    /// A change that is decided and not yet done, because the disk refused.
    decided: Option<Vec<Change>>,
    newest: Revision,
    compacted: Revision,
}

/// A value as it is in the store.
struct Saved {
    value: Vec<u8>,
    modified: Revision,
}

/// What becomes of one key; `None`: it goes.
type Change = (Key, Option<Vec<u8>>);

/// Why the state could not be saved. What is stored is whole: the state before. A later save works
/// as if nothing had happened.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part of the state is larger than a transaction can be.
    #[error("`{key}` would have {len} bytes, and at most {VALUE_LEN_MAX} can be stored")]
    TooLarge {
        /// Where it would be.
        key: Key,
        /// Its length.
        len: usize,
    },
    /// Somebody else writes there.
    #[error("somebody else changed the state in `{path}`; nobody but the control centre may")]
    Conflict {
        /// The database.
        path: PathBuf,
    },
    /// It cannot be laid out.
    #[error("cannot lay the state out")]
    Layout(#[from] LayoutError),
}

/// Why what is stored could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store refuses.
    #[error("cannot read the state in `{path}`")]
    Store {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// It is no state.
    #[error("the state in `{path}` is damaged; it was left as it is: put a backup in its place")]
    Layout {
        /// The database.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: LayoutError,
    },
    /// A decided change could not be finished.
    #[error("cannot finish the last change of the state in `{path}`")]
    Unfinished {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: SaveError,
    },
}

impl Registry {
    /// Reads what is in `store`, after finishing or clearing away what a crash left.
    pub(crate) async fn load(store: Arc<SqliteStore>) -> Result<Self, LoadError> {
        let path = store.path().to_owned();
        let refused = |source| LoadError::Store {
            path: path.clone(),
            source,
        };
        let mut registry = Self {
            store,
            saved: BTreeMap::new(),
            decided: None,
            newest: Revision(0),
            compacted: Revision(0),
        };
        registry.read_all().await.map_err(refused)?;
        registry
            .recover()
            .await
            .map_err(|source| LoadError::Unfinished { path, source })?;
        Ok(registry)
    }

    /// What is saved.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&Key, &[u8])> {
        let values = self.saved.iter();
        values.map(|(key, saved)| (key, saved.value.as_slice()))
    }

    /// Where it is saved.
    pub(crate) fn path(&self) -> &Path {
        self.store.path()
    }

    async fn read_all(&mut self) -> Result<(), StoreError> {
        let mut range = KeyRange::prefix("/");
        loop {
            let found = self.store.range(&range, PAGE_MAX).await?;
            self.newest = found.revision;
            if let Some(last) = found.pairs.last() {
                range = range.behind(&last.key);
            }
            for pair in found.pairs {
                let (value, modified) = (pair.value, pair.modified);
                self.saved.insert(pair.key, Saved { value, modified });
            }
            if found.more == More::No {
                return Ok(());
            }
        }
    }

    async fn recover(&mut self) -> Result<(), SaveError> {
        let decided = self.saved.keys().any(|key| key.as_str() == DECIDED);
        if decided {
            let pending = self.saved.iter();
            let pending = pending.filter(|(key, _)| key.behind(PENDING).is_some());
            let changes = pending.filter_map(|(_, saved)| decode(&saved.value));
            self.decided = Some(changes.collect());
        }
        self.settle().await
    }

    /// Makes `wanted` what is saved.
    pub(crate) async fn save(&mut self, wanted: Values) -> Result<(), SaveError> {
        self.settle().await?;
        let gone = self.saved.keys();
        let gone = gone.filter(|key| key.behind(PREFIX).is_some() && !wanted.contains_key(*key));
        let mut changes: Vec<Change> = gone.map(|key| (key.clone(), None)).collect();
        for (key, value) in wanted {
            if value.len() > VALUE_LEN_MAX {
                let len = value.len();
                return Err(SaveError::TooLarge { key, len });
            }
            if self
                .saved
                .get(&key)
                .is_none_or(|saved| saved.value != value)
            {
                changes.push((key, Some(value)));
            }
        }
        let mut groups = self.group(changes.clone());
        match groups.len() {
            0 => return Ok(()),
            1 => self.commit(groups.remove(0)).await?,
            _ => self.save_in_parts(changes).await?,
        }
        self.forget_the_past().await;
        Ok(())
    }

    /// A change that one transaction cannot take. `Ok`: it is decided.
    async fn save_in_parts(&mut self, changes: Vec<Change>) -> Result<(), SaveError> {
        let numbered = changes.iter().enumerate();
        let pending = numbered.map(|(number, change)| {
            let key = own_key(format!("{PENDING}{number:08}"));
            (key, Some(encode(change)))
        });
        for group in self.group(pending.collect()) {
            self.commit(group).await?;
        }
        let decide = (own_key(DECIDED.to_owned()), Some(Vec::new()));
        self.commit(vec![decide]).await?;
        self.decided = Some(changes);
        if let Err(error) = self.settle().await {
            // From here on it will be done, by the next save or the next start.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "a large change is decided and waits for the disk");
        }
        Ok(())
    }

    /// Does what was decided, and clears away what waited.
    async fn settle(&mut self) -> Result<(), SaveError> {
        if let Some(changes) = self.decided.take() {
            let open = changes.iter().filter(|change| !self.is_done(change));
            for group in self.group(open.cloned().collect()) {
                if let Err(error) = self.commit(group).await {
                    self.decided = Some(changes);
                    return Err(error);
                }
            }
        }
        // The decision goes first: what is left of a change is nothing without it.
        let waiting = |key: &&Key| key.as_str() == DECIDED || key.behind(PENDING).is_some();
        let mut left: Vec<Key> = self.saved.keys().filter(waiting).cloned().collect();
        left.sort_by_key(|key| key.as_str() != DECIDED);
        for group in self.group(left.into_iter().map(|key| (key, None)).collect()) {
            self.commit(group).await?;
        }
        Ok(())
    }

    fn is_done(&self, (key, value): &Change) -> bool {
        self.saved.get(key).map(|saved| &saved.value) == value.as_ref()
    }

    /// `changes` in as few transactions as their limits allow, in their order.
    fn group(&self, changes: Vec<Change>) -> Vec<Vec<Change>> {
        let mut groups: Vec<Vec<Change>> = Vec::new();
        let mut len = 0;
        for change in changes {
            let change_len = self.txn_of(std::slice::from_ref(&change)).request_len();
            match groups.last_mut() {
                Some(group)
                    if group.len() < OPERATIONS_MAX && len + change_len <= REQUEST_LEN_MAX =>
                {
                    group.push(change);
                    len += change_len;
                }
                Some(_) | None => {
                    groups.push(vec![change]);
                    len = change_len;
                }
            }
        }
        groups
    }

    fn txn_of(&self, changes: &[Change]) -> Txn {
        changes.iter().fold(Txn::default(), |txn, (key, value)| {
            let saved = self.saved.get(key);
            let test = saved.map_or(Test::Absent, |saved| Test::ModifiedAt(saved.modified));
            let key = key.clone();
            txn.with(
                test,
                match value.clone() {
                    Some(value) => Operation::Put {
                        key,
                        value,
                        lease: None,
                    },
                    None => Operation::Delete { key },
                },
            )
        })
    }

    /// One transaction; what is known of the store follows.
    async fn commit(&mut self, changes: Vec<Change>) -> Result<(), SaveError> {
        let outcome = self.store.txn(self.txn_of(&changes)).await?;
        let Outcome::Committed(modified) = outcome else {
            let path = self.store.path().to_owned();
            return Err(SaveError::Conflict { path });
        };
        self.newest = modified;
        for (key, value) in changes {
            match value {
                Some(value) => self.saved.insert(key, Saved { value, modified }),
                None => self.saved.remove(&key),
            };
        }
        Ok(())
    }

    async fn forget_the_past(&mut self) {
        let below = Revision(self.newest.0.saturating_sub(CHANGES_KEPT));
        if below.0 < self.compacted.0 + COMPACT_EVERY {
            return;
        }
        match self.store.compact(below).await {
            Ok(()) => self.compacted = below,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "old changes of the state stay for now");
            }
        }
    }
}

/// A key of this module: short, and never empty.
fn own_key(text: String) -> Key {
    Key::new(text).expect("is short")
}

/// A pending change: its key, and behind a line's end its value if it has one.
fn encode((key, value): &Change) -> Vec<u8> {
    let mut bytes = key.as_str().as_bytes().to_vec();
    if let Some(value) = value {
        bytes.push(b'\n');
        bytes.extend_from_slice(value);
    }
    bytes
}

/// The change; `None`: no program of ours wrote it so.
fn decode(bytes: &[u8]) -> Option<Change> {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let key = String::from_utf8(parts.next()?.to_vec()).ok()?;
    let value = parts.next().map(<[u8]>::to_vec);
    Some((Key::new(key).ok()?, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_power_loss::{Disk, Syncs};
    use mainstay_store::{Medium, TokioClock};

    /// More than one transaction can take.
    const MANY: u32 = 150;

    /// How many moments of the change the power is lost at, spread evenly.
    const MOMENTS: u64 = 60;

    /// How many disks are looked at for each step, the two extremes among them.
    const SEEDS: u64 = 3;

    fn values(numbers: std::ops::Range<u32>, content: &str) -> Values {
        let key = |number| own_key(format!("{PREFIX}services/{number}"));
        numbers
            .map(|number| (key(number), format!("\"{content} {number}\"").into_bytes()))
            .collect()
    }

    async fn open(disk: &Disk) -> Result<Registry, String> {
        let medium = Medium::Simulated(disk.name());
        let clock = Arc::new(TokioClock::start());
        let store = SqliteStore::open_on(medium, Path::new("/state.db"), clock).await;
        let store = store.map_err(|error| format!("does not open: {error}"))?;
        let loaded = Registry::load(Arc::new(store)).await;
        loaded.map_err(|error| format!("{error:?}"))
    }

    fn seen(registry: &Registry) -> Values {
        let values = registry.values();
        values
            .map(|(key, value)| (key.clone(), value.to_vec()))
            .collect()
    }

    fn before() -> Values {
        values(0..MANY, "before")
    }

    /// Every key that stays changes, some go and some come.
    fn after() -> Values {
        values(50..MANY + 50, "after")
    }

    /// Makes the change on `disk`; whether it was answered.
    async fn change(disk: &Disk) -> bool {
        match open(disk).await {
            Ok(mut registry) => registry.save(after()).await.is_ok(),
            Err(_) => false,
        }
    }

    #[tokio::test]
    async fn a_change_of_many_transactions_is_all_or_nothing_whenever_the_power_goes() {
        let start = Disk::new(Syncs::Hold);
        let mut registry = open(&start).await.expect("opens");
        registry.save(before()).await.expect("saves");
        drop(registry);
        let whole = start.survivor(1);
        assert!(change(&whole).await);
        let (mut old, mut new) = (0, 0);
        let stride = usize::try_from(whole.steps() / MOMENTS)
            .expect("small")
            .max(1);
        for step in (0..whole.steps()).step_by(stride) {
            let disk = start.survivor(1);
            disk.lose_power_at(step);
            let answered = change(&disk).await;
            for seed in 0..SEEDS {
                let seed = if seed < 2 { seed } else { step };
                let what = format!("power lost at step {step}, seed {seed}");
                let survivor = disk.survivor(seed);
                let mut registry = open(&survivor).await.expect(&what);
                let found = seen(&registry);
                assert!(found == before() || found == after(), "{what}: in part");
                assert!(!answered || found == after(), "{what}: was answered");
                old += u32::from(found == before());
                new += u32::from(found == after());
                registry.save(values(50..60, "last")).await.expect(&what);
                assert_eq!(seen(&registry), values(50..60, "last"), "{what}");
            }
        }
        println!("{old} old, {new} new");
        assert!(old > 20 && new > 20, "{old} old, {new} new");
    }

    #[tokio::test]
    async fn only_what_changed_is_written() {
        let disk = Disk::new(Syncs::Hold);
        let mut registry = open(&disk).await.expect("opens");
        registry.save(before()).await.expect("saves");
        let saved = registry.newest;
        registry.save(before()).await.expect("saves");
        assert_eq!(
            registry.newest, saved,
            "nothing changed, nothing is written"
        );
        let mut one = before();
        one.extend(values(7..8, "other"));
        registry.save(one).await.expect("saves");
        assert_eq!(registry.newest, saved.next());
        let changed = registry.saved.values();
        let changed = changed.filter(|one| one.modified == registry.newest);
        assert_eq!(changed.count(), 1);
    }

    #[tokio::test]
    async fn a_full_disk_leaves_the_state_before_and_a_later_save_works() {
        let disk = Disk::new(Syncs::Hold);
        let mut registry = open(&disk).await.expect("opens");
        registry.save(before()).await.expect("saves");
        disk.fill();
        for wanted in [after(), values(0..1, "one")] {
            let refused = registry.save(wanted).await.expect_err("no room");
            assert!(matches!(refused, SaveError::Store(_)), "{refused:?}");
        }
        let survivor = disk.survivor(0);
        assert_eq!(seen(&open(&survivor).await.expect("opens")), before());
        disk.make_room();
        registry.save(after()).await.expect("saves");
        assert_eq!(seen(&registry), after());
    }

    #[tokio::test]
    async fn a_value_that_no_transaction_can_take_is_refused_with_its_key() {
        let disk = Disk::new(Syncs::Hold);
        let mut registry = open(&disk).await.expect("opens");
        let mut large = before();
        let key = own_key(format!("{PREFIX}services/large"));
        large.insert(key.clone(), vec![b' '; VALUE_LEN_MAX + 1]);
        let refused = registry
            .save(large.clone())
            .await
            .expect_err("is too large");
        assert!(matches!(&refused, SaveError::TooLarge { key: seen, .. } if *seen == key));
        large.insert(key, vec![b' '; VALUE_LEN_MAX]);
        registry
            .save(large.clone())
            .await
            .expect("just fits, in parts");
        assert_eq!(seen(&registry), large);
    }
}
