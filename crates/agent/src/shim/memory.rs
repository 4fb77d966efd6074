//! Noticing that the kernel killed for want of memory.

use std::path::Path;
use std::time::{Duration, Instant};

use mainstay_kernel::Ended;
use mainstay_kernel::cgroup::Cgroup;
use mainstay_model::Exit;

use crate::record::AttemptSpec;

/// How often it is looked whether a process of an instance that goes on was killed. It is one read
/// of a small file, and only where memory is limited; soon enough for whoever reads the log.
const LOOK: Duration = Duration::from_secs(2);

/// What a shell exits with when the program that it waited for was ended by SIGKILL.
const SHELLS_CODE: i32 = 128 + SIGKILL;

const SIGKILL: i32 = 9;

/// The count of kills of a group whose memory is limited.
#[derive(Debug)]
pub(crate) struct MemoryWatch {
    group: Cgroup,
    limit_bytes: u64,
    seen: u64,
    look_at: Instant,
}

impl MemoryWatch {
    /// `None`: the attempt's memory is not limited, or the kernel does not count.
    pub(crate) fn of(spec: &AttemptSpec, now: Instant) -> Option<Self> {
        let limit_bytes = spec.planned.spec.limits.memory_bytes?;
        let paths = spec.limiting.iter().chain(&spec.cgroup);
        let mut groups = paths.map(|path| Cgroup::at(Path::new(path)));
        let (group, seen) = groups.find_map(|group| {
            let kills = group.oom_kills()?;
            Some((group, kills))
        })?;
        Some(Self {
            group,
            limit_bytes,
            seen,
            look_at: now + LOOK,
        })
    }

    /// How many were killed since the last look.
    fn fresh(&mut self) -> u64 {
        let kills = self.group.oom_kills().unwrap_or(self.seen);
        let fresh = kills.saturating_sub(self.seen);
        self.seen = kills;
        fresh
    }

    /// Looks if it is time: what is to be told of kills that the program survived.
    pub(crate) fn look(&mut self, now: Instant) -> Option<String> {
        if now < self.look_at {
            return None;
        }
        self.look_at = now + LOOK;
        let fresh = self.fresh();
        (fresh > 0).then(|| self.told(fresh))
    }

    /// What the end of the program means, and what is to be told of kills that were not its end.
    pub(crate) fn conclude(&mut self, ended: Ended) -> (Exit, Option<String>) {
        let fresh = self.fresh();
        match ended {
            Ended::Signal(SIGKILL) | Ended::Code(SHELLS_CODE) if fresh > 0 => (self.exit(), None),
            Ended::Code(_) | Ended::Signal(_) => {
                (exit(ended), (fresh > 0).then(|| self.told(fresh)))
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        self.look_at
    }

    fn exit(&self) -> Exit {
        Exit::OutOfMemory {
            limit_bytes: self.limit_bytes,
        }
    }

    fn told(&self, fresh: u64) -> String {
        let these = if fresh == 1 {
            "a process".to_owned()
        } else {
            format!("{fresh} processes")
        };
        format!("{these} of it {}", self.exit())
    }
}

/// How a program ended of which nothing more is known.
pub(crate) fn exit(ended: Ended) -> Exit {
    match ended {
        Ended::Code(code) => Exit::Code(code),
        Ended::Signal(number) => Exit::Signal(number),
    }
}
