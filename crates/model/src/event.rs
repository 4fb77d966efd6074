//! What happened and why: each decision with its inputs, as it was made.

use alloc::string::String;
use core::fmt;

use mainstay_ids::{Attempt, ConsumerId, Generation, InstanceId, ServiceName, Timestamp, Version};

use crate::report::Exit;

/// One recorded decision or observation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Event {
    /// Its number, growing; a reader resumes behind the last that it saw.
    pub number: u64,
    /// When, for people.
    pub at: Timestamp,
    /// The service that it concerns, if one.
    pub service: Option<ServiceName>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
#[expect(
    missing_docs,
    reason = "each variant's sentence says what its fields are"
)]
pub enum EventKind {
    /// A declaration was accepted as a new version.
    Accepted { version: Version },
    /// A rollout began.
    RolloutStarted {
        from: Option<Version>,
        to: Version,
        step: u32,
        wanted: u32,
    },
    /// Every wanted instance runs the version and is ready.
    RolloutFinished { version: Version, took_ms: u64 },
    /// A rollout failed.
    RolloutFailed {
        version: Version,
        cause: RolloutFailure,
    },
    /// The service goes back to a version that was wholly healthy.
    RollbackStarted {
        from: Version,
        to: Version,
        asked: RollbackAsked,
    },
    /// A failed rollout stays as it is.
    RolloutPaused {
        version: Version,
        reason: PauseReason,
    },
    /// The wanted number changed.
    Scaled { from: u32, to: u32 },
    /// An instance was placed and will be started.
    InstancePlanned {
        instance: InstanceId,
        version: Version,
    },
    /// An instance's process was started.
    InstanceStarted {
        instance: InstanceId,
        attempt: Attempt,
        pid: u32,
    },
    /// An instance passed its probe and gets traffic with this generation.
    InstancePassing {
        instance: InstanceId,
        attempt: Attempt,
        generation: Generation,
    },
    /// An instance has been healthy for the minimum healthy time.
    InstanceReady { instance: InstanceId },
    /// An instance fails its probes and gets no more traffic with this generation.
    InstanceFailing {
        instance: InstanceId,
        generation: Generation,
        /// Why its last probe failed.
        #[serde(default)]
        probe_failure: Option<String>,
    },
    /// An instance ended without being told to.
    InstanceExited {
        instance: InstanceId,
        attempt: Attempt,
        exit: Exit,
    },
    /// An instance ends again and again soon after its start.
    InstanceCrashLooping { instance: InstanceId, attempts: u32 },
    /// An instance is taken out of the routes by this generation, to be stopped.
    DrainStarted {
        instance: InstanceId,
        generation: Generation,
        reason: DrainReason,
    },
    /// Nothing can reach the instance any more, or the time was over; it is told to stop.
    DrainFinished {
        instance: InstanceId,
        waited_ms: u64,
        outcome: DrainOutcome,
    },
    /// Nothing of the instance is left.
    InstanceStopped {
        instance: InstanceId,
        exit: Option<Exit>,
    },
    /// A service was told to go away.
    RemovalStarted,
    /// Nothing of a service is left.
    Removed,
    /// A consumer of the routing state joined.
    ConsumerJoined { consumer: ConsumerId },
    /// A consumer did not renew its watch for 3 s.
    ConsumerMute { consumer: ConsumerId },
    /// A consumer is dead: its successor has come, or it said farewell.
    ConsumerGone { consumer: ConsumerId },
    /// The control centre began to publish.
    ControlStarted { services: u32, instances: u32 },
    /// Events with these numbers were asked for and are no longer kept. It is told to who reads,
    /// with the last of these numbers, and never recorded.
    Forgotten { from: u64, to: u64 },
}

/// Why a rollout failed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
}

/// Why a service goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollbackAsked {
    /// A rollout failed.
    ByFailure,
    /// Somebody asked for it.
    ByUser,
}

/// Why a failed rollout stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

fn counted(count: u32, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    alloc::format!("{count} {noun}{plural}")
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { version } => write!(f, "accepted as {version}"),
            Self::RolloutStarted {
                from,
                to,
                step,
                wanted,
            } => {
                let instances = counted(*wanted, "instance");
                match from {
                    // All at once: there is nothing that it could disturb.
                    None => write!(f, "first rollout, of {to}: {instances}"),
                    Some(from) => write!(
                        f,
                        "rollout from {from} to {to}: {instances}, {step} at a time"
                    ),
                }
            }
            Self::RolloutFinished { version, took_ms } => {
                write!(f, "{version} is in force after {took_ms} ms")
            }
            Self::RolloutFailed { version, cause } => {
                write!(f, "rollout of {version} failed: {cause}")
            }
            Self::RollbackStarted {
                from,
                to,
                asked: RollbackAsked::ByFailure,
            } => {
                write!(f, "rolling back from {from} to {to}")
            }
            Self::RollbackStarted {
                from,
                to,
                asked: RollbackAsked::ByUser,
            } => {
                write!(f, "rolling back from {from} to {to}, as asked")
            }
            Self::RolloutPaused { version, reason } => {
                write!(f, "rollout of {version} stays as it is: {reason}")
            }
            Self::Scaled { from, to } => write!(f, "scaled from {from} to {to}"),
            Self::RemovalStarted => f.write_str("taken down"),
            Self::Removed => f.write_str("gone"),
            Self::ConsumerJoined { consumer } => write!(f, "{consumer} follows the routes"),
            Self::ConsumerMute { consumer } => write!(f, "{consumer} is mute"),
            Self::ConsumerGone { consumer } => write!(f, "{consumer} is gone"),
            Self::ControlStarted {
                services,
                instances,
            } => {
                let services = counted(*services, "service");
                let instances = counted(*instances, "instance");
                write!(f, "control centre started with {services}, {instances}")
            }
            Self::Forgotten { from, to } => write!(f, "events {from} to {to} are no longer kept"),
            Self::InstancePlanned { .. }
            | Self::InstanceStarted { .. }
            | Self::InstancePassing { .. }
            | Self::InstanceReady { .. }
            | Self::InstanceFailing { .. }
            | Self::InstanceExited { .. }
            | Self::InstanceCrashLooping { .. }
            | Self::DrainStarted { .. }
            | Self::DrainFinished { .. }
            | Self::InstanceStopped { .. } => self.write_instance_event(f),
        }
    }
}

impl EventKind {
    /// The instance that it concerns, if one.
    pub fn instance(&self) -> Option<&InstanceId> {
        match self {
            Self::InstancePlanned { instance, .. }
            | Self::InstanceStarted { instance, .. }
            | Self::InstancePassing { instance, .. }
            | Self::InstanceReady { instance }
            | Self::InstanceFailing { instance, .. }
            | Self::InstanceExited { instance, .. }
            | Self::InstanceCrashLooping { instance, .. }
            | Self::DrainStarted { instance, .. }
            | Self::DrainFinished { instance, .. }
            | Self::InstanceStopped { instance, .. } => Some(instance),
            Self::RolloutFailed { cause, .. } => match cause {
                RolloutFailure::Exited { instance, .. }
                | RolloutFailure::NotReady { instance, .. }
                | RolloutFailure::Flapping { instance } => Some(instance),
            },
            Self::Accepted { .. }
            | Self::RolloutStarted { .. }
            | Self::RolloutFinished { .. }
            | Self::RollbackStarted { .. }
            | Self::RolloutPaused { .. }
            | Self::Scaled { .. }
            | Self::RemovalStarted
            | Self::Removed
            | Self::ConsumerJoined { .. }
            | Self::ConsumerMute { .. }
            | Self::ConsumerGone { .. }
            | Self::ControlStarted { .. }
            | Self::Forgotten { .. } => None,
        }
    }

    /// The part of [`fmt::Display`] that tells of one instance.
    fn write_instance_event(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InstancePlanned { instance, version } => {
                write!(f, "{instance} planned ({version})")
            }
            Self::InstanceStarted {
                instance,
                attempt,
                pid,
            } => {
                write!(
                    f,
                    "{instance} started, attempt {}, process {pid}",
                    attempt.0
                )
            }
            Self::InstancePassing {
                instance,
                generation,
                ..
            } => {
                write!(f, "{instance} is healthy, in the routes from {generation}")
            }
            Self::InstanceReady { instance } => write!(f, "{instance} is ready"),
            Self::InstanceFailing {
                instance,
                generation,
                probe_failure,
            } => {
                write!(f, "{instance} fails its probes, ejected from {generation}")?;
                match probe_failure {
                    Some(failure) => write!(f, ": {failure}"),
                    None => Ok(()),
                }
            }
            Self::InstanceExited { instance, exit, .. } => write!(f, "{instance} {exit}"),
            Self::InstanceCrashLooping { instance, attempts } => {
                write!(f, "{instance} ended {attempts} times soon after its start")
            }
            Self::DrainStarted {
                instance,
                generation,
                reason,
            } => {
                write!(
                    f,
                    "{instance} drains, out of the routes from {generation}: {reason}"
                )
            }
            Self::DrainFinished {
                instance,
                waited_ms,
                outcome,
            } => {
                write!(
                    f,
                    "{instance} is told to stop after {waited_ms} ms: {outcome}"
                )
            }
            Self::InstanceStopped {
                instance,
                exit: Some(exit),
            } => write!(f, "{instance} stopped: {exit}"),
            Self::InstanceStopped {
                instance,
                exit: None,
            } => write!(f, "{instance} stopped"),
            _ => Ok(()),
        }
    }
}
