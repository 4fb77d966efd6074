//! What an agent saw, whole: sent on each change and once a second.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use mainstay_ids::{Attempt, Generation, Incarnation, InstanceId, NodeName, Timestamp, Version};

use crate::happening::Happenings;

/// Everything that an agent knows of its node's instances. The first report of an agent's
/// incarnation is sent only when every instance that it adopted has been probed once.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeReport {
    /// The agent's node.
    pub node: NodeName,
    /// Which start of the agent.
    pub incarnation: Incarnation,
    /// The newest plan that it has taken over.
    pub plan: Option<Generation>,
    /// Which start of the machine; `None`: the agent cannot tell.
    #[serde(default)]
    pub boot: Option<BootId>,
    /// Its instances by id.
    pub instances: Vec<InstanceReport>,
    /// What it has for its instances; `None` where the agent could not tell.
    #[serde(default)]
    pub capacity: Option<Capacity>,
    /// What happened to it beside its instances, lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub happenings: Vec<Happenings>,
}

/// What a node has for its instances, whether it is used or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Capacity {
    /// Processors, in thousandths of one.
    pub cpu_thousandths: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

/// One start of a machine, by the name that its kernel gave it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct BootId(pub String);

/// One instance, as its agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InstanceReport {
    /// Which instance.
    pub instance: InstanceId,
    /// Which version it runs.
    pub version: Version,
    /// Which start of it.
    pub attempt: Attempt,
    /// What it is doing.
    pub phase: Phase,
    /// How the attempt before this one ended, if there was one.
    pub last_exit: Option<Exit>,
    /// Why this attempt's last probe failed; `None` if it passed, or none has ended yet.
    #[serde(default)]
    pub probe_failure: Option<String>,
    /// Bytes of output that were dropped because they could not be written.
    pub log_dropped: u64,
}

/// What an instance is doing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its process runs.
    Running {
        /// The instance's process.
        pid: u32,
        /// Where it was told to listen.
        address: SocketAddr,
        /// What the probes say.
        health: ProbedHealth,
        /// When this attempt was started.
        since: Timestamp,
    },
    /// It has ended and will be started again.
    BackingOff {
        /// How it ended.
        exit: Exit,
        /// When the next attempt is due.
        until: Timestamp,
        /// Whether it ends again and again soon after its start.
        crash_looping: CrashLooping,
    },
    /// It was told to stop and has not ended yet.
    Stopping {
        /// The instance's process.
        pid: u32,
    },
    /// It was told to stop and nothing of it is left.
    Stopped {
        /// How it ended; `None` if it was not running when the order came.
        exit: Option<Exit>,
    },
}

/// What the probes of an attempt say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProbedHealth {
    /// It has not passed yet since this attempt's start.
    Starting,
    /// It passes.
    Passing,
    /// It passed and fails now.
    Failing,
}

/// Whether an instance ends again and again soon after its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CrashLooping {
    /// It ended for the first few times.
    No,
    /// It keeps ending; it is still tried, at the longest delay.
    Yes,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The kernel killed it because it reached its limit of memory.
    OutOfMemory {
        /// The limit.
        limit_bytes: u64,
    },
    /// It could not be started.
    NotStarted(StartFailure),
    /// Its shim was lost, and with it the knowledge how it ended.
    Lost,
    /// The machine ended, and everything on it.
    Rebooted,
    /// Mainstay ended it, because its probes did not pass for so many milliseconds.
    Unhealthy {
        /// For how long they had not.
        for_ms: u64,
    },
}

/// Why an instance could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StartFailure {
    /// The program does not exist.
    ProgramNotFound,
    /// The program may not be executed by the account.
    ProgramNotExecutable,
    /// The file is not a program that this machine can run.
    NotAProgram,
    /// The working directory cannot be entered.
    Directory,
    /// The account does not exist, or Mainstay may not switch to it.
    User,
    /// The account that a service gets which names none may not enter the directory or execute the
    /// program.
    ShutOut,
    /// A limit of the service cannot be kept on this node.
    Limit {
        /// Which.
        limit: Limit,
        /// Why.
        obstacle: LimitObstacle,
    },
    /// A secret that the service names does not exist.
    SecretMissing,
    /// The control centre, which keeps the secrets, cannot be reached.
    SecretsAway,
    /// The control centre cannot open the secret: its key is missing or another one.
    SecretLocked,
    /// No free port was found in the agent's range.
    NoFreePort,
    /// The shim could not prepare its files: the disk is full or read-only.
    StateDirectory,
    /// Another error of the operating system, by its number.
    System(i32),
}

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
    /// Processes and threads.
    Pids,
}

/// Why a limit cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LimitObstacle {
    /// Mainstay does not run as root.
    NotRoot,
    /// The node has no cgroups.
    NoCgroups,
    /// The node's cgroups may not be written, as in most containers.
    ReadOnly,
    /// The node's cgroups lack the controller.
    NoController,
    /// A group above holds processes itself, and then hands no controller down.
    Occupied,
    /// The kernel refused it with this error.
    Refused(i32),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        })
    }
}

impl fmt::Display for LimitObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRoot => f.write_str("Mainstay does not run as root"),
            Self::NoCgroups => f.write_str("this machine has no cgroups"),
            Self::ReadOnly => f.write_str("the cgroups of this machine are read-only"),
            Self::NoController => f.write_str("the cgroups of this machine lack its controller"),
            Self::Occupied => f.write_str("a cgroup above holds processes itself"),
            Self::Refused(errno) => write!(f, "the kernel refused it with error {errno}"),
        }
    }
}

/// Bytes as people write them, with the largest unit that is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let exact = |(_, size): &&(&str, u64)| self.0.is_multiple_of(*size);
        match UNITS.iter().find(exact) {
            Some((unit, size)) => write!(f, "{} {unit}", self.0 / size),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(number) => write!(f, "ended by signal {number}"),
            Self::OutOfMemory { limit_bytes } => {
                write!(f, "killed: out of memory (limit {})", Bytes(*limit_bytes))
            }
            Self::NotStarted(failure) => write!(f, "not started: {failure}"),
            Self::Lost => f.write_str("ended together with its shim"),
            Self::Rebooted => f.write_str("ended with the machine"),
            Self::Unhealthy { for_ms } => {
                write!(f, "was ended: its probes did not pass for {for_ms} ms")
            }
        }
    }
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProgramNotFound => f.write_str("the program does not exist"),
            Self::ProgramNotExecutable => f.write_str("the program may not be executed"),
            Self::NotAProgram => f.write_str("the file is not a program for this machine"),
            Self::Directory => f.write_str("its directory cannot be entered"),
            Self::User => f.write_str("its account does not exist or may not be used"),
            Self::ShutOut => f.write_str(
                "the account of services without `user` may not enter its directory or execute its \
                 program: write `user`, or put both where every account may reach them",
            ),
            Self::Limit { limit, obstacle } => write!(
                f,
                "its limit `{limit}` cannot be kept: {obstacle}; mend that, or take `limits.{limit}` out"
            ),
            Self::SecretMissing => f.write_str("a secret that it names does not exist"),
            Self::SecretsAway => f.write_str(
                "its secrets cannot be fetched: the control centre is away; it is tried again",
            ),
            Self::SecretLocked => f.write_str("a secret that it names cannot be opened"),
            Self::NoFreePort => f.write_str("no port is free"),
            Self::StateDirectory => f.write_str("the state directory cannot be written"),
            Self::System(errno) => write!(f, "error {errno} of the operating system"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_end_says_itself_in_words() {
        let killed = |limit_bytes| Exit::OutOfMemory { limit_bytes }.to_string();
        assert_eq!(killed(256 << 20), "killed: out of memory (limit 256 MiB)");
        assert_eq!(killed(1 << 30), "killed: out of memory (limit 1 GiB)");
        assert_eq!(killed(1000), "killed: out of memory (limit 1000 bytes)");
        let refused = Exit::NotStarted(StartFailure::Limit {
            limit: Limit::Memory,
            obstacle: LimitObstacle::NotRoot,
        });
        assert_eq!(
            refused.to_string(),
            "not started: its limit `memory` cannot be kept: Mainstay does not run as root; mend \
             that, or take `limits.memory` out"
        );
    }
}
