//! The process between the agent and one attempt of an instance: small, alone in its session, and
//! alive when the agent is not.
//!
//! It is the parent of the program and the new parent of whatever the program leaves behind; it owns
//! the pipe of its output; it records how it ended. One thread waits in `poll` for: a signal (SIGTERM
//! = stop the program, SIGQUIT = kill it now, SIGCHLD), output, the end of the grace, the next try to
//! write the log. It decides nothing about restarts and speaks to nobody: what it has to say stands in files
//! ([`crate::record`]), so that it does not matter which agent reads them.

mod end;
mod log;
mod memory;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use mainstay_kernel::cgroup::Cgroup;
use mainstay_kernel::inherit::{self, InheritError};
use mainstay_kernel::signals::{Signal, SignalFd};
use mainstay_kernel::{
    Account, Child, Ended, Identity, Life, Place, Reaped, Spawn, become_subreaper, reap_any,
};
use mainstay_model::{Exit, StartFailure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::launch;
use crate::record::{
    AttemptSpec, Cause, ExitRecord, FORMAT, RecordError, Reserved, RunDir, ShimRecord,
};
use crate::secrets::Secrets;
use end::Ending;
use log::Log;
use memory::MemoryWatch;

/// The name under which the agent hands the locked directory to the shim.
pub(crate) const LOCK: &str = "lock";

/// The name of the pipe that the shim closes once there is something to read for the agent.
pub(crate) const STARTED: &str = "started";

/// The name of the memory with the values that are handed to the program only.
pub(crate) const SECRETS: &str = "secrets";

/// The exit status of a shim that could not make its files (`EX_IOERR` of `sysexits.h`).
pub(crate) const CANNOT_WRITE: u8 = 74;

/// How much is read from the pipe at once. A pipe holds 64 KiB; a larger buffer would only cost
/// memory in each of some hundred shims.
const READ_LEN: usize = 16 * 1024;

/// Why a shim could not do its work.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot take the agent's descriptors")]
    Inherit(#[from] InheritError),
    #[error("cannot read the attempt's specification")]
    Record(#[from] RecordError),
    #[error("there is no specification")]
    NoSpec,
    #[error("cannot make the attempt's files")]
    Reserve(#[source] io::Error),
    #[error("cannot {attempted}")]
    System {
        attempted: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Runs the attempt whose `spec.json` this is, to its end. Call it first in `main`, with one thread.
pub fn shim_main(spec: &Path) -> ExitCode {
    match run(spec) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Reserve(_)) => ExitCode::from(CANNOT_WRITE),
        // Nobody reads what a shim prints; the agent reports the loss.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(spec_path: &Path) -> Result<(), Error> {
    // The lock is held for the life of this process, the other until the start is decided.
    let (started, rest): (Vec<_>, Vec<_>) = inherit::take()?
        .into_iter()
        .partition(|(name, _)| name == STARTED);
    let (secrets, _lock): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|(name, _)| name == SECRETS);
    let system = |attempted| move |source| Error::System { attempted, source };
    let secrets = match secrets.into_iter().next() {
        Some((_, fd)) => Secrets::read(fd).map_err(system("read the secrets"))?,
        None => Secrets::default(),
    };
    let directory = RunDir::around(spec_path);
    let spec = directory.spec()?.ok_or(Error::NoSpec)?;
    // Only for process lists.
    let _ = rustix::thread::set_name(c"mainstay-shim");
    become_subreaper().map_err(system("become a subreaper"))?;
    // The others are blocked so that nobody ends the shim by accident, and with it the instance.
    let signals = [
        Signal::TERM,
        Signal::CHILD,
        Signal::HUP,
        Signal::INT,
        Signal::QUIT,
    ];
    let signals = SignalFd::block(&signals).map_err(system("block signals"))?;
    let files = Reserved::make(&directory, &spec).map_err(Error::Reserve)?;
    let log = Log::open(&spec.log, spec.planned.spec.log, Instant::now());
    let memory = MemoryWatch::of(&spec, Instant::now());
    let mut shim = Shim {
        spec,
        files,
        log,
        told_dropped: 0,
        memory,
    };
    let started_program = shim.start(&secrets);
    // From here on only the program has them.
    drop(secrets);
    let (exit, cause) = match started_program {
        Ok((child, output)) => {
            drop(started);
            shim.watch(&signals, &child, output)
                .map_err(system("watch the instance"))?
        }
        Err(not_started) => (Exit::NotStarted(not_started), Cause::Own),
    };
    shim.finish(exit, cause).map_err(Error::Reserve)
}

struct Shim {
    spec: AttemptSpec,
    files: Reserved,
    log: Log,
    /// The count of dropped bytes that stands in the file.
    told_dropped: u64,
    memory: Option<MemoryWatch>,
}

/// What the shim is doing with its child.
enum Phase {
    Running,
    /// It was told to end and is killed at this time.
    Stopping {
        kill_at: Instant,
    },
    Killed,
    /// The program has ended; what it left behind is being ended.
    Ending(Ending),
}

impl Shim {
    /// Starts the program. On failure nothing of it is left and the log says why.
    fn start(&mut self, secrets: &Secrets) -> Result<(Child, File), StartFailure> {
        let (output, write_end) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(|errno| self.refuse(errno_failure(errno), errno))?;
        rustix::io::ioctl_fionbio(&output, true)
            .map_err(|errno| self.refuse(errno_failure(errno), errno))?;
        let child = self.spawn(&write_end, secrets)?;
        drop(write_end);
        let record = self.shim_record(&child).and_then(|record| {
            self.files.publish_shim(&record)?;
            Ok(record)
        });
        match record {
            Ok(record) => {
                let text = format!(
                    "{} started at {}, pid {}, {}",
                    self.title(),
                    record.since,
                    child.pid(),
                    record.address
                );
                self.log.note(Instant::now(), &text);
                Ok((child, output.into()))
            }
            Err(error) => {
                // It ends here and is reaped by init together with us.
                let _ = child.signal_group(Signal::KILL);
                Err(self.refuse(StartFailure::StateDirectory, error))
            }
        }
    }

    fn spawn(&mut self, output: &OwnedFd, secrets: &Secrets) -> Result<Child, StartFailure> {
        let groups = self.spec.cgroup.iter().chain(&self.spec.limiting);
        let procs: io::Result<Vec<OwnedFd>> = groups.map(|path| Cgroup::at(path).procs()).collect();
        let procs = match procs {
            Ok(procs) => procs,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or_default();
                return Err(self.refuse(StartFailure::System(errno), error));
            }
        };
        let account = match launch::account(&self.spec.launch) {
            Ok(account) => account,
            Err(error) => return Err(self.refuse(StartFailure::User, error)),
        };
        let mut program = spawn_of(&self.spec, account, &procs).output(output.as_fd());
        for (name, value) in secrets.variables() {
            program = program.variable(name, value);
        }
        let child = program.start();
        child.map_err(|error| {
            let failure = launch::failure(&self.spec.launch.program, &error);
            let Some(barrier) = launch::shut_out(&self.spec, failure) else {
                return self.refuse(failure, error);
            };
            let account = self.spec.launch.user.as_deref().unwrap_or_default();
            let what = format!("account `{account}` may not enter `{}`", barrier.display());
            self.refuse(StartFailure::ShutOut, what)
        })
    }

    fn shim_record(&self, child: &Child) -> io::Result<ShimRecord> {
        // Neither can be gone: one is this process, the other its child that was not reaped.
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let identity = |pid| Identity::of(pid)?.ok_or_else(gone);
        Ok(ShimRecord {
            format: FORMAT,
            attempt: self.spec.attempt,
            shim: identity(std::process::id())?,
            child: identity(child.pid())?,
            address: self.spec.address,
            since: crate::now(),
            spec: Some(Box::new(self.spec.clone())),
        })
    }

    /// Says in the log why there is no start.
    fn refuse(&mut self, failure: StartFailure, error: impl Into<AnyError>) -> StartFailure {
        let text = format!(
            "{} was not started: {failure}: {}",
            self.title(),
            crate::chain(&*error.into())
        );
        self.log.note(Instant::now(), &text);
        failure
    }

    fn title(&self) -> String {
        format!(
            "{} attempt {}",
            self.spec.planned.instance, self.spec.attempt.0
        )
    }

    /// The poll loop.
    fn watch(
        &mut self,
        signals: &SignalFd,
        child: &Child,
        output: File,
    ) -> io::Result<(Exit, Cause)> {
        let mut buffer = vec![0; READ_LEN];
        let mut output = Some(output);
        let mut phase = Phase::Running;
        let mut cause = Cause::Own;
        loop {
            if let Phase::Ending(ending) = &mut phase
                && let Some(exit) = ending.advance(Instant::now())?
            {
                self.drain(output, &mut buffer);
                return Ok((exit, cause));
            }
            wait(signals, output.as_ref(), self.deadline(&phase))?;
            let now = Instant::now();
            if let Some(pipe) = &mut output
                && self.read(pipe, &mut buffer) == Pipe::Ended
            {
                output = None;
            }
            self.log.retry(now);
            self.tell_dropped();
            self.tell_killed(now);
            while let Some(signal) = signals.next()? {
                let kill_at = match &phase {
                    Phase::Running if signal == Signal::TERM.as_raw() => {
                        child.signal_group(Signal::TERM)?;
                        now + self.spec.planned.spec.grace
                    }
                    Phase::Running | Phase::Stopping { .. } if signal == Signal::QUIT.as_raw() => {
                        now
                    }
                    Phase::Running | Phase::Stopping { .. } | Phase::Killed | Phase::Ending(_) => {
                        continue;
                    }
                };
                cause = Cause::Ordered;
                phase = Phase::Stopping { kill_at };
            }
            phase = match phase {
                Phase::Stopping { kill_at } if kill_at <= now => {
                    child.signal_group(Signal::KILL)?;
                    Phase::Killed
                }
                other => other,
            };
            if !matches!(phase, Phase::Ending(_))
                && let Some(ended) = reap_until(child)?
            {
                let exit = self.exit(ended, &phase);
                phase = Phase::Ending(Ending::new(exit, &self.spec, now));
            }
        }
    }

    fn deadline(&self, phase: &Phase) -> Option<Instant> {
        let own = match phase {
            Phase::Running | Phase::Killed => None,
            Phase::Stopping { kill_at } => Some(*kill_at),
            Phase::Ending(ending) => Some(ending.next_deadline()),
        };
        let memory = match phase {
            Phase::Running | Phase::Stopping { .. } => self.memory.as_ref(),
            Phase::Killed | Phase::Ending(_) => None,
        };
        let memory = memory.map(MemoryWatch::next_deadline);
        let all = [own, memory, self.log.next_deadline()];
        all.into_iter().flatten().min()
    }

    fn read(&mut self, pipe: &mut File, buffer: &mut [u8]) -> Pipe {
        match pipe.read(buffer) {
            Ok(0) => Pipe::Ended,
            Ok(len) => {
                self.log.write(Instant::now(), &buffer[..len]);
                Pipe::Flows
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Pipe::Flows,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Pipe::Empty,
            // Reading a pipe has no other failure that could pass.
            Err(_) => Pipe::Ended,
        }
    }

    /// Writes down what is still in the pipe, though not what somebody outside, to whom the program
    /// gave its output, goes on to write for ever.
    fn drain(&mut self, output: Option<File>, buffer: &mut [u8]) {
        /// A pipe holds 1 MiB at most, unless root made it larger.
        const ROUNDS: usize = 1024 * 1024 / READ_LEN;
        let Some(mut output) = output else { return };
        for _ in 0..ROUNDS {
            if self.read(&mut output, buffer) != Pipe::Flows {
                return;
            }
        }
    }

    fn tell_dropped(&mut self) {
        if self.told_dropped != self.log.dropped() {
            self.told_dropped = self.log.dropped();
            // The record of the exit tells it again.
            let _ = self.files.set_dropped(self.told_dropped);
        }
    }

    /// Tells of processes that the kernel killed while the program goes on.
    fn tell_killed(&mut self, now: Instant) {
        if let Some(told) = self.memory.as_mut().and_then(|memory| memory.look(now)) {
            self.log.note(now, &format!("{}: {told}", self.title()));
        }
    }

    /// What the end of the program means. A SIGKILL that came from us is no want of memory.
    fn exit(&mut self, ended: Ended, phase: &Phase) -> Exit {
        let ours = matches!(phase, Phase::Killed);
        let Some(memory) = self.memory.as_mut().filter(|_| !ours) else {
            return memory::exit(ended);
        };
        let (exit, told) = memory.conclude(ended);
        if let Some(told) = told {
            self.log
                .note(Instant::now(), &format!("{}: {told}", self.title()));
        }
        exit
    }

    fn finish(&mut self, exit: Exit, cause: Cause) -> io::Result<()> {
        if !matches!(exit, Exit::NotStarted(_)) {
            self.log.note(
                Instant::now(),
                &format!("{} {exit} at {}", self.title(), crate::now()),
            );
        }
        self.tell_dropped();
        self.files.publish_exit(&ExitRecord {
            format: FORMAT,
            attempt: self.spec.attempt,
            exit,
            cause,
            at: crate::now(),
            log_dropped: self.log.dropped(),
        })
    }
}

type AnyError = Box<dyn std::error::Error>;

/// What a reading of the pipe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pipe {
    Flows,
    Empty,
    Ended,
}

fn spawn_of<'a>(spec: &AttemptSpec, account: Option<Account>, procs: &'a [OwnedFd]) -> Spawn<'a> {
    let mut spawn = launch::spawn(&spec.launch, account)
        .place(Place::OwnGroup)
        .life(Life::EndsWithParent);
    for procs in procs {
        spawn = spawn.cgroup(procs.as_fd());
    }
    spawn
}

fn wait(signals: &SignalFd, output: Option<&File>, deadline: Option<Instant>) -> io::Result<()> {
    let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
    if let Some(output) = output {
        fds.push(PollFd::new(output, PollFlags::IN));
    }
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let timeout = left.map(|left| Timespec::try_from(left).unwrap_or_default());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reaps whatever has ended, until the program itself is among it.
fn reap_until(child: &Child) -> io::Result<Option<Ended>> {
    loop {
        match reap_any()? {
            Reaped::Child { pid, ended } if pid == child.pid() => return Ok(Some(ended)),
            Reaped::Child { .. } => {}
            Reaped::AllRun | Reaped::NoChildren => return Ok(None),
        }
    }
}

fn errno_failure(errno: Errno) -> StartFailure {
    StartFailure::System(errno.raw_os_error())
}
