//! Asking how children ended.

use std::io;

use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, set_child_subreaper, wait, waitpid};

use crate::identity::raw_pid;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// What [`reap_any`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// This child had ended; its number may be used again from now on.
    Child {
        /// Its number.
        pid: u32,
        /// How it ended.
        ended: Ended,
    },
    /// There are children, and all of them run.
    AllRun,
    /// There are no children.
    NoChildren,
}

/// From now on, descendants whose parent ends become children of this process instead of init's.
pub fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Reaps one child that has ended, whichever it is.
pub fn reap_any() -> io::Result<Reaped> {
    match wait(WaitOptions::NOHANG) {
        Ok(None) => Ok(Reaped::AllRun),
        Ok(Some((pid, status))) => Ok(Reaped::Child {
            pid: pid.as_raw_nonzero().get().unsigned_abs(),
            ended: ended(status),
        }),
        Err(Errno::CHILD) => Ok(Reaped::NoChildren),
        Err(error) => Err(error.into()),
    }
}

/// Reaps this child if it has ended. `None`: it runs, or is no child of ours.
pub fn try_reap(pid: u32) -> io::Result<Option<Ended>> {
    match waitpid(raw_pid(pid), WaitOptions::NOHANG) {
        Ok(found) => Ok(found.map(|(_, status)| ended(status))),
        Err(Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Neither stopped nor continued children are asked for, so a status is an exit or a signal.
pub(crate) fn ended(status: WaitStatus) -> Ended {
    match status.exit_status() {
        Some(code) => Ended::Code(code),
        None => Ended::Signal(status.terminating_signal().unwrap_or_default()),
    }
}
