//! Why an instance is as it is: whether it gets requests, and why it was started again.

use alloc::format;
use alloc::string::{String, ToString};

use mainstay_ids::{InstanceId, Timestamp};
use mainstay_model::event::{DrainReason, PlanReason};
use mainstay_model::{Event, EventKind, Exit, InstanceState, Topic, Weight, Why};

use super::Past;
use super::chain::{Chain, DECISIONS_MAX};
use super::words::{add, back_off, holders};
use crate::cluster::views::{InstanceView, ServiceView};

/// Of an instance that is there.
pub(super) fn of(
    view: &InstanceView,
    service: &ServiceView<'_>,
    past: Past<'_>,
    now: Timestamp,
) -> Why {
    let id = &view.instance;
    let mut chain = Chain::new(DECISIONS_MAX);
    chain.stand(now, Topic::Traffic, traffic(view, service, now));
    if let (Some(attempt), Some(exit)) = (view.attempt, view.last_exit)
        && view.again_at.is_none()
        && attempt.0 > 1
    {
        let text = format!(
            "{id} runs as attempt {}, since the one before {exit}",
            attempt.0
        );
        chain.stand(view.since.unwrap_or(now), Topic::Restart, text);
    }
    decisions(id, past, &mut chain);
    let begins = begins(id, past);
    chain.close(id.to_string(), past, past.forgotten().filter(|_| !begins))
}

/// Of one of which nothing is left but what is remembered.
pub(super) fn of_gone(id: &InstanceId, past: Past<'_>) -> Option<Why> {
    let mut chain = Chain::new(DECISIONS_MAX);
    decisions(id, past, &mut chain);
    let last = past
        .of(&id.service)
        .rfind(|event| event.kind.instance() == Some(id))?;
    let text = format!("{id} gets no requests: it is gone, and its number is not used again");
    chain.stand(last.at, Topic::Traffic, text);
    let begins = begins(id, past);
    Some(chain.close(id.to_string(), past, past.forgotten().filter(|_| !begins)))
}

/// Whether it is remembered how it began.
fn begins(id: &InstanceId, past: Past<'_>) -> bool {
    let is_plan = |event: &Event| matches!(&event.kind, EventKind::InstancePlanned { instance, .. } if instance == id);
    past.of(&id.service).any(is_plan)
}

/// Whether it gets requests, and if not, why.
pub(super) fn traffic(view: &InstanceView, service: &ServiceView<'_>, now: Timestamp) -> String {
    let id = &view.instance;
    let failure = view.probe_failure.as_deref();
    match view.state {
        InstanceState::Planned | InstanceState::Held => match &view.wait {
            None => format!("{id} gets no requests: its agent has not started it yet"),
            Some(wait) => format!("{id} gets no requests: it is held, and waits for {wait}"),
        },
        InstanceState::Running => {
            format!("{id} gets no requests: it runs to its end and serves nobody")
        }
        InstanceState::Starting => match failure {
            None => format!("{id} gets no requests: it has started and passed no probe yet"),
            Some(failure) => format!(
                "{id} gets no requests: it has started and passed no probe yet; the last one failed: {failure}"
            ),
        },
        InstanceState::Healthy | InstanceState::Ready if !view.intake.takes_any() => withheld(view),
        InstanceState::Healthy | InstanceState::Ready => serving(view, service),
        InstanceState::Failing => format!(
            "{id} gets no requests, unless fewer than half of the instances pass: its probe fails: {}",
            failure.unwrap_or("it has not passed since its agent was started anew")
        ),
        InstanceState::BackingOff | InstanceState::CrashLooping => ended(view, now),
        InstanceState::Draining => draining(view, service),
        InstanceState::Stopping => {
            format!("{id} gets no requests: it was told to stop, and ends")
        }
    }
}

/// Its probe passes, and somebody keeps the requests from it.
fn withheld(view: &InstanceView) -> String {
    let id = &view.instance;
    format!(
        "{id} {}: somebody wants it so, until `mainstay undrain {id}` or `mainstay weight {id} 100`; its \
         probe passes",
        view.intake
    )
}

fn serving(view: &InstanceView, service: &ServiceView<'_>) -> String {
    let id = &view.instance;
    let mut text = format!("{id} gets requests: its probe passes");
    if view.intake.weight != Weight::ORDINARY {
        add(
            &mut text,
            format_args!("; somebody gave it weight {}", view.intake.weight),
        );
    }
    if let InstanceState::Healthy = view.state {
        let hold = mainstay_ids::duration::display(service.spec.rollout.hold);
        add(
            &mut text,
            format_args!("; it counts as ready after {hold} without a failure"),
        );
    }
    if view.version != service.version {
        add(
            &mut text,
            format_args!(
                "; it is of {}, and {} is wanted, which replaces it once that is ready",
                view.version, service.version
            ),
        );
    }
    text
}

fn ended(view: &InstanceView, now: Timestamp) -> String {
    let id = &view.instance;
    let exit = view.last_exit.unwrap_or(Exit::Lost);
    let attempt = view.attempt.map_or(0, |attempt| attempt.0);
    let mut text = format!("{id} gets no requests: attempt {attempt} {exit}");
    if let InstanceState::CrashLooping = view.state {
        text.push_str(", and so did those before it, soon after their start (crash loop)");
    }
    if let Some(again) = view.again_at {
        add(&mut text, format_args!("; {}", back_off(now, again)));
    }
    text
}

fn draining(view: &InstanceView, service: &ServiceView<'_>) -> String {
    let id = &view.instance;
    let Some(drain) = &view.drain else {
        return format!("{id} gets no new requests: it finishes those that it has");
    };
    let why = match drain.reason {
        DrainReason::ScaledIn if service.wanted == 0 => "the service is scaled to zero".to_string(),
        DrainReason::Replaced
        | DrainReason::ScaledIn
        | DrainReason::Removed
        | DrainReason::FailedVersion => drain.reason.to_string(),
    };
    let mut text = format!(
        "{id} gets no new requests, it is out of the routes from {} on: {why}",
        drain.removed_in
    );
    if drain.held_up_by.is_empty() {
        text.push_str("; nobody can reach it any more");
    } else {
        let most = mainstay_ids::duration::display(service.spec.drain);
        add(
            &mut text,
            format_args!(
                "; it is stopped when nobody can reach it, or after {most}: {}",
                holders(&drain.held_up_by)
            ),
        );
    }
    text
}

/// Everything that was decided about it, and what made that so.
fn decisions<'a>(id: &'a InstanceId, past: Past<'a>, chain: &mut Chain<'a>) {
    let mut causes = Causes::default();
    let mut reboot = None;
    for event in past.events.iter().copied() {
        if let EventKind::NodeRebooted { .. } = event.kind {
            reboot = Some(event);
        }
        if event.service.as_ref() != Some(&id.service) {
            continue;
        }
        causes.note(event);
        if event.kind.instance() != Some(id) {
            continue;
        }
        chain.decide(event);
        let cause = match &event.kind {
            EventKind::InstanceExited {
                exit: Exit::Rebooted,
                ..
            } => reboot,
            EventKind::InstancePlanned { reason, .. } => match reason {
                PlanReason::Wanted => causes.scaled.max_by_number(causes.rollout),
                PlanReason::Replaces | PlanReason::Before => causes.rollout,
                PlanReason::Scheduled => None,
            },
            EventKind::DrainStarted { reason, .. } => match reason {
                DrainReason::Replaced | DrainReason::FailedVersion => causes.rollout,
                DrainReason::ScaledIn => causes.scaled.max_by_number(causes.rollout),
                DrainReason::Removed => causes.removal,
            },
            _ => None,
        };
        if let Some(cause) = cause {
            chain.decide(cause);
        }
    }
}

/// The newest decisions about the whole service from which those about an instance follow.
#[derive(Default)]
struct Causes<'a> {
    rollout: Option<&'a Event>,
    scaled: Option<&'a Event>,
    removal: Option<&'a Event>,
}

impl<'a> Causes<'a> {
    fn note(&mut self, event: &'a Event) {
        match event.kind {
            EventKind::RolloutStarted { .. }
            | EventKind::RollbackStarted { .. }
            | EventKind::Promoted { .. } => self.rollout = Some(event),
            EventKind::Scaled { .. } => self.scaled = Some(event),
            EventKind::RemovalStarted => self.removal = Some(event),
            _ => {}
        }
    }
}

trait Newer {
    /// The one that was recorded later.
    fn max_by_number(self, other: Self) -> Self;
}

impl Newer for Option<&Event> {
    fn max_by_number(self, other: Self) -> Self {
        let both = self.into_iter().chain(other);
        both.max_by_key(|event| event.number)
    }
}
