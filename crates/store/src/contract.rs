//! What is asked of a store, whichever it is.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::key::{Key, KeyRange};

/// Compares, and operations, in one transaction: etcd refuses more unless it is told otherwise
/// (`--max-txn-ops`), and what works here must work there.
pub const OPERATIONS_MAX: usize = 128;

/// Bytes of keys and values in one transaction: etcd's limit of a request
/// (`--max-request-bytes`), less [`OPERATION_OVERHEAD`] for each of its operations.
pub const REQUEST_LEN_MAX: usize = 3 * 512 * 1024;

/// What an operation or a compare takes in a request besides key and value, with room to spare.
pub const OPERATION_OVERHEAD: usize = 64;

/// Pairs in one answer; whoever wants more asks for the next page.
pub const PAGE_MAX: usize = 1000;

/// Bytes of values in one answer, after which it ends early: what a reader holds in memory.
pub const PAGE_LEN_MAX: usize = 4 * 1024 * 1024;

/// The shortest lease: a holder renews it three times in that time, over a network.
pub const LEASE_MIN: Duration = Duration::from_secs(1);

/// The longest lease: who is away for a day is gone.
pub const LEASE_MAX: Duration = Duration::from_hours(24);

/// Leases at a time: some for each of 50 machines and their services, and as many again after
/// everybody started anew.
pub const LEASES_MAX: usize = 10_000;

/// How long a watch is silent before it says that it is up to date.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// The store's counter: each transaction that changes something is the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a lease, given once and never again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Vec<u8>,
    /// When the key began to be there.
    pub created: Revision,
    /// When it got this value.
    pub modified: Revision,
    /// With which lease it ends, if with one.
    pub lease: Option<LeaseId>,
}

/// A page of pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The newest revision of the store when it looked; a watch from the next one misses nothing.
    pub revision: Revision,
    /// Ordered by key.
    pub pairs: Vec<Pair>,
    /// Whether there are more behind the last one.
    pub more: More,
}

/// Whether a page is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    /// It is.
    No,
    /// Others follow; see [`KeyRange::behind`].
    Yes,
}

/// What must hold of a key for a transaction to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// It is not there: etcd's `create_revision == 0`.
    Absent,
    /// It is there since this revision: etcd's `create_revision`.
    CreatedAt(Revision),
    /// It has its value since this revision: etcd's `mod_revision`.
    ModifiedAt(Revision),
}

/// A test of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Key,
    /// The test.
    pub test: Test,
}

/// One change of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Gives a key a value.
    Put {
        /// The key.
        key: Key,
        /// The value.
        value: Vec<u8>,
        /// The lease with which the key ends.
        lease: Option<LeaseId>,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Operation {
    /// The key that it changes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    fn value_len(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            Self::Delete { .. } => 0,
        }
    }
}

/// All changes if all compares hold, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What is done.
    pub operations: Vec<Operation>,
}

impl Txn {
    /// Adds a change of a key together with what must hold of it.
    #[must_use]
    pub fn with(mut self, test: Test, operation: Operation) -> Self {
        let key = operation.key().clone();
        self.compares.push(Compare { key, test });
        self.operations.push(operation);
        self
    }

    /// What it takes of [`REQUEST_LEN_MAX`].
    pub fn request_len(&self) -> usize {
        let guards = self
            .compares
            .iter()
            .map(|compare| compare.key.as_str().len());
        let changes = self.operations.iter();
        let changes = changes.map(|one| one.key().as_str().len() + one.value_len());
        let parts = self.compares.len() + self.operations.len();
        guards.chain(changes).sum::<usize>() + parts * OPERATION_OVERHEAD
    }

    /// Whether every store can take it.
    pub(crate) fn check(&self) -> Result<(), Illegal> {
        let operations = self.compares.len().max(self.operations.len());
        if operations > OPERATIONS_MAX {
            return Err(Illegal::TooManyOperations { operations });
        }
        let len = self.request_len();
        if len > REQUEST_LEN_MAX {
            return Err(Illegal::TooLong { len });
        }
        let guarded: BTreeSet<&Key> = self.compares.iter().map(|compare| &compare.key).collect();
        let mut seen = BTreeSet::new();
        for key in self.operations.iter().map(Operation::key) {
            if !guarded.contains(key) {
                return Err(Illegal::NotCompared { key: key.clone() });
            }
            if !seen.insert(key) {
                return Err(Illegal::Twice { key: key.clone() });
            }
        }
        Ok(())
    }
}

/// How a transaction went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable, as this revision; the newest one if it changed nothing.
    Committed(Revision),
    /// A compare did not hold; nothing was done.
    Conflict,
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It got a value.
    Put(Pair),
    /// It is gone.
    Deleted(Key),
}

impl Event {
    /// The key.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(pair) => &pair.key,
            Self::Deleted(key) => key,
        }
    }
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// All changes of one revision in the range, never in part; revisions grow.
    Events(Revision, Vec<Event>),
    /// Up to this revision all was told.
    Progress(Revision),
    /// What was asked for is forgotten up to this revision: read the range anew, and watch from
    /// behind what was read. Nothing follows.
    Compacted(Revision),
}

/// Why a transaction can be done by no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// Too many compares or operations.
    #[error(
        "a transaction has at most {OPERATIONS_MAX} compares and operations, this one has \
         {operations}"
    )]
    TooManyOperations {
        /// How many.
        operations: usize,
    },
    /// Too many bytes.
    #[error("a transaction has at most {REQUEST_LEN_MAX} bytes, this one has {len}")]
    TooLong {
        /// How many.
        len: usize,
    },
    /// A key is changed that is not compared: a lost update would go unnoticed.
    #[error("key `{key}` is changed without a compare")]
    NotCompared {
        /// The key.
        key: Key,
    },
    /// A key is changed twice.
    #[error("key `{key}` is changed twice in one transaction")]
    Twice {
        /// The key.
        key: Key,
    },
    /// A lease that is too short or too long.
    #[error("a lease lasts {LEASE_MIN:?} to {LEASE_MAX:?}, not {ttl:?}")]
    LeaseTtl {
        /// How long it should last.
        ttl: Duration,
    },
    /// A revision that is not there yet.
    #[error("revision {asked} is asked for and the newest is {newest}")]
    Future {
        /// The one that was asked for.
        asked: Revision,
        /// The newest.
        newest: Revision,
    },
}

/// Why a store did not do what it was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No store does that.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// The lease is over, or there never was one.
    #[error("there is no lease {}", lease.0)]
    NoSuchLease {
        /// The lease.
        lease: LeaseId,
    },
    /// There are too many leases.
    #[error("there are {LEASES_MAX} leases already; end one, or wait for one to end")]
    TooManyLeases,
    /// The store is being closed.
    #[error("the store is being closed")]
    Closed,
    /// The disk or the database refuses.
    #[error(transparent)]
    Storage(#[from] mainstay_sqlite::Failure),
}

/// An answer that is waited for.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Values by key, with transactions, watches and leases. What etcd offers and an embedded database
/// can: whoever uses it works on one machine and on several.
pub trait Store: Send + Sync {
    /// The pairs of `range`, ordered by key, up to `limit`, [`PAGE_MAX`] or [`PAGE_LEN_MAX`].
    fn range(&self, range: &KeyRange, limit: usize) -> Answer<'_, Found>;

    /// Does all of `txn` if all its compares hold. `Ok`: it is durable.
    fn txn(&self, txn: Txn) -> Answer<'_, Outcome>;

    /// Tells what changes in `range`, from revision `from` on, past and future.
    fn watch(&self, range: &KeyRange, from: Revision) -> Box<dyn Watch>;

    /// Forgets the changes below `below`, which is at most the newest revision. Values stay; a
    /// watch from below it is told so.
    fn compact(&self, below: Revision) -> Answer<'_, ()>;

    /// A new lease that ends when it was not kept alive for `ttl`, and its keys with it.
    fn grant(&self, ttl: Duration) -> Answer<'_, LeaseId>;

    /// Lets a lease last its whole time from now; gives that time.
    fn keep_alive(&self, lease: LeaseId) -> Answer<'_, Duration>;

    /// Ends a lease now, and its keys with it.
    fn revoke(&self, lease: LeaseId) -> Answer<'_, ()>;
}

/// What a range's changes are read from.
pub trait Watch: Send {
    /// The next notice. A watch holds only what was read and not yet taken, at most one read: a
    /// slow reader costs no memory, and is told when what it wants is forgotten. May be dropped
    /// while it waits; nothing is lost.
    fn next(&mut self) -> Answer<'_, Notice>;
}
