//! `bench store`: durable transactions of the control centre's store per second, many writers at a
//! time and one, and what each costs in syncs.
//!
//! A commit that was not synced is none, so the rate counts only with its control: the system calls
//! of a writer that works alone are counted, and there must be a sync for each of its commits.

use super::frame::{Run, median, short};
use crate::tree;
use anyhow::{Context as _, Result, bail};
use mainstay_store::{
    Key, KeyRange, Operation, Outcome, SqliteStore, Store, Test, TokioClock, Txn,
};
use mainstay_testkit::program;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    task::JoinSet,
};

const COMMITS_PER_S_MIN: f64 = 1700.0;
/// Writers at a time: what 50 machines with a few changes each hand in at once.
const WRITERS: u64 = 64;
/// Bytes of a value: a service with one version.
const VALUE_LEN: usize = 1024;
/// Commits while system calls are counted, which makes each of them slower.
const COUNTED: u64 = 1000;
/// `TMPFS_MAGIC` of linux/magic.h: there a sync costs nothing, and keeps nothing.
const TMPFS: i64 = 0x0102_1994;

/// A directory on the disk that the project is on; the system's temporary one may be memory.
struct OnDisk(PathBuf);

impl OnDisk {
    fn new() -> Result<Self> {
        let path = tree::root().join("target").join("bench-store");
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

pub(crate) async fn run(run: &mut Run) -> Result<()> {
    let dir = OnDisk::new()?;
    let kind = rustix::fs::statfs(&dir.0)?.f_type;
    if kind == TMPFS {
        run.miss("the project is in memory, where a sync costs nothing");
    }
    let lasts = Duration::from_secs(run.extent.pick(5, 2));
    let (mut together, mut alone) = (Vec::new(), Vec::new());
    for number in 1..=run.extent.rounds() {
        let many = rate(&dir.0, WRITERS, lasts).await?;
        let one = rate(&dir.0, 1, lasts).await?;
        run.say(format!(
            "round {number}: {} commits/s by {WRITERS} writers, {} by one",
            short(many),
            short(one)
        ));
        together.push(many);
        alone.push(one);
    }
    run.raw("commits_per_s", json!(together));
    run.raw("commits_per_s_one_writer", json!(alone));
    run.at_least("commits_per_s", median(together), COMMITS_PER_S_MIN);
    run.value("commits_per_s_one_writer", median(alone));

    let many = syncs_per_1000(&dir.0, WRITERS).await?;
    let one = syncs_per_1000(&dir.0, 1).await?;
    run.value("syncs_per_1000_commits", many);
    run.value("syncs_per_1000_commits_one_writer", one);
    if one < 1000.0 {
        run.miss(format!(
            "1,000 commits one by one made only {} syncs: they were not durable",
            short(one)
        ));
    }
    Ok(())
}

async fn open(dir: &Path) -> Result<Arc<SqliteStore>> {
    let path = dir.join("state.db");
    let store = SqliteStore::open(&path, Arc::new(TokioClock::start())).await?;
    Ok(Arc::new(store))
}

/// Commits per second of so many writers, each of which waits for its own.
async fn rate(dir: &Path, writers: u64, lasts: Duration) -> Result<f64> {
    let store = open(dir).await?;
    let start = Instant::now();
    let mut writing = JoinSet::new();
    for writer in 0..writers {
        let store = store.clone();
        writing.spawn(async move {
            let mut writer = Writer::new(store, writer).await?;
            let mut done = 0;
            while start.elapsed() < lasts {
                writer.commit().await?;
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    let mut done: u32 = 0;
    for commits in writing.join_all().await {
        done += commits?;
    }
    Ok(f64::from(done) / start.elapsed().as_secs_f64())
}

/// One that writes a key of its own again and again.
struct Writer {
    store: Arc<SqliteStore>,
    key: Key,
    test: Test,
}

impl Writer {
    async fn new(store: Arc<SqliteStore>, number: u64) -> Result<Self> {
        let key = Key::new(format!("/bench/{number}"))?;
        let found = store.range(&KeyRange::one(&key), 1).await?;
        let last = found.pairs.first();
        let test = last.map_or(Test::Absent, |pair| Test::ModifiedAt(pair.modified));
        Ok(Self { store, key, test })
    }

    async fn commit(&mut self) -> Result<()> {
        let put = Operation::Put {
            key: self.key.clone(),
            value: vec![b'x'; VALUE_LEN],
            lease: None,
        };
        let txn = Txn::default().with(self.test, put);
        match self.store.txn(txn).await? {
            Outcome::Committed(revision) => self.test = Test::ModifiedAt(revision),
            Outcome::Conflict => bail!("somebody else writes `{}`", self.key),
        }
        Ok(())
    }
}

/// Syncs that the kernel was asked for in [`COUNTED`] commits, for a thousand.
async fn syncs_per_1000(dir: &Path, writers: u64) -> Result<f64> {
    let store = open(dir).await?;
    let counts = dir.join("strace");
    let mut tracer = Command::new(program("strace"))
        .args(["-f", "-c", "-e", "trace=fsync,fdatasync", "-o"])
        .arg(&counts)
        .args(["-p", &std::process::id().to_string()])
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start strace")?;
    let said = tracer.stderr.take().context("strace has an output")?;
    let first = BufReader::new(said).lines().next_line().await?;
    let first = first.unwrap_or_default();
    if !first.contains("attached") {
        bail!("strace cannot count: {first}");
    }
    let mut writing = JoinSet::new();
    for writer in 0..writers {
        let store = store.clone();
        writing.spawn(async move {
            let mut writer = Writer::new(store, writer).await?;
            for _ in 0..COUNTED / writers {
                writer.commit().await?;
            }
            anyhow::Ok(())
        });
    }
    for written in writing.join_all().await {
        written?;
    }
    let pid = tracer.id().context("strace runs")?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("is a process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    tracer.wait().await?;
    let table = fs::read_to_string(&counts)?;
    let commits = COUNTED / writers * writers;
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    Ok(calls(&table) as f64 * 1000.0 / commits as f64)
}

/// The calls in a table of `strace -c`: percent, seconds, per call, calls, errors, name.
pub(super) fn calls(table: &str) -> u64 {
    let rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let syncs = rows.filter(|row| matches!(row.last(), Some(&("fsync" | "fdatasync"))));
    let counts = syncs.filter_map(|row| row.get(3)?.parse::<u64>().ok());
    counts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_of_both_syncs_are_counted() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 98.00    0.123456          12      1003           fdatasync
  2.00    0.001000          50        20         1 fsync
------ ----------- ----------- --------- --------- ----------------
100.00    0.124456          12      1023         1 total
";
        assert_eq!(calls(table), 1023);
    }
}
