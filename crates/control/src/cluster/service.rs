//! One service: its versions, what is wanted, and the course of getting there.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::SocketAddr;

use mainstay_ids::{InstanceId, Instant, ServiceName, Timestamp, Version};
use mainstay_model::event::{PlanReason, RollbackAsked, RolloutFailure, Wait};
use mainstay_model::report::CrashLooping;
use mainstay_model::routing::{Split, Unavailable};
use mainstay_model::service::AddressSpec;
use mainstay_model::{EventKind, Exit, ServiceSpec};

use super::Purpose;
use super::instance::{Duty, Instance, Life, Standing, Start, Trial};
use super::step::Step;

/// How many versions are kept to go back to: more than anybody remembers the meaning of. The
/// current one, the stable one and those of running instances are kept beyond it.
const VERSIONS_KEPT: usize = 10;

/// A service.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) versions: BTreeMap<Version, ServiceSpec>,
    /// The version that is wanted.
    pub(super) current: Version,
    /// The last version of which all wanted instances were ready.
    pub(super) stable: Option<Version>,
    /// All kept versions that were stable once.
    pub(super) proven: BTreeSet<Version>,
    pub(super) wanted: u32,
    /// The address picked for `auto`: once picked it stays, whatever versions come and go.
    pub(super) auto_address: Option<SocketAddr>,
    pub(super) next_instance: u64,
    pub(super) course: Course,
    pub(super) instances: BTreeMap<u64, Instance>,
    /// The versions before which what runs before them has come to a good end.
    pub(super) prepared: BTreeSet<Version>,
    pub(super) timetable: Timetable,
}

/// Where a service with a schedule is in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Timetable {
    /// Times up to this one are done with; `None`: it never had a schedule.
    pub(super) done: Option<Timestamp>,
    /// When the next time comes, by the time of day of the last input.
    pub(super) next: Option<Instant>,
    /// The same, for people.
    pub(super) next_at: Option<Timestamp>,
    pub(super) last: Option<Ended>,
}

/// The last run that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Ended {
    pub(super) number: u64,
    /// `None`: it was not started.
    pub(super) exit: Option<Exit>,
    pub(super) at: Timestamp,
}

/// What is going on with a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Course {
    /// The last rollout has ended well.
    Settled,
    RollingOut(Rollout),
    /// The last rollout has failed and stays as it is.
    Failed {
        started: Timestamp,
    },
    Removing,
}

/// A rollout under way, of the service's current version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rollout {
    /// Whether it goes back, and on whose word.
    pub(super) back: Option<RollbackAsked>,
    /// Instances from this number on were planned by it.
    pub(super) first_instance: u64,
    pub(super) started: Timestamp,
    /// Why it has failed, until that is acted upon.
    pub(super) failure: Option<RolloutFailure>,
    pub(super) stage: Stage,
    pub(super) gate: Gate,
    /// When it has failed unless something goes on before.
    pub(super) progress_by: Instant,
    /// What it waits for, as far as that was told.
    pub(super) told: Option<Wait>,
}

/// How far a rollout is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// What runs once before it has not come to a good end yet.
    Before,
    /// A few of the new version run beside all of the old, until somebody promotes them.
    Canary,
    /// The new version replaces the old.
    #[default]
    Replacing,
}

/// Whether a rollout goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Gate {
    #[default]
    Open,
    /// Somebody stopped it where it is. Nothing of it is decided: not even that it failed.
    Paused,
}

impl Service {
    /// A service without versions' history. Its rollout is begun by the caller.
    pub(super) fn new(spec: ServiceSpec, next_instance: u64) -> Self {
        Self {
            wanted: spec.instances,
            versions: BTreeMap::from([(Version::FIRST, spec)]),
            current: Version::FIRST,
            stable: None,
            proven: BTreeSet::new(),
            auto_address: None,
            next_instance,
            course: Course::Settled,
            instances: BTreeMap::new(),
            prepared: BTreeSet::new(),
            timetable: Timetable::default(),
        }
    }

    /// What the wanted version says.
    pub(super) fn spec(&self) -> &ServiceSpec {
        self.spec_of(self.current)
    }

    pub(super) fn spec_of(&self, version: Version) -> &ServiceSpec {
        let spec = self.versions.get(&version);
        spec.expect("the versions of the service and of its instances are kept")
    }

    /// Adds a version of which the content is new.
    pub(super) fn add_version(&mut self, spec: ServiceSpec) -> Version {
        let last = self.versions.last_key_value();
        let version = last.map_or(Version::FIRST, |(last, _)| last.next());
        self.versions.insert(version, spec);
        version
    }

    /// The address under which the wanted version is reached.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self.spec().address? {
            AddressSpec::Auto => self.auto_address,
            AddressSpec::Fixed(address) => Some(address),
        }
    }

    /// How many instances beyond the wanted ones there may be, and how many new ones that are not
    /// ready yet.
    pub(super) fn step(&self) -> usize {
        count(self.spec().rollout.step.of(self.wanted))
    }

    /// How many instances beyond the wanted ones there may be.
    pub(super) fn surge(&self) -> usize {
        self.step().max(self.canaries())
    }

    pub(super) fn wanted(&self) -> usize {
        count(self.wanted)
    }

    /// How many of the wanted version there are to be for now.
    pub(super) fn target(&self) -> usize {
        match self.stage() {
            Some(Stage::Canary) => self.canaries(),
            Some(Stage::Before | Stage::Replacing) | None => self.wanted(),
        }
    }

    /// How many of a new version run beside all of the old.
    pub(super) fn canaries(&self) -> usize {
        let canary = self.spec().rollout.canary;
        count(canary.map_or(0, |canary| canary.of(self.wanted).min(self.wanted)))
    }

    /// Which requests a version on trial gets, if its specification says so.
    pub(super) fn split(&self) -> Option<Split> {
        let version = self.on_trial()?;
        let traffic = self.spec_of(version).traffic.canary.clone()?;
        Some(Split { version, traffic })
    }

    /// The version of which a few instances run beside those of the stable one, and which nobody
    /// has promoted. It stays on trial until they are gone: what failed as a canary must not get
    /// more requests for that.
    fn on_trial(&self) -> Option<Version> {
        let stable = self.stable?;
        let left_over = || {
            let kept = self.kept().map(|(_, instance)| instance.version);
            kept.filter(|version| *version != stable).max()
        };
        let unpromoted = |version: &Version| {
            let canary = self.spec_of(*version).rollout.canary;
            let most = canary.map_or(0, |canary| canary.of(self.wanted).min(self.wanted));
            let kept = self.kept().filter(|(_, one)| one.version == *version);
            kept.count() <= count(most)
        };
        let version = match &self.course {
            Course::RollingOut(rollout) => match (rollout.stage, rollout.back) {
                (Stage::Canary, _) => Some(self.current),
                (Stage::Before, _) | (Stage::Replacing, Some(_)) => left_over().filter(unpromoted),
                (Stage::Replacing, None) => None,
            },
            Course::Failed { .. } => left_over().filter(unpromoted),
            Course::Settled | Course::Removing => None,
        };
        version.filter(|version| *version != stable)
    }

    pub(super) fn stage(&self) -> Option<Stage> {
        match &self.course {
            Course::RollingOut(rollout) => Some(rollout.stage),
            Course::Settled | Course::Failed { .. } | Course::Removing => None,
        }
    }

    /// The instances that serve and are to go on.
    pub(super) fn kept(&self) -> impl Iterator<Item = (u64, &Instance)> {
        let all = self.instances.iter();
        all.filter(|(_, instance)| instance.is_kept() && instance.serves())
            .map(|(number, instance)| (*number, instance))
    }

    /// The kept instances for which `belongs` holds, the most useful first, then the oldest.
    pub(super) fn ranked(&self, belongs: impl Fn(&Instance) -> bool) -> Vec<u64> {
        let mut numbers: Vec<(Reverse<u32>, u64)> = self
            .kept()
            .filter(|(_, instance)| belongs(instance))
            .map(|(number, instance)| (Reverse(instance.usefulness()), number))
            .collect();
        numbers.sort_unstable();
        numbers.into_iter().map(|(_, number)| number).collect()
    }

    pub(super) fn is_ready(&self, number: u64) -> bool {
        self.instances.get(&number).is_some_and(Instance::is_ready)
    }

    /// How many instances of the wanted version are ready.
    pub(super) fn ready(&self) -> usize {
        let current = self.current;
        self.kept()
            .filter(|(_, instance)| instance.version == current && instance.is_ready())
            .count()
    }

    /// Whether all that is wanted is ready, of the wanted version, and nothing else is left.
    pub(super) fn is_whole(&self) -> bool {
        self.kept().count() == self.wanted() && self.ready() == self.wanted()
    }

    /// Makes `to` the wanted version. Its instances that are there already have the healthy
    /// deadline before them anew.
    pub(super) fn begin_rollout(
        &mut self,
        to: Version,
        back: Option<RollbackAsked>,
        step: &Step<'_>,
    ) {
        self.current = to;
        let spec = self.spec().clone();
        let runs_before = back.is_none() && !spec.before.is_empty() && !self.prepared.contains(&to);
        self.course = Course::RollingOut(Rollout {
            back,
            first_instance: self.next_instance,
            started: step.clock.at,
            failure: None,
            stage: if runs_before {
                Stage::Before
            } else {
                self.stage_after_before(back)
            },
            gate: Gate::Open,
            progress_by: step.clock.now.after(spec.rollout.progress),
            told: None,
        });
        for instance in self.instances.values_mut() {
            if instance.version == to {
                instance.trial = Trial::new(step.clock.now, &spec);
            }
        }
    }

    /// The version from which a rollout starts: the stable one, else the one that is running.
    pub(super) fn rolls_from(&self) -> Option<Version> {
        let kept = self.kept().next();
        kept.and(self.stable.or(Some(self.current)))
    }

    /// What follows once nothing has to run before the rollout any more. Who goes back asks nobody,
    /// and without a version that was wholly healthy there is nothing to compare with.
    pub(super) fn stage_after_before(&self, back: Option<RollbackAsked>) -> Stage {
        let compares = self.stable.is_some_and(|stable| stable != self.current);
        // What was promoted before it failed stays so: it may be what serves.
        let current = self.kept().filter(|(_, one)| one.version == self.current);
        let promoted = current.count() > self.canaries();
        if back.is_none() && compares && !promoted && self.canaries() > 0 {
            Stage::Canary
        } else {
            Stage::Replacing
        }
    }

    /// Plans one more instance.
    pub(super) fn plan_instance(
        &mut self,
        name: &ServiceName,
        version: Version,
        reason: PlanReason,
        step: &mut Step<'_>,
    ) {
        let number = self.next_instance;
        self.next_instance += 1;
        let spec = self.spec_of(version);
        let planned = step.clock.at;
        let duty = match reason {
            PlanReason::Wanted | PlanReason::Replaces => Duty::Serve,
            PlanReason::Before => Duty::Before { planned },
            PlanReason::Scheduled => {
                let deadline = spec.schedule.as_ref().map(|schedule| schedule.deadline);
                let stop_by = step.clock.now.after(deadline.unwrap_or_default());
                Duty::Run { planned, stop_by }
            }
        };
        let mut instance = Instance::planned(version, duty, step.clock.now, spec);
        // Where one has started, what it needs was there: a rollout does not wait for it again.
        let first = !self.kept().any(|(_, other)| other.start == Start::Allowed);
        let needs = if first {
            step.supply.missing(&spec.needs)
        } else {
            BTreeSet::new()
        };
        if !needs.is_empty() {
            instance.start = Start::Held;
        } else if spec.limits.memory_bytes.is_some() {
            instance.start = Start::Queued;
        }
        self.instances.insert(number, instance);
        let instance = instance_id(name, number);
        let planned = EventKind::InstancePlanned {
            instance,
            version,
            reason,
        };
        step.record(name, planned);
        if !needs.is_empty() {
            let instance = instance_id(name, number);
            step.record(name, EventKind::InstanceHeld { instance, needs });
        }
    }

    /// Drops the oldest versions that nobody needs. Gives how many.
    pub(super) fn forget_versions(&mut self) -> usize {
        let before = self.versions.len();
        if before <= VERSIONS_KEPT {
            return 0;
        }
        let mut needed: BTreeSet<Version> =
            self.instances.values().map(|one| one.version).collect();
        needed.insert(self.current);
        needed.extend(self.stable);
        let mut excess = before - VERSIONS_KEPT;
        self.versions.retain(|version, _| {
            let drops = excess > 0 && !needed.contains(version);
            excess -= usize::from(drops);
            !drops
        });
        let versions = &self.versions;
        self.proven.retain(|version| versions.contains_key(version));
        self.prepared
            .retain(|version| versions.contains_key(version));
        before - self.versions.len()
    }

    /// Why there is no endpoint, when there is none.
    pub(super) fn unavailable(&self, purpose: Purpose) -> Unavailable {
        match purpose {
            Purpose::StopAll => return Unavailable::Stopping,
            Purpose::KeepUp => {}
        }
        let loops = |instance: &Instance| instance.crash_looping == CrashLooping::Yes;
        let all_loop = self.kept().next().is_some() && self.kept().all(|(_, one)| loops(one));
        match self.course {
            Course::Removing => Unavailable::Stopping,
            Course::Settled | Course::RollingOut(_) | Course::Failed { .. } => {
                if self.wanted == 0 {
                    Unavailable::ScaledToZero
                } else if all_loop {
                    Unavailable::CrashLooping
                } else {
                    Unavailable::Starting
                }
            }
        }
    }

    /// When the next drain is over at the latest: where everything stops, nothing else is decided.
    pub(super) fn next_drain_end(&self) -> Option<Instant> {
        let all = self.instances.values();
        all.filter_map(|instance| match instance.life {
            Life::Draining(drain) => Some(drain.deadline),
            Life::Kept | Life::Stopping { .. } => None,
        })
        .min()
    }

    /// When something has to be decided although nothing happens.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let (rolling, progress_by) = match &self.course {
            Course::RollingOut(Rollout {
                gate: Gate::Open,
                progress_by,
                ..
            }) => (true, (!self.awaits_promotion()).then_some(*progress_by)),
            Course::RollingOut(_) | Course::Settled | Course::Failed { .. } | Course::Removing => {
                (false, None)
            }
        };
        let deadlines = self.instances.values().flat_map(|instance| {
            let ready_by = match instance.duty {
                Duty::Serve => {
                    let trial = rolling
                        && instance.version == self.current
                        && !instance.is_ready()
                        && instance.start == Start::Allowed;
                    trial.then_some(instance.trial.ready_by)
                }
                Duty::Before { .. } | Duty::Over => None,
                Duty::Run { stop_by, .. } => instance.is_kept().then_some(stop_by),
            };
            match (instance.life, instance.standing) {
                (Life::Kept, Standing::Passing { ready_at, .. }) => [Some(ready_at), ready_by],
                (
                    Life::Kept,
                    Standing::Planned
                    | Standing::Starting { .. }
                    | Standing::Ready { .. }
                    | Standing::Failing { .. }
                    | Standing::Ended { .. },
                ) => [None, ready_by],
                (Life::Draining(drain), _) => [Some(drain.deadline), None],
                (Life::Stopping { .. }, _) => [None, None],
            }
        });
        let deadlines = deadlines.flatten().chain(progress_by);
        deadlines.chain(self.timetable.next).min()
    }
}

/// Whether two specifications say the same to an instance and to the routes: the wanted number is
/// no part of a version.
pub(super) fn same_content(one: &ServiceSpec, other: &ServiceSpec) -> bool {
    let alike = ServiceSpec {
        instances: other.instances,
        ..one.clone()
    };
    alike == *other
}

pub(super) fn instance_id(service: &ServiceName, number: u64) -> InstanceId {
    InstanceId {
        service: service.clone(),
        number,
    }
}

/// A number from outside as a length. Nothing here has a `usize` of less than 32 bits.
pub(super) fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
