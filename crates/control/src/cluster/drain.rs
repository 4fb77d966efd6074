//! The acknowledged drain: out of the routes, then told to stop once nobody can reach it any more.

use alloc::vec::Vec;

use mainstay_ids::ServiceName;
use mainstay_model::EventKind;
use mainstay_model::event::{DrainOutcome, DrainReason};

use super::contract::AcknowledgedDrain;
use super::instance::{Drain, Exposure, Instance, Life};
use super::service::{Service, instance_id};
use super::step::Step;

impl Service {
    /// Takes kept instances out of the routes, to be stopped.
    pub(super) fn drain(
        &mut self,
        name: &ServiceName,
        numbers: &[u64],
        reason: DrainReason,
        step: &mut Step<'_>,
    ) {
        for number in numbers {
            let wanted = self.wanted;
            let Some(instance) = self.instances.get_mut(number) else {
                continue;
            };
            // It may have left the routes before, by failing. To wait for a generation that changes
            // nothing would be to wait for ever: such a one is not published.
            let removed_in = match (instance.exposure, instance.doubted) {
                (Exposure::Listed { .. }, _) | (Exposure::Never, None) => step.upcoming,
                (Exposure::Never, Some(doubted)) => doubted,
                (Exposure::Unlisted { since, .. }, _) => since,
            };
            let spec = self.versions.get(&instance.version);
            let time = spec.map_or_else(Default::default, |spec| spec.drain);
            instance.life = Life::Draining(Drain {
                removed_in,
                since: step.clock.now,
                deadline: step.clock.now.after(time),
                reason,
            });
            let ready = self.kept().filter(|(_, other)| other.is_ready()).count();
            let started = EventKind::DrainStarted {
                instance: instance_id(name, *number),
                generation: removed_in,
                reason,
                ready: u32::try_from(ready).unwrap_or(u32::MAX),
                wanted,
            };
            step.record(name, started);
        }
    }

    /// Tells those to stop whose drain is over.
    pub(super) fn finish_drains(&mut self, name: &ServiceName, step: &mut Step<'_>) {
        for (number, instance) in &mut self.instances {
            let Life::Draining(drain) = instance.life else {
                continue;
            };
            let id = instance_id(name, *number);
            // The epoch before may have listed another attempt after that, without our knowledge.
            let removed_in = instance.doubted.unwrap_or_default().max(drain.removed_in);
            let released = step.consumers.released(&id, removed_in);
            let Some(outcome) = outcome(instance, drain, released, step) else {
                continue;
            };
            instance.life = Life::Stopping {
                told_in: step.upcoming,
            };
            let waited = step.clock.now.since(drain.since);
            let held_up_by = match outcome {
                DrainOutcome::TimeOver => step.consumers.holding_up(&id, drain.removed_in),
                DrainOutcome::Acknowledged | DrainOutcome::Unreachable => Vec::new(),
            };
            let finished = EventKind::DrainFinished {
                instance: id,
                waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
                outcome,
                held_up_by,
            };
            step.record(name, finished);
        }
    }
}

/// How the drain ended; `None`: it goes on.
fn outcome(
    instance: &Instance,
    drain: Drain,
    released: bool,
    step: &Step<'_>,
) -> Option<DrainOutcome> {
    if !instance.reachable() {
        return Some(DrainOutcome::Unreachable);
    }
    if released {
        return Some(DrainOutcome::Acknowledged);
    }
    let over = match step.acknowledged_drain {
        AcknowledgedDrain::On => drain.deadline <= step.clock.now,
        AcknowledgedDrain::Off => true,
    };
    over.then_some(DrainOutcome::TimeOver)
}
