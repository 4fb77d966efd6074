//! Ending processes that left their group and outlived their parent.
//!
//! Mainstay starts processes that are meant to survive their parents, so a process group does not hold
//! all that a test started. The environment does: children inherit it.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{fs, io};

/// How often the list is read again, because a process may be born while it is read. Each time leaves fewer.
const ROUNDS: usize = 20;

/// A process that was still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// Its number.
    pub pid: i32,
    /// Its command line.
    pub command: String,
}

/// Kills every process that was started with `mark`, which reads `NAME=value`, in its environment; tells which.
///
/// What another user started cannot be read, and is left alone.
pub fn sweep(mark: &str) -> Vec<Swept> {
    let mut swept: Vec<Swept> = Vec::new();
    for _ in 0..ROUNDS {
        let found = marked(mark);
        if found.is_empty() {
            break;
        }
        for process in found {
            kill_marked(process.pid, mark);
            if !swept.contains(&process) {
                swept.push(process);
            }
        }
    }
    swept
}

fn marked(mark: &str) -> Vec<Swept> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| has_mark(*pid, mark))
        .map(|pid| Swept {
            pid,
            command: command_line(pid),
        })
        .collect()
}

/// A zombie has no environment, so it does not count.
fn has_mark(pid: i32, mark: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ
            .split(|byte| *byte == 0)
            .any(|entry| entry == mark.as_bytes())
    })
}

fn command_line(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line)
        .replace('\0', " ")
        .trim_end()
        .to_owned()
}

fn kill_marked(pid: i32, mark: &str) {
    let kill = || -> io::Result<()> {
        let pid_typed = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let process = pidfd_open(pid_typed, PidfdFlags::empty())?;
        // Only now the number cannot pass to another process any more.
        if has_mark(pid, mark) {
            pidfd_send_signal(&process, Signal::KILL)?;
        }
        Ok(())
    };
    // It may have ended by itself; if it did not, the next round finds it.
    let _ = kill();
}
