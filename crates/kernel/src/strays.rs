//! Ending what a process left behind.

use std::io;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::identity::{Identity, Pidfd, boot_id, raw_pid};
use crate::procfs::{self, Liveness, Stat};

/// How often the list of processes is read again, because one may be born while it is read. Each
/// round leaves fewer, except of a fork bomb, which only a cgroup can end.
const ROUNDS_MAX: usize = 50;

/// How long the end of a killed process is waited for before the list is read again. Almost always
/// it takes less than a millisecond; one that sleeps in the kernel may take for ever.
const END_WAIT: Duration = Duration::from_millis(100);

/// Sends SIGKILL to every child of this process that runs, once; returns how many there were.
///
/// For a subreaper whose own children ended: what is left are descendants that lost their parents.
/// Repeat it whenever a child was reaped, until there are no children: a killed child's children
/// become ours. A child's number is not used again before we reap it, so nobody else is hit.
pub fn kill_children() -> io::Result<usize> {
    let own = std::process::id();
    let children = procfs::all()?;
    let children = children
        .iter()
        .filter(|stat| stat.parent == own && stat.liveness == Liveness::Alive);
    let mut count = 0;
    for pid in children.filter_map(|stat| raw_pid(stat.pid)) {
        count += 1;
        match kill_process(pid, Signal::KILL) {
            // EPERM: it became another account's by a set-user-ID program. The caller sees it stay.
            Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count)
}

/// Processes whose parent is dead, known by what they cannot easily shed.
#[derive(Debug, Clone)]
pub struct Strays {
    /// The leader of the session in which they were started, if it died just now. Of one that died
    /// long ago, the number may since have been another session's.
    pub session: Option<Identity>,
    /// What stands in the environment with which they were started, each as `NAME=value`.
    pub marks: Vec<String>,
}

impl Strays {
    /// Kills them with SIGKILL until none is found; returns how many were seen.
    pub fn kill(&self) -> io::Result<usize> {
        let mut killed = 0;
        for _ in 0..ROUNDS_MAX {
            let found = self.find()?;
            if found.is_empty() {
                break;
            }
            for stat in found {
                let Some(handle) = Pidfd::open(stat.pid)? else {
                    continue;
                };
                // Only now the number cannot pass to another process.
                let same =
                    Stat::of(stat.pid)?.is_some_and(|now| now.start_ticks == stat.start_ticks);
                if same {
                    match handle.signal(Signal::KILL) {
                        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                        sent => sent?,
                    }
                    killed += 1;
                    handle.wait_end(END_WAIT)?;
                }
            }
        }
        Ok(killed)
    }

    fn find(&self) -> io::Result<Vec<Stat>> {
        let own = std::process::id();
        let session = self.session_number()?;
        let mut found = procfs::all()?;
        found.retain(|stat| {
            stat.pid != own
                && stat.liveness == Liveness::Alive
                && (session == Some(stat.session)
                    || (!self.marks.is_empty() && procfs::is_marked(stat.pid, &self.marks)))
        });
        Ok(found)
    }

    /// A number is not given to a new process while a session bears it. So when a process has the
    /// leader's number, it is either the leader or the old session had become empty before. After
    /// another start of the machine, the number is somebody else's in any case.
    fn session_number(&self) -> io::Result<Option<u32>> {
        let Some(leader) = &self.session else {
            return Ok(None);
        };
        if leader.boot_id != boot_id()? {
            return Ok(None);
        }
        Ok(match Identity::of(leader.pid)? {
            Some(now) if now != *leader => None,
            Some(_) | None => Some(leader.pid),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::{Ended, Spawned, TempDir, program};
    use std::process::Command;

    #[test]
    fn system_a_marked_process_is_killed_and_others_are_not() {
        let dir = TempDir::new("strays");
        let start = |name, mark: &str| {
            let mut command = Command::new(program("python3"));
            command
                .args(["-c", "import signal; signal.pause()"])
                .env("STRAY", mark);
            Spawned::start(&dir, name, &mut command)
        };
        let (ours, other) = (start("ours", "a"), start("other", "b"));
        let strays = Strays {
            session: None,
            marks: vec!["STRAY=a".into()],
        };
        assert!(strays.kill().unwrap() >= 1);
        assert_eq!(ours.wait(Duration::from_secs(20)), Ended::Signal(9));
        assert_eq!(other.ended(), None);
        assert_eq!(strays.kill().unwrap(), 0);
    }

    #[test]
    fn a_session_of_a_dead_leader_counts_and_one_from_before_a_reboot_does_not() {
        let of_boot = |boot_id| Strays {
            session: Some(Identity {
                // More than Linux gives.
                pid: i32::MAX.unsigned_abs(),
                start_ticks: 1,
                boot_id,
            }),
            marks: Vec::new(),
        };
        let this = of_boot(boot_id().unwrap()).session_number().unwrap();
        assert_eq!(this, Some(i32::MAX.unsigned_abs()));
        assert_eq!(of_boot("0".into()).session_number().unwrap(), None);
    }

    #[test]
    fn without_a_session_and_marks_nothing_is_found() {
        let nothing = Strays {
            session: None,
            marks: Vec::new(),
        };
        assert_eq!(nothing.find().unwrap(), Vec::new());
    }
}
