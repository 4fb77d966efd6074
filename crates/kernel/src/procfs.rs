//! What `/proc` says about processes.

use std::fs;
use std::io;

/// One process, as `/proc/PID/stat` describes it (`proc_pid_stat(5)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its number.
    pub pid: u32,
    /// Its parent's number.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// When it was started, in clock ticks since the machine's start.
    pub start_ticks: u64,
    /// Whether it still runs, or has ended and only waits to be reaped.
    pub liveness: Liveness,
}

/// Whether a process that has an entry still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It runs, sleeps or is stopped.
    Alive,
    /// It has ended; its parent has not asked for its status yet.
    Zombie,
}

impl Stat {
    /// The process with this number; `None` if there is none.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(text) => text,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        match Self::parse(pid, &text) {
            Some(stat) => Ok(Some(stat)),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("/proc/{pid}/stat has an unknown form"),
            )),
        }
    }

    /// The second field is the program's name in parentheses, in which anything may stand: blanks
    /// and parentheses, too. What follows the last one is numbers.
    fn parse(pid: u32, text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let liveness = match fields.next()? {
            "Z" | "X" | "x" => Liveness::Zombie,
            _ => Liveness::Alive,
        };
        Some(Self {
            pid,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            session: fields.next()?.parse().ok()?,
            start_ticks: fields.nth(15)?.parse().ok()?,
            liveness,
        })
    }
}

/// All processes that can be seen. One that ends meanwhile may be missing, one that starts, too.
pub fn all() -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(stat) = Stat::of(pid)? {
            found.push(stat);
        }
    }
    Ok(found)
}

/// Whether a process was stopped (SIGSTOP, a debugger) and does nothing until it is told to go on. One that is gone is
/// not.
pub fn is_stopped(pid: u32) -> io::Result<bool> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => Ok(state_of(&text).is_some_and(|state| matches!(state, "T" | "t"))),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn state_of(stat: &str) -> Option<&str> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().next()
}

/// The numbers of all processes with this name, which the kernel cuts after 15 bytes (`proc_pid_comm(5)`).
pub fn named(name: &str) -> io::Result<Vec<u32>> {
    const LEN_MAX: usize = 15;
    let wanted = name.as_bytes();
    let wanted = &wanted[..wanted.len().min(LEN_MAX)];
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?.file_name();
        let Some(pid) = entry.to_str().and_then(|entry| entry.parse().ok()) else {
            continue;
        };
        match fs::read(format!("/proc/{pid}/comm")) {
            Ok(comm) if comm.strip_suffix(b"\n") == Some(wanted) => found.push(pid),
            // It has another name, ended meanwhile, or is hidden from us.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(found)
}

/// Whether each of `marks` (`NAME=value`) stands in the environment with which the process was
/// started. A process of another account cannot be read and counts as unmarked.
pub fn is_marked(pid: u32, marks: &[String]) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        marks.iter().all(|mark| {
            environ
                .split(|byte| *byte == 0)
                .any(|entry| entry == mark.as_bytes())
        })
    })
}

/// `ESRCH` comes from a read when the process ended after the file was opened.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_wild_name_is_read_all_the_same() {
        let text = "7 (a) Z 1 (b) S 4 5 6 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987 1 2";
        let stat = Stat::parse(7, text).unwrap();
        assert_eq!(
            (stat.parent, stat.group, stat.session, stat.start_ticks),
            (4, 5, 6, 987)
        );
        assert_eq!(stat.liveness, Liveness::Alive);
        assert_eq!(Stat::parse(7, "7 (a"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let own = std::process::id();
        assert_eq!(Stat::of(own).unwrap().unwrap().liveness, Liveness::Alive);
        assert!(all().unwrap().iter().any(|stat| stat.pid == own));
        assert_eq!(Stat::of(u32::MAX).unwrap(), None);
    }

    #[test]
    fn system_a_process_is_found_by_its_name_and_seen_to_be_stopped() {
        use rustix::process::Signal;
        let (name, limit) = ("a name that is longer", std::time::Duration::from_secs(20));
        let script =
            format!("open('/proc/self/comm', 'w').write('{name}'); import signal; signal.pause()");
        let child = crate::Spawn::new(mainstay_testkit::program("python3"))
            .arguments(["-c", &script])
            .life(crate::Life::EndsWithParent)
            .start()
            .unwrap();
        let is = |wanted: bool| {
            mainstay_testkit::wait_until(limit, "its state", || {
                let stopped = is_stopped(child.pid()).unwrap();
                if stopped == wanted {
                    Ok(())
                } else {
                    Err(format!("{stopped}"))
                }
            });
        };
        mainstay_testkit::wait_until(limit, "it has its name", || {
            let found = named(name).unwrap();
            if found.contains(&child.pid()) {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        });
        is(false);
        child.handle().signal(Signal::STOP).unwrap();
        is(true);
        child.handle().signal(Signal::CONT).unwrap();
        is(false);
        child.handle().signal(Signal::KILL).unwrap();
        child.handle().wait_end(limit).unwrap();
        child.try_reap().unwrap();
        assert!(!is_stopped(child.pid()).unwrap());
    }
}
