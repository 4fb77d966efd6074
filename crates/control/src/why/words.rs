//! Recorded decisions as reasons.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Write;
use core::time::Duration;

use mainstay_ids::{Attempt, InstanceId, Timestamp, duration};
use mainstay_model::event::{HeldUp, RollbackAsked};
use mainstay_model::{Event, EventKind, Exit, Topic};

use super::Past;

/// Milliseconds as people write them.
pub(super) fn span(ms: u64) -> String {
    duration::display(Duration::from_millis(ms))
}

/// A recorded decision as a reason. `past` tells what came before it.
pub(super) fn of(event: &Event, past: Past<'_>) -> (Topic, String) {
    (topic(&event.kind), text(event, past))
}

fn topic(kind: &EventKind) -> Topic {
    match kind {
        EventKind::InstanceStarted { attempt, .. } if attempt.0 > 1 => Topic::Restart,
        EventKind::InstanceExited { .. }
        | EventKind::InstanceCrashLooping { .. }
        | EventKind::NodeRebooted { .. } => Topic::Restart,
        EventKind::InstancePassing { .. }
        | EventKind::InstanceFailing { .. }
        | EventKind::IntakeSet { .. }
        | EventKind::DrainStarted { .. }
        | EventKind::DrainFinished { .. }
        | EventKind::InstanceHeld { .. }
        | EventKind::InstanceReleased { .. }
        | EventKind::Scaled { .. } => Topic::Traffic,
        EventKind::RolloutWaits { .. } | EventKind::RolloutHeld { .. } => Topic::Wait,
        EventKind::RolloutFailed { .. }
        | EventKind::RollbackStarted { .. }
        | EventKind::RolloutPaused { .. } => Topic::Rollback,
        EventKind::Accepted { .. }
        | EventKind::RolloutStarted { .. }
        | EventKind::RolloutFinished { .. }
        | EventKind::RolloutResumed { .. }
        | EventKind::Promoted { .. }
        | EventKind::BeforeFinished { .. }
        | EventKind::RunFinished { .. }
        | EventKind::RunOverdue { .. }
        | EventKind::RunSkipped { .. }
        | EventKind::RunsMissed { .. }
        | EventKind::InstancePlanned { .. }
        | EventKind::InstanceStarted { .. }
        | EventKind::InstanceReady { .. }
        | EventKind::InstanceStopped { .. }
        | EventKind::RemovalStarted
        | EventKind::Removed
        | EventKind::ConsumerJoined { .. }
        | EventKind::ConsumerMute { .. }
        | EventKind::ConsumerGone { .. }
        | EventKind::Happened { .. }
        | EventKind::HappenedUntold { .. }
        | EventKind::Backups { .. }
        | EventKind::ControlStarted { .. } => Topic::Decision,
    }
}

/// What an event says by itself, or more where what came before it says more.
fn text(event: &Event, past: Past<'_>) -> String {
    match &event.kind {
        EventKind::InstanceStarted {
            instance,
            attempt,
            pid,
        } if attempt.0 > 1 => {
            let after = after_end(instance, *attempt, event, past);
            let attempt = attempt.0;
            format!("{instance} was started again as attempt {attempt}, process {pid}{after}")
        }
        EventKind::InstanceExited {
            instance,
            attempt,
            exit,
            probe_failure,
            again_at,
        } => {
            let mut text = format!("{instance} {}, attempt {}", end(*exit), attempt.0);
            if let Some(failure) = probe_failure {
                add(
                    &mut text,
                    format_args!("; its last probe failed: {failure}"),
                );
            }
            if let Some(again) = again_at {
                add(&mut text, format_args!("; {}", back_off(event.at, *again)));
            }
            text
        }
        EventKind::InstanceCrashLooping { instance, attempts } => format!(
            "{instance} is in a crash loop: it ended {attempts} times soon after its start, and is \
             tried at the longest delay from now on"
        ),
        EventKind::RollbackStarted {
            from,
            to,
            asked: RollbackAsked::ByFailure,
        } => {
            format!("so it goes back from {from} to {to}, the last version that was wholly healthy")
        }
        EventKind::RolloutPaused { version, reason } => {
            format!("it does not go back from {version}, which stays as it is: {reason}")
        }
        other => other.to_string(),
    }
}

/// How an attempt ended, as the end of a sentence.
fn end(exit: Exit) -> String {
    match exit {
        Exit::Signal(6) => format!("{exit} (SIGABRT)"),
        Exit::Signal(9) => format!("{exit} (SIGKILL)"),
        Exit::Signal(11) => format!("{exit} (SIGSEGV)"),
        Exit::Signal(15) => format!("{exit} (SIGTERM)"),
        Exit::Code(_)
        | Exit::Signal(_)
        | Exit::OutOfMemory { .. }
        | Exit::NotStarted(_)
        | Exit::Lost
        | Exit::Rebooted
        | Exit::Unhealthy { .. } => exit.to_string(),
    }
}

/// When the next attempt is due, seen from `from`.
pub(super) fn back_off(from: Timestamp, again: Timestamp) -> String {
    match again.0.saturating_sub(from.0) {
        0 => "it is started again at once".to_string(),
        ms => format!(
            "it is started again at {}, after a back-off of {}",
            again.of_day(),
            span(ms)
        ),
    }
}

/// How the attempt before this one ended.
fn after_end(instance: &InstanceId, attempt: Attempt, event: &Event, past: Past<'_>) -> String {
    let mut before = past.of(&instance.service).rev();
    let ended = before.find_map(|earlier| match &earlier.kind {
        EventKind::InstanceExited {
            instance: of,
            attempt: ended,
            exit,
            ..
        } if of == instance && *ended < attempt && earlier.number < event.number => {
            Some((earlier.at, *ended, *exit))
        }
        _ => None,
    });
    ended.map_or_else(String::new, |(at, ended, exit)| {
        let later = span(event.at.0.saturating_sub(at.0));
        format!(": {later} before, attempt {} {exit}", ended.0)
    })
}

/// Who could still reach an instance, as a list.
pub(super) fn holders(held_up_by: &[HeldUp]) -> String {
    let mut text = String::new();
    for (index, holder) in held_up_by.iter().enumerate() {
        let between = if index == 0 { "" } else { "; " };
        add(&mut text, format_args!("{between}{holder}"));
    }
    text
}

/// Adds to a text, which cannot fail.
pub(super) fn add(text: &mut String, more: core::fmt::Arguments<'_>) {
    text.write_fmt(more)
        .expect("writing to a string cannot fail");
}
