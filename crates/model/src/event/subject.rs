//! What an event speaks of.

use mainstay_ids::InstanceId;

use super::{EventKind, RolloutFailure, Wait};

impl EventKind {
    /// The instance that it speaks of, if one.
    pub fn instance(&self) -> Option<&InstanceId> {
        match self {
            Self::BeforeFinished { instance, .. }
            | Self::RunFinished { instance, .. }
            | Self::RunOverdue { instance, .. }
            | Self::RunSkipped {
                running: instance, ..
            }
            | Self::InstancePlanned { instance, .. }
            | Self::InstanceHeld { instance, .. }
            | Self::InstanceReleased { instance }
            | Self::InstanceStarted { instance, .. }
            | Self::InstancePassing { instance, .. }
            | Self::InstanceReady { instance }
            | Self::InstanceFailing { instance, .. }
            | Self::InstanceExited { instance, .. }
            | Self::InstanceCrashLooping { instance, .. }
            | Self::IntakeSet { instance, .. }
            | Self::DrainStarted { instance, .. }
            | Self::DrainFinished { instance, .. }
            | Self::InstanceStopped { instance, .. } => Some(instance),
            Self::RolloutFailed { cause, .. } => cause.instance(),
            Self::RolloutWaits { wait, .. } => wait.instance(),
            Self::Accepted { .. }
            | Self::RolloutStarted { .. }
            | Self::RolloutFinished { .. }
            | Self::RollbackStarted { .. }
            | Self::RolloutPaused { .. }
            | Self::RolloutHeld { .. }
            | Self::RolloutResumed { .. }
            | Self::Promoted { .. }
            | Self::RunsMissed { .. }
            | Self::Scaled { .. }
            | Self::RemovalStarted
            | Self::Removed
            | Self::ConsumerJoined { .. }
            | Self::ConsumerMute { .. }
            | Self::ConsumerGone { .. }
            | Self::NodeRebooted { .. }
            | Self::Happened { .. }
            | Self::HappenedUntold { .. }
            | Self::Backups { .. }
            | Self::ControlStarted { .. } => None,
        }
    }
}

impl RolloutFailure {
    fn instance(&self) -> Option<&InstanceId> {
        match self {
            Self::Exited { instance, .. }
            | Self::NotReady { instance, .. }
            | Self::Flapping { instance }
            | Self::BeforeFailed { instance, .. } => Some(instance),
            Self::NoProgress { wait, .. } => wait.as_ref().and_then(Wait::instance),
        }
    }
}

impl Wait {
    fn instance(&self) -> Option<&InstanceId> {
        match self {
            Self::Before { instance }
            | Self::Health { instance, .. }
            | Self::MinimumHealthy { instance }
            | Self::Intake { instance }
            | Self::Drain { instance } => Some(instance),
            Self::Resume | Self::Promotion { .. } | Self::Needs { .. } | Self::Room { .. } => None,
        }
    }
}
