//! What this machine has for this process and those that it starts: processors and memory, within
//! the limits of the cgroups in which it runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Processors and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a processor.
    pub cpu_thousandths: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// What this process may use: the processors on which it may run and the machine's memory, bounded
/// by the cgroups above it.
pub fn read() -> io::Result<Capacity> {
    let processors = rustix::thread::sched_getaffinity(None)?.count();
    let machine = Capacity {
        cpu_thousandths: processors.saturating_mul(1000),
        memory_bytes: memory_total(&fs::read_to_string("/proc/meminfo")?)?,
    };
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Ok(bounded(machine, Path::new("/sys/fs/cgroup"), &membership))
}

/// `MemTotal:       16384256 kB`
fn memory_total(meminfo: &str) -> io::Result<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse().ok());
    kib.map(|kib| kib.saturating_mul(1024)).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "/proc/meminfo has no `MemTotal:`",
        )
    })
}

fn bounded(mut capacity: Capacity, root: &Path, membership: &str) -> Capacity {
    for group in own_groups(root, membership) {
        if let Some(cpu) = cpu_limit(&group) {
            capacity.cpu_thousandths = capacity.cpu_thousandths.min(cpu);
        }
        if let Some(memory) = memory_limit(&group) {
            capacity.memory_bytes = capacity.memory_bytes.min(memory);
        }
    }
    capacity
}

/// Every group in which the process is, in every tree, with all above. `membership` is
/// `/proc/self/cgroup` (`cgroups(7)`): `4:memory:/a/b` of version 1, `0::/a` of version 2. A path
/// that does not exist is seen from another namespace; what is above it counts all the same.
fn own_groups(root: &Path, membership: &str) -> Vec<PathBuf> {
    let mut groups = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let trees: Vec<PathBuf> = if controllers.is_empty() {
            vec![root.to_owned(), root.join("unified")]
        } else {
            controllers.split(',').map(|name| root.join(name)).collect()
        };
        for tree in trees {
            let relative = Path::new(path.trim_start_matches('/'));
            groups.extend(relative.ancestors().map(|above| tree.join(above)));
        }
    }
    groups
}

/// `cpu.max` holds `QUOTA PERIOD` or `max PERIOD`; version 1 has a file for each, and -1 for none.
fn cpu_limit(group: &Path) -> Option<u32> {
    let (quota, period) = match fs::read_to_string(group.join("cpu.max")) {
        Ok(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?)
        }
        Err(_) => (
            number(&group.join("cpu.cfs_quota_us"))?,
            number(&group.join("cpu.cfs_period_us"))?,
        ),
    };
    let thousandths = quota.saturating_mul(1000).checked_div(period)?;
    // A quota below a thousandth is not nothing: whoever divides by it must not fail.
    Some(u32::try_from(thousandths).unwrap_or(u32::MAX).max(1))
}

fn memory_limit(group: &Path) -> Option<u64> {
    number(&group.join("memory.max")).or_else(|| number(&group.join("memory.limit_in_bytes")))
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_testkit::TempDir;

    const MACHINE: Capacity = Capacity {
        cpu_thousandths: 8000,
        memory_bytes: 16 << 30,
    };

    fn tree(files: &[(&str, &str)]) -> TempDir {
        let dir = TempDir::new("capacity");
        for (path, text) in files {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_machine_has_processors_and_memory() {
        let found = read().unwrap();
        assert!(found.cpu_thousandths >= 1 && found.memory_bytes > 1 << 20);
    }

    #[test]
    fn the_tightest_group_above_counts_in_version_2() {
        let dir = tree(&[
            ("a/cpu.max", "150000 100000\n"),
            ("a/memory.max", "1073741824\n"),
            ("a/b/cpu.max", "max 100000\n"),
            ("a/b/memory.max", "max\n"),
        ]);
        let found = bounded(MACHINE, dir.path(), "0::/a/b\n");
        assert_eq!((found.cpu_thousandths, found.memory_bytes), (1500, 1 << 30));
    }

    #[test]
    fn each_tree_of_version_1_counts_for_its_own_controller() {
        let dir = tree(&[
            ("cpu/x/cpu.cfs_quota_us", "50000\n"),
            ("cpu/x/cpu.cfs_period_us", "100000\n"),
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("memory/y/memory.limit_in_bytes", "536870912\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("unified/cgroup.procs", ""),
        ]);
        let membership = "4:memory:/y\n2:cpu,cpuacct:/x\n9:name=systemd:/\n0::/\n";
        let found = bounded(MACHINE, dir.path(), membership);
        assert_eq!(
            (found.cpu_thousandths, found.memory_bytes),
            (500, 512 << 20)
        );
    }

    #[test]
    fn a_path_of_another_namespace_still_counts_what_can_be_seen() {
        let dir = tree(&[("memory.max", "1048576\n")]);
        let found = bounded(MACHINE, dir.path(), "0::/../../elsewhere\nnonsense\n");
        assert_eq!(found.memory_bytes, 1 << 20);
        assert_eq!(found.cpu_thousandths, 8000);
        assert_eq!(bounded(MACHINE, Path::new("/nowhere"), ""), MACHINE);
    }

    #[test]
    fn a_machine_without_a_total_is_told() {
        assert_eq!(
            memory_total("MemTotal:  16 kB\nMemFree: 1 kB\n").unwrap(),
            16384
        );
        assert!(memory_total("MemFree: 1 kB\n").is_err());
    }
}
