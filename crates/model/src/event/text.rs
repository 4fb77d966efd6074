//! Events as people read them.

use alloc::string::String;
use core::fmt;

use crate::intake::Intake;
use crate::report::Exit;

use super::{EventKind, RollbackAsked, Wait};

fn counted(count: u32, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    alloc::format!("{count} {noun}{plural}")
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { .. }
            | Self::RolloutStarted { .. }
            | Self::RolloutFinished { .. }
            | Self::RolloutFailed { .. }
            | Self::RollbackStarted { .. }
            | Self::RolloutPaused { .. } => self.write_rollout_event(f),
            Self::RolloutWaits { .. }
            | Self::RolloutHeld { .. }
            | Self::RolloutResumed { .. }
            | Self::Promoted { .. } => self.write_gate_event(f),
            Self::BeforeFinished { .. }
            | Self::RunFinished { .. }
            | Self::RunOverdue { .. }
            | Self::RunSkipped { .. }
            | Self::RunsMissed { .. } => self.write_run_event(f),
            Self::InstancePlanned { .. }
            | Self::InstanceHeld { .. }
            | Self::InstanceReleased { .. }
            | Self::InstanceStarted { .. }
            | Self::InstancePassing { .. }
            | Self::InstanceReady { .. }
            | Self::InstanceFailing { .. }
            | Self::InstanceExited { .. }
            | Self::InstanceCrashLooping { .. }
            | Self::InstanceStopped { .. } => self.write_instance_event(f),
            Self::IntakeSet { .. } | Self::DrainStarted { .. } | Self::DrainFinished { .. } => {
                self.write_drain_event(f)
            }
            Self::Scaled { .. }
            | Self::RemovalStarted
            | Self::Removed
            | Self::ConsumerJoined { .. }
            | Self::ConsumerMute { .. }
            | Self::ConsumerGone { .. }
            | Self::NodeRebooted { .. }
            | Self::Happened { .. }
            | Self::HappenedUntold { .. }
            | Self::Backups { .. }
            | Self::ControlStarted { .. } => self.write_cluster_event(f),
        }
    }
}

impl EventKind {
    /// The part of [`fmt::Display`] that tells how rollouts begin and end.
    fn write_rollout_event(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
            _ => Ok(()),
        }
    }

    /// The part of [`fmt::Display`] that tells of services, followers and the node.
    fn write_cluster_event(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
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
            Self::Backups { news } => write!(f, "backup: {}", news.said),
            Self::NodeRebooted { boot } => write!(f, "the node was started anew, boot {}", boot.0),
            Self::Happened {
                node,
                happened_at,
                happened,
            } => write!(f, "{node} at {}: {happened}", happened_at.of_day()),
            Self::HappenedUntold { node, count } => {
                write!(
                    f,
                    "{node}: {count} things that happened before the next one were not told"
                )
            }
            _ => Ok(()),
        }
    }

    /// The part of [`fmt::Display`] that tells of drains.
    fn write_drain_event(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IntakeSet {
                instance,
                state,
                weight,
                by,
                generation,
            } => {
                let intake = Intake {
                    state: *state,
                    weight: *weight,
                };
                write!(f, "{instance} {intake}, from {generation}, as {by} asked")
            }
            Self::DrainStarted {
                instance,
                generation,
                reason,
                ready,
                wanted,
            } => {
                write!(
                    f,
                    "{instance} drains, out of the routes from {generation}: {reason} \
                     ({ready} of {wanted} ready without it)"
                )
            }
            Self::DrainFinished {
                instance,
                waited_ms,
                outcome,
                held_up_by,
            } => {
                write!(
                    f,
                    "{instance} is told to stop after {waited_ms} ms: {outcome}"
                )?;
                held_up_by.iter().try_for_each(|who| write!(f, "; {who}"))
            }
            _ => Ok(()),
        }
    }

    /// The part of [`fmt::Display`] that tells of one instance.
    fn write_instance_event(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InstancePlanned {
                instance,
                version,
                reason,
            } => {
                write!(f, "{instance} planned ({version}): {reason}")
            }
            Self::InstanceHeld { instance, needs } => {
                let wait = Wait::Needs {
                    services: needs.clone(),
                };
                write!(f, "{instance} is not started yet, it waits for {wait}")
            }
            Self::InstanceReleased { instance } => {
                write!(f, "{instance} may start, what it needs is ready")
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
            Self::InstanceExited { .. } => self.write_exit(f),
            Self::InstanceCrashLooping { instance, attempts } => {
                write!(f, "{instance} ended {attempts} times soon after its start")
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

    /// The part of [`fmt::Display`] that tells of the end of an attempt.
    fn write_exit(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::InstanceExited {
            instance,
            attempt,
            exit,
            probe_failure,
            again_at,
        } = self
        else {
            return Ok(());
        };
        write!(f, "{instance} {exit}, attempt {}", attempt.0)?;
        if let Some(failure) = probe_failure {
            write!(f, "; its last probe failed: {failure}")?;
        }
        match again_at {
            Some(at) => write!(f, "; again at {}", at.of_day()),
            None => Ok(()),
        }
    }

    /// The part of [`fmt::Display`] that tells of waiting and of people's words.
    fn write_gate_event(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RolloutWaits { version, wait } => {
                write!(f, "rollout of {version} waits for {wait}")
            }
            Self::RolloutHeld { version } => write!(f, "rollout of {version} paused, as asked"),
            Self::RolloutResumed { version } => {
                write!(f, "rollout of {version} goes on, as asked")
            }
            Self::Promoted { version } => write!(f, "{version} is promoted, as asked"),
            _ => Ok(()),
        }
    }

    /// The part of [`fmt::Display`] that tells of what runs to its end.
    fn write_run_event(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = |exit: &Option<Exit>| match exit {
            Some(exit) => alloc::format!("{exit}"),
            None => String::from("was not started"),
        };
        match self {
            Self::BeforeFinished {
                instance,
                version,
                exit,
                took_ms,
            } => write!(
                f,
                "{instance}, which runs before {version}, {} after {took_ms} ms",
                how(exit)
            ),
            Self::RunFinished {
                instance,
                exit,
                took_ms,
            } => write!(f, "run {instance} {} after {took_ms} ms", how(exit)),
            Self::RunOverdue {
                instance,
                deadline_ms,
            } => write!(
                f,
                "run {instance} is stopped: it took more than {deadline_ms} ms"
            ),
            Self::RunSkipped { due, running } => {
                write!(f, "no run for {due}: {running} still goes on")
            }
            Self::RunsMissed { count } => {
                write!(
                    f,
                    "{} missed, the last is made up for",
                    counted(*count, "run")
                )
            }
            _ => Ok(()),
        }
    }
}
