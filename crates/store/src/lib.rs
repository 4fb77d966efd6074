//! What the control centre must not forget: one versioned document on disk.
//!
//! It decides nothing and does not know what the document says. It is no database: no queries, no
//! watches, no second writer (`docs/adr/0005-state-file-before-sqlite.md` says until when that is
//! enough). Start reading at [`Store`], then at [`Disk`] for what is assumed of a file system;
//! `tests/power_loss.rs` holds [`Store::save`] to its word for every point at which the power can
//! fail.

mod checksum;
mod state;

pub use mainstay_journal::{Disk, HostDisk};
pub use state::{Damage, FORMAT, OpenError, STATE_FILE, SaveError, SaveStep, Store};
