//! Why something was decided.

use alloc::collections::BTreeSet;
use alloc::string::String;
use core::fmt;

use mainstay_ids::{ConsumerId, Generation, InstanceId, ServiceName};

use crate::report::Exit;

/// Why a rollout failed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "cause")]
#[expect(
    missing_docs,
    reason = "each variant's sentence says what its fields are"
)]
pub enum RolloutFailure {
    /// An instance of the new version ended before it was ready.
    Exited { instance: InstanceId, exit: Exit },
    /// An instance of the new version was not ready by the healthy deadline.
    NotReady {
        instance: InstanceId,
        deadline_ms: u64,
        /// Why its last probe failed, if it did.
        #[serde(default)]
        probe_failure: Option<String>,
    },
    /// An instance of the new version passed its probes and then failed them within the minimum
    /// healthy time, more than once.
    Flapping { instance: InstanceId },
    /// What runs once before the rollout did not come to a good end.
    BeforeFailed {
        instance: InstanceId,
        exit: Option<Exit>,
    },
    /// No further instance got ready for the progress deadline.
    NoProgress {
        deadline_ms: u64,
        /// What it waited for last.
        wait: Option<Wait>,
    },
}

/// What a rollout that does not go on waits for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "waits_for")]
#[expect(
    missing_docs,
    reason = "each variant's sentence says what its fields are"
)]
pub enum Wait {
    /// Until somebody lets it go on.
    Resume,
    /// Until somebody promotes the canaries.
    Promotion { ready: u32 },
    /// What runs once before it has not ended.
    Before { instance: InstanceId },
    /// One ready instance of each of these services is missing.
    Needs { services: BTreeSet<ServiceName> },
    /// The node has no memory left for another instance.
    Room { needed: u64, free: u64 },
    /// The instance has not passed a probe.
    Health {
        instance: InstanceId,
        /// Why its last probe failed, if it did.
        probe_failure: Option<String>,
    },
    /// The instance passes, and has to for the rest of the minimum healthy time.
    MinimumHealthy { instance: InstanceId },
    /// The instance that makes room finishes what it has.
    Drain { instance: InstanceId },
    /// All of the new version are held back by an operator, this one among them.
    Intake { instance: InstanceId },
}

/// Who could still reach an instance when its drain time was over.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HeldUp {
    /// The follower of the routes.
    pub consumer: ConsumerId,
    /// The newest generation that it acknowledged.
    pub acknowledged: Option<Generation>,
    /// How many of its requests were at the instance, as far as it has told.
    pub in_flight: u64,
}

/// Why an instance is planned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PlanReason {
    /// Fewer are there than wanted.
    #[default]
    Wanted,
    /// It is to take the place of one of another version.
    Replaces,
    /// It runs once, before the rollout of its version.
    Before,
    /// A time of its schedule has come.
    Scheduled,
}

/// Why a service goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RollbackAsked {
    /// A rollout failed.
    ByFailure,
    /// Somebody asked for it.
    ByUser,
}

/// Why a failed rollout stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// The service's file says so.
    OnFailurePause,
    /// There is no version that was wholly healthy.
    NothingToGoBackTo,
    /// What failed was itself a rollback.
    RollbackFailed,
}

/// Why an instance is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DrainReason {
    /// A ready instance of another version takes its place.
    Replaced,
    /// Fewer instances are wanted.
    ScaledIn,
    /// The service is being taken down.
    Removed,
    /// Its version failed.
    FailedVersion,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DrainOutcome {
    /// Every live consumer acknowledged the removal and nothing was in flight.
    Acknowledged,
    /// The drain time was over first.
    TimeOver,
    /// The instance had never been in the routes, or had ended by itself.
    Unreachable,
}

impl fmt::Display for RolloutFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { instance, exit } => write!(f, "{instance} {exit}"),
            Self::NotReady {
                instance,
                deadline_ms,
                probe_failure,
            } => {
                write!(f, "{instance} was not ready within {deadline_ms} ms")?;
                match probe_failure {
                    Some(failure) => write!(f, ", its probe fails: {failure}"),
                    None => Ok(()),
                }
            }
            Self::Flapping { instance } => {
                write!(f, "{instance} passed and failed its probes in turn")
            }
            Self::BeforeFailed { instance, exit } => {
                write!(f, "what runs before it did not end well: {instance} ")?;
                match exit {
                    Some(exit) => write!(f, "{exit}"),
                    None => f.write_str("was not started"),
                }
            }
            Self::NoProgress { deadline_ms, wait } => {
                write!(f, "no progress for {deadline_ms} ms")?;
                match wait {
                    Some(wait) => write!(f, ", it waited for {wait}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnFailurePause => "its file says on_failure = \"pause\"",
            Self::NothingToGoBackTo => "no earlier version was ever wholly healthy",
            Self::RollbackFailed => "a failed rollback is not rolled back",
        })
    }
}

impl fmt::Display for DrainOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acknowledged => "acknowledged by everyone, nothing in flight",
            Self::TimeOver => "the drain time was over",
            Self::Unreachable => "nothing could reach it",
        })
    }
}

impl fmt::Display for DrainReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replaced => "replaced",
            Self::ScaledIn => "fewer are wanted",
            Self::Removed => "the service is taken down",
            Self::FailedVersion => "its version failed",
        })
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resume => f.write_str("`mainstay resume`: somebody paused it"),
            Self::Promotion { ready } => {
                write!(
                    f,
                    "`mainstay promote`: {ready} of the new version are ready"
                )
            }
            Self::Before { instance } => {
                write!(f, "{instance}, which runs once before it, to end")
            }
            Self::Needs { services } => {
                f.write_str("an instance to be ready of")?;
                for service in services {
                    write!(f, " {service}")?;
                }
                Ok(())
            }
            Self::Room { needed, free } => write!(
                f,
                "memory: another instance takes {needed} bytes, and {free} are free"
            ),
            Self::Health {
                instance,
                probe_failure: None,
            } => write!(f, "{instance} to pass its first probe"),
            Self::Health {
                instance,
                probe_failure: Some(failure),
            } => write!(f, "{instance} to pass its probe, which fails: {failure}"),
            Self::MinimumHealthy { instance } => {
                write!(f, "{instance} to stay healthy for the minimum healthy time")
            }
            Self::Drain { instance } => write!(f, "{instance} to finish what it has"),
            Self::Intake { instance } => write!(
                f,
                "`mainstay undrain {instance}`: an operator keeps requests from all of the new version"
            ),
        }
    }
}

impl fmt::Display for HeldUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.consumer)?;
        match self.acknowledged {
            None => f.write_str(" has acknowledged nothing"),
            Some(generation) if self.in_flight == 0 => {
                write!(f, " has acknowledged {generation} only")
            }
            Some(_) if self.in_flight == 1 => f.write_str(" has a request there"),
            Some(_) => write!(f, " has {} requests there", self.in_flight),
        }
    }
}

impl fmt::Display for PlanReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wanted => "one more is wanted",
            Self::Replaces => "it replaces one of another version",
            Self::Before => "it runs once before the rollout",
            Self::Scheduled => "its time has come",
        })
    }
}
