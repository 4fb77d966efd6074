//! Why a service is as it is: what its rollout waits for, and why it went back.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Arguments;

use mainstay_ids::{InstanceId, ServiceName, Timestamp, duration};
use mainstay_model::event::{RollbackAsked, Wait};
use mainstay_model::{EventKind, InstanceState, ServiceState, Topic, Why};

use super::chain::{Chain, DECISIONS_MAX};
use super::words::{add, holders};
use super::{Past, instance};
use crate::cluster::views::{InstanceView, ServiceView};

/// How many instances that are not ready are told of. More of them are mostly so for the same reason.
const INSTANCES_TOLD_MAX: usize = 8;

/// Of a service that is there.
pub(super) fn of(
    service: &ServiceView<'_>,
    instances: &[InstanceView],
    past: Past<'_>,
    now: Timestamp,
) -> Why {
    let name = service.service;
    let mut chain = Chain::new(DECISIONS_MAX);
    chain.stand(now, Topic::State, state(service));
    if let Some(wait) = &service.wait {
        let text = waits(service, wait, instances);
        chain.stand(
            past.of(name).next_back().map_or(now, |event| event.at),
            Topic::Wait,
            text,
        );
    }
    let unready = instances
        .iter()
        .filter(|view| view.state != InstanceState::Ready || !view.intake.takes_any());
    for view in unready.take(INSTANCES_TOLD_MAX) {
        let text = instance::traffic(view, service, now);
        let mut newest = past.of(name).rev();
        let newest = newest.find(|event| event.kind.instance() == Some(&view.instance));
        let at = newest.map_or(now, |event| event.at);
        chain.stand(at, Topic::Traffic, text);
    }
    let begins = decisions(name, past, &mut chain);
    chain.close(name.to_string(), past, past.forgotten().filter(|_| !begins))
}

/// Of one of which nothing is left but what is remembered.
pub(super) fn of_gone(name: &ServiceName, past: Past<'_>) -> Option<Why> {
    let mut chain = Chain::new(DECISIONS_MAX);
    let last = past.of(name).next_back()?;
    let text = format!("{name} is gone: it was taken down");
    chain.stand(last.at, Topic::State, text);
    let begins = decisions(name, past, &mut chain);
    Some(chain.close(name.to_string(), past, past.forgotten().filter(|_| !begins)))
}

fn state(service: &ServiceView<'_>) -> String {
    let name = service.service;
    let version = service.version;
    if let Some(schedule) = &service.schedule {
        let mut text = format!("{name} runs at `{}`", schedule.cron);
        if let Some(next) = schedule.next {
            add(&mut text, format_args!(", next at {next}"));
        }
        if let Some(last) = &schedule.last {
            let how = last
                .exit
                .map_or_else(|| "was not started".to_string(), |exit| exit.to_string());
            add(
                &mut text,
                format_args!("; the last run, {}, {how} at {}", last.instance, last.ended),
            );
        }
        return text;
    }
    let what = match service.state {
        ServiceState::Steady => "is as wanted",
        ServiceState::RollingOut => "is being rolled out",
        ServiceState::RollingBack => "is being rolled back",
        ServiceState::Paused => "is paused in a rollout",
        ServiceState::AwaitsPromotion => "has canaries that wait to be promoted",
        ServiceState::Failed => "has a failed rollout, which stays as it is",
        ServiceState::Degraded => "has fewer ready instances than wanted",
        ServiceState::Removing => "is being taken down",
    };
    let mut text = format!(
        "{name} {what}: {} of {} instances of {version} are ready",
        service.ready, service.wanted
    );
    if let Some(why) = service.unavailable {
        add(&mut text, format_args!("; nobody gets its requests: {why}"));
    }
    text
}

/// What the rollout waits for, with what is known of it.
fn waits(service: &ServiceView<'_>, wait: &Wait, instances: &[InstanceView]) -> String {
    let name = service.service;
    let mut text = format!("the rollout of {} waits for ", service.version);
    let view = |of: &InstanceId| instances.iter().find(|view| view.instance == *of);
    let mut say = |more: Arguments<'_>| add(&mut text, more);
    match wait {
        Wait::Resume => say(format_args!("`mainstay resume {name}`: somebody paused it")),
        Wait::Promotion { ready } => say(format_args!(
            "`mainstay promote {name}`: {ready} of the new version are ready"
        )),
        Wait::MinimumHealthy { instance } => {
            let hold = duration::display(service.spec.rollout.hold);
            say(format_args!(
                "{instance} to pass its probe for {hold} without a failure (`rollout.hold`)"
            ));
        }
        Wait::Drain { instance } => {
            say(format_args!("{wait}"));
            if let Some(drain) = view(instance).and_then(|view| view.drain.as_ref())
                && !drain.held_up_by.is_empty()
            {
                let most = duration::display(service.spec.drain);
                let holders = holders(&drain.held_up_by);
                say(format_args!(": {holders}; at most for {most} (`drain`)"));
            }
        }
        Wait::Before { .. }
        | Wait::Needs { .. }
        | Wait::Room { .. }
        | Wait::Health { .. }
        | Wait::Intake { .. } => {
            say(format_args!("{wait}"));
        }
    }
    text
}

/// What was decided since the last change that somebody asked for. Gives whether that is remembered.
fn decisions<'a>(name: &'a ServiceName, past: Past<'a>, chain: &mut Chain<'a>) -> bool {
    for event in past.of(name).rev() {
        if belongs(&event.kind) {
            chain.decide(event);
        }
        let begins = matches!(
            event.kind,
            EventKind::RolloutStarted { .. }
                | EventKind::RollbackStarted {
                    asked: RollbackAsked::ByUser,
                    ..
                }
                | EventKind::RemovalStarted
        );
        if begins {
            return true;
        }
    }
    false
}

/// Whether a decision concerns the service as a whole, or may have led to one that does.
pub(super) fn belongs(kind: &EventKind) -> bool {
    match kind {
        EventKind::Accepted { .. }
        | EventKind::InstancePlanned { .. }
        | EventKind::InstanceReleased { .. }
        | EventKind::InstanceStarted { .. }
        | EventKind::InstancePassing { .. }
        | EventKind::InstanceReady { .. }
        | EventKind::DrainStarted { .. }
        | EventKind::InstanceStopped { .. }
        | EventKind::ConsumerJoined { .. }
        | EventKind::ConsumerMute { .. }
        | EventKind::ConsumerGone { .. }
        | EventKind::NodeRebooted { .. }
        | EventKind::Happened { .. }
        | EventKind::HappenedUntold { .. }
        | EventKind::Backups { .. }
        | EventKind::ControlStarted { .. } => false,
        EventKind::DrainFinished { held_up_by, .. } => !held_up_by.is_empty(),
        EventKind::RolloutStarted { .. }
        | EventKind::RolloutFinished { .. }
        | EventKind::RolloutFailed { .. }
        | EventKind::RollbackStarted { .. }
        | EventKind::RolloutPaused { .. }
        | EventKind::RolloutWaits { .. }
        | EventKind::RolloutHeld { .. }
        | EventKind::RolloutResumed { .. }
        | EventKind::Promoted { .. }
        | EventKind::BeforeFinished { .. }
        | EventKind::RunFinished { .. }
        | EventKind::RunOverdue { .. }
        | EventKind::RunSkipped { .. }
        | EventKind::RunsMissed { .. }
        | EventKind::Scaled { .. }
        | EventKind::InstanceHeld { .. }
        | EventKind::IntakeSet { .. }
        | EventKind::InstanceFailing { .. }
        | EventKind::InstanceExited { .. }
        | EventKind::InstanceCrashLooping { .. }
        | EventKind::RemovalStarted
        | EventKind::Removed => true,
    }
}
