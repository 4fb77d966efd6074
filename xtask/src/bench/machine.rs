//! What the operating system says about itself and about processes.

use anyhow::{Context as _, Result};
use mainstay_ids::Timestamp;
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

/// The processors that a process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cpus {
    /// One: for the proxy that is measured.
    First,
    /// All others: for its clients and instances. On a machine with one, that one.
    Others,
}

impl Cpus {
    fn set(self) -> CpuSet {
        let mut set = CpuSet::new();
        match (self, all_cpus()) {
            (Self::Others, [_, others @ ..]) if !others.is_empty() => {
                for cpu in others {
                    set.set(*cpu);
                }
            }
            (Self::First | Self::Others, all) => set.set(all[0]),
        }
        set
    }
}

/// Confines this thread alone, and those that it will start.
pub(crate) fn pin_thread(cpus: Cpus) -> Result<()> {
    sched_setaffinity(None, &cpus.set()).context("cannot pin a thread")
}

/// Confines a process with all the threads that it has now, and those that they will start.
pub(crate) fn pin(pid: Pid, cpus: Cpus) -> Result<()> {
    let set = cpus.set();
    for thread in threads(pid)? {
        let id = thread
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        let id = id.and_then(Pid::from_raw);
        match sched_setaffinity(id, &set) {
            // It ended in the meantime.
            Err(rustix::io::Errno::SRCH) => {}
            pinned => pinned.with_context(|| format!("cannot pin {}", thread.display()))?,
        }
    }
    Ok(())
}

pub(crate) fn cores() -> usize {
    all_cpus().len()
}

/// The processors that this process might use when this was first asked, before it was confined itself; at least one.
fn all_cpus() -> &'static [usize] {
    static ALL: OnceLock<Vec<usize>> = OnceLock::new();
    ALL.get_or_init(|| {
        let set = sched_getaffinity(None).unwrap_or_default();
        let all: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .collect();
        if all.is_empty() { vec![0] } else { all }
    })
}

/// The processor time of all threads that a process has now, in nanoseconds and not in ticks.
///
/// Threads that have ended are missing, so this is for processes whose threads live as long as they do.
pub(crate) fn cpu_time(pid: Pid) -> Result<Duration> {
    let mut nanos = 0;
    for thread in threads(pid)? {
        let path = thread.join("schedstat");
        // A thread may end while the list is read.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let first = text
            .split_whitespace()
            .next()
            .and_then(|word| word.parse::<u64>().ok());
        nanos += first.with_context(|| format!("cannot understand {}", path.display()))?;
    }
    Ok(Duration::from_nanos(nanos))
}

fn threads(pid: Pid) -> Result<Vec<PathBuf>> {
    let path = PathBuf::from(format!("/proc/{pid}/task"));
    let entries = fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect())
}

/// The proportional share of memory of a process in KiB: pages that several processes share count once over all.
pub(crate) fn pss_kib(pid: Pid) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_pss(&text).with_context(|| format!("no Pss in {path}"))
}

fn parse_pss(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// The processes of `program` in whose command line `word` stands, with their command lines.
pub(crate) fn processes(program: &Path, word: &str) -> Result<Vec<(Pid, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let entry = entry.context("cannot read /proc")?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| Pid::from_raw(name.parse().ok()?))
        else {
            continue;
        };
        // One that has ended has neither.
        let (Ok(exe), Ok(line)) = (
            fs::read_link(entry.path().join("exe")),
            fs::read(entry.path().join("cmdline")),
        ) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line)
            .replace('\0', " ")
            .trim_end()
            .to_owned();
        if exe == program && line.contains(word) {
            found.push((pid, line));
        }
    }
    Ok(found)
}

/// What a result was measured on. The date is the system's.
pub(crate) fn describe() -> Value {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let date = Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)).to_string();
    json!({
        "date": date,
        "cores": cores(),
        "cpu": field("/proc/cpuinfo", "model name"),
        "memory": field("/proc/meminfo", "MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "haproxy": first_line("haproxy", "-v"),
        "wrk": first_line("wrk", "-v"),
        "mainstay": concat!("mainstay ", env!("CARGO_PKG_VERSION")),
    })
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_default();
    line.split_once(':')
        .map_or("", |(_, value)| value.trim())
        .to_owned()
}

/// The first line that a program prints about itself; a description is no reason to fail.
fn first_line(name: &str, argument: &str) -> String {
    let Some(program) = mainstay_testkit::find(name) else {
        return String::from("not installed");
    };
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_memory_is_found() {
        let text = "5581 rollup\nRss:  5000 kB\nPss:                1234 kB\nPss_Dirty:  9 kB\n";
        assert_eq!(parse_pss(text), Some(1234));
        assert_eq!(parse_pss("Rss: 1 kB"), None);
    }

    #[test]
    fn system_a_busy_process_uses_processor_time() {
        let before = cpu_time(rustix::process::getpid()).unwrap();
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            std::hint::black_box(0);
        }
        assert!(cpu_time(rustix::process::getpid()).unwrap() > before);
        assert!(pss_kib(rustix::process::getpid()).unwrap() > 100);
    }
}
