//! Backups of what a node must not lose, and their way back.
//!
//! ```text
//!   mainstay-backup-20260301T093000Z/     `….part` while it is made, or removed
//!     unfinished                          only while it is made
//!     control.db                          the control centre's state, of one moment
//!     broker/0000000000000001.segment     the broker's log, of one moment
//!     manifest.json                       what is in it, with length and checksum of every file; written last
//! ```
//!
//! It is made by whoever asks for it: control centre and broker give their parts while they run, and where one does not run
//! its part comes from its directory. Each part is read again, with all its checksums, before the manifest says
//! that it is whole. Start reading at `making`, then `returning`.

mod making;
mod manifest;
mod reading;
mod record;
mod returning;
mod shelf;

pub(crate) use making::{Made, Target, make};
pub(crate) use manifest::Manifest;
pub(crate) use reading::verify;
pub(crate) use record::{BackupRecord, age};
pub(crate) use returning::{Returned, refuse_half_restored, restore, restore_file};
pub(crate) use shelf::{Entry, Found, list, make_room, name_of, sweep};
