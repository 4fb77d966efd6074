//! SQLite for state that must survive a power loss: one writer thread with group commit, and a
//! few readers beside it.
//!
//! ```text
//!  write(job) ──┐                 ┌ BEGIN IMMEDIATE
//!  write(job) ──┼─ mpsc, 1024 ──> │ a savepoint per job      one thread, one connection
//!  write(job) ──┘                 └ COMMIT (one sync)  ──> every job is answered
//!  read(job)  ───── mpsc, 256 ──> two threads, query_only
//! ```
//!
//! All jobs that wait are one transaction, and none is answered before that is durable: the slower
//! the disk, the more jobs share one sync. It knows no table and no SQL of its users, who bring
//! schema and jobs; it is no pool and retries nothing. Start reading at [`Database`]; what is
//! assumed of the disk, and that it suffices, is in `tests/power_loss.rs`.

mod backup;
mod database;
mod failure;
mod ground;
mod reader;
mod writer;

pub use backup::BackupError;
pub use database::{Database, Kind, Medium, OpenError};
pub use failure::{Abort, Failure, JobError};
pub use rusqlite;
