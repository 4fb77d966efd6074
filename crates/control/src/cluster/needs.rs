//! What must be ready before an instance is started.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use mainstay_ids::ServiceName;
use mainstay_model::event::Wait;
use mainstay_model::{EventKind, ServiceSpec};

use super::contract::{Note, Refusal};
use super::declare::Services;
use super::instance::{Start, Trial};
use super::service::{Course, Service, instance_id};
use super::step::Step;
use super::supply::{Memory, Supply};

impl Services {
    /// Checks that every service that a declaration needs will exist and can be ready, and that none
    /// needs itself, by whatever way round.
    pub(super) fn check_needs(&self, declared: &[ServiceSpec]) -> Result<(), Refusal> {
        let going = |service: &Service| service.course == Course::Removing;
        let kept = self.by_name.iter().filter(|(_, service)| !going(service));
        let mut specs: BTreeMap<&ServiceName, &ServiceSpec> =
            kept.map(|(name, service)| (name, service.spec())).collect();
        specs.extend(declared.iter().map(|spec| (&spec.name, spec)));
        for spec in declared {
            let service = &spec.name;
            for needed in &spec.needs {
                let (service, needed) = (service.clone(), needed.clone());
                match specs.get(&needed) {
                    None => return Err(Refusal::NeedsUnknown { service, needed }),
                    Some(found) if found.schedule.is_some() => {
                        return Err(Refusal::NeedsScheduled { service, needed });
                    }
                    Some(_) => {}
                }
            }
            let mut seen = BTreeSet::new();
            let mut next: Vec<&ServiceName> = spec.needs.iter().collect();
            while let Some(needed) = next.pop() {
                if needed == service {
                    let service = service.clone();
                    return Err(Refusal::NeedsItself { service });
                }
                if seen.insert(needed) {
                    next.extend(specs.get(needed).into_iter().flat_map(|spec| &spec.needs));
                }
            }
        }
        Ok(())
    }

    /// Tells who needs a service that goes.
    pub(super) fn note_needed(&self, service: &ServiceName, notes: &mut Vec<Note>) {
        for (by, other) in &self.by_name {
            if other.course != Course::Removing && other.spec().needs.contains(service) {
                notes.push(Note::StillNeeded {
                    service: service.clone(),
                    by: by.clone(),
                });
            }
        }
    }

    /// Lets those start whose needs are ready now and for whom there is memory. Who waits for
    /// memory is served in the order of names and numbers: those that were planned first.
    pub(super) fn release(&mut self, step: &mut Step<'_>) {
        let mut memory = step.supply.memory;
        for (name, service) in &mut self.by_name {
            service.release(name, &mut memory, step);
        }
    }

    /// The machine was started anew: nothing of any instance runs, and the order of needs holds
    /// again.
    pub(super) fn hold_after_reboot(&mut self, step: &mut Step<'_>) {
        for (name, service) in &mut self.by_name {
            service.hold_after_reboot(name, step);
        }
    }
}

impl Service {
    fn release(&mut self, name: &ServiceName, memory: &mut Memory, step: &mut Step<'_>) {
        for (number, instance) in &mut self.instances {
            let spec = self.versions.get(&instance.version);
            let spec = spec.expect("the versions of instances are kept");
            let before = instance.start;
            let needed = spec.limits.memory_bytes.unwrap_or(0);
            instance.start = match before {
                Start::Allowed => continue,
                // Somebody else started it: it has its memory already. Of one that the last report
                // lacks, as after a reboot, nothing may run.
                Start::Held | Start::Queued
                    if instance.standing.running().is_some() && instance.missed == 0 =>
                {
                    Start::Allowed
                }
                Start::Held if !step.supply.missing(&spec.needs).is_empty() => continue,
                Start::Held | Start::Queued if memory.holds(needed) => Start::Allowed,
                Start::Held | Start::Queued => Start::Queued,
            };
            if instance.start == before {
                continue;
            }
            step.mark_changed();
            if instance.start == Start::Allowed {
                *memory = memory.without(needed);
                instance.trial = Trial::new(step.clock.now, spec);
            }
            if before == Start::Held {
                let instance = instance_id(name, *number);
                step.record(name, EventKind::InstanceReleased { instance });
            }
        }
    }

    fn hold_after_reboot(&mut self, name: &ServiceName, step: &mut Step<'_>) {
        if self.course == Course::Removing {
            return;
        }
        for (number, instance) in &mut self.instances {
            let spec = self.versions.get(&instance.version);
            let spec = spec.expect("the versions of instances are kept");
            if !instance.is_kept() || !instance.serves() || spec.needs.is_empty() {
                continue;
            }
            instance.start = Start::Held;
            let held = EventKind::InstanceHeld {
                instance: instance_id(name, *number),
                needs: spec.needs.clone(),
            };
            step.record(name, held);
        }
    }

    /// What the instances that may not start yet wait for.
    pub(super) fn waits_to_start(&self, supply: &Supply) -> Option<Wait> {
        let waiting = |start: Start| {
            let all = self.instances.values();
            all.filter(move |instance| instance.is_kept() && instance.start == start)
                .map(|instance| self.spec_of(instance.version))
        };
        let needs = waiting(Start::Held).flat_map(|spec| &spec.needs);
        let services: BTreeSet<ServiceName> = needs
            .filter(|needed| !supply.ready.contains(*needed))
            .cloned()
            .collect();
        if !services.is_empty() {
            return Some(Wait::Needs { services });
        }
        let needed = waiting(Start::Queued)
            .filter_map(|spec| spec.limits.memory_bytes)
            .max()?;
        Some(Wait::Room {
            needed,
            free: supply.memory.free(),
        })
    }
}
