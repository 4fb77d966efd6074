//! The two brokers: ours, and Debian's RabbitMQ with its defaults.

use crate::cargo;
use anyhow::{Context as _, Result, bail};
use mainstay_prove::amqp::Wire;
use mainstay_testkit::{RabbitMq, RabbitMqOptions, Spawned, TempDir, free_port, program};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    time::sleep,
};

/// RabbitMQ starts within seconds on an idle machine.
const START: Duration = Duration::from_secs(150);
/// The client that waits for a broker asks again after this.
const POLL: Duration = Duration::from_millis(1);

/// Builds ours; gives the path of the program.
pub(super) fn build() -> Result<PathBuf> {
    let mut build = cargo::command();
    build.args(["build", "--release", "--quiet", "--locked"]);
    build.args(["--package", "mainstay-broker", "--example", "broker"]);
    cargo::run(&mut build)?;
    Ok(cargo::target_dir()?.join("release/examples/broker"))
}

/// A broker that runs.
pub(super) enum Side {
    Ours(Ours),
    RabbitMq(Box<RabbitMq>),
}

/// Ours; it can be killed, and started again on the same directory.
pub(super) struct Ours {
    process: Option<Spawned>,
    program: PathBuf,
    dir: TempDir,
    port: u16,
}

impl Side {
    /// Starts ours in a directory of its own; how long it took until a client got in.
    pub(super) async fn ours(program: &Path) -> Result<(Self, Duration)> {
        let mut ours = Ours {
            process: None,
            program: program.to_owned(),
            dir: TempDir::new("bench-broker"),
            port: free_port(),
        };
        let took = ours.start().await?;
        Ok((Self::Ours(ours), took))
    }

    /// Starts RabbitMQ in `dir`; how long it took until a client got in.
    pub(super) async fn rabbitmq(dir: &TempDir) -> Result<(Self, Duration)> {
        let start = Instant::now();
        let node = RabbitMq::start(dir, &RabbitMqOptions::default());
        served(node.address()).await?;
        Ok((Self::RabbitMq(Box::new(node)), start.elapsed()))
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Ours(ours) => ours.address(),
            Self::RabbitMq(node) => node.address(),
        }
    }

    pub(super) fn pid(&self) -> Result<Pid> {
        match self {
            Self::Ours(ours) => ours.pid(),
            Self::RabbitMq(node) => Ok(node.pid()),
        }
    }
}

impl Ours {
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Starts it and waits for nothing.
    pub(super) fn spawn(&mut self) {
        self.process = None;
        let mut command = Command::new(&self.program);
        command
            .arg(self.dir.join("state"))
            .arg(self.port.to_string());
        self.process = Some(Spawned::start(&self.dir, "broker", &mut command));
    }

    /// Starts it; how long it took until a client got in.
    pub(super) async fn start(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.spawn();
        served(self.address()).await?;
        Ok(start.elapsed())
    }

    pub(super) fn pid(&self) -> Result<Pid> {
        let process = self.process.as_ref().context("it does not run")?;
        if let Some(ended) = process.ended() {
            bail!("the broker ended ({ended:?}):\n{}", process.log());
        }
        Ok(process.pid())
    }

    pub(super) fn kill(&self) -> Result<()> {
        kill_process(self.pid()?, Signal::KILL).context("cannot kill the broker")
    }
}

/// Waits until a client gets as far as an open channel.
async fn served(address: SocketAddr) -> Result<()> {
    let until = Instant::now() + START;
    loop {
        match tokio::task::spawn_blocking(move || Wire::connect(address)).await? {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > until => {
                return Err(error).context("the broker does not serve");
            }
            Err(_) => sleep(POLL).await,
        }
    }
}

/// Counts the syncs of a process from now on.
pub(super) struct SyncCount {
    tracer: tokio::process::Child,
    counts: PathBuf,
}

impl SyncCount {
    pub(super) async fn begin(dir: &TempDir, pid: Pid) -> Result<Self> {
        let counts = dir.join("strace");
        let mut tracer = tokio::process::Command::new(program("strace"))
            .args(["-f", "-c", "-e", "trace=fsync,fdatasync", "-o"])
            .arg(&counts)
            .args(["-p", &pid.to_string()])
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start strace")?;
        let said = tracer.stderr.take().context("strace has an output")?;
        let mut lines = BufReader::new(said).lines();
        let first = lines.next_line().await?.unwrap_or_default();
        if !first.contains("attached") {
            bail!("strace cannot count: {first}");
        }
        // It says a line for each thread, and must not wait for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { tracer, counts })
    }

    pub(super) async fn end(mut self) -> Result<u64> {
        let pid = self.tracer.id().context("strace runs")?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("a pid is positive")?;
        kill_process(pid, Signal::INT)?;
        self.tracer.wait().await?;
        Ok(super::super::store::calls(&fs::read_to_string(
            &self.counts,
        )?))
    }
}
