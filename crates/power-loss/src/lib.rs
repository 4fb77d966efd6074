//! A file system under SQLite, in memory, that loses power when a test says so.
//!
//! What SIGKILL leaves proves nothing about durability: the kernel still has every write. Here
//! nothing is durable before it was synced. After a power loss each write since then is there, is
//! not, or is torn at 512 bytes, and each name made or removed since the directory was last synced
//! is as before or as after; a seed draws which.
//!
//! It speaks for the calls that SQLite makes of a file system, not for the disk below: a disk that
//! lies about a sync is [`Syncs::Lie`], and must be found out by whatever test uses this.
//!
//! Never shipped. `unsafe` is allowed in `vfs` alone: SQLite calls C functions
//! (`docs/adr/0012-sqlite-behind-a-store-trait.md`). Start reading at [`Disk`], then at `platter`
//! for what survives.

mod platter;
mod vfs;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use platter::Platter;
use vfs::Registered;

/// Whether a sync does what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncs {
    /// It does.
    Hold,
    /// It says so, and does nothing.
    Lie,
}

/// A disk, as SQLite sees it under [`Disk::name`] until this is dropped.
#[derive(Debug)]
pub struct Disk {
    platter: Arc<Mutex<Platter>>,
    registered: Registered,
}

impl Disk {
    /// An empty disk.
    pub fn new(syncs: Syncs) -> Self {
        Self::spin_up(Platter::new(syncs))
    }

    fn spin_up(platter: Platter) -> Self {
        let platter = Arc::new(Mutex::new(platter));
        let registered = Registered::new(platter.clone());
        Self {
            platter,
            registered,
        }
    }

    /// The VFS to open databases on.
    pub fn name(&self) -> &str {
        self.registered.name()
    }

    /// The calls so far that change something or make it durable.
    pub fn steps(&self) -> u64 {
        self.lock().steps()
    }

    /// The syncs so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs()
    }

    /// Takes the power away at step `step`, counted from the disk's beginning: it and all that
    /// comes later fails.
    pub fn lose_power_at(&self, step: u64) {
        self.lock().lose_power_at(step);
    }

    /// Whether the power is gone.
    pub fn is_dead(&self) -> bool {
        self.lock().is_dead()
    }

    /// From now on no file can grow.
    pub fn fill(&self) {
        self.lock().set_room(platter::Room::None);
    }

    /// Files can grow again.
    pub fn make_room(&self) {
        self.lock().set_room(platter::Room::Plenty);
    }

    /// A disk as it may be found after the power came back. Seed 0: nothing survived that was not
    /// synced; seed 1: everything did; any other draws it.
    #[must_use]
    pub fn survivor(&self, seed: u64) -> Self {
        Self::spin_up(self.lock().survivor(seed))
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
