//! How a service was at a moment: for a request that was answered by nobody then.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use mainstay_ids::{InstanceId, ServiceName, Timestamp};
use mainstay_model::event::DrainReason;
use mainstay_model::{EventKind, Exit, Topic, Why};

use super::Past;
use super::chain::Chain;

/// How long before the moment a decision may have been made to be told. A request that waits for an
/// instance does so for a second; a crash loop ends and starts each 30 s.
const BEFORE_MS: u64 = 60_000;

/// How long after the moment it may have been made: an end is known some milliseconds after those
/// who had requests there noticed it.
const AFTER_MS: u64 = 2000;

/// How many decisions from around the moment are told: what stood then says the rest.
const AROUND_MAX: usize = 10;

/// What was known of an instance.
enum Known {
    Planned,
    Held(BTreeSet<ServiceName>),
    /// With when and how the attempt before it ended.
    Starting(Option<(Timestamp, Exit)>),
    Passing,
    Failing(Option<String>),
    Ended(Exit),
    Draining(DrainReason),
}

/// What was known of the service at `at`, and what was decided around then.
pub(super) fn of(name: &ServiceName, past: Past<'_>, at: Timestamp) -> Why {
    let mut instances: BTreeMap<&InstanceId, (Timestamp, Known)> = BTreeMap::new();
    let mut wanted = None;
    let mut removing = None;
    let mut chain = Chain::new(AROUND_MAX);
    let mut begins = false;
    for event in past.of(name) {
        let from = at.0.saturating_sub(BEFORE_MS);
        let around = event.at.0 >= from && event.at.0 <= at.0.saturating_add(AFTER_MS);
        if around && tells(&event.kind) {
            chain.decide(event);
        }
        if event.at > at {
            continue;
        }
        match &event.kind {
            EventKind::RolloutStarted {
                from, wanted: all, ..
            } => {
                wanted = Some((event.at, *all));
                begins |= from.is_none();
                removing = None;
            }
            EventKind::Scaled { to, .. } => wanted = Some((event.at, *to)),
            EventKind::RemovalStarted => removing = Some(event.at),
            kind => note(&mut instances, event.at, kind),
        }
    }
    let text = match (removing, wanted) {
        (Some(since), _) => format!("{name} was being taken down since {}", since.of_day()),
        (None, Some((since, 0))) => format!(
            "no instance of {name} was wanted: it was scaled to zero at {}",
            since.of_day()
        ),
        (None, _) => passing(name, &instances),
    };
    chain.stand(at, Topic::State, text);
    chain.close(name.to_string(), past, past.forgotten().filter(|_| !begins))
}

fn note<'a>(
    instances: &mut BTreeMap<&'a InstanceId, (Timestamp, Known)>,
    at: Timestamp,
    kind: &'a EventKind,
) {
    let (instance, known) = match kind {
        EventKind::InstancePlanned { instance, .. } | EventKind::InstanceReleased { instance } => {
            (instance, Known::Planned)
        }
        EventKind::InstanceHeld { instance, needs } => (instance, Known::Held(needs.clone())),
        EventKind::InstanceStarted { instance, .. } => {
            let before = match instances.get(instance) {
                Some((ended, Known::Ended(exit))) => Some((*ended, *exit)),
                Some(_) | None => None,
            };
            (instance, Known::Starting(before))
        }
        EventKind::InstancePassing { instance, .. } | EventKind::InstanceReady { instance } => {
            (instance, Known::Passing)
        }
        EventKind::InstanceFailing {
            instance,
            probe_failure,
            ..
        } => (instance, Known::Failing(probe_failure.clone())),
        EventKind::InstanceExited { instance, exit, .. } => (instance, Known::Ended(*exit)),
        EventKind::DrainStarted {
            instance, reason, ..
        } => (instance, Known::Draining(*reason)),
        EventKind::InstanceStopped { instance, .. }
        | EventKind::BeforeFinished { instance, .. }
        | EventKind::RunFinished { instance, .. } => {
            instances.remove(instance);
            return;
        }
        _ => return,
    };
    instances.insert(instance, (at, known));
}

/// How many of the instances were passing, and why the others were not.
fn passing(name: &ServiceName, instances: &BTreeMap<&InstanceId, (Timestamp, Known)>) -> String {
    let count = instances
        .values()
        .filter(|(_, known)| matches!(known, Known::Passing))
        .count();
    let others: Vec<String> = instances
        .iter()
        .filter_map(|(id, (since, known))| {
            let since = since.of_day();
            Some(match known {
                Known::Passing => return None,
                Known::Planned => format!("{id} was planned at {since} and not started yet"),
                Known::Held(needs) => {
                    let needs: Vec<String> = needs.iter().map(ToString::to_string).collect();
                    format!("{id} was held since {since} for {}", needs.join(", "))
                }
                Known::Starting(None) => {
                    format!("{id} was started at {since} and had passed no probe")
                }
                Known::Starting(Some((ended, exit))) => {
                    let ended = ended.of_day();
                    format!(
                        "{id} {exit} at {ended}, was started again at {since} and had passed no probe"
                    )
                }
                Known::Failing(None) => format!("{id} failed its probes since {since}"),
                Known::Failing(Some(failure)) => {
                    format!("{id} failed its probes since {since}: {failure}")
                }
                Known::Ended(exit) => format!("{id} {exit} at {since}"),
                Known::Draining(reason) => format!("{id} drained since {since}: {reason}"),
            })
        })
        .collect();
    let counted = match (count, instances.len()) {
        (0, _) => format!("no instance of {name} was passing"),
        (1, all) => format!("1 of {all} instances of {name} was passing"),
        (count, all) => format!("{count} of {all} instances of {name} were passing"),
    };
    if others.is_empty() {
        return counted;
    }
    format!("{counted}: {}", others.join("; "))
}

/// Whether a decision tells something about who could get requests.
fn tells(kind: &EventKind) -> bool {
    match kind {
        EventKind::InstancePassing { .. }
        | EventKind::InstanceStarted { .. }
        | EventKind::DrainStarted { .. } => true,
        other => super::service::belongs(other),
    }
}
