//! Whether we take away what serves, and whether what is called ready is ready.

use std::collections::BTreeSet;

use mainstay_ids::{InstanceId, ServiceName};
use mainstay_model::{Event, EventKind, ServiceState};

use crate::broken::Promise;
use crate::glance::{Glance, Shown};
use crate::told::Health;
use crate::world::World;

impl World {
    /// Whoever was of use and is drained must not be missed.
    pub(crate) fn judge_serving(&mut self, before: &Glance, events: &[Event]) {
        let after = &self.judge.last;
        let lost: BTreeSet<&InstanceId> = events
            .iter()
            .filter_map(|event| match &event.kind {
                EventKind::InstanceExited { instance, .. }
                | EventKind::InstanceFailing { instance, .. } => Some(instance),
                _ => None,
            })
            .collect();
        let mut broken = Vec::new();
        for (service, shown) in &after.services {
            if shown.state == ServiceState::Removing || self.stops_all {
                continue;
            }
            let (wanted, name) = (shown.wanted as usize, service);
            let of = |glance: &Glance, is: &dyn Fn(&Shown) -> bool| -> Vec<InstanceId> {
                let kept = glance.kept(name).filter(|(_, shown)| is(shown));
                kept.map(|(id, _)| id.clone()).collect()
            };
            // Whoever an operator keeps requests from is not missed, and stands in for another one.
            for (promise, stands) in [
                (Promise::Serves, &Shown::is_ready as &dyn Fn(&Shown) -> bool),
                (Promise::KeepsServing, &Shown::serves),
                (Promise::LeavesOne, &Shown::takes),
            ] {
                let mut useful = of(before, &|one| stands(one) && one.takes());
                useful.retain(|id| !lost.contains(id));
                let taken = useful.iter().any(|id| drained(after, id));
                let left = of(after, stands).len();
                let enough = match promise {
                    Promise::Serves => wanted,
                    Promise::LeavesOne => wanted.min(useful.len()).min(1),
                    _ => wanted.min(useful.len()),
                };
                if taken && left < enough {
                    let what = format!("{service} has {left} left of {enough} after a drain");
                    broken.push((promise, what));
                }
            }
        }
        for (promise, what) in broken {
            self.breaks(promise, what);
        }
    }

    /// Ready only after the minimum healthy time; and what was told has the state that it says.
    pub(crate) fn judge_readiness(&mut self) {
        let mut broken = Vec::new();
        for (id, shown) in &self.judge.last.instances {
            let word = self.judge.told.words.get(id);
            if !shown.serves() {
                continue;
            }
            let hold = self.hold_ms(&id.service, shown);
            let since = match word.map(|word| word.health) {
                Some(Health::Passing { since }) => Some(since),
                Some(Health::Starting | Health::Failing | Health::Ended) | None => None,
            };
            let fits = match since {
                Some(since) => !shown.is_ready() || since + hold <= self.now_ms,
                None => false,
            };
            if !fits {
                broken.push(format!(
                    "{id} is {:?}, and was told as {word:?}",
                    shown.state
                ));
            }
        }
        for what in broken {
            self.breaks(Promise::ReadyIsTrue, what);
        }
    }

    pub(crate) fn hold_ms(&self, service: &ServiceName, shown: &Shown) -> u64 {
        let content = self.judge.content(service, shown.version);
        content.map_or(0, |spec| spec.rollout.hold.as_millis() as u64)
    }

    /// At most `step` more than wanted, and at most `step` unready ones beside older ones.
    pub(crate) fn judge_step(&mut self, before: &Glance) {
        let after = &self.judge.last;
        let mut broken = Vec::new();
        for (service, shown) in &after.services {
            if shown.state == ServiceState::Removing || self.stops_all {
                continue;
            }
            let room = shown.wanted + shown.step.max(shown.canaries);
            let kept = after.kept(service).count() as u32;
            if kept > room && self.control.may_publish() {
                broken.push(format!("{service} keeps {kept}, {room} is the most"));
            }
            let new = |(_, one): &(&InstanceId, &Shown)| one.version == shown.version;
            let started = after
                .kept(service)
                .any(|(id, _)| !before.instances.contains_key(id));
            let older = after
                .kept(service)
                .any(|(_, one)| one.version != shown.version);
            let unready = after.kept(service).filter(new);
            let unready = unready.filter(|(_, one)| !one.is_ready()).count() as u32;
            let rolls = matches!(
                shown.state,
                ServiceState::RollingOut | ServiceState::RollingBack
            );
            if started && older && rolls && unready > shown.step.max(shown.canaries) {
                let step = shown.step;
                broken.push(format!(
                    "{service} starts {unready} at a time, {step} is the most"
                ));
            }
        }
        for what in broken {
            self.breaks(Promise::WithinStep, what);
        }
    }
}

fn drained(after: &Glance, id: &InstanceId) -> bool {
    after
        .instances
        .get(id)
        .is_some_and(|shown| !shown.is_kept())
}
