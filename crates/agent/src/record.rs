//! The files of an instance's attempt, by which an agent finds again what another one started.
//!
//! `run/<instance>/` holds of the newest attempt: `spec.json` (durable before the shim is started),
//! `shim.json` (once the program runs; it repeats the specification), `exit.json` (durable once nothing of it is left), and
//! `dropped` (bytes of output that could not be written, in digits). Each record carries its attempt:
//! one of an earlier attempt counts as absent. A lock on the directory (`flock(2)`) is held by the
//! agent that starts a shim and, inherited, by the shim for its life: whoever gets the lock knows
//! that no shim lives, with no gap in between.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mainstay_ids::{Attempt, InstanceId, Timestamp};
use mainstay_kernel::{Identity, durable};
use mainstay_model::{Exit, PlannedInstance};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The number of the form of these files that this version writes, and the newest that it reads. A
/// field that an older reader may ignore, and that may be absent, does not raise it.
pub(crate) const FORMAT: u32 = 1;

/// What a reserved file holds on a full disk; the records are below 1 KiB, apart from the
/// specification in one of them.
const RESERVED_LEN: u64 = 4096;

/// `spec.json`: what an attempt is to run, and everything that its successor must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttemptSpec {
    pub(crate) format: u32,
    pub(crate) attempt: Attempt,
    /// The ends in a row before it, for the back-off after the next one.
    pub(crate) ends: u32,
    pub(crate) last_exit: Option<Exit>,
    /// The order by which it was started.
    pub(crate) planned: PlannedInstance,
    pub(crate) address: SocketAddr,
    pub(crate) launch: Launch,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    /// Its cgroup, if it has one.
    pub(crate) cgroup: Option<PathBuf>,
    /// The groups of version 1 that limit it.
    #[serde(default)]
    pub(crate) limiting: Vec<PathBuf>,
    /// Which start of the machine it belongs to, if that was known.
    #[serde(default)]
    pub(crate) boot: Option<String>,
}

/// A program as it is started: every place in its texts is filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) directory: PathBuf,
    pub(crate) user: Option<String>,
}

/// `shim.json`: the attempt runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShimRecord {
    pub(crate) format: u32,
    pub(crate) attempt: Attempt,
    pub(crate) shim: Identity,
    pub(crate) child: Identity,
    pub(crate) address: SocketAddr,
    pub(crate) since: Timestamp,
    /// The specification again, should `spec.json` be lost while the attempt runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spec: Option<Box<AttemptSpec>>,
}

/// `exit.json`: the attempt is over and nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    pub(crate) format: u32,
    pub(crate) attempt: Attempt,
    pub(crate) exit: Exit,
    pub(crate) cause: Cause,
    pub(crate) at: Timestamp,
    pub(crate) log_dropped: u64,
}

/// Why an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    /// By itself: it is to be started again.
    Own,
    /// The shim was told to stop it.
    Ordered,
}

/// Why a file of an attempt cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` has format {found}; this version of mainstay knows formats up to {FORMAT}: use the version that wrote it", path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("`{}` is damaged", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// What all records have in common.
trait Record: Serialize + DeserializeOwned {
    const NAME: &'static str;
}

impl Record for AttemptSpec {
    const NAME: &'static str = "spec.json";
}

impl Record for ShimRecord {
    const NAME: &'static str = "shim.json";
}

impl Record for ExitRecord {
    const NAME: &'static str = "exit.json";
}

/// The directory of one instance.
#[derive(Debug, Clone)]
pub(crate) struct RunDir {
    path: PathBuf,
}

impl RunDir {
    pub(crate) fn of(state: &Path, instance: &InstanceId) -> Self {
        Self {
            path: state.join("run").join(instance.to_string()),
        }
    }

    /// The directory in which `spec_path` lies.
    pub(crate) fn around(spec_path: &Path) -> Self {
        Self {
            path: spec_path.parent().unwrap_or(Path::new("")).to_owned(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn spec_path(&self) -> PathBuf {
        self.path.join(AttemptSpec::NAME)
    }

    pub(crate) fn spec(&self) -> Result<Option<AttemptSpec>, RecordError> {
        read(&self.spec_path())
    }

    pub(crate) fn write_spec(&self, spec: &AttemptSpec) -> io::Result<()> {
        durable::replace(&self.spec_path(), &serde_json::to_vec(spec)?, 0o666)
    }

    /// `shim.json` of this attempt.
    pub(crate) fn shim(&self, attempt: Attempt) -> Result<Option<ShimRecord>, RecordError> {
        Ok(self
            .newest_shim()?
            .filter(|record| record.attempt == attempt))
    }

    /// `shim.json`, of whichever attempt.
    pub(crate) fn newest_shim(&self) -> Result<Option<ShimRecord>, RecordError> {
        read(&self.path.join(ShimRecord::NAME))
    }

    /// The newest attempt that any of the files names.
    pub(crate) fn newest_attempt(&self) -> Result<Option<Attempt>, RecordError> {
        let exit: Option<ExitRecord> = read(&self.path.join(ExitRecord::NAME))?;
        Ok([
            self.spec()?.map(|spec| spec.attempt),
            self.newest_shim()?.map(|shim| shim.attempt),
            exit.map(|exit| exit.attempt),
        ]
        .into_iter()
        .flatten()
        .max())
    }

    /// `exit.json` of this attempt. Where the disk was so full that the shim could not rename it, it
    /// is whole under its temporary name.
    pub(crate) fn exit(&self, attempt: Attempt) -> Result<Option<ExitRecord>, RecordError> {
        let of_attempt =
            |found: Option<ExitRecord>| found.filter(|record| record.attempt == attempt);
        if let Some(record) = of_attempt(read(&self.path.join(ExitRecord::NAME))?) {
            return Ok(Some(record));
        }
        Ok(read(&temporary_path(&self.path, ExitRecord::NAME))
            .ok()
            .and_then(of_attempt))
    }

    /// Bytes of output that could not be written so far; 0 if the shim could not say.
    pub(crate) fn dropped(&self) -> u64 {
        let text = fs::read_to_string(self.path.join(DROPPED)).unwrap_or_default();
        text.lines()
            .next()
            .and_then(|line| line.parse().ok())
            .unwrap_or_default()
    }

    /// Takes the lock, so that a shim may be started; `None`: a shim lives.
    pub(crate) fn lock(&self) -> io::Result<Option<OwnedFd>> {
        let directory = OwnedFd::from(File::open(&self.path)?);
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(directory)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Makes it if it is not there.
    pub(crate) fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.path)
    }

    /// Removes it; its absence is no error.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

const DROPPED: &str = "dropped";

/// The files of a shim, with their room on the disk taken before the program is started: they can be
/// written when the disk is full.
#[derive(Debug)]
pub(crate) struct Reserved {
    directory: PathBuf,
    shim: File,
    exit: File,
    dropped: File,
}

impl Reserved {
    /// For the attempt of this specification.
    pub(crate) fn make(directory: &RunDir, spec: &AttemptSpec) -> io::Result<Self> {
        let path = directory.path();
        let spec_len = u64::try_from(serde_json::to_vec(spec)?.len()).unwrap_or(u64::MAX);
        let shim_len = RESERVED_LEN.saturating_add(spec_len);
        Ok(Self {
            directory: path.to_owned(),
            shim: reserve(&temporary_path(path, ShimRecord::NAME), shim_len)?,
            exit: reserve(&temporary_path(path, ExitRecord::NAME), RESERVED_LEN)?,
            dropped: reserve(&path.join(DROPPED), RESERVED_LEN)?,
        })
    }

    /// Not synced: it speaks of processes, which do not survive what syncing protects from.
    pub(crate) fn publish_shim(&self, record: &ShimRecord) -> io::Result<()> {
        fill(&self.shim, record)?;
        self.rename(ShimRecord::NAME)
    }

    /// `Ok` once it is durable. Without the rename it is still found; see [`RunDir::exit`].
    pub(crate) fn publish_exit(&self, record: &ExitRecord) -> io::Result<()> {
        fill(&self.exit, record)?;
        self.exit.sync_all()?;
        self.rename(ExitRecord::NAME)?;
        File::open(&self.directory)?.sync_all()
    }

    pub(crate) fn set_dropped(&self, bytes: u64) -> io::Result<()> {
        self.dropped
            .write_all_at(format!("{bytes:020}\n").as_bytes(), 0)
    }

    fn rename(&self, name: &str) -> io::Result<()> {
        fs::rename(
            temporary_path(&self.directory, name),
            self.directory.join(name),
        )
    }
}

fn temporary_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.tmp"))
}

fn reserve(path: &Path, len: u64) -> io::Result<File> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            io::copy(&mut io::repeat(0).take(len), &mut &file)?;
        }
        result => result?,
    }
    Ok(file)
}

/// The length is cut after the text is in place: what remains of the reserve are NUL bytes, which
/// [`read`] ignores, so a failure to cut does no harm.
fn fill(file: &File, record: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(record)?;
    file.write_all_at(&text, 0)?;
    let len = u64::try_from(text.len()).unwrap_or(RESERVED_LEN);
    file.set_len(len).or(Ok(()))
}

/// `None` if the file is not there or was only reserved.
fn read<T: Record>(path: &Path) -> Result<Option<T>, RecordError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let mut text = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(RecordError::Read {
                path: path.to_owned(),
                source,
            });
        }
        Ok(_) => {}
    }
    text.truncate(
        text.iter()
            .position(|byte| *byte == 0)
            .unwrap_or(text.len()),
    );
    if text.is_empty() {
        return Ok(None);
    }
    let damaged = |source| RecordError::Damaged {
        path: path.to_owned(),
        source,
    };
    let Format { format } = serde_json::from_slice(&text).map_err(damaged)?;
    if format > FORMAT {
        return Err(RecordError::Newer {
            path: path.to_owned(),
            found: format,
        });
    }
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    fn run_dir(dir: &TempDir) -> RunDir {
        let run = RunDir::of(dir.path(), &"orders-3".parse().unwrap());
        run.create().unwrap();
        run
    }

    /// As the first version of the files was written, by a program of that time.
    const SPEC: &str = include_str!("tests/format1/spec.json");
    const SHIM: &str = include_str!("tests/format1/shim.json");
    const EXIT: &str = include_str!("tests/format1/exit.json");

    fn spec() -> AttemptSpec {
        serde_json::from_str(SPEC).unwrap()
    }

    #[test]
    fn the_files_of_the_first_format_are_read() {
        let dir = TempDir::new("record");
        let run = run_dir(&dir);
        for (name, text) in [
            (AttemptSpec::NAME, SPEC),
            (ShimRecord::NAME, SHIM),
            (ExitRecord::NAME, EXIT),
        ] {
            fs::write(run.path().join(name), text).unwrap();
        }
        let spec = run.spec().unwrap().unwrap();
        assert_eq!(spec.planned.instance.to_string(), "web-1");
        assert_eq!((spec.attempt, spec.boot), (Attempt(1), None));
        let shim = run.shim(Attempt(1)).unwrap().unwrap();
        assert_eq!((shim.child.pid, shim.spec), (23067, None));
        let exit = run.exit(Attempt(1)).unwrap().unwrap();
        assert_eq!((exit.exit, exit.cause), (Exit::Signal(15), Cause::Ordered));
    }

    #[test]
    fn each_file_of_a_newer_format_is_refused_with_its_path_both_numbers_and_what_to_do() {
        let dir = TempDir::new("record");
        let run = run_dir(&dir);
        let refused = |name: &str, read: &dyn Fn() -> Option<RecordError>| {
            fs::write(run.path().join(name), r#"{"format": 9, "surprise": true}"#).unwrap();
            let text = read().unwrap().to_string();
            for part in [name, "format 9", "up to 1", "use the version that wrote it"] {
                assert!(text.contains(part), "`{part}` is not in: {text}");
            }
        };
        refused(AttemptSpec::NAME, &|| run.spec().err());
        refused(ShimRecord::NAME, &|| run.shim(Attempt(1)).err());
        refused(ExitRecord::NAME, &|| run.exit(Attempt(1)).err());
    }

    #[test]
    fn a_specification_of_any_length_has_its_room_in_the_shims_file() {
        let dir = TempDir::new("record");
        let run = run_dir(&dir);
        let mut spec = spec();
        let long = "x".repeat(100_000);
        spec.launch.environment.insert("LONG".to_owned(), long);
        let reserved = Reserved::make(&run, &spec).unwrap();
        let room = reserved.shim.metadata().unwrap().len();
        let mut record: ShimRecord = serde_json::from_str(SHIM).unwrap();
        record.spec = Some(Box::new(spec));
        assert!(room >= serde_json::to_vec(&record).unwrap().len() as u64);
        reserved.publish_shim(&record).unwrap();
        assert_eq!(run.newest_shim().unwrap(), Some(record));
    }

    fn record(attempt: u32) -> ExitRecord {
        ExitRecord {
            format: FORMAT,
            attempt: Attempt(attempt),
            exit: Exit::Code(3),
            cause: Cause::Own,
            at: Timestamp(5),
            log_dropped: 7,
        }
    }

    #[test]
    fn a_record_counts_only_for_its_own_attempt() {
        let dir = TempDir::new("record");
        let run = run_dir(&dir);
        let reserved = Reserved::make(&run, &spec()).unwrap();
        assert_eq!(run.exit(Attempt(2)).unwrap(), None, "only reserved");
        reserved.publish_exit(&record(2)).unwrap();
        assert_eq!(run.exit(Attempt(2)).unwrap(), Some(record(2)));
        assert_eq!(run.exit(Attempt(3)).unwrap(), None);
        reserved.set_dropped(41).unwrap();
        assert_eq!(run.dropped(), 41);
    }

    #[test]
    fn an_exit_that_was_written_but_not_renamed_is_found() {
        let dir = TempDir::new("record");
        let run = run_dir(&dir);
        let reserved = Reserved::make(&run, &spec()).unwrap();
        fill(&reserved.exit, &record(2)).unwrap();
        assert_eq!(run.exit(Attempt(2)).unwrap(), Some(record(2)));
    }

    #[test]
    fn the_lock_is_held_once_and_ends_with_its_last_holder() {
        let dir = TempDir::new("record");
        let run = run_dir(&dir);
        let held = run.lock().unwrap().unwrap();
        let inherited = held.try_clone().unwrap();
        assert!(run.lock().unwrap().is_none());
        drop(held);
        assert!(run.lock().unwrap().is_none());
        drop(inherited);
        assert!(run.lock().unwrap().is_some());
    }
}
