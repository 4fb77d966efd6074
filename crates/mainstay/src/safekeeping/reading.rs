//! Whether a backup is what its manifest says.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use mainstay_broker::Counts;
use ring::digest::{self, SHA256};

use super::manifest::{BROKER, CONTROL, ControlPart, Kept, MANIFEST, Manifest};
use crate::outcome::{Failure, Outcome};

/// How much is read at a time.
const CHUNK_LEN: usize = 256 * 1024;

/// Copies `from` to `to`; gives its length and checksum.
pub(super) fn digest(from: &mut impl Read, to: &mut impl Write) -> io::Result<(u64, String)> {
    let mut context = digest::Context::new(&SHA256);
    let mut bytes = vec![0; CHUNK_LEN];
    let mut len = 0;
    loop {
        let read = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        context.update(&bytes[..read]);
        to.write_all(&bytes[..read])?;
        len += read as u64;
    }
    let sum = context.finish();
    let hex = sum.as_ref().iter().map(|byte| format!("{byte:02x}"));
    Ok((len, hex.collect()))
}

/// All files of a backup, with length and checksum, in the order of their names.
pub(super) fn files(directory: &Path) -> anyhow::Result<Vec<Kept>> {
    names(directory)?
        .into_iter()
        .map(|name| {
            let path = directory.join(&name);
            let context = || format!("cannot read `{}`", path.display());
            let mut file = File::open(&path).with_context(context)?;
            let (bytes, sha256) = digest(&mut file, &mut io::sink()).with_context(context)?;
            Ok(Kept {
                name,
                bytes,
                sha256,
            })
        })
        .collect()
}

/// The names of all files of a backup but the manifest.
fn names(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for below in ["", BROKER] {
        let path = directory.join(below);
        let entries = match path.read_dir() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("cannot list `{}`", path.display()))?,
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list `{}`", path.display()))?;
            let name = Path::new(below).join(entry.file_name());
            if name != Path::new(BROKER) && name != Path::new(MANIFEST) {
                names.push(name);
            }
        }
    }
    names.retain(|name| name != Path::new(super::manifest::UNFINISHED));
    names.sort_unstable();
    Ok(names)
}

/// What the broker's part in `directory` comes to, read with every checksum; `None`: there is none.
pub(super) fn count_broker(directory: &Path) -> anyhow::Result<Option<Counts>> {
    let path = directory.join(BROKER);
    if !path.exists() {
        return Ok(None);
    }
    let counts = mainstay_broker::count(&path);
    let counts = counts.with_context(|| format!("the messages in `{}`", directory.display()))?;
    Ok(Some(counts))
}

/// What the control centre's part comes to, tried out; `None`: there is none.
pub(super) async fn count_control(directory: &Path) -> anyhow::Result<Option<ControlPart>> {
    let path = directory.join(CONTROL);
    if !path.exists() {
        return Ok(None);
    }
    // Beside it nothing may be written: the backup may lie where nobody can.
    let scratch = std::env::temp_dir().join(format!("mainstay-look-{}", std::process::id()));
    let made = DirBuilder::new().mode(0o700).create(&scratch);
    made.with_context(|| format!("cannot make `{}`, to look at a copy", scratch.display()))?;
    let held = mainstay_server::look(&path, &scratch.join(CONTROL)).await;
    remove_all(&scratch).with_context(|| format!("cannot remove `{}`", scratch.display()))?;
    let held = held.with_context(|| format!("the services in `{}`", directory.display()))?;
    let services = held.services;
    Ok(Some(ControlPart { services }))
}

/// Reads all of a backup, and compares it with its manifest. Nothing is changed.
pub(crate) async fn verify(directory: &Path, manifest: &Manifest) -> anyhow::Result<()> {
    let found = names(directory)?;
    let listed = |name: &PathBuf| manifest.files.iter().any(|file| file.name == *name);
    if let Some(stray) = found.iter().find(|name| !listed(name)) {
        let why = format!("`{}` is not in its manifest", stray.display());
        return Err(differs(directory, &why).into());
    }
    for file in &manifest.files {
        let path = directory.join(&file.name);
        if !path.exists() {
            let why = format!("`{}` is missing", file.name.display());
            return Err(differs(directory, &why).into());
        }
        let context = || format!("cannot read `{}`", path.display());
        let mut opened = File::open(&path).with_context(context)?;
        let read = digest(&mut opened, &mut io::sink()).with_context(context)?;
        check_file(directory, file, &read)?;
    }
    compare_broker(directory, manifest, count_broker(directory)?)?;
    let control = count_control(directory).await?;
    if control != manifest.control {
        let (found, said) = (control.map(|part| part.services), manifest.control);
        let said = said.map(|part| part.services);
        let why = format!("it has {found:?} services, and its manifest says {said:?}");
        return Err(differs(directory, &why).into());
    }
    Ok(())
}

/// Holds what was read of a file against what the manifest says.
pub(super) fn check_file(
    directory: &Path,
    file: &Kept,
    (bytes, sha256): &(u64, String),
) -> anyhow::Result<()> {
    let name = file.name.display();
    if *bytes != file.bytes {
        let why = format!("`{name}` has {bytes} bytes, and had {}", file.bytes);
        return Err(differs(directory, &why).into());
    }
    if *sha256 != file.sha256 {
        let why = format!("the checksum of `{name}` is another one");
        return Err(differs(directory, &why).into());
    }
    Ok(())
}

/// Holds what the broker's part comes to against what the manifest says.
pub(super) fn compare_broker(
    directory: &Path,
    manifest: &Manifest,
    counted: Option<Counts>,
) -> anyhow::Result<()> {
    if counted == manifest.broker {
        return Ok(());
    }
    let why = format!(
        "its messages come to {counted:?}, and its manifest says {:?}",
        manifest.broker
    );
    Err(differs(directory, &why).into())
}

fn differs(directory: &Path, why: &str) -> Failure {
    let path = directory.display();
    let message = format!("`{path}` is not as it was made: {why}");
    let remedy = "take another one, or a copy of this one from elsewhere";
    Failure::new(Outcome::DoesNotHold, message).remedy(remedy)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> anyhow::Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("cannot make `{}` durable", path.display()))
}

/// Removes a directory with all that is in it, if it is there.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
