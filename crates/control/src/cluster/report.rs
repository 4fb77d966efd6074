//! What an agent's report changes. Reports are whole states: the newest one says all, and what an
//! earlier one said does not matter.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use mainstay_ids::{Generation, Incarnation, InstanceId, Instant, ServiceName, Version};
use mainstay_model::{EventKind, Exit, InstanceReport, NodeReport, Phase};

use super::declare::Services;
use super::instance::Life;
use super::service::Service;
use super::step::Step;

/// So many reports in a row must lack an instance before it is taken for lost. A report that was
/// overtaken on its way by a newer one must not make a rollout fail.
const REPORTS_MISSED_MAX: u32 = 2;

/// How long an instance that we do not know may finish its requests; nobody told us its own time.
const STRANGER_DRAIN: Duration = Duration::from_secs(30);

/// What is known of the node's agent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Agent {
    incarnation: Option<Incarnation>,
    pub(super) reported: Option<Instant>,
}

impl Agent {
    /// Whether a report is to be believed: not one of an agent that is dead.
    pub(super) fn accept(&mut self, report: &NodeReport, now: Instant) -> Accepted {
        if self.incarnation > Some(report.incarnation) {
            return Accepted::Stale;
        }
        self.incarnation = Some(report.incarnation);
        self.reported = Some(now);
        Accepted::Fresh
    }
}

/// Whether a report is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    Fresh,
    Stale,
}

/// Instances that the agent has and we do not know, as after a restore from an older backup. They
/// are stopped like any other: when nobody can reach them.
#[derive(Debug, Clone, Default)]
pub(super) struct Strangers(BTreeMap<InstanceId, Stranger>);

#[derive(Debug, Clone, Copy)]
struct Stranger {
    version: Version,
    life: StrangerLife,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StrangerLife {
    /// It is in no routing state of ours from this one on.
    Draining {
        unlisted_in: Generation,
        deadline: Instant,
    },
    Stopping,
}

impl Strangers {
    /// Takes in which unknown instances there are.
    pub(super) fn observe(
        &mut self,
        report: &NodeReport,
        services: &mut Services,
        step: &mut Step<'_>,
    ) {
        let mut here = BTreeMap::new();
        for seen in &report.instances {
            let id = &seen.instance;
            if services.knows(id) || matches!(seen.phase, Phase::Stopped { .. }) {
                continue;
            }
            services.keep_number_unused(id);
            let life = match (self.0.get(id), &seen.phase) {
                (Some(known), _) => known.life,
                (None, Phase::Running { .. }) => StrangerLife::Draining {
                    unlisted_in: step.routed_in,
                    deadline: step.clock.now.after(STRANGER_DRAIN),
                },
                (
                    None,
                    Phase::BackingOff { .. } | Phase::Stopping { .. } | Phase::Stopped { .. },
                ) => StrangerLife::Stopping,
            };
            let version = seen.version;
            here.insert(id.clone(), Stranger { version, life });
        }
        let changed = here.len() != self.0.len();
        self.0 = here;
        if changed {
            step.mark_changed();
        }
    }

    /// Tells those to stop that nobody can reach.
    pub(super) fn finish_drains(&mut self, step: &mut Step<'_>) {
        for (id, stranger) in &mut self.0 {
            let StrangerLife::Draining {
                unlisted_in,
                deadline,
            } = stranger.life
            else {
                continue;
            };
            if deadline <= step.clock.now || step.consumers.released(id, unlisted_in) {
                stranger.life = StrangerLife::Stopping;
                step.mark_changed();
            }
        }
    }

    pub(super) fn to_stop(&self) -> impl Iterator<Item = (&InstanceId, Version)> {
        let stopping = |stranger: &Stranger| stranger.life == StrangerLife::Stopping;
        let all = self.0.iter();
        all.filter(move |(_, stranger)| stopping(stranger))
            .map(|(id, stranger)| (id, stranger.version))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.0.values().filter_map(|stranger| match stranger.life {
            StrangerLife::Draining { deadline, .. } => Some(deadline),
            StrangerLife::Stopping => None,
        });
        deadlines.min()
    }
}

impl Services {
    /// Takes in what the agent says of the instances that we know.
    pub(super) fn observe(&mut self, report: &NodeReport, step: &mut Step<'_>) {
        for seen in &report.instances {
            if let Some(service) = self.by_name.get_mut(&seen.instance.service) {
                service.observe(seen, step);
            }
        }
        let named: BTreeSet<&InstanceId> =
            report.instances.iter().map(|seen| &seen.instance).collect();
        for (name, service) in &mut self.by_name {
            service.miss(name, report.plan, &named, step);
        }
    }

    pub(super) fn knows(&self, id: &InstanceId) -> bool {
        let service = self.by_name.get(&id.service);
        service.is_some_and(|service| service.instances.contains_key(&id.number))
    }

    /// An id means one copy for ever, even one that we have forgotten.
    fn keep_number_unused(&mut self, id: &InstanceId) {
        let next = id.number.saturating_add(1);
        let next_unused = match self.by_name.get_mut(&id.service) {
            Some(service) => &mut service.next_instance,
            None => self.retired.entry(id.service.clone()).or_insert(next),
        };
        *next_unused = next.max(*next_unused);
    }
}

impl Service {
    fn observe(&mut self, seen: &InstanceReport, step: &mut Step<'_>) {
        let name = &seen.instance.service;
        let number = seen.instance.number;
        let Some(instance) = self.instances.get_mut(&number) else {
            return;
        };
        match &seen.phase {
            // It was adopted by an agent that had no plan yet. It is not run a second time.
            Phase::BackingOff { exit, .. } if !instance.serves() => {
                instance.seen = Some(seen.clone());
                instance.missed = 0;
                self.conclude_once(name, number, Some(*exit), step);
            }
            Phase::Running { .. } | Phase::BackingOff { .. } => {
                let spec = self.versions.get(&instance.version);
                let spec = spec.expect("the versions of instances are kept");
                if let Some(setback) = instance.observe(seen, spec, step) {
                    self.set_back(name, number, setback, step);
                }
            }
            Phase::Stopping { .. } => {
                instance.seen = Some(seen.clone());
                instance.missed = 0;
                match instance.life {
                    Life::Stopping { .. } => {}
                    // Only a lost state can have told it so. It cannot be held up any more.
                    Life::Kept | Life::Draining(_) => {
                        let told_in = step.upcoming;
                        instance.life = Life::Stopping { told_in };
                        step.mark_changed();
                    }
                }
            }
            Phase::Stopped { exit } if !instance.serves() => {
                self.ended_once(name, number, *exit, step);
            }
            Phase::Stopped { exit } => {
                self.instances.remove(&number);
                let stopped = EventKind::InstanceStopped {
                    instance: seen.instance.clone(),
                    exit: *exit,
                };
                step.record(name, stopped);
            }
        }
    }

    /// Looks at the instances that a report lacks.
    fn miss(
        &mut self,
        name: &ServiceName,
        plan: Option<Generation>,
        named: &BTreeSet<&InstanceId>,
        step: &mut Step<'_>,
    ) {
        let mut setbacks = alloc::vec::Vec::new();
        let mut lost_once = alloc::vec::Vec::new();
        self.instances.retain(|number, instance| {
            let id = super::service::instance_id(name, *number);
            if named.contains(&id) {
                return true;
            }
            let expected = match instance.life {
                Life::Kept | Life::Draining(_) => instance.standing.attempt().is_some(),
                Life::Stopping { told_in } => plan >= Some(told_in),
            };
            instance.missed += u32::from(expected);
            if instance.missed < REPORTS_MISSED_MAX {
                return true;
            }
            instance.missed = 0;
            match instance.life {
                // Nobody knows how far it came, so it is not run a second time.
                Life::Kept if !instance.serves() => {
                    lost_once.push(*number);
                    true
                }
                Life::Kept | Life::Draining(_) => {
                    let setback = instance.lost(&id, step);
                    setbacks.extend(setback.map(|setback| (*number, setback)));
                    true
                }
                Life::Stopping { .. } => {
                    let exit = None;
                    step.record(name, EventKind::InstanceStopped { instance: id, exit });
                    false
                }
            }
        });
        for (number, setback) in setbacks {
            self.set_back(name, number, setback, step);
        }
        for number in lost_once {
            self.conclude_once(name, number, Some(Exit::Lost), step);
        }
    }
}
