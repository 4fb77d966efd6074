//! `backup.json`: how the backups that are made by themselves stand. Who makes one writes down how it went; the supervisor
//! begins it, and writes for those who were killed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use mainstay_api::node::Backup;
use mainstay_control::backups::Backups;
use mainstay_ids::{Timestamp, duration};
use mainstay_kernel::durable;
use mainstay_model::backup::Standing;
use serde::{Deserialize, Serialize};

use super::making::Made;

/// The form of the file; a newer one is not touched.
const FORMAT: u32 = 1;
/// Its name in the state directory.
const FILE: &str = "backup.json";

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackupRecord {
    format: u32,
    /// How often one is made.
    #[serde(with = "duration::text")]
    pub(crate) every: Duration,
    /// How many are kept.
    pub(crate) keep: u32,
    /// The directory into which they go.
    pub(crate) to: PathBuf,
    /// Since when they are made.
    pub(crate) since: Timestamp,
    /// The last whole one.
    pub(crate) last: Option<Last>,
    /// How the last attempt failed, if no later one succeeded.
    pub(crate) failed: Option<Failed>,
}

/// The last whole backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Last {
    /// Where it is, or was.
    pub(crate) path: PathBuf,
    /// When it was begun: nothing in it is older.
    pub(crate) at: Timestamp,
    /// How long it took, with being read again.
    pub(crate) took_ms: u64,
    /// Its length.
    pub(crate) bytes: u64,
    /// What is in it, in a few words.
    pub(crate) holds: String,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    /// When.
    pub(crate) at: Timestamp,
    /// Why.
    pub(crate) why: String,
    /// Which one in a row.
    pub(crate) times: u32,
}

impl BackupRecord {
    /// That of backups that begin now.
    pub(crate) fn new(backup: &Backup, now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            every: backup.every,
            keep: backup.keep,
            to: backup.to.clone(),
            since: now,
            last: None,
            failed: None,
        }
    }

    fn path(state: &Path) -> PathBuf {
        state.join(FILE)
    }

    /// Reads it; `None`: no backups are made by themselves.
    pub(crate) fn load(state: &Path) -> anyhow::Result<Option<Self>> {
        let path = Self::path(state);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read `{}`", path.display()))?,
        };
        let read = serde_json::from_slice::<Self>(&text);
        let record = read.with_context(|| format!("`{}` is damaged", path.display()))?;
        anyhow::ensure!(
            record.format <= FORMAT,
            "`{}` has format {}; this mainstay knows formats up to {FORMAT}",
            path.display(),
            record.format
        );
        Ok(Some(record))
    }

    pub(crate) fn save(&self, state: &Path) -> anyhow::Result<()> {
        let path = Self::path(state);
        let context = || format!("cannot write `{}`", path.display());
        let text = serde_json::to_vec_pretty(self).with_context(context)?;
        durable::replace(&path, &text, 0o600).with_context(context)
    }

    /// From now on none are made.
    pub(crate) fn remove(state: &Path) -> io::Result<()> {
        match fs::remove_file(Self::path(state)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    pub(crate) fn succeeded(&mut self, made: &Made, now: Timestamp) {
        self.failed = None;
        self.last = Some(Last {
            path: made.path.clone(),
            at: made.manifest.begun,
            took_ms: now.0.saturating_sub(made.manifest.begun.0),
            bytes: made.manifest.bytes(),
            holds: made.manifest.summary(),
        });
    }

    pub(crate) fn failed(&mut self, why: String, now: Timestamp) {
        let times = self.failed.as_ref().map_or(0, |failed| failed.times);
        let times = times.saturating_add(1);
        self.failed = Some(Failed {
            at: now,
            why,
            times,
        });
    }

    /// What is decided by.
    pub(crate) fn known(&self) -> Backups {
        Backups {
            every: self.every,
            since: self.since,
            last: self.last.as_ref().map(|last| last.at),
            failed: self.failed.as_ref().map(|failed| failed.at),
        }
    }

    /// How they stand, as a line that says what is in the way.
    pub(crate) fn said(&self, now: Timestamp) -> String {
        let last = match &self.last {
            Some(Last {
                path, at, holds, ..
            }) => format!("{} old, {} ({holds})", age(now, *at), path.display()),
            None => format!("none yet, since {}", age(now, self.since)),
        };
        let why = self.failed.as_ref().map(|failed| {
            let (times, ago) = (failed.times, age(now, failed.at));
            format!("; tried {ago} ago, {times} times in a row: {}", failed.why)
        });
        let why = why.unwrap_or_default();
        match self.known().standing(now) {
            Standing::Fine => last,
            Standing::Failed => format!("FAILED: the last one is {last}{why}"),
            Standing::Late => {
                let every = duration::display(self.every);
                format!("LATE (every {every}): the last one is {last}{why}")
            }
        }
    }
}

/// How long ago something was, to the second.
pub(crate) fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.0.saturating_sub(then.0) / 1000;
    duration::display(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    fn record() -> BackupRecord {
        let backup = Backup {
            every: Duration::from_mins(1),
            keep: 3,
            to: PathBuf::from("/mnt/backup"),
        };
        BackupRecord::new(&backup, Timestamp(1000))
    }

    #[test]
    fn failures_are_counted_and_told_until_one_succeeds() {
        let dir = TempDir::new("backup-record");
        let mut record = record();
        record.failed("no room".to_owned(), Timestamp(2000));
        record.failed("no disk".to_owned(), Timestamp(62_000));
        record.save(dir.path()).unwrap();
        let record = BackupRecord::load(dir.path()).unwrap().unwrap();
        let said = record.said(Timestamp(63_000));
        assert!(said.starts_with("FAILED"), "{said}");
        assert!(said.contains("2 times in a row: no disk"), "{said}");
        let said = record.said(Timestamp(200_000));
        assert!(said.starts_with("LATE (every 1m)"), "{said}");
        BackupRecord::remove(dir.path()).unwrap();
        assert_eq!(BackupRecord::load(dir.path()).unwrap(), None);
    }
}
