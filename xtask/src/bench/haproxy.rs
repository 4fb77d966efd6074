//! The rival: Debian's HAProxy with a configuration of ours, its instances, and the reader of its log.

use super::backend;
use crate::tree;
use anyhow::{Context as _, Result};
use mainstay_testkit::{Spawned, TempDir, free_port, program, wait_until};
use rustix::process::{Pid, Signal};
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How long anything here may take to start on a loaded machine.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How often the log's reader looks whether it is to end.
const LOG_POLL: Duration = Duration::from_millis(100);

/// How many instances each configuration has.
const INSTANCES: usize = 3;

/// Whether the configuration can be replaced while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reload {
    /// One process.
    Never,
    /// A master that replaces its worker at SIGUSR2.
    Master,
}

/// What a HAProxy is started with.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The configuration, relative to the root.
    pub(crate) config: &'static str,
    pub(crate) threads: usize,
    /// How long each answer of an instance takes.
    pub(crate) delay: Duration,
    pub(crate) reload: Reload,
}

/// A running HAProxy with its instances.
pub(crate) struct Haproxy {
    process: Spawned,
    backends: Vec<Backend>,
    setup: Setup,
    entry: SocketAddr,
    log: LogReader,
    dir: TempDir,
}

impl Haproxy {
    pub(crate) fn start(setup: Setup) -> Result<Self> {
        let dir = TempDir::new("bench-haproxy");
        let backends: Vec<Backend> = (0..INSTANCES)
            .map(|_| Backend::start(&dir, setup.delay))
            .collect::<Result<_>>()?;
        let log = LogReader::start(&dir.join("log.sock"))?;
        let entry = SocketAddr::from(([127, 0, 0, 1], free_port()));
        write_config(&dir, &setup, entry, &backends)?;
        let mut command = Command::new(program("haproxy"));
        command.arg("-db").arg("-f").arg(dir.join("haproxy.cfg"));
        if setup.reload == Reload::Master {
            command.arg("-W");
        }
        let process = Spawned::start(&dir, "haproxy", &mut command);
        let haproxy = Self {
            process,
            backends,
            setup,
            entry,
            log,
            dir,
        };
        wait_until(START_DEADLINE, "HAProxy listens", || {
            match haproxy.process.ended() {
                Some(ended) => panic!("HAProxy ended ({ended:?}):\n{}", haproxy.process.log()),
                None => TcpStream::connect(entry).map_err(|error| error.to_string()),
            }
        });
        Ok(haproxy)
    }

    pub(crate) fn entry(&self) -> SocketAddr {
        self.entry
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Lines of its access log so far.
    pub(crate) fn log_lines(&self) -> u64 {
        self.log.lines.load(Ordering::Relaxed)
    }

    /// The process of an instance.
    pub(crate) fn instance(&self, instance: usize) -> Pid {
        self.backends[instance].process.pid()
    }

    /// Where an instance listens.
    pub(crate) fn instance_address(&self, instance: usize) -> SocketAddr {
        self.backends[instance].address()
    }

    /// Starts a killed instance again, where it was.
    pub(crate) fn bring_back(&mut self, instance: usize) -> Result<()> {
        let Backend { port, delay, .. } = self.backends[instance];
        self.backends[instance] = Backend::start_on(&self.dir, port, delay)?;
        Ok(())
    }

    /// Starts new instances, reloads with them in the configuration, and ends the old ones once the old worker is gone.
    pub(crate) fn roll_out(&mut self) -> Result<()> {
        let new: Vec<Backend> = (0..INSTANCES)
            .map(|_| Backend::start(&self.dir, self.setup.delay))
            .collect::<Result<_>>()?;
        write_config(&self.dir, &self.setup, self.entry, &new)?;
        let old_workers = self.workers()?;
        self.process.signal(Signal::USR2);
        wait_until(START_DEADLINE, "the old worker is gone", || {
            match self.workers() {
                Ok(now) if !now.is_empty() && now.iter().all(|pid| !old_workers.contains(pid)) => {
                    Ok(())
                }
                now => Err(format!("workers {now:?}, the old ones are {old_workers:?}")),
            }
        });
        self.backends = new;
        Ok(())
    }

    /// The children of the master.
    fn workers(&self) -> Result<Vec<String>> {
        let pid = self.process.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }
}

/// Fills the places of a configuration in.
fn write_config(
    dir: &TempDir,
    setup: &Setup,
    entry: SocketAddr,
    backends: &[Backend],
) -> Result<()> {
    let template = fs::read_to_string(tree::root().join(setup.config))
        .with_context(|| format!("cannot read {}", setup.config))?;
    let mut places = vec![
        ("BIND".to_owned(), entry.to_string()),
        ("THREADS".to_owned(), setup.threads.to_string()),
        ("LOG".to_owned(), dir.join("log.sock").display().to_string()),
        (
            "STATS".to_owned(),
            dir.join("stats.sock").display().to_string(),
        ),
    ];
    for (index, backend) in backends.iter().enumerate() {
        places.push((format!("B{}", index + 1), backend.address().to_string()));
    }
    let text = places.iter().fold(template, |text, (name, value)| {
        text.replace(&format!("${{{name}}}"), value)
    });
    fs::write(dir.join("haproxy.cfg"), text).context("cannot write haproxy.cfg")
}

/// One instance behind HAProxy.
struct Backend {
    process: Spawned,
    port: u16,
    delay: Duration,
}

impl Backend {
    fn start(dir: &TempDir, delay: Duration) -> Result<Self> {
        Self::start_on(dir, free_port(), delay)
    }

    fn start_on(dir: &TempDir, port: u16, delay: Duration) -> Result<Self> {
        let mut command = Command::new(backend::executable()?);
        command
            .args(backend::arguments(delay))
            .arg("--port")
            .arg(port.to_string());
        let process = Spawned::start(dir, &format!("backend-{port}"), &mut command);
        let backend = Self {
            process,
            port,
            delay,
        };
        wait_until(START_DEADLINE, "the instance listens", || {
            TcpStream::connect(backend.address()).map_err(|error| error.to_string())
        });
        Ok(backend)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }
}

/// Reads the log as a log daemon would, and counts its lines. Ends when it is dropped.
struct LogReader {
    lines: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LogReader {
    fn start(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path)
            .and_then(|socket| socket.set_read_timeout(Some(LOG_POLL)).map(|()| socket))
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        let (lines, end) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (counted, told) = (Arc::clone(&lines), Arc::clone(&end));
        let read = move || {
            let mut line = [0; 8192];
            while !told.load(Ordering::Relaxed) {
                if socket.recv(&mut line).is_ok() {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        // Joined when the reader is dropped; it cannot fail.
        let thread = thread::Builder::new()
            .name("haproxy-log".into())
            .spawn(read)?;
        Ok(Self {
            lines,
            end,
            thread: Some(thread),
        })
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            eprintln!("the reader of HAProxy's log panicked");
        }
    }
}
