//! What the control centre must not forget: values by key with transactions, watches and leases.
//!
//! It decides nothing and does not know what the values say. The trait is what etcd offers and an
//! embedded database can, with etcd's limits, so that a cluster of several machines is another
//! implementation and not another program (`docs/adr/0012-sqlite-behind-a-store-trait.md`).
//! Start reading at [`Store`]; `tests/conformance` says what every implementation does, and
//! `tests/power_loss.rs` what survives.

mod checksum;
mod contract;
mod follow;
mod key;
mod lease;
pub mod legacy;
mod memory;
mod sqlite;

pub use contract::{
    Answer, Compare, Event, Found, Illegal, LEASE_MAX, LEASE_MIN, LEASES_MAX, LeaseId, More,
    Notice, OPERATION_OVERHEAD, OPERATIONS_MAX, Operation, Outcome, PAGE_LEN_MAX, PAGE_MAX,
    PROGRESS_EVERY, Pair, REQUEST_LEN_MAX, Revision, Store, StoreError, Test, Txn, Watch,
};
pub use key::{KEY_LEN_MAX, Key, KeyError, KeyRange};
pub use lease::{Clock, TokioClock};
pub use mainstay_sqlite::{BackupError, Failure, Medium, OpenError};
pub use memory::MemoryStore;
pub use sqlite::{KIND, SqliteStore};
