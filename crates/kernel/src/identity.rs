//! Knowing a process again: by its number, its start time and the machine's start.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::procfs::{Liveness, Stat};

/// One process, for ever: numbers are used again, but not together with the time of the start and
/// the machine's boot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since the machine's start.
    pub start_ticks: u64,
    /// Which start of the machine it belongs to.
    pub boot_id: String,
}

impl Identity {
    /// The process that has this number now, even if it has ended and was not reaped.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        let Some(stat) = Stat::of(pid)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            pid,
            start_ticks: stat.start_ticks,
            boot_id: boot_id()?,
        }))
    }

    /// Whether it still runs. One that has ended and was not reaped does not.
    pub fn is_alive(&self) -> io::Result<bool> {
        if boot_id()? != self.boot_id {
            return Ok(false);
        }
        Ok(Stat::of(self.pid)?.is_some_and(|stat| {
            stat.start_ticks == self.start_ticks && stat.liveness == Liveness::Alive
        }))
    }

    /// A handle on it; `None` if it has ended.
    ///
    /// The handle is opened first and the identity compared then: whoever is alive with our start
    /// time after the opening had the number before it, too, so the handle cannot be another's.
    pub fn open(&self) -> io::Result<Option<Pidfd>> {
        let Some(pidfd) = Pidfd::open(self.pid)? else {
            return Ok(None);
        };
        Ok(self.is_alive()?.then_some(pidfd))
    }
}

/// A handle on a process that never means another one. Readable (for `poll`) once it has ended.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Only for a number that cannot be used again meanwhile, as that of a child that was not reaped;
    /// else [`Identity::open`].
    pub(crate) fn open(pid: u32) -> io::Result<Option<Self>> {
        let Some(pid) = raw_pid(pid) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self(fd))),
            // Not of this kind: a thread took the number since.
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a signal; does nothing if it has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> io::Result<bool> {
        self.wait_end(Duration::ZERO)
    }

    /// Waits for its end, at most `limit`; whether it has ended.
    pub fn wait_end(&self, limit: Duration) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        Ok(poll(&mut fds, Some(&limit))? > 0)
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Pidfd {
    /// Another handle on the same process.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl AsRawFd for Pidfd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

pub(crate) fn raw_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Which start of the machine this is.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim_end()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    #[test]
    fn a_process_is_known_again_and_one_with_its_number_but_another_start_is_not() {
        let own = Identity::of(std::process::id()).unwrap().unwrap();
        assert!(own.is_alive().unwrap());
        assert!(!own.open().unwrap().unwrap().has_ended().unwrap());
        let reused = Identity {
            start_ticks: own.start_ticks + 1,
            ..own.clone()
        };
        assert!(!reused.is_alive().unwrap());
        assert!(reused.open().unwrap().is_none());
        let before_reboot = Identity {
            boot_id: "0".into(),
            ..own
        };
        assert!(!before_reboot.is_alive().unwrap());
    }

    #[test]
    fn system_a_zombie_counts_as_dead() {
        let mut child = Command::new(mainstay_testkit::program("python3"))
            .args(["-c", "import sys; sys.stdin.read()"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let identity = Identity::of(child.id()).unwrap().unwrap();
        let handle = identity.open().unwrap().unwrap();
        assert!(identity.is_alive().unwrap());
        drop(child.stdin.take());
        mainstay_testkit::wait_until(Duration::from_secs(20), "python ends", || {
            if handle.has_ended().unwrap() {
                Ok(())
            } else {
                Err("it runs".to_owned())
            }
        });
        assert_eq!(
            Stat::of(child.id()).unwrap().unwrap().liveness,
            Liveness::Zombie
        );
        assert!(!identity.is_alive().unwrap());
        assert!(identity.open().unwrap().is_none());
        handle.signal(Signal::TERM).unwrap();
        child.wait().unwrap();
    }
}
