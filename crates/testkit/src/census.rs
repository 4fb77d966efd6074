//! Which processes of instances there are, by what stands in their environment: whoever started
//! them, and whoever knows of them.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::kills::pause;

/// How often a [`Watch`] looks. A process that lives shorter than this may escape it.
const LOOK: Duration = Duration::from_millis(20);

/// One process of an instance, told apart from a later one with its number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resident {
    /// The instance, as `web-3`.
    pub instance: String,
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since the machine's start.
    pub start_ticks: u64,
}

/// All processes that were started with `mark` (`NAME=value`) and with the name of an instance.
pub fn census(mark: &str) -> BTreeSet<Resident> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| resident(pid, mark))
        .collect()
}

/// The value of a variable with which a process was started; `None` if there is no such process, or
/// it has ended and was not reaped.
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let environ = String::from_utf8_lossy(&environ);
    environ
        .split('\0')
        .find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
        .map(str::to_owned)
}

/// When a process was started, in clock ticks since the machine's start.
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last parenthesis may hold anything; the start is the 22nd field.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn resident(pid: u32, mark: &str) -> Option<Resident> {
    let (name, value) = mark.split_once('=')?;
    if variable(pid, name)? != value {
        return None;
    }
    Some(Resident {
        instance: variable(pid, "MAINSTAY_INSTANCE")?,
        pid,
        start_ticks: start_ticks(pid)?,
    })
}

/// Takes the census again and again until it is asked what it saw.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    /// `None` only once it was asked.
    seen: Option<JoinHandle<BTreeSet<Resident>>>,
}

impl Watch {
    /// Begins to look.
    pub fn start(mark: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (until, mark) = (Arc::clone(&stop), mark.to_owned());
        let seen = thread::spawn(move || {
            let mut seen = census(&mark);
            while !until.load(Ordering::Relaxed) {
                pause(LOOK);
                seen.extend(census(&mark));
            }
            seen
        });
        Self {
            stop,
            seen: Some(seen),
        }
    }

    /// Everybody who was there at any look.
    pub fn seen(mut self) -> BTreeSet<Resident> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.seen.take().expect("it is asked once");
        seen.join().expect("a look does not panic")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Spawned, TempDir, program, wait_until};
    use std::process::Command;

    #[test]
    fn system_two_processes_of_one_instance_are_both_seen_even_if_one_has_ended_since() {
        let dir = TempDir::new("census");
        let value = format!("census-{}", std::process::id());
        let mark = format!("MAINSTAY_MARK={value}");
        let start = |name: &str| {
            let mut python = Command::new(program("python3"));
            python
                .args(["-c", "import signal; signal.pause()"])
                .env("MAINSTAY_MARK", &value)
                .env("MAINSTAY_INSTANCE", "web-1");
            Spawned::start(&dir, name, &mut python)
        };
        let first = start("first");
        let watch = Watch::start(&mark);
        let second = start("second");
        // A child has the environment of its parent until it has become the program.
        wait_until(Duration::from_secs(20), "both are seen", || {
            match census(&mark).len() {
                2 => Ok(()),
                count => Err(count.to_string()),
            }
        });
        pause(LOOK * 5);
        drop(second);
        let seen = watch.seen();
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(seen.iter().all(|resident| resident.instance == "web-1"));
        assert_eq!(census(&mark).len(), 1);
        drop(first);
    }
}
