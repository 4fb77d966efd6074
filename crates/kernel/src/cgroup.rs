//! Groups of processes that none of them can leave, and what each may use: version 2 cgroups, alone
//! or beside version 1, or version 1 alone.
//!
//! Membership, `cgroup.kill` and `cgroup.events` need version 2 and no controller. A controller is
//! switched on for the first group that is to be limited by it.

mod limit;
mod tree;

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::statfs;

use crate::identity::raw_pid;

pub use limit::{Controller, LimitError, Limits, Obstacle};
pub use tree::{Groups, MakeError, Tree};

/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const VERSION_2: u64 = 0x6367_7270;

/// `TMPFS_MAGIC`: under it the controllers of version 1 are mounted.
const TMPFS: u64 = 0x0102_1994;

/// How cgroups are mounted on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounted {
    /// Only version 2, here.
    Version2(PathBuf),
    /// Version 1, and a version 2 tree without most controllers here.
    Hybrid(PathBuf),
    /// Only version 1, each controller in a directory here.
    Version1(PathBuf),
    /// Not at all.
    Nowhere,
}

impl Mounted {
    /// Looks at `/sys/fs/cgroup`.
    pub fn detect() -> Self {
        Self::detect_at(Path::new("/sys/fs/cgroup"))
    }

    fn detect_at(root: &Path) -> Self {
        let kind = |path: &Path| {
            statfs(path)
                .ok()
                .and_then(|found| u64::try_from(found.f_type).ok())
        };
        let unified = root.join("unified");
        match kind(root) {
            Some(VERSION_2) => Self::Version2(root.to_owned()),
            Some(TMPFS) if kind(&unified) == Some(VERSION_2) => Self::Hybrid(unified),
            Some(TMPFS) => Self::Version1(root.to_owned()),
            Some(_) | None => Self::Nowhere,
        }
    }
}

/// Why no groups can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// There is no tree.
    #[error("no cgroups are mounted")]
    NotMounted,
    /// Only root may.
    #[error("not running as root")]
    NotRoot,
    /// As in most containers.
    #[error("the cgroup tree is read-only")]
    ReadOnly,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The group at this path, which need not exist any more.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What [`crate::Spawn::cgroup`] takes.
    pub fn procs(&self) -> io::Result<OwnedFd> {
        Ok(File::options()
            .write(true)
            .open(self.path.join("cgroup.procs"))?
            .into())
    }

    /// Kills everything in it and below it and waits until nothing is left, at most `limit`. A group
    /// that does not exist is empty.
    pub fn kill(&self, limit: Duration) -> io::Result<()> {
        let end = Instant::now() + limit;
        match self
            .kill_now()
            .and_then(|()| File::open(self.path.join("cgroup.events")))
        {
            Err(error) if is_removed(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(events) => self.wait_until_empty(events, end),
        }
    }

    /// Removes it and what lies below it; all must be empty. Its absence is no error.
    pub fn remove(&self) -> io::Result<()> {
        remove_below(&self.path)
    }

    /// Kills everything that is in it and below it now, without waiting for the ends. A group that
    /// does not exist is empty.
    ///
    /// `cgroup.kill` exists since Linux 5.14; before, a member that forks may escape: repeat it.
    pub fn kill_now(&self) -> io::Result<()> {
        let killed = match fs::write(self.path.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => kill_each(&self.path),
            result => result,
        };
        killed.or_else(|error| {
            if is_removed(&error) {
                Ok(())
            } else {
                Err(error)
            }
        })
    }

    /// How many processes in it the kernel has killed since it was made because they reached its
    /// limit of memory; `None` where it has no such limit, or the kernel does not say.
    pub fn oom_kills(&self) -> Option<u64> {
        limit::oom_kills(&self.path)
    }

    /// The kernel wakes those who poll `cgroup.events` when it changes.
    fn wait_until_empty(&self, mut events: File, end: Instant) -> io::Result<()> {
        /// Where members are killed one by one, a new one needs another round soon.
        const ROUND: Duration = Duration::from_millis(50);
        loop {
            let mut text = String::new();
            events.rewind()?;
            match events.read_to_string(&mut text) {
                Err(error) if is_removed(&error) => return Ok(()),
                read => read?,
            };
            if text.lines().any(|line| line == "populated 0") {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now()).min(ROUND);
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let timeout = Timespec::try_from(left).unwrap_or_default();
            poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout))?;
            self.kill_now()?;
        }
    }
}

fn kill_each(group: &Path) -> io::Result<()> {
    for below in subgroups(group)? {
        kill_each(&below)?;
    }
    for pid in fs::read_to_string(group.join("cgroup.procs"))?.lines() {
        // A number that is in the group now may pass to another process before the signal only if
        // its process ends in this very moment; `cgroup.kill` has no such gap.
        if let Some(pid) = pid.parse().ok().and_then(raw_pid) {
            match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn remove_below(group: &Path) -> io::Result<()> {
    for below in subgroups(group)? {
        remove_below(&below)?;
    }
    match fs::remove_dir(group) {
        Err(error) if !is_removed(&error) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn subgroups(group: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(group) {
        Err(error) if is_removed(&error) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// `ENODEV` comes from an open file of a group that was removed.
fn is_removed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ended, Life, Spawn};
    use mainstay_testkit::{TempDir, program, skip, wait_until};
    use std::os::fd::AsFd;

    #[test]
    fn a_directory_that_is_no_cgroup_mount_is_none() {
        assert_eq!(Mounted::detect_at(Path::new("/nowhere")), Mounted::Nowhere);
        assert_eq!(Mounted::detect_at(Path::new("/proc")), Mounted::Nowhere);
        assert_eq!(Mounted::Nowhere.usable().unwrap_err(), Unusable::NotMounted);
    }

    /// `kill`: by the kernel, or member by member as on kernels without `cgroup.kill`.
    fn a_group_is_emptied(name: &str, kill: impl Fn(&Cgroup) -> io::Result<()>) {
        let Ok(tree) = Mounted::detect().usable() else {
            return skip("needs root and version 2 cgroups");
        };
        let name = format!("mainstay-test-{name}-{}", std::process::id());
        let Ok(Groups {
            members: Some(group),
            ..
        }) = tree.make(&name, Limits::default())
        else {
            return skip("needs version 2 cgroups");
        };
        let dir = TempDir::new("cgroup");
        let log = File::create(dir.join("log")).unwrap();
        let code = "import os, signal\n\
                    os.mkdir(os.environ['GROUP'] + '/below')\n\
                    if os.fork() == 0:\n os.setsid(); open(os.environ['GROUP'] + '/below/cgroup.procs', 'w').write('0')\n\
                    print('ready', flush=True); signal.pause()";
        let procs = group.procs().unwrap();
        let child = Spawn::new(program("python3"))
            .arguments(["-c", code])
            .variable("GROUP", group.path())
            .output(log.as_fd())
            .cgroup(procs.as_fd())
            .life(Life::EndsWithParent)
            .start()
            .unwrap();
        let soon = Duration::from_secs(20);
        wait_until(soon, "both run", || {
            let log = fs::read_to_string(dir.join("log")).unwrap();
            if log.matches("ready").count() == 2 {
                Ok(())
            } else {
                Err(log)
            }
        });
        kill(&group).unwrap();
        let ended = wait_until(soon, "the child ended", || {
            child.try_reap().unwrap().ok_or_else(String::new)
        });
        assert_eq!(ended, Ended::Signal(9));
        group.remove().unwrap();
        assert!(!group.path().exists());
        group.kill(soon).unwrap();
        group.remove().unwrap();
    }

    #[test]
    fn system_killing_a_group_leaves_nothing_even_below_it() {
        a_group_is_emptied("kernel", |group| group.kill(Duration::from_secs(20)));
    }

    #[test]
    fn system_killing_a_group_member_by_member_leaves_nothing_either() {
        a_group_is_emptied("each", |group| {
            wait_until(Duration::from_secs(20), "the group is empty", || {
                kill_each(group.path()).map_err(|error| error.to_string())?;
                let events = fs::read_to_string(group.path().join("cgroup.events")).unwrap();
                if events.contains("populated 0") {
                    Ok(())
                } else {
                    Err(events)
                }
            });
            Ok(())
        });
    }
}
