//! Starting a process with everything stated: nothing is inherited by accident.
//!
//! Not `std::process::Command`: it cannot say which step of a start failed, it hands inherited
//! descriptors on, and it knows neither a parent's death nor cgroups.
#![expect(unsafe_code, reason = "fork, and what a child may call before exec")]

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitOptions, kill_process_group, waitpid};

use crate::account::Account;
use crate::identity::{Pidfd, raw_pid};
use crate::inherit;
use crate::reap::{self, Ended};
use crate::signals::AllBlocked;

/// A process to start. Its environment is empty, its standard descriptors are `/dev/null`, and it
/// gets no other descriptor, until something else is said.
#[derive(Debug)]
pub struct Spawn<'a> {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    directory: Option<PathBuf>,
    account: Option<Account>,
    standard: [Option<BorrowedFd<'a>>; 3],
    passed: Vec<(String, BorrowedFd<'a>)>,
    cgroups: Vec<BorrowedFd<'a>>,
    place: Place,
    life: Life,
    rights: Rights,
    umask: Option<u32>,
}

/// Whether a process, and what it starts, may gain rights by executing a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// A set-user-ID program such as `sudo` works.
    MayGrow,
    /// Such a program runs with the rights that the process has already (`PR_SET_NO_NEW_PRIVS`).
    NeverGrow,
}

/// Where a process stands among sessions and groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In its parent's process group.
    Parents,
    /// In its own process group, so that signals reach it with its children.
    OwnGroup,
    /// In its own session, so that nothing which ends its parent's session reaches it.
    OwnSession,
}

/// What the death of its parent means to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Nothing.
    OfItsOwn,
    /// It is killed. The parent is the thread that starts it: call from one that lives on.
    EndsWithParent,
}

/// The steps of a start that can fail in the new process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Making its session or process group.
    Place,
    /// Entering its cgroup.
    Cgroup,
    /// Arranging its descriptors.
    Descriptors,
    /// Becoming the account.
    User,
    /// Entering the directory.
    Directory,
    /// Tying its life to its parent's.
    Life,
    /// Executing the program.
    Program,
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A text that was to be handed to it cannot be.
    #[error("cannot start `{}`: a text with a NUL byte cannot be handed to a program", program.display())]
    Nul {
        /// The program.
        program: PathBuf,
    },
    /// There was no process yet.
    #[error("cannot make a process for `{}`", program.display())]
    Prepare {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The new process could not become what it was to be.
    #[error("cannot start `{}`: cannot {step}", program.display())]
    Step {
        /// The program.
        program: PathBuf,
        /// At what.
        step: Step,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Place => "make its session or group",
            Self::Cgroup => "enter its cgroup",
            Self::Descriptors => "arrange its descriptors",
            Self::User => "become its account",
            Self::Directory => "enter its directory",
            Self::Life => "tie it to its parent",
            Self::Program => "execute the program",
        })
    }
}

impl<'a> Spawn<'a> {
    /// A program by its path, or by its name, which is looked up in the new process's `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let program = program.into();
        Self {
            arguments: vec![program.clone().into_os_string()],
            program,
            environment: BTreeMap::new(),
            directory: None,
            account: None,
            standard: [None; 3],
            passed: Vec::new(),
            cgroups: Vec::new(),
            place: Place::Parents,
            life: Life::OfItsOwn,
            rights: Rights::MayGrow,
            umask: None,
        }
    }

    /// This process's own program, even if its file was replaced or removed since. `name` is what
    /// process lists show.
    pub fn own_program(name: &str) -> Self {
        let mut spawn = Self::new("/proc/self/exe");
        spawn.arguments = vec![name.into()];
        spawn
    }

    /// Appends an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Appends arguments.
    #[must_use]
    pub fn arguments<I: IntoIterator<Item: Into<OsString>>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Gives it this process's environment, except what [`inherit`] reads.
    #[must_use]
    pub fn own_environment(mut self) -> Self {
        self.environment.extend(env::vars_os());
        self.environment.remove(OsStr::new(inherit::VARIABLE));
        self
    }

    /// The directory in which it runs; entered as its account.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The account under which it runs.
    #[must_use]
    pub fn account(mut self, account: Account) -> Self {
        self.account = Some(account);
        self
    }

    /// Its standard input.
    #[must_use]
    pub fn input(mut self, fd: BorrowedFd<'a>) -> Self {
        self.standard[0] = Some(fd);
        self
    }

    /// Its standard output and standard error: one descriptor, so that their order is kept.
    #[must_use]
    pub fn output(mut self, fd: BorrowedFd<'a>) -> Self {
        self.standard[1] = Some(fd);
        self.standard[2] = Some(fd);
        self
    }

    /// Hands a descriptor on under a name, for [`inherit::take`].
    #[must_use]
    pub fn pass(mut self, name: impl Into<String>, fd: BorrowedFd<'a>) -> Self {
        self.passed.push((name.into(), fd));
        self
    }

    /// The `cgroup.procs` of a group that it enters before its program runs; one for each tree.
    #[must_use]
    pub fn cgroup(mut self, procs: BorrowedFd<'a>) -> Self {
        self.cgroups.push(procs);
        self
    }

    /// Where it stands.
    #[must_use]
    pub fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// What its parent's death means to it.
    #[must_use]
    pub fn life(mut self, life: Life) -> Self {
        self.life = life;
        self
    }

    /// Whether it may gain rights.
    #[must_use]
    pub fn rights(mut self, rights: Rights) -> Self {
        self.rights = rights;
        self
    }

    /// The permissions that files lack which it makes; otherwise this process's own.
    #[must_use]
    pub fn umask(mut self, mask: u32) -> Self {
        self.umask = Some(mask);
        self
    }

    /// Starts it. Returns when its program runs, or with the step that failed; then nothing is left.
    pub fn start(mut self) -> Result<Child, SpawnError> {
        if !self.passed.is_empty() {
            let names = self.passed.iter().map(|(name, _)| name.as_str());
            self.environment
                .insert(inherit::VARIABLE.into(), inherit::announce(names).into());
        }
        let prepare = |source| SpawnError::Prepare {
            program: self.program.clone(),
            source,
        };
        let (report, report_end) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| prepare(error.into()))?;
        let plan = self.plan(&report_end)?;
        let pid = plan.fork().map_err(prepare)?;
        drop((plan, report_end));
        // Opened while the child cannot have been reaped: only we may, and have not.
        let handle = Pidfd::open(pid).map_err(prepare)?;
        let failure = read_report(report).map_err(prepare)?;
        match (handle, failure) {
            (Some(handle), None) => Ok(Child { pid, handle }),
            (None, None) => Err(prepare(io::Error::from_raw_os_error(libc::ECHILD))),
            (_, Some((step, source))) => {
                // It is at its `_exit`; nobody else reaps it.
                let _ = waitpid(raw_pid(pid), WaitOptions::empty());
                Err(SpawnError::Step {
                    program: self.program,
                    step,
                    source,
                })
            }
        }
    }

    /// Allocates everything that the child needs, which may not allocate.
    fn plan(&self, report: &OwnedFd) -> Result<Plan, SpawnError> {
        let nul = |_| SpawnError::Nul {
            program: self.program.clone(),
        };
        let prepare = |source: io::Error| SpawnError::Prepare {
            program: self.program.clone(),
            source,
        };
        // Sources lie above all targets: no copy overwrites what is still to be copied.
        let above = 3 + RawFd::try_from(self.passed.len()).unwrap_or(RawFd::MAX);
        let raise = |fd: BorrowedFd<'_>| {
            fcntl_dupfd_cloexec(fd, above).map_err(|error| prepare(error.into()))
        };
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(prepare)?;
        let standard = self.standard.iter().map(|fd| fd.unwrap_or(null.as_fd()));
        let passed = self.passed.iter().map(|(_, fd)| *fd);
        let mut descriptors = Vec::new();
        for (target, source) in (0..).zip(standard.chain(passed)) {
            descriptors.push((raise(source)?, target));
        }
        let c_string = |text: &OsStr| CString::new(text.as_bytes()).map_err(nul);
        let arguments = self
            .arguments
            .iter()
            .map(|text| c_string(text))
            .collect::<Result<Vec<_>, _>>()?;
        let mut environment = Vec::new();
        for (name, value) in &self.environment {
            let mut entry = name.clone();
            entry.push("=");
            entry.push(value);
            environment.push(c_string(&entry)?);
        }
        let candidates = self
            .candidates()
            .iter()
            .map(|path| c_string(path.as_os_str()))
            .collect::<Result<_, _>>()?;
        Ok(Plan {
            place: self.place,
            life: self.life,
            rights: self.rights,
            umask: self.umask,
            cgroups: self
                .cgroups
                .iter()
                .map(|fd| raise(*fd))
                .collect::<Result<_, _>>()?,
            account: self.account.clone().filter(Account::is_to_be_taken),
            directory: self
                .directory
                .as_deref()
                .map(|path| c_string(path.as_os_str()))
                .transpose()?,
            descriptors,
            candidates,
            argv: pointers(&arguments),
            envp: pointers(&environment),
            _texts: (arguments, environment),
            // SAFETY: has no precondition.
            parent: unsafe { libc::getpid() },
            report: raise(report.as_fd())?,
        })
    }

    /// Where the program may be: a bare name stands in one of the directories of `PATH`.
    fn candidates(&self) -> Vec<PathBuf> {
        if self.program.as_os_str().as_bytes().contains(&b'/') {
            return vec![self.program.clone()];
        }
        let path = self.environment.get(OsStr::new("PATH"));
        let path = path.map_or(
            OsStr::new("/usr/local/bin:/usr/bin:/bin"),
            OsString::as_os_str,
        );
        env::split_paths(path)
            .map(|directory| directory.join(&self.program))
            .collect()
    }
}

/// A process that this one started. Dropping it neither ends nor reaps it.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    handle: Pidfd,
}

impl Child {
    /// Its number; with [`Place::OwnGroup`] or [`Place::OwnSession`] also that of its group.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A handle on it, readable when it has ended.
    pub fn handle(&self) -> &Pidfd {
        &self.handle
    }

    /// The handle alone.
    pub fn into_handle(self) -> Pidfd {
        self.handle
    }

    /// Reaps it if it has ended.
    pub fn try_reap(&self) -> io::Result<Option<Ended>> {
        reap::try_reap(self.pid)
    }

    /// Sends a signal to its process group, which must be its own. Call only before it was reaped;
    /// while its group has members, its number is not used again even after that.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        let Some(pid) = raw_pid(self.pid) else {
            return Ok(());
        };
        match kill_process_group(pid, signal) {
            // EPERM: everyone in the group became another account's.
            Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Everything that the child needs, allocated before the fork.
struct Plan {
    place: Place,
    life: Life,
    rights: Rights,
    umask: Option<u32>,
    cgroups: Vec<OwnedFd>,
    account: Option<Account>,
    directory: Option<CString>,
    descriptors: Vec<(OwnedFd, RawFd)>,
    candidates: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    /// What `argv` and `envp` point to.
    _texts: (Vec<CString>, Vec<CString>),
    parent: libc::pid_t,
    report: OwnedFd,
}

impl Plan {
    fn fork(&self) -> io::Result<u32> {
        // No handler of ours may run in the child before its signals are reset.
        let _blocked = AllBlocked::new();
        // SAFETY: the child calls only functions that are safe after a fork of a program with
        // several threads (`signal-safety(7)`): it allocates nothing and takes no lock.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => self.become_program(),
            pid => Ok(pid.unsigned_abs()),
        }
    }

    /// The child. Every text and list in it was allocated by the parent.
    fn become_program(&self) -> ! {
        let step = match self.prepare() {
            Ok(()) => {
                self.execute();
                Step::Program
            }
            Err(step) => step,
        };
        // SAFETY: `errno` is this thread's own; the buffer outlives the write; `_exit` runs nothing.
        unsafe {
            let errno = (*libc::__errno_location()).to_ne_bytes();
            let report = [step as u8, errno[0], errno[1], errno[2], errno[3]];
            libc::write(
                self.report.as_raw_fd(),
                report.as_ptr().cast(),
                report.len(),
            );
            libc::_exit(127)
        }
    }

    /// Everything before exec. On failure `errno` says why.
    fn prepare(&self) -> Result<(), Step> {
        // SAFETY: plain system calls with integers, and with buffers that `self` owns.
        unsafe {
            reset_signals();
            let placed = match self.place {
                Place::Parents => 0,
                Place::OwnGroup => libc::setpgid(0, 0),
                Place::OwnSession => libc::setsid(),
            };
            done(placed >= 0, Step::Place)?;
            for procs in &self.cgroups {
                // `cgroup.procs`: 0 is the writer.
                done(
                    libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) == 1,
                    Step::Cgroup,
                )?;
            }
            close_on_exec_from(3);
            for (source, target) in &self.descriptors {
                done(
                    libc::dup2(source.as_raw_fd(), *target) >= 0,
                    Step::Descriptors,
                )?;
            }
            if let Some(account) = &self.account {
                done(
                    libc::setgroups(account.groups.len(), account.groups.as_ptr()) == 0,
                    Step::User,
                )?;
                done(libc::setgid(account.gid) == 0, Step::User)?;
                done(libc::setuid(account.uid) == 0, Step::User)?;
            }
            if let Some(directory) = &self.directory {
                done(libc::chdir(directory.as_ptr()) == 0, Step::Directory)?;
            }
            if let Some(mask) = self.umask {
                libc::umask(mask);
            }
            if self.rights == Rights::NeverGrow {
                done(
                    libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0,
                    Step::User,
                )?;
            }
            // After the change of account, which takes the setting back.
            if self.life == Life::EndsWithParent {
                done(
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) == 0,
                    Step::Life,
                )?;
                if libc::getppid() != self.parent {
                    // The parent died before it was set: nobody waits for a report.
                    libc::_exit(127);
                }
            }
            let mut none = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        }
        Ok(())
    }

    /// Returns only if no candidate could be executed; `errno` then says why, and a file that may
    /// not be executed is told rather than one that is missing.
    fn execute(&self) {
        let mut denied = false;
        for candidate in &self.candidates {
            // SAFETY: all three point to texts that `self` owns; both lists end with a null.
            let errno = unsafe {
                libc::execve(candidate.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr());
                *libc::__errno_location()
            };
            match errno {
                // A directory of `PATH` that the account may not enter denies nothing.
                libc::EACCES => {
                    // SAFETY: the path is a text that `self` owns.
                    let seen = unsafe { libc::access(candidate.as_ptr(), libc::F_OK) } == 0;
                    denied |= seen || self.candidates.len() == 1;
                }
                libc::ENOENT | libc::ENOTDIR => {}
                _ => return,
            }
        }
        // SAFETY: `errno` is this thread's own.
        unsafe { *libc::__errno_location() = if denied { libc::EACCES } else { libc::ENOENT } };
    }
}

fn done(done: bool, step: Step) -> Result<(), Step> {
    if done { Ok(()) } else { Err(step) }
}

/// Sets every signal to its default action.
///
/// # Safety
/// Only in a child after fork: handlers of the parent's code would be missed.
unsafe fn reset_signals() {
    /// The kernel's `sigaction` with the default handler (0), no flags and an empty mask; at least
    /// as long as that of any architecture.
    const DEFAULT: [u64; 8] = [0; 8];
    for signal in 1..=64 {
        // Not by the C library, which refuses the two signals that it uses itself, and which whoever
        // started us may have ignored. The kernel refuses SIGKILL and SIGSTOP, which need no reset.
        // SAFETY: the kernel reads one structure within `DEFAULT`; 8 is the size of a mask.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                ptr::null_mut::<u64>(),
                8,
            )
        };
    }
}

/// Marks every descriptor from `first` on, so that exec closes it.
///
/// # Safety
/// Only in a child after fork: it changes descriptors that others own.
unsafe fn close_on_exec_from(first: RawFd) {
    /// Where there is no `close_range` (before Linux 5.11), so many are looked at.
    const LOOKED_AT: RawFd = 65_536;
    // SAFETY: system calls with integers; an unused number is refused.
    unsafe {
        let flag = libc::CLOSE_RANGE_CLOEXEC;
        if libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flag) != 0 {
            for fd in first..LOOKED_AT {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts
        .iter()
        .map(|text| text.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// Reads until the child's exec closed the pipe, or it reported a failure.
fn read_report(report: OwnedFd) -> io::Result<Option<(Step, io::Error)>> {
    let mut bytes = Vec::new();
    File::from(report).read_to_end(&mut bytes)?;
    let [step, errno @ ..] = bytes.as_slice() else {
        return Ok(None);
    };
    let steps = [
        Step::Place,
        Step::Cgroup,
        Step::Descriptors,
        Step::User,
        Step::Directory,
        Step::Life,
        Step::Program,
    ];
    let step = steps.into_iter().find(|known| *known as u8 == *step);
    match (step, errno.try_into()) {
        (Some(step), Ok(errno)) => Ok(Some((
            step,
            io::Error::from_raw_os_error(i32::from_ne_bytes(errno)),
        ))),
        (_, _) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The absolute path of `program` as seen from `directory`; a bare name stays one.
pub fn resolve(program: &str, directory: &Path) -> PathBuf {
    if program.contains('/') {
        directory.join(program)
    } else {
        OsString::from_vec(program.into()).into()
    }
}

#[cfg(test)]
mod tests;
