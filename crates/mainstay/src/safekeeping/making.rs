//! How a backup comes about.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use mainstay_api::client::Error;
use mainstay_api::wire::Backup;
use mainstay_broker::BackupError;
use mainstay_broker::view::{Answer, Ask, SOCKET};
use mainstay_server::SafekeepingError;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio::time::sleep;

use super::manifest::{BROKER, CONTROL, Manifest, Origin, PART, UNFINISHED};
use super::reading::{self, sync_directory};
use super::shelf::name_of;
use crate::arguments::Place;
use crate::clock;
use crate::command::client;
use crate::outcome::{Failure, Outcome};
use crate::supervisor::kind::Kind;
use crate::supervisor::lock;
use crate::supervisor::record::{Duty, Record};

/// How long a process that is kept may take until it answers: a broker reads its whole log first.
const START_DEADLINE: Duration = Duration::from_mins(1);
/// How often it is tried meanwhile.
const POLL: Duration = Duration::from_millis(100);
/// How often it is looked whether the broker goes on copying.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// So many looks without a byte more, and the broker hangs, or its disk does.
const STILL_MAX: u32 = 10;
/// Backups of one directory in the same second.
const NAMES_MAX: u32 = 100;

/// Where a backup is to be.
#[derive(Debug)]
pub(crate) enum Target {
    /// This new directory.
    At(PathBuf),
    /// A new one in this directory, named by the time.
    In(PathBuf),
}

/// A backup that was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
}

/// Makes a backup of what is in `place`, whole and durable when this returns, read again with every checksum. Of
/// one that fails nothing is left.
pub(crate) async fn make(place: &Place, target: &Target) -> anyhow::Result<Made> {
    let begun = clock::now();
    if !place.state.is_dir() {
        return Err(nothing(place));
    }
    let origin = Origin::here(&place.state)?;
    let path = path_of(target, begun, &origin.state)?;
    let part = Part::begin(&path)?;
    let mut manifest = Manifest::new(origin, begun);
    match fill(place, &part.path, &mut manifest).await {
        Ok(()) => part.finish(&path)?,
        Err(error) => {
            part.discard();
            return Err(error);
        }
    }
    Ok(Made { path, manifest })
}

fn nothing(place: &Place) -> anyhow::Error {
    let state = place.state.display();
    let message = format!("there is nothing to back up in `{state}`");
    let remedy = "name the state directory with --state";
    Failure::new(Outcome::WrongInput, message)
        .remedy(remedy)
        .into()
}

/// The absolute path of the backup that is to be made; `state` is what is saved.
fn path_of(
    target: &Target,
    begun: mainstay_ids::Timestamp,
    state: &Path,
) -> anyhow::Result<PathBuf> {
    let (directory, name) = match target {
        Target::In(directory) => (directory.clone(), None),
        Target::At(path) => {
            let path = std::path::absolute(path)?;
            let name = path.file_name().map(PathBuf::from);
            let directory = path.parent().unwrap_or(Path::new("/"));
            (directory.to_owned(), Some(name.unwrap_or_default()))
        }
    };
    let absolute = directory.canonicalize();
    let directory = absolute.map_err(|error| missing(&directory, &error))?;
    if directory.starts_with(state) {
        let message = format!(
            "`{}` is within the state directory `{}`, and a backup there is lost with it",
            directory.display(),
            state.display()
        );
        let remedy = "choose a directory elsewhere, on another disk if there is one";
        return Err(Failure::new(Outcome::WrongInput, message)
            .remedy(remedy)
            .into());
    }
    if let Some(name) = name {
        let path = directory.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(exists(&path));
        }
        return Ok(path);
    }
    let name = name_of(begun);
    let names = (1..=NAMES_MAX).map(|number| match number {
        1 => name.clone(),
        number => format!("{name}-{number}"),
    });
    let mut paths = names.map(|name| directory.join(name));
    let is_free = |path: &PathBuf| path.symlink_metadata().is_err() && !part_of(path).exists();
    let free = paths.find(is_free);
    free.with_context(|| {
        format!(
            "there are {NAMES_MAX} backups of one second in `{}`",
            directory.display()
        )
    })
}

fn missing(directory: &Path, error: &io::Error) -> anyhow::Error {
    let path = directory.display();
    let (message, remedy) = match error.kind() {
        ErrorKind::NotFound => (
            format!("there is no directory `{path}` for backups"),
            "make it; if it is on a disk of its own, is that mounted?",
        ),
        _ => (
            format!("cannot use `{path}` for backups: {error}"),
            "name a directory that this account can write",
        ),
    };
    Failure::new(Outcome::WrongInput, message)
        .remedy(remedy)
        .into()
}

fn exists(path: &Path) -> anyhow::Error {
    let message = format!(
        "`{}` exists already; a backup replaces nothing",
        path.display()
    );
    Failure::new(Outcome::WrongInput, message)
        .remedy("remove it, or name another")
        .into()
}

/// What a backup is called while it is made.
pub(super) fn part_of(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(PART);
    PathBuf::from(part)
}

/// A backup that is being made. Its directory is locked by who makes it, so that others know what was left behind.
struct Part {
    path: PathBuf,
    _lock: File,
}

/// Locks a directory; `None`: somebody else has.
pub(super) fn lock_directory(path: &Path) -> io::Result<Option<File>> {
    let directory = File::open(path)?;
    match directory.try_lock() {
        Ok(()) => Ok(Some(directory)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Part {
    fn begin(target: &Path) -> anyhow::Result<Self> {
        let path = part_of(target);
        let context = || format!("cannot make a backup in `{}`", path.display());
        if path.exists() {
            // Left by one that was broken off, unless somebody is at it.
            if lock_directory(&path).with_context(context)?.is_none() {
                let message = format!("another backup is being made in `{}`", path.display());
                return Err(Failure::new(Outcome::Failed, message)
                    .remedy("wait for it")
                    .into());
            }
            reading::remove_all(&path).with_context(context)?;
        }
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(context)?;
        let begun = Self::mark(&path);
        if begun.is_err() {
            // The error that is told is the first.
            let _ = reading::remove_all(&path);
        }
        begun.with_context(context)
    }

    /// Before anything else is in it: whoever finds it later sees what it is.
    fn mark(path: &Path) -> anyhow::Result<Self> {
        let lock = lock_directory(path)?.context("somebody else has it")?;
        File::create_new(path.join(UNFINISHED))?.sync_all()?;
        lock.sync_all()?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Gives it its name; all of it is durable.
    fn finish(self, target: &Path) -> anyhow::Result<()> {
        let finished = self.give_name(target);
        if finished.is_err() {
            self.discard();
        }
        finished
    }

    fn give_name(&self, target: &Path) -> anyhow::Result<()> {
        let context = || format!("cannot finish `{}`", target.display());
        fs::remove_file(self.path.join(UNFINISHED)).with_context(context)?;
        sync_directory(&self.path)?;
        match renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => return Err(exists(target)),
            // Not every file system can refuse to replace; a directory with something in it is never replaced.
            Err(rustix::io::Errno::INVAL) => {
                fs::rename(&self.path, target).with_context(context)?;
            }
            renamed => renamed.with_context(context)?,
        }
        sync_directory(target.parent().unwrap_or(Path::new("/")))
    }

    fn discard(self) {
        if let Err(error) = reading::remove_all(&self.path) {
            // The next one removes it; it is marked, and refused until then.
            tracing::warn!(%error, path = %self.path.display(), "cannot remove half a backup");
        }
    }
}

/// Puts both parts into `part`, reads them again, and says so in the manifest.
async fn fill(place: &Place, part: &Path, manifest: &mut Manifest) -> anyhow::Result<()> {
    let control = take_control(place, &part.join(CONTROL)).await?;
    let broker = take_broker(place, &part.join(BROKER)).await?;
    if control == Taken::Nothing && broker == Taken::Nothing {
        return Err(nothing(place));
    }
    manifest.ended = clock::now();
    manifest.broker = reading::count_broker(part)?;
    manifest.control = reading::count_control(part).await?;
    manifest.files = reading::files(part)?;
    manifest.write(part)
}

/// Whether a node has a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    It,
    Nothing,
}

/// Whether a supervisor keeps this process: then it answers in a moment if it does not now, and nobody else may take
/// its directory, which would keep it from starting.
fn is_kept(state: &Path, kind: Kind) -> anyhow::Result<bool> {
    if lock::holder(state)?.is_none() {
        return Ok(false);
    }
    let record = Record::load(state)?;
    let process = record
        .as_ref()
        .and_then(|record| record.process(kind.name()));
    Ok(process.is_some_and(|process| process.duty == Duty::Kept))
}

/// Tries until somebody answers, as long as a start may take; what it gives is `None` while nobody does.
async fn await_answer<T>(
    place: &Place,
    kind: Kind,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let began = Instant::now();
    loop {
        if let Some(answer) = attempt().await? {
            return Ok(Some(answer));
        }
        if !is_kept(&place.state, kind)? {
            return Ok(None);
        }
        if began.elapsed() > START_DEADLINE {
            let (name, state) = (kind.word(), place.state.display());
            let message = format!("the {name} of `{state}` does not answer");
            return Err(Failure::new(Outcome::Unreachable, message)
                .remedy(format!("look into logs/{name}.log there"))
                .into());
        }
        sleep(POLL).await;
    }
}

async fn take_control(place: &Place, to: &Path) -> anyhow::Result<Taken> {
    let client = client(place);
    let made = await_answer(place, Kind::Server, async || {
        match client.post::<_, Backup>("/v1/backup", &()).await {
            Ok(made) => Ok(Some(made)),
            Err(Error::Connect { .. }) => Ok(None),
            Err(other) => Err(other.into()),
        }
    });
    if let Some(made) = made.await? {
        let from = place.state.join(&made.file);
        let taken = carry(&from, to);
        taken.with_context(|| format!("cannot write `{}`", to.display()))?;
        fs::remove_file(&from).with_context(|| format!("cannot remove `{}`", from.display()))?;
        return Ok(Taken::It);
    }
    match mainstay_server::backup(&place.state, to).await {
        Ok(_) => Ok(Taken::It),
        Err(SafekeepingError::Nothing { .. }) => Ok(Taken::Nothing),
        Err(error @ SafekeepingError::Running { .. }) => {
            let message = format!("{error}, and does not answer");
            Err(Failure::new(Outcome::Unreachable, message)
                .remedy("look into logs/server.log there")
                .into())
        }
        Err(other) => Err(other.into()),
    }
}

/// Copies a file, durably, for its owner alone.
fn carry(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = File::options();
    let mut target = options.write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut File::open(from)?, &mut target)?;
    target.sync_all()
}

async fn take_broker(place: &Place, to: &Path) -> anyhow::Result<Taken> {
    let socket = place.state.join(SOCKET);
    let connected = await_answer(place, Kind::Broker, async || {
        match UnixStream::connect(&socket) {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => Ok(None),
                _ => {
                    Err(error).with_context(|| format!("cannot connect to `{}`", socket.display()))
                }
            },
        }
    });
    if let Some(stream) = connected.await? {
        ask_broker(stream, to)?;
        return Ok(Taken::It);
    }
    match mainstay_broker::copy_closed(&place.state, to) {
        Ok(()) => Ok(Taken::It),
        Err(BackupError::Nothing { .. }) => Ok(Taken::Nothing),
        Err(BackupError::Open(error)) if error.is_in_use() => {
            let state = place.state.display();
            let message = format!("a broker runs on `{state}`, and does not answer");
            Err(Failure::new(Outcome::Unreachable, message)
                .remedy("look into logs/broker.log there")
                .into())
        }
        Err(other) => Err(other.into()),
    }
}

/// Has the broker copy what it has, for as long as that goes on.
fn ask_broker(mut stream: UnixStream, to: &Path) -> anyhow::Result<()> {
    let context = || "cannot have the broker copy its messages".to_owned();
    let mut line = serde_json::to_vec(&Ask::Backup { to: to.to_owned() }).with_context(context)?;
    line.push(b'\n');
    stream.set_read_timeout(Some(LOOK_EVERY))?;
    stream.write_all(&line).with_context(context)?;
    let mut reader = BufReader::new(stream);
    let (mut line, mut still, mut seen) = (String::new(), 0, 0);
    loop {
        match reader.read_line(&mut line) {
            Ok(_) => break,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                let copied = copied(to);
                still = if copied > seen { 0 } else { still + 1 };
                seen = copied;
                anyhow::ensure!(
                    still < STILL_MAX,
                    "the broker has copied nothing more into `{}` for {} s",
                    to.display(),
                    LOOK_EVERY.as_secs() * u64::from(STILL_MAX)
                );
            }
            Err(error) => return Err(error).with_context(context),
        }
    }
    anyhow::ensure!(
        !line.is_empty(),
        "the broker ended before it had copied its messages"
    );
    match serde_json::from_str(&line).with_context(context)? {
        Answer::Copied { .. } => Ok(()),
        Answer::Refused { why } => {
            let message = format!("the broker did not copy its messages: {why}");
            Err(Failure::new(Outcome::Refused, message).into())
        }
        _ => anyhow::bail!("the broker's answer is that to another call"),
    }
}

/// Bytes that are there so far.
fn copied(directory: &Path) -> u64 {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    let lens = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
    lens.sum()
}
