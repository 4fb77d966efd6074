//! Backups that are made by themselves: each by a process of its own, which ends with us. What it reads and how long that
//! takes concerns nobody else; how it went is in `backup.json`, from which we go on after our own end.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use mainstay_api::client::Client;
use mainstay_api::node::Backup;
use mainstay_api::wire::Accepted;
use mainstay_ids::Timestamp;
use mainstay_kernel::{Ended, Life, Place as Session, Spawn, Watched};
use mainstay_model::BackupNews;
use mainstay_model::backup::Standing;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::clock;
use crate::command::API_SOCKET;
use crate::output;
use crate::safekeeping::BackupRecord;

/// How often it is looked whether one is due or late: the clock of the wall may be set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After the start: the processes that give their parts start, too.
const START_DELAY: Duration = Duration::from_secs(2);
/// The log of those who make them, beyond which it begins anew: some thousands of backups.
const LOG_LEN_MAX: u64 = 1024 * 1024;

/// What makes them when they are due.
pub(super) struct Backups {
    state: PathBuf,
    wanted: watch::Receiver<Option<Backup>>,
    under_way: Option<UnderWay>,
    /// What the log was told last.
    told: Standing,
    /// What the control centre still has to be told, of which it makes an event.
    untold: Option<BackupNews>,
    /// Its address; `None`: this node has none.
    client: Option<Client>,
}

/// Whether the node has a control centre that is told of alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listener {
    ControlCentre,
    Nobody,
}

/// A process that makes one. It ends when this is dropped.
struct UnderWay {
    process: Watched,
    pid: u32,
    since: Timestamp,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // One that has ended is reaped already, or by whoever comes after us.
        self.process.handle().signal(Signal::TERM).ok();
    }
}

impl Backups {
    pub(super) fn new(
        state: &Path,
        wanted: watch::Receiver<Option<Backup>>,
        listener: Listener,
    ) -> Self {
        let client = match listener {
            Listener::ControlCentre => Some(Client::unix(&state.join(API_SOCKET))),
            Listener::Nobody => None,
        };
        Self {
            state: state.to_owned(),
            wanted,
            under_way: None,
            told: Standing::Fine,
            untold: None,
            client,
        }
    }

    /// Makes them until it is dropped. What fails is told, and tried again.
    pub(super) async fn keep(mut self) -> Infallible {
        sleep(START_DELAY).await;
        loop {
            if let Err(error) = self.turn().await {
                output::warn(format_args!("error: backups: {error:#}"));
                sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Looks, does what is due, and waits until it is time to look again.
    async fn turn(&mut self) -> anyhow::Result<()> {
        let wanted = self.wanted.borrow_and_update().clone();
        let Some(backup) = wanted else {
            self.under_way = None;
            BackupRecord::remove(&self.state).context("cannot remove `backup.json`")?;
            self.changed().await;
            return Ok(());
        };
        let now = clock::now();
        let record = self.record(&backup, now)?;
        self.tell(&record, now);
        self.tell_centre().await;
        let due = record.known().due(now);
        if self.under_way.is_none() && due <= now {
            self.under_way = Some(self.begin(&backup, now)?);
        }
        let until = Duration::from_millis(due.0.saturating_sub(now.0));
        let pause = if self.under_way.is_some() {
            LOOK_EVERY
        } else {
            until.min(LOOK_EVERY)
        };
        let ended = async {
            match &self.under_way {
                // An error means that the runtime ends, and we with it.
                Some(under_way) => under_way.process.ended().await.ok(),
                None => std::future::pending().await,
            }
        };
        let mut wanted = self.wanted.clone();
        let changed = async {
            if wanted.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = ended => self.ended(),
            () = changed => Ok(()),
            () = sleep(pause) => Ok(()),
        }
    }

    /// Until something else is wanted; for ever, if nobody is left who could want it.
    async fn changed(&mut self) {
        if self.wanted.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What is known of them, with what is wanted now.
    fn record(&self, backup: &Backup, now: Timestamp) -> anyhow::Result<BackupRecord> {
        let known = BackupRecord::load(&self.state)?;
        let mut record = known
            .clone()
            .unwrap_or_else(|| BackupRecord::new(backup, now));
        if record.to != backup.to {
            // Others than before: what failed there says nothing of these.
            let last = record.last.take();
            record = BackupRecord::new(backup, now);
            record.last = last;
        }
        (record.every, record.keep) = (backup.every, backup.keep);
        if known.as_ref() != Some(&record) && self.under_way.is_none() {
            record.save(&self.state)?;
        }
        Ok(record)
    }

    /// Says once that they are not as they should be, and once that they are again.
    fn tell(&mut self, record: &BackupRecord, now: Timestamp) {
        let standing = record.known().standing(now);
        if standing == self.told {
            return;
        }
        self.told = standing;
        let said = record.said(now);
        output::warn(format_args!("backup: {said}"));
        self.untold = Some(BackupNews { standing, said });
    }

    /// One that is away is told with the next look; of several changes it is told the last.
    async fn tell_centre(&mut self) {
        let (Some(client), Some(news)) = (&self.client, self.untold.take()) else {
            return;
        };
        let told = client.post::<_, Accepted>("/v1/nodes/backups", &news).await;
        match told {
            Ok(_) => {}
            Err(error) if error.is_transient() => self.untold = Some(news),
            Err(error) => output::warn(format_args!("warning: cannot tell of backups: {error}")),
        }
    }

    fn begin(&self, backup: &Backup, now: Timestamp) -> anyhow::Result<UnderWay> {
        let context = || "cannot start the process that makes a backup".to_owned();
        let log = self.open_log()?;
        let child = Spawn::own_program("mainstay")
            .arguments(["internal", "backup", "--state"])
            .argument(&self.state)
            .argument("--to")
            .argument(&backup.to)
            .argument("--keep")
            .argument(backup.keep.to_string())
            .own_environment()
            .output(log.as_fd())
            .place(Session::OwnSession)
            .life(Life::EndsWithParent)
            .start()
            .with_context(context)?;
        let pid = child.pid();
        let process = Watched::new(child.into_handle()).with_context(context)?;
        Ok(UnderWay {
            process,
            pid,
            since: now,
        })
    }

    fn log(&self) -> PathBuf {
        self.state.join("logs").join("backup.log")
    }

    fn open_log(&self) -> anyhow::Result<File> {
        let path = self.log();
        let long = path.metadata().is_ok_and(|log| log.len() > LOG_LEN_MAX);
        let mut options = OpenOptions::new();
        options.create(true).mode(0o600);
        if long {
            options.write(true).truncate(true);
        } else {
            options.append(true);
        }
        options
            .open(&path)
            .with_context(|| format!("cannot open `{}`", path.display()))
    }

    /// It has written down how it went, unless it could not.
    fn ended(&mut self) -> anyhow::Result<()> {
        let Some(under_way) = self.under_way.take() else {
            return Ok(());
        };
        let how = mainstay_kernel::try_reap(under_way.pid);
        let how = how.context("cannot reap what made a backup")?;
        let Some(mut record) = BackupRecord::load(&self.state)? else {
            return Ok(());
        };
        let written = |at: Option<Timestamp>| at.is_some_and(|at| at >= under_way.since);
        let known = record.known();
        if how == Some(Ended::Code(0)) || written(known.failed) || written(known.last) {
            return Ok(());
        }
        let how = match how {
            Some(Ended::Code(code)) => format!("with code {code}"),
            Some(Ended::Signal(number)) => format!("by signal {number}"),
            None => "without a word".to_owned(),
        };
        let log = self.log();
        let why = format!("what made it ended {how}, see `{}`", log.display());
        record.failed(why, clock::now());
        record.save(&self.state)
    }
}
