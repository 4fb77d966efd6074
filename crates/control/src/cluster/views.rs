//! Read models: what others may know of the machine's state, for the API to show.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use mainstay_ids::{
    Attempt, ConsumerId, Generation, InstanceId, Instant, NodeName, ServiceName, Timestamp, Version,
};
use mainstay_model::event::{DrainReason, HeldUp, RollbackAsked, Wait};
use mainstay_model::report::CrashLooping;
use mainstay_model::routing::Unavailable;
use mainstay_model::{Cron, Exit, InstanceState, Intake, Phase, ServiceSpec, ServiceState};

use super::consumers::Presence;
use super::instance::{Instance, Life, Standing, Start};
use super::service::{Course, Gate, Service, instance_id};
use super::supply::Supply;
use super::{Control, Purpose};

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView<'a> {
    /// Its name.
    pub service: &'a ServiceName,
    /// What the wanted version says.
    pub spec: &'a ServiceSpec,
    /// The version that is wanted.
    pub version: Version,
    /// The last version that was wholly healthy.
    pub stable: Option<Version>,
    /// The wanted number of instances.
    pub wanted: u32,
    /// How many instances of the wanted version are ready.
    pub ready: u32,
    /// How many instances that are to run get no requests because somebody said so.
    pub withheld: u32,
    /// What is going on.
    pub state: ServiceState,
    /// Its service address.
    pub address: Option<SocketAddr>,
    /// Why it has no endpoint, if it has none.
    pub unavailable: Option<Unavailable>,
    /// Its versions that can be gone back to, the oldest first.
    pub versions: Vec<Version>,
    /// What its rollout waits for, if one is under way.
    pub wait: Option<Wait>,
    /// Where it is in its schedule, if it has one.
    pub schedule: Option<ScheduleView>,
}

/// Where a service is in its schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleView {
    /// The schedule.
    pub cron: Cron,
    /// When it runs next; `None`: that is not decided yet.
    pub next: Option<Timestamp>,
    /// The last run that has ended.
    pub last: Option<LastRun>,
}

/// A run of a schedule that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRun {
    /// Which instance it was.
    pub instance: InstanceId,
    /// How it ended; `None`: it was not started.
    pub exit: Option<Exit>,
    /// When that was known.
    pub ended: Timestamp,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// Which.
    pub instance: InstanceId,
    /// Its version.
    pub version: Version,
    /// What it is doing.
    pub state: InstanceState,
    /// Which start of it.
    pub attempt: Option<Attempt>,
    /// Its process, while it has one.
    pub pid: Option<u32>,
    /// Where it listens, while it does.
    pub address: Option<SocketAddr>,
    /// When this attempt was started.
    pub since: Option<Timestamp>,
    /// How the attempt before this one ended.
    pub last_exit: Option<Exit>,
    /// When the next attempt is due, while none runs.
    pub again_at: Option<Timestamp>,
    /// Why its last probe failed, if it did.
    pub probe_failure: Option<String>,
    /// What has to be there before it starts, if that is not: services or memory.
    pub wait: Option<Wait>,
    /// Whether it gets requests, and how many, as an operator wants it.
    pub intake: Intake,
    /// Why it takes no new requests, while it drains.
    pub drain: Option<DrainView>,
    /// Bytes of output that were dropped because they could not be written.
    pub log_dropped: u64,
}

/// A drain under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainView {
    /// Why.
    pub reason: DrainReason,
    /// The first generation of the routes without the instance.
    pub removed_in: Generation,
    /// Who could still reach it.
    pub held_up_by: Vec<HeldUp>,
}

/// One follower of the routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerView {
    /// Who.
    pub consumer: ConsumerId,
    /// Whether it is there.
    pub presence: Presence,
    /// The newest generation that it acknowledged.
    pub acknowledged: Option<Generation>,
    /// How long ago it was last heard.
    pub silent: Duration,
    /// The service addresses on which it cannot listen.
    pub unbound: Vec<SocketAddr>,
}

/// The node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub node: NodeName,
    /// How long ago its agent last reported; `None`: not since the control centre's start.
    pub silent: Option<Duration>,
    /// How many instances it has.
    pub instances: u32,
}

impl Control {
    /// The services by name.
    pub fn services(&self) -> impl Iterator<Item = ServiceView<'_>> {
        let supply = self.services.supply();
        let services = self.services.by_name.iter();
        services.map(move |(name, service)| service.view(name, self.purpose, &supply))
    }

    /// One service.
    pub fn service(&self, name: &ServiceName) -> Option<ServiceView<'_>> {
        let (name, service) = self.services.by_name.get_key_value(name)?;
        let supply = self.services.supply();
        Some(service.view(name, self.purpose, &supply))
    }

    /// The instances by id.
    pub fn instances(&self) -> impl Iterator<Item = InstanceView> {
        let supply = self.services.supply();
        let services = self.services.by_name.iter();
        services.flat_map(move |(name, service)| self.instances_of(name, service, &supply))
    }

    fn instances_of(
        &self,
        name: &ServiceName,
        service: &Service,
        supply: &Supply,
    ) -> Vec<InstanceView> {
        let instances = service.instances.iter();
        let view = |(number, instance): (&u64, &Instance)| {
            let id = instance_id(name, *number);
            InstanceView {
                wait: Self::wait_to_start(service.spec_of(instance.version), instance, supply),
                drain: match instance.life {
                    Life::Draining(drain) => Some(DrainView {
                        reason: drain.reason,
                        removed_in: drain.removed_in,
                        held_up_by: self.consumers.holding_up(&id, drain.removed_in),
                    }),
                    Life::Kept | Life::Stopping { .. } => None,
                },
                ..instance.view(id)
            }
        };
        instances.map(view).collect()
    }

    fn wait_to_start(spec: &ServiceSpec, instance: &Instance, supply: &Supply) -> Option<Wait> {
        match instance.start {
            Start::Allowed => None,
            Start::Held => Some(Wait::Needs {
                services: supply.missing(&spec.needs),
            }),
            Start::Queued => Some(Wait::Room {
                needed: spec.limits.memory_bytes.unwrap_or(0),
                free: supply.memory.free(),
            }),
        }
    }

    /// Everything that a question about a service or one of its instances may look at.
    pub(crate) fn known_of<'a>(
        &'a self,
        name: &ServiceName,
    ) -> Option<(ServiceView<'a>, Vec<InstanceView>)> {
        let supply = self.services.supply();
        let (name, service) = self.services.by_name.get_key_value(name)?;
        let instances = self.instances_of(name, service, &supply);
        Some((service.view(name, self.purpose, &supply), instances))
    }

    /// Who follows the routes, by name.
    pub fn consumers(&self, now: Instant) -> impl Iterator<Item = ConsumerView> {
        self.consumers.shown().map(move |shown| ConsumerView {
            consumer: shown.consumer,
            presence: shown.presence,
            acknowledged: shown.acknowledged,
            silent: now.since(shown.heard),
            unbound: shown.unbound,
        })
    }

    /// The node.
    pub fn node(&self, now: Instant) -> NodeView {
        let services = self.services.by_name.values();
        let instances: usize = services.map(|service| service.instances.len()).sum();
        NodeView {
            node: self.node.clone(),
            silent: self.agent.reported.map(|reported| now.since(reported)),
            instances: u32::try_from(instances).unwrap_or(u32::MAX),
        }
    }
}

impl Service {
    fn view<'a>(
        &'a self,
        name: &'a ServiceName,
        purpose: Purpose,
        supply: &Supply,
    ) -> ServiceView<'a> {
        let serves = |(number, instance): (&u64, &Instance)| {
            instance.endpoint(instance_id(name, *number)).is_some()
        };
        let available = self.instances.iter().any(serves);
        ServiceView {
            service: name,
            spec: self.spec(),
            version: self.current,
            stable: self.stable,
            wanted: self.wanted,
            ready: u32::try_from(self.ready()).unwrap_or(u32::MAX),
            withheld: u32::try_from(self.withheld()).unwrap_or(u32::MAX),
            state: self.state(),
            address: self.address(),
            unavailable: if !available {
                Some(self.unavailable(purpose))
            } else if self.all_withheld() {
                Some(Unavailable::Drained)
            } else {
                None
            },
            versions: self.versions.keys().copied().collect(),
            wait: self.wait(supply),
            schedule: self.spec().schedule.as_ref().map(|schedule| ScheduleView {
                cron: schedule.cron.clone(),
                next: self.timetable.next_at,
                last: self.timetable.last.map(|last| LastRun {
                    instance: instance_id(name, last.number),
                    exit: last.exit,
                    ended: last.at,
                }),
            }),
        }
    }

    fn state(&self) -> ServiceState {
        match &self.course {
            Course::Settled if self.is_whole() => ServiceState::Steady,
            Course::Settled => ServiceState::Degraded,
            Course::RollingOut(rollout) if rollout.gate == Gate::Paused => ServiceState::Paused,
            Course::RollingOut(_) if self.awaits_promotion() => ServiceState::AwaitsPromotion,
            Course::RollingOut(rollout) => match rollout.back {
                Some(RollbackAsked::ByFailure | RollbackAsked::ByUser) => ServiceState::RollingBack,
                None => ServiceState::RollingOut,
            },
            Course::Failed { .. } => ServiceState::Failed,
            Course::Removing => ServiceState::Removing,
        }
    }
}

impl Instance {
    fn view(&self, instance: InstanceId) -> InstanceView {
        let seen = self.seen.as_ref();
        let (pid, address, since, ended) = match seen.map(|seen| &seen.phase) {
            Some(Phase::Running {
                pid,
                address,
                since,
                ..
            }) => (Some(*pid), Some(*address), Some(*since), None),
            Some(Phase::Stopping { pid }) => (Some(*pid), None, None, None),
            Some(Phase::BackingOff { exit, .. }) => (None, None, None, Some(*exit)),
            Some(Phase::Stopped { exit }) => (None, None, None, *exit),
            None => (None, None, None, None),
        };
        InstanceView {
            instance,
            version: self.version,
            state: self.state(),
            attempt: self.standing.attempt(),
            pid,
            address,
            since,
            last_exit: ended.or(seen.and_then(|seen| seen.last_exit)),
            again_at: match seen.map(|seen| &seen.phase) {
                Some(Phase::BackingOff { until, .. }) => Some(*until),
                Some(Phase::Running { .. } | Phase::Stopping { .. } | Phase::Stopped { .. })
                | None => None,
            },
            wait: None,
            intake: self.intake,
            drain: None,
            probe_failure: seen.and_then(|seen| seen.probe_failure.clone()),
            log_dropped: seen.map_or(0, |seen| seen.log_dropped),
        }
    }

    fn state(&self) -> InstanceState {
        match (self.life, self.standing) {
            (Life::Draining(_), _) => InstanceState::Draining,
            (Life::Stopping { .. }, _) => InstanceState::Stopping,
            (Life::Kept, Standing::Planned | Standing::Ended { .. })
                if self.start != Start::Allowed =>
            {
                InstanceState::Held
            }
            (Life::Kept, Standing::Planned) => InstanceState::Planned,
            (Life::Kept, Standing::Starting { .. }) if !self.serves() => InstanceState::Running,
            (Life::Kept, Standing::Starting { .. }) => InstanceState::Starting,
            (Life::Kept, Standing::Passing { .. }) => InstanceState::Healthy,
            (Life::Kept, Standing::Ready { .. }) => InstanceState::Ready,
            (Life::Kept, Standing::Failing { .. }) => InstanceState::Failing,
            (Life::Kept, Standing::Ended { .. }) => match self.crash_looping {
                CrashLooping::No => InstanceState::BackingOff,
                CrashLooping::Yes => InstanceState::CrashLooping,
            },
        }
    }
}
