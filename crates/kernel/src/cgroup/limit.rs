//! What a group may use, and in which files of which version that is written.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The time over which processor time is shared out, in microseconds: the kernel's own default. A
/// shorter one would cost more switches, a longer one longer pauses of a throttled process.
const CPU_PERIOD_US: u32 = 100_000;

/// What a group may use; `None`: as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of a processor. The kernel's shortest quota is 10.
    pub cpu_thousandths: Option<u32>,
    /// Bytes of memory, swapped out or not; the kernel rounds down to whole pages.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// The controllers that keep the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// Processes and threads.
    Pids,
}

/// A limit that cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("the limit `{controller}` cannot be kept")]
pub struct LimitError {
    /// Which.
    pub controller: Controller,
    /// Why.
    #[source]
    pub obstacle: Obstacle,
}

/// Why a limit cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// The machine's trees do not have its controller.
    #[error("this machine's cgroups have no such controller")]
    Missing,
    /// A group above holds processes itself, and then gives no controller to those below it.
    #[error(
        "the group `{}` holds processes itself, and so gives no controller to groups below it",
        group.display()
    )]
    Occupied {
        /// Which.
        group: PathBuf,
    },
    /// A file of the group was refused.
    #[error("cannot write `{value}` to `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Controller {
    pub(super) const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    /// As the kernel calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl LimitError {
    pub(super) fn new(controller: Controller, obstacle: Obstacle) -> Self {
        Self {
            controller,
            obstacle,
        }
    }
}

/// What one controller is told.
pub(super) enum Settings {
    Cpu { quota_us: u64 },
    Memory { bytes: u64 },
    Pids { count: u32 },
}

impl Limits {
    /// What each controller that is needed is told.
    pub(super) fn settings(self) -> Vec<(Controller, Settings)> {
        let quota_us = |thousandths| u64::from(thousandths) * u64::from(CPU_PERIOD_US) / 1000;
        let cpu = self.cpu_thousandths.map(|thousandths| Settings::Cpu {
            quota_us: quota_us(thousandths),
        });
        let memory = self.memory_bytes.map(|bytes| Settings::Memory { bytes });
        let pids = self.pids.map(|count| Settings::Pids { count });
        Controller::ALL
            .into_iter()
            .zip([cpu, memory, pids])
            .filter_map(|(controller, settings)| Some((controller, settings?)))
            .collect()
    }
}

impl Settings {
    /// Writes them into the files of `group`, whichever version it is of.
    pub(super) fn apply(&self, group: &Path) -> Result<(), Obstacle> {
        match self {
            Self::Cpu { quota_us } => {
                let quota = group.join("cpu.cfs_quota_us");
                if quota.exists() {
                    write(&group.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
                    return write(&quota, quota_us.to_string());
                }
                write(
                    &group.join("cpu.max"),
                    format!("{quota_us} {CPU_PERIOD_US}"),
                )
            }
            Self::Memory { bytes } => {
                let limit = group.join("memory.limit_in_bytes");
                if limit.exists() {
                    // In this order: what may be swapped out is never below what may be used.
                    write(&limit, bytes.to_string())?;
                    let with_swap = group.join("memory.memsw.limit_in_bytes");
                    return write_if_there(&with_swap, bytes.to_string());
                }
                write(&group.join("memory.max"), bytes.to_string())?;
                write_if_there(&group.join("memory.swap.max"), "0".to_owned())?;
                // Half an instance helps nobody: all of it ends, and is started again.
                write_if_there(&group.join("memory.oom.group"), "1".to_owned())
            }
            Self::Pids { count } => write(&group.join("pids.max"), count.to_string()),
        }
    }
}

/// Writes a setting; the file must be there.
pub(super) fn write(path: &Path, value: String) -> Result<(), Obstacle> {
    let written = File::options()
        .write(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|source| Obstacle::Write {
        path: path.to_owned(),
        value,
        source,
    })
}

fn write_if_there(path: &Path, value: String) -> Result<(), Obstacle> {
    if path.exists() {
        write(path, value)
    } else {
        Ok(())
    }
}

/// How many processes of this group, of either version, the kernel has killed since it was made
/// because they reached its limit of memory; `None` where it does not say, as before Linux 4.13.
pub(super) fn oom_kills(group: &Path) -> Option<u64> {
    let text = ["memory.events", "memory.oom_control"]
        .iter()
        .find_map(|name| fs::read_to_string(group.join(name)).ok())?;
    let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
    text.lines().find_map(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    #[test]
    fn kills_are_counted_in_both_versions() {
        for (name, text) in [
            (
                "memory.events",
                "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 1\n",
            ),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            ),
        ] {
            let dir = TempDir::new("limit");
            assert_eq!(oom_kills(dir.path()), None);
            fs::write(dir.join(name), text).unwrap();
            assert_eq!(oom_kills(dir.path()), Some(3), "{name}");
        }
    }

    #[test]
    fn only_what_is_limited_is_set() {
        assert!(Limits::default().settings().is_empty());
        let limits = Limits {
            pids: Some(7),
            ..Limits::default()
        };
        let controllers: Vec<_> = limits.settings().into_iter().map(|(c, _)| c).collect();
        assert_eq!(controllers, [Controller::Pids]);
    }
}
