//! How a backup comes back: into a directory beside the state first, where it is read again, and from there in its place.
//! Until both parts are there the state directory is marked, and no supervisor starts on it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context;
use mainstay_broker::{Counts, DIRECTORY, LOG};
use mainstay_server::SafekeepingError;
use rustix::fs::statvfs;

use super::manifest::{BROKER, CONTROL, Kept, Manifest};
use super::reading::{self, sync_directory};
use crate::arguments::Place;
use crate::outcome::{Failure, Outcome};
use crate::supervisor::{self, lock};

/// Where a backup is made ready, in the state directory.
const NEXT: &str = "restore.next";
/// Is there from the first change of the state until all of it is in place.
const MARK: &str = "restore.unfinished";
/// What stays free: what is written besides.
const MARGIN: u64 = 16 * 1024 * 1024;

/// What came back.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) manifest: Manifest,
    /// After which epoch the next control centre begins, if its part came back.
    pub(crate) epoch: Option<u64>,
    /// What the broker's part came to, counted in its new place.
    pub(crate) broker: Option<Counts>,
    /// Where is what was replaced.
    pub(crate) kept: Vec<PathBuf>,
}

/// Refuses a state directory in which a restore was broken off.
pub(crate) fn refuse_half_restored(state: &Path) -> anyhow::Result<()> {
    if !state.join(MARK).exists() {
        return Ok(());
    }
    let message = format!(
        "a `mainstay restore` on `{}` was broken off, and a part of the state is missing",
        state.display()
    );
    let remedy = "run the same `mainstay restore` again";
    Err(Failure::new(Outcome::WrongInput, message)
        .remedy(remedy)
        .into())
}

/// Puts the backup in `directory` in the place of the state, which is kept. Nothing is changed before all of it was
/// copied, read again, and found to be what the manifest says.
pub(crate) async fn restore(place: &Place, directory: &Path) -> anyhow::Result<Returned> {
    let manifest = Manifest::read(directory).map_err(|unusable| unusable.failure())?;
    // Until the end nobody starts anything here; whoever runs is told how to stop it.
    let _lock = lock::take(&place.state)?;
    refuse_newer_or_used(&place.state)?;
    let next = place.state.join(NEXT);
    let ready = make_ready(&place.state, directory, &manifest, &next).await;
    let returned = match ready {
        Ok(broker) => put_in_place(place, directory, manifest, &next, broker).await,
        Err(error) => Err(error),
    };
    let removed = reading::remove_all(&next);
    let returned = returned?;
    removed.with_context(|| format!("cannot remove `{}`", next.display()))?;
    Ok(returned)
}

/// A broker that runs without a supervisor, and a log of a newer program, are not put aside.
fn refuse_newer_or_used(state: &Path) -> anyhow::Result<()> {
    let log = state.join(DIRECTORY).join(LOG);
    if !log.exists() {
        return Ok(());
    }
    match mainstay_broker::count(&log) {
        Err(error) if error.is_in_use() => {
            let message = format!("a broker runs on `{}`", state.display());
            let remedy =
                "stop it first: `mainstay dev` in that directory adopts it, and Ctrl-C stops it";
            Err(Failure::new(Outcome::WrongInput, message)
                .remedy(remedy)
                .into())
        }
        Err(error) if error.is_newer() => {
            let message = format!("what is in `{}` is newer: {error}", log.display());
            let remedy = "use the newer mainstay, or another state directory";
            Err(Failure::new(Outcome::WrongInput, message)
                .remedy(remedy)
                .into())
        }
        // What is damaged is what a backup is for.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Copies all to `next`, and compares it with the manifest; gives what the messages come to.
async fn make_ready(
    state: &Path,
    directory: &Path,
    manifest: &Manifest,
    next: &Path,
) -> anyhow::Result<Option<Counts>> {
    let context = || format!("cannot make `{}`", next.display());
    // Left by a restore that was broken off.
    reading::remove_all(next).with_context(context)?;
    check_room(state, manifest.bytes())?;
    for path in [next.to_owned(), next.join(BROKER)] {
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(context)?;
    }
    for file in &manifest.files {
        let read = carry(&directory.join(&file.name), &next.join(&file.name));
        let read = read.with_context(|| cannot_copy(directory, file))?;
        reading::check_file(directory, file, &read)?;
    }
    sync_directory(&next.join(BROKER))?;
    sync_directory(next)?;
    let has_broker = manifest.of_broker().next().is_some();
    let counted = has_broker
        .then(|| reading::count_broker(next))
        .transpose()?;
    let counted = counted.flatten();
    reading::compare_broker(directory, manifest, counted)?;
    if let Some(control) = manifest.control {
        let scratch = next.join("look.db");
        let held = mainstay_server::look(&next.join(CONTROL), &scratch).await;
        let held = held.map_err(explained)?;
        anyhow::ensure!(
            held.services == control.services,
            "`{}` has {} services, and its manifest says {}",
            directory.display(),
            held.services,
            control.services
        );
    }
    Ok(counted)
}

fn cannot_copy(directory: &Path, file: &Kept) -> String {
    format!("cannot copy `{}`", directory.join(&file.name).display())
}

/// Copies a file, durably, for its owner alone; gives its length and checksum.
fn carry(from: &Path, to: &Path) -> io::Result<(u64, String)> {
    let mut from = File::open(from)?;
    let mut options = File::options();
    let mut to = options.write(true).create_new(true).mode(0o600).open(to)?;
    let read = reading::digest(&mut from, &mut to)?;
    to.sync_all()?;
    Ok(read)
}

fn check_room(state: &Path, bytes: u64) -> anyhow::Result<()> {
    let found = statvfs(state).with_context(|| format!("cannot look at `{}`", state.display()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let needed = bytes.saturating_add(MARGIN);
    if free >= needed {
        return Ok(());
    }
    let message = format!(
        "no room to restore into `{}`: it takes {needed} bytes, and {free} are free",
        state.display()
    );
    let remedy = "make room, or choose a state directory on another disk; nothing was changed";
    Err(Failure::new(Outcome::WrongInput, message)
        .remedy(remedy)
        .into())
}

async fn put_in_place(
    place: &Place,
    directory: &Path,
    manifest: Manifest,
    next: &Path,
    broker: Option<Counts>,
) -> anyhow::Result<Returned> {
    let state = &place.state;
    let mark = state.join(MARK);
    let context = || format!("cannot write `{}`", mark.display());
    let file = File::create(&mark).with_context(context)?;
    file.sync_all().with_context(context)?;
    sync_directory(state)?;
    let mut returned = Returned {
        manifest,
        epoch: None,
        broker,
        kept: Vec::new(),
    };
    if returned.manifest.of_control().is_some() {
        let node = supervisor::node()?;
        let restored = mainstay_server::restore(state, &node, &next.join(CONTROL)).await;
        let restored = match restored {
            Ok(restored) => restored,
            Err(error) => {
                // It has changed nothing, and nothing else was changed yet.
                unmark(state)?;
                let context = format!("`{}` was not restored", directory.display());
                return Err(explained(error).context(context));
            }
        };
        returned.epoch = Some(restored.epoch.0);
        returned.kept.extend(restored.kept);
    }
    if broker.is_some() {
        let kept = exchange(state, &next.join(BROKER))?;
        returned.kept.extend(kept);
    }
    unmark(state)?;
    Ok(returned)
}

fn unmark(state: &Path) -> anyhow::Result<()> {
    let mark = state.join(MARK);
    fs::remove_file(&mark).with_context(|| format!("cannot remove `{}`", mark.display()))?;
    sync_directory(state)
}

/// Puts the log `next` in the place of the broker's, which stays under another name.
fn exchange(state: &Path, next: &Path) -> anyhow::Result<Option<PathBuf>> {
    let directory = state.join(DIRECTORY);
    let context = || {
        format!(
            "cannot put the messages in place in `{}`",
            directory.display()
        )
    };
    let mut options = DirBuilder::new();
    let made = options.recursive(true).mode(0o700).create(&directory);
    made.with_context(context)?;
    let log = directory.join(LOG);
    let mut kept = None;
    if log.exists() {
        let mut names = (1_u32..)
            .map(|number| directory.join(format!("{LOG}.replaced-{number}")))
            .filter(|path| !path.exists());
        let free = names.next().expect("numbers do not end");
        fs::rename(&log, &free).with_context(context)?;
        kept = Some(free);
    }
    fs::rename(next, &log).with_context(context)?;
    sync_directory(&directory)?;
    sync_directory(state)?;
    Ok(kept)
}

/// What the user can mend is no failure of ours.
pub(super) fn explained(error: SafekeepingError) -> anyhow::Error {
    use std::error::Error as _;
    let remedy = match &error {
        SafekeepingError::Running { .. } => {
            "stop it first: `mainstay dev` in that directory adopts it, and Ctrl-C stops it"
        }
        SafekeepingError::Unusable { .. }
        | SafekeepingError::Content { .. }
        | SafekeepingError::Empty { .. }
        | SafekeepingError::Senseless { .. } => "nothing was changed; take another copy",
        SafekeepingError::Node { .. } => "nothing was changed; restore it on its own node",
        SafekeepingError::Nothing { .. }
        | SafekeepingError::Open(_)
        | SafekeepingError::Copy(_)
        | SafekeepingError::File { .. }
        | SafekeepingError::Prepare(_)
        | SafekeepingError::Legacy(_) => return error.into(),
    };
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    Failure::new(Outcome::WrongInput, message)
        .remedy(remedy)
        .into()
}

/// Puts a copy of the control centre's state alone, a file as earlier versions made it, in its place.
pub(crate) async fn restore_file(
    place: &Place,
    file: &Path,
) -> anyhow::Result<mainstay_server::Restored> {
    let _lock = lock::take(&place.state)?;
    refuse_half_restored(&place.state)?;
    let node = supervisor::node()?;
    let restored = mainstay_server::restore(&place.state, &node, file).await;
    restored.map_err(explained)
}
