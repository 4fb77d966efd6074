//! Copies of the state, and their way back.
//!
//! A copy is one SQLite file of one moment. It comes back only where no control centre runs, and
//! only after it was found whole and of this node; the state that it replaces is kept beside it. No
//! number that was given since the copy was made is given again: consumers would refuse an older
//! epoch, and two instances would have one name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mainstay_api::wire::{self, Problem, ProblemCode};
use mainstay_control::{Clock, Control, RestoreError, Seen, Settings, Snapshot};
use mainstay_ids::{Epoch, InstanceId, Instant, NodeName, Timestamp};
use mainstay_model::Routing;
use mainstay_store::legacy::{self, LegacyError};
use mainstay_store::{BackupError, OpenError, SqliteStore, TokioClock};
use serde::Deserialize;

use crate::archive::STATE_DB;
use crate::layout;
use crate::registry::{LoadError, Registry, SaveError};

/// A copy that nobody took away for so long was forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);

/// What copies begin with that wait in the state directory to be taken away.
const COPY_PREFIX: &str = "backup-";

/// The database that is made ready to take the place of the state.
const NEXT_DB: &str = "state.db.next";

/// Why there is no copy, or why one cannot come back. What was there is there as it was.
#[derive(Debug, thiserror::Error)]
pub enum SafekeepingError {
    /// There is nothing to copy.
    #[error("there is no state in `{path}`")]
    Nothing {
        /// Where it would be.
        path: PathBuf,
    },
    /// A control centre runs there.
    #[error("a control centre runs on `{path}`")]
    Running {
        /// The state directory.
        path: PathBuf,
    },
    /// The state, or the copy, cannot be opened.
    #[error(transparent)]
    Open(Box<OpenError>),
    /// It cannot be copied.
    #[error(transparent)]
    Copy(#[from] BackupError),
    /// A file cannot be read or written.
    #[error("cannot {attempt} `{path}`")]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The copy is damaged, or no copy.
    #[error("`{path}` cannot be restored")]
    Unusable {
        /// The copy.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<OpenError>,
    },
    /// The copy is whole, and what it says is not.
    #[error("what `{path}` holds cannot be restored")]
    Content {
        /// The copy.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<LoadError>,
    },
    /// The copy is a database of the right kind, in which nothing was ever saved.
    #[error("`{path}` holds no state")]
    Empty {
        /// The copy.
        path: PathBuf,
    },
    /// The copy makes no sense to this program.
    #[error("the state in `{path}` cannot be continued")]
    Senseless {
        /// The copy.
        path: PathBuf,
        /// Why.
        #[source]
        source: RestoreError,
    },
    /// The copy is of another node.
    #[error("`{path}` is of node `{found}`, this is node `{node}`")]
    Node {
        /// The copy.
        path: PathBuf,
        /// Its node.
        found: NodeName,
        /// The node that was asked for.
        node: NodeName,
    },
    /// The numbers of now cannot be written into it.
    #[error("cannot prepare the restored state")]
    Prepare(#[source] Box<SaveError>),
    /// The state file of an older program cannot be set aside.
    #[error(transparent)]
    Legacy(#[from] LegacyError),
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The epoch after which the next control centre begins: higher than all that was published.
    pub epoch: Epoch,
    /// How many services there are again.
    pub services: usize,
    /// Where the state is that was replaced.
    pub kept: Option<PathBuf>,
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SafekeepingError {
    let path = path.to_owned();
    move |source| SafekeepingError::File {
        attempt,
        path,
        source,
    }
}

async fn open(path: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(path, Arc::new(TokioClock::start())).await
}

/// Makes copies while the control centre runs; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Copier {
    store: Arc<SqliteStore>,
}

impl Copier {
    pub(crate) fn new(store: Arc<SqliteStore>) -> Self {
        Self { store }
    }

    /// A copy in a file of its own beside the state: only whoever may enter the state directory
    /// gets at it, and nobody can have a file written elsewhere.
    pub(crate) async fn copy(&self) -> Result<wire::Backup, Problem> {
        let directory = self.store.path().parent().unwrap_or(Path::new("."));
        remove_forgotten(directory);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        let name = format!("{COPY_PREFIX}{now}.db");
        let file = directory.join(&name);
        self.store
            .backup(&file)
            .await
            .map_err(|error| refused(&error))?;
        let bytes = fs::metadata(&file).map_or(0, |file| file.len());
        Ok(wire::Backup {
            file: format!("control/{name}"),
            bytes,
        })
    }
}

fn refused(error: &BackupError) -> Problem {
    use std::error::Error as _;
    let code = match error {
        BackupError::Write { source, .. } => match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ProblemCode::StorageFull,
            io::ErrorKind::ReadOnlyFilesystem => ProblemCode::StorageReadOnly,
            _ => ProblemCode::StorageFailed,
        },
        BackupError::Exists { .. } | BackupError::Copy { .. } | BackupError::Database(_) => {
            ProblemCode::StorageFailed
        }
    };
    let cause = error.source().map(|cause| format!(": {cause}"));
    Problem::new(code, format!("{error}{}", cause.unwrap_or_default()))
}

/// Removes copies that nobody took away. What cannot be looked at stays.
fn remove_forgotten(directory: &Path) {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let is_copy = name
            .to_str()
            .is_some_and(|name| name.starts_with(COPY_PREFIX));
        let modified = entry.metadata().and_then(|file| file.modified());
        let age = modified.ok().and_then(|at| at.elapsed().ok());
        if is_copy && age.is_some_and(|age| age > FORGOTTEN_AFTER) {
            // It is tried again with the next copy.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Copies the state in the state directory `state` to `target`, a new file, where no control centre
/// runs. Gives the copy's length.
pub async fn backup(state: &Path, target: &Path) -> Result<u64, SafekeepingError> {
    let path = state.join("control").join(STATE_DB);
    if !path.exists() {
        return Err(SafekeepingError::Nothing { path });
    }
    open_own(state, &path).await?.backup(target).await?;
    let copied = fs::metadata(target).map_err(failed("read", target))?;
    Ok(copied.len())
}

async fn open_own(state: &Path, path: &Path) -> Result<SqliteStore, SafekeepingError> {
    open(path).await.map_err(|error| match error {
        OpenError::InUse { .. } => SafekeepingError::Running {
            path: state.to_owned(),
        },
        other => SafekeepingError::Open(Box::new(other)),
    })
}

/// Puts the copy `file` in the place of the state in the state directory `state`, of the node
/// `node`. The copy itself is left as it is.
pub async fn restore(
    state: &Path,
    node: &NodeName,
    file: &Path,
) -> Result<Restored, SafekeepingError> {
    let control = state.join("control");
    let (path, next) = (control.join(STATE_DB), control.join(NEXT_DB));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&control)
        .map_err(failed("make", &control))?;
    let replaced = replaced(state, &path).await?;
    let restored = prepare(state, node, file, &next, replaced.as_ref()).await;
    let (epoch, services) = match restored {
        Ok(restored) => restored,
        Err(error) => {
            // The copy of the copy is of no use; the error that is told is the first.
            remove_all(&next);
            return Err(error);
        }
    };
    let kept = exchange(&path, &next)?;
    if control.join(legacy::STATE_FILE).exists() {
        legacy::set_aside(&control)?;
    }
    Ok(Restored {
        epoch,
        services,
        kept,
    })
}

/// The state of now, if it can be read: what is damaged is what a copy is for. Whoever has it open
/// keeps the copy out.
async fn replaced(state: &Path, path: &Path) -> Result<Option<Snapshot>, SafekeepingError> {
    if !path.exists() {
        let directory = path.parent().unwrap_or(state);
        // A state file that cannot be read is set aside with the rest.
        return Ok(legacy::read::<Snapshot>(directory).unwrap_or_default());
    }
    let store = match open_own(state, path).await {
        Ok(store) => store,
        Err(error @ SafekeepingError::Running { .. }) => return Err(error),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the state that is replaced cannot be read");
            return Ok(None);
        }
    };
    let Ok(registry) = Registry::load(Arc::new(store)).await else {
        return Ok(None);
    };
    Ok(layout::join(registry.values()).unwrap_or_default())
}

/// What a copy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The node of which it is.
    pub node: NodeName,
    /// How many services are declared.
    pub services: usize,
}

/// Looks whether a control centre could go on from the copy `file`, which is left as it is; `scratch` is a file that is
/// made for that, and removed.
pub async fn look(file: &Path, scratch: &Path) -> Result<Held, SafekeepingError> {
    let taken = take_in(file, scratch).await;
    let held = taken.map(|(_, snapshot)| Held {
        node: snapshot.node().clone(),
        services: snapshot.services(),
    });
    remove_all(scratch);
    held
}

/// Makes `next` of `file`: checked, and with the numbers of now.
async fn prepare(
    state: &Path,
    node: &NodeName,
    file: &Path,
    next: &Path,
    replaced: Option<&Snapshot>,
) -> Result<(Epoch, usize), SafekeepingError> {
    let (mut registry, mut snapshot) = take_in(file, next).await?;
    if snapshot.node() != node {
        return Err(SafekeepingError::Node {
            path: file.to_owned(),
            found: snapshot.node().clone(),
            node: node.clone(),
        });
    }
    snapshot.take_place_of(replaced, &seen(state));
    let values = layout::split(&snapshot);
    let values = values.map_err(|error| SafekeepingError::Prepare(Box::new(error.into())))?;
    let saved = registry.save(values).await;
    saved.map_err(|error| SafekeepingError::Prepare(Box::new(error)))?;
    Ok((snapshot.epoch(), snapshot.services()))
}

/// Makes `next` of `file`, and reads it.
async fn take_in(file: &Path, next: &Path) -> Result<(Registry, Snapshot), SafekeepingError> {
    remove_all(next);
    let copied = File::open(file).and_then(|mut from| {
        let mut to = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(next)?;
        io::copy(&mut from, &mut to)?;
        to.sync_all()
    });
    copied.map_err(failed("copy", file))?;
    let of_copy = || file.to_owned();
    let store = open(next)
        .await
        .map_err(|source| SafekeepingError::Unusable {
            path: of_copy(),
            source: Box::new(source),
        })?;
    let content = |source| SafekeepingError::Content {
        path: of_copy(),
        source: Box::new(source),
    };
    let registry = Registry::load(Arc::new(store)).await.map_err(content)?;
    let snapshot = layout::join(registry.values()).map_err(|source| {
        content(LoadError::Layout {
            path: of_copy(),
            source,
        })
    })?;
    let snapshot = snapshot.ok_or_else(|| SafekeepingError::Empty { path: of_copy() })?;
    // Whether a control centre could go on from it, tried out.
    let clock = Clock {
        now: Instant::START,
        at: Timestamp(0),
    };
    Control::restore(snapshot.clone(), Settings::default(), clock).map_err(|source| {
        SafekeepingError::Senseless {
            path: of_copy(),
            source,
        }
    })?;
    Ok((registry, snapshot))
}

/// What the other files of the state directory know of epochs and instances.
fn seen(state: &Path) -> Seen {
    #[derive(Deserialize)]
    struct Routes {
        routing: Routing,
    }
    // While one gateway takes over from another there are two.
    let files = state.join("gateway").read_dir().into_iter().flatten();
    let files = files.flatten().filter(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("routes") && name.ends_with(".json")
    });
    let routes: Vec<Routing> = files
        .filter_map(|file| fs::read(file.path()).ok())
        .filter_map(|bytes| serde_json::from_slice::<Routes>(&bytes).ok())
        .map(|routes| routes.routing)
        .collect();
    let mut instances: Vec<InstanceId> = Vec::new();
    for routes in &routes {
        let endpoints = routes
            .services
            .iter()
            .flat_map(|service| &service.endpoints);
        instances.extend(endpoints.map(|endpoint| endpoint.instance.clone()));
    }
    for directory in ["run", "logs"] {
        let entries = state.join(directory).read_dir().into_iter().flatten();
        let names = entries.flatten().map(|entry| entry.file_name());
        instances.extend(names.filter_map(|name| {
            let name = name.to_str()?;
            let name = name.split_once(".log").map_or(name, |(name, _)| name);
            name.parse::<InstanceId>().ok()
        }));
    }
    Seen {
        epoch: routes
            .iter()
            .map(|routes| routes.generation.epoch)
            .max()
            .unwrap_or(Epoch(0)),
        instances,
    }
}

/// Puts `next` in the place of `path`, which stays under another name. At every moment there is a
/// state: the old one, or the new one.
fn exchange(path: &Path, next: &Path) -> Result<Option<PathBuf>, SafekeepingError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let kept = path.exists().then(|| free_name(path));
    if let Some(kept) = &kept {
        // A log is there only if the old state could not be opened. It goes first: SQLite would
        // take it for the new one's.
        for suffix in ["-wal", "-shm"] {
            let (log, aside) = (beside(path, suffix), beside(kept, suffix));
            if log.exists() {
                fs::rename(&log, aside).map_err(failed("set aside", &log))?;
            }
        }
        fs::hard_link(path, kept).map_err(failed("set aside", path))?;
    }
    fs::rename(next, path).map_err(failed("put in place", path))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("make durable", directory))?;
    remove_all(next);
    Ok(kept)
}

/// A name beside `path` that is not taken.
fn free_name(path: &Path) -> PathBuf {
    let names = (1_u32..).map(|number| beside(path, &format!(".replaced-{number}")));
    let mut free = names.filter(|name| !name.exists());
    free.next().expect("numbers do not end")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes a database that is of no use, with what is beside it. What stays is replaced next time.
fn remove_all(database: &Path) {
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let _ = fs::remove_file(beside(database, suffix));
    }
}
