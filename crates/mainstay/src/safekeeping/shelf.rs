//! The directory in which backups are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use mainstay_control::backups::superfluous;
use mainstay_ids::Timestamp;

use super::making::{lock_directory, part_of};
use super::manifest::{Manifest, Origin, PART, Unusable};
use super::reading;

/// What the name of a backup begins with that was named by the time.
pub(crate) const NAME_PREFIX: &str = "mainstay-backup-";

/// The name of a backup of this time: `mainstay-backup-20260301T093000Z`.
pub(crate) fn name_of(begun: Timestamp) -> String {
    let seconds = begun.to_string();
    let seconds = seconds.split('.').next().unwrap_or_default();
    let digits: String = seconds.chars().filter(|c| !"-:".contains(*c)).collect();
    format!("{NAME_PREFIX}{digits}Z")
}

/// Something in the directory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) found: Found,
}

/// What it is.
#[derive(Debug)]
pub(crate) enum Found {
    /// A backup, by its manifest.
    Whole(Box<Manifest>),
    /// One that somebody is making.
    UnderWay,
    /// None that can be used.
    Unusable(Unusable),
}

/// What is in a directory and is a backup, or has the name of one; the oldest first.
pub(crate) fn list(directory: &Path) -> anyhow::Result<Vec<Entry>> {
    let context = || format!("cannot list the backups in `{}`", directory.display());
    let mut entries = Vec::new();
    for entry in directory.read_dir().with_context(context)? {
        let path = entry.with_context(context)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_named = name.starts_with(NAME_PREFIX);
        let found = match Manifest::read(&path) {
            Ok(manifest) => Found::Whole(Box::new(manifest)),
            Err(_) if !is_named && !name.ends_with(PART) => continue,
            Err(Unusable::Missing { .. }) => continue,
            Err(Unusable::Unfinished { .. }) if matches!(lock_directory(&path), Ok(None)) => {
                Found::UnderWay
            }
            Err(why) => Found::Unusable(why),
        };
        entries.push(Entry { path, found });
    }
    entries.sort_by_key(|entry| match &entry.found {
        Found::Whole(manifest) => (manifest.begun, entry.path.clone()),
        Found::UnderWay | Found::Unusable(_) => (Timestamp(u64::MAX), entry.path.clone()),
    });
    Ok(entries)
}

/// Removes what is left of backups, named by the time, that were broken off.
pub(crate) fn sweep(directory: &Path) -> anyhow::Result<()> {
    for Entry { path, found } in list(directory)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_left = name.starts_with(NAME_PREFIX) && name.ends_with(PART);
        if is_left && matches!(found, Found::Unusable(Unusable::Unfinished { .. })) {
            let removed = reading::remove_all(&path);
            removed
                .with_context(|| format!("cannot remove half a backup, `{}`", path.display()))?;
            tracing::warn!(path = %path.display(), "removed a backup that was broken off");
        }
    }
    Ok(())
}

/// Removes the oldest backups of this state directory beyond the newest `keep`: those that were named by the time, whole, and
/// nobody else's.
pub(crate) fn make_room(directory: &Path, state: &Path, keep: u32) -> anyhow::Result<Vec<PathBuf>> {
    let own = Origin::here(state)?;
    let made = list(directory)?.into_iter().filter_map(|entry| {
        let name = entry.path.file_name()?.to_string_lossy().into_owned();
        match entry.found {
            Found::Whole(manifest) if manifest.origin == own && name.starts_with(NAME_PREFIX) => {
                Some((manifest.begun, entry.path))
            }
            Found::Whole(_) | Found::UnderWay | Found::Unusable(_) => None,
        }
    });
    let gone = superfluous(made.collect(), keep);
    for path in &gone {
        remove(path)?;
    }
    Ok(gone)
}

/// Removes a backup, which does not pass for one from the first moment on.
fn remove(path: &Path) -> anyhow::Result<()> {
    let context = || format!("cannot remove the old backup `{}`", path.display());
    let part = part_of(path);
    fs::rename(path, &part).with_context(context)?;
    reading::remove_all(&part).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_named_by_its_second() {
        let begun = Timestamp::parse("2026-03-01T09:30:00.250Z").unwrap();
        assert_eq!(name_of(begun), "mainstay-backup-20260301T093000Z");
    }
}
