//! What a declaration would do: for `plan`, with the same rules as the rollout itself.

use alloc::string::ToString;
use alloc::vec::Vec;

use mainstay_model::service::OnFailure;
use mainstay_model::{
    MemoryOutlook, NeedOutlook, Outlook, RolloutOutlook, ServiceOutlook, ServiceSpec, differences,
};

use super::contract::Change;
use super::declare::{Checked, CheckedService, Services};
use super::service::{Course, Service};
use super::supply::Room;

impl Services {
    /// What a checked declaration would do.
    pub(super) fn outlook(&self, checked: &Checked) -> Outlook {
        let services = checked.services.iter();
        Outlook {
            services: services.map(|one| self.service_outlook(one)).collect(),
            memory: self.memory_outlook(checked),
        }
    }

    fn service_outlook(&self, checked: &CheckedService) -> ServiceOutlook {
        let spec = &checked.spec;
        let known = self.by_name.get(&spec.name);
        let known = known.filter(|service| service.course != Course::Removing);
        let rolls = match checked.change.change {
            Change::Created | Change::Updated => true,
            Change::Scaled | Change::Unchanged => false,
        };
        let ready = self.supply().ready;
        let needs = spec.needs.iter().map(|needed| NeedOutlook {
            service: needed.clone(),
            ready: ready.contains(needed),
        });
        ServiceOutlook {
            from: known.filter(|_| rolls).and_then(Service::rolls_from),
            differences: known.map_or_else(Vec::new, |service| differences(service.spec(), spec)),
            was: known.map(|service| service.wanted),
            wanted: spec.instances,
            rollout: (rolls && spec.schedule.is_none()).then(|| rollout(checked, known)),
            needs: needs.collect(),
            schedule: spec.schedule.as_ref().map(|schedule| schedule.cron.clone()),
        }
    }

    fn memory_outlook(&self, checked: &Checked) -> MemoryOutlook {
        let mut memory = MemoryOutlook {
            most_bytes: 0,
            node_bytes: match self.room {
                Room::Told(node) => Some(node.memory_bytes),
                Room::Unreported | Room::Untold => None,
            },
            unlimited: Vec::new(),
        };
        let declared = |service: &Service| {
            let mut all = checked.services.iter();
            all.any(|one| one.spec.name == service.spec().name)
        };
        for service in self.by_name.values().filter(|service| !declared(service)) {
            add(&mut memory, service.spec(), service.wanted);
        }
        for one in &checked.services {
            let spec = &one.spec;
            let beside = match one.change.change {
                Change::Updated => spec.rollout.step.of(spec.instances).max(canaries(one)),
                Change::Created | Change::Scaled | Change::Unchanged => 0,
            };
            let runs = u32::from(spec.schedule.is_some());
            add(&mut memory, spec, spec.instances + beside + runs);
        }
        memory
    }
}

fn add(memory: &mut MemoryOutlook, spec: &ServiceSpec, instances: u32) {
    match spec.limits.memory_bytes {
        Some(bytes) => {
            let all = bytes.saturating_mul(u64::from(instances));
            memory.most_bytes = memory.most_bytes.saturating_add(all);
        }
        None if instances > 0 => memory.unlimited.push(spec.name.clone()),
        None => {}
    }
}

fn canaries(checked: &CheckedService) -> u32 {
    let spec = &checked.spec;
    let canary = spec.rollout.canary;
    canary.map_or(0, |canary| canary.of(spec.instances).min(spec.instances))
}

fn rollout(checked: &CheckedService, known: Option<&Service>) -> RolloutOutlook {
    let spec = &checked.spec;
    let version = checked.change.version;
    let prepared = known.is_some_and(|service| service.prepared.contains(&version));
    let before = spec.before.iter().filter(|_| !prepared);
    let stable = known.and_then(|service| service.stable);
    let stable = stable.filter(|stable| *stable != version);
    let hold = spec.rollout.hold.as_millis();
    RolloutOutlook {
        before: before.map(ToString::to_string).collect(),
        canaries: stable.map_or(0, |_| canaries(checked)),
        // The first version starts all at once: there is nothing that it could disturb.
        step: match known.and_then(Service::rolls_from) {
            Some(_) => spec.rollout.step.of(spec.instances).min(spec.instances),
            None => spec.instances,
        },
        hold_ms: u64::try_from(hold).unwrap_or(u64::MAX),
        on_failure: match spec.rollout.on_failure {
            OnFailure::Pause => Some(OnFailure::Pause),
            OnFailure::Rollback => stable.map(|_| OnFailure::Rollback),
        },
    }
}
