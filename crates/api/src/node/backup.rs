//! The keys of `[backup]`.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file::problem::Code;
use crate::file::refusal::Refused;
use crate::file::service::span;
use crate::file::walk::{Entry, Section};

use super::keys::path;
use super::{Backup, defaults, later};

/// Each backup reads all that there is: sooner than this the next would begin before the last has ended.
const EVERY_MIN: Duration = Duration::from_secs(10);
/// How many may be kept: a year of one an hour. All are looked at when one is removed.
const KEEP: RangeInclusive<u32> = 1..=10_000;

/// `state` is what is saved, as far as it could be read.
pub(super) fn backup(entry: &Entry<'_, '_>, dir: &Path, state: Option<&PathBuf>) -> Option<Backup> {
    let help = "write `[backup]` with `to = \"/mnt/backup/mainstay\"` below it".to_owned();
    entry
        .section("a table", Some(help), later::BACKUP, |s| {
            keys(s, dir, state)
        })
        .flatten()
}

/// The order is that of the list in messages.
fn keys(s: &mut Section<'_, '_>, dir: &Path, state: Option<&PathBuf>) -> Option<Backup> {
    let every = s.or("every", defaults::BACKUP_EVERY, |e| span(e, EVERY_MIN));
    let keep = s.or("keep", defaults::BACKUP_KEEP, |e| e.integer(KEEP));
    let help = "write the directory into which backups go: `to = \"/mnt/backup/mainstay\"`";
    let to = s.required("to", help);
    let to = to.and_then(|entry| outside(&entry, dir, state));
    Some(Backup {
        every: every?,
        keep: keep?,
        to: to?,
    })
}

/// A directory that is not lost with what it saves.
fn outside(entry: &Entry<'_, '_>, dir: &Path, state: Option<&PathBuf>) -> Option<PathBuf> {
    let to = path(entry, dir)?;
    if let Some(state) = state.filter(|state| to.starts_with(state)) {
        let state = state.display();
        let message = format!("a backup within the state directory `{state}` is lost with it");
        let refused = Refused::new(Code::Conflict, message);
        entry.refuse(refused.help("choose a directory elsewhere, on another disk if there is one"));
        return None;
    }
    Some(to)
}
