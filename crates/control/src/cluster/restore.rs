//! From the state to its snapshot and back. Instants mean nothing to another process: of a timer
//! only that it runs is kept, and it runs anew from the restore.

use alloc::collections::BTreeMap;

use mainstay_ids::{Epoch, Generation};

use super::contract::Clock;
use super::instance::{Drain, Duty, Instance, Life, Proof, Standing, Trial};
use super::service::{Course, Rollout, Service, Timetable};
use super::snapshot::{
    CourseRecord, DutyRecord, InstanceRecord, LifeRecord, RestoreError, ServiceRecord,
    StandingRecord, VersionRecord,
};
use mainstay_ids::ServiceName;
use mainstay_model::ServiceSpec;

impl Service {
    pub(super) fn record(&self, name: &ServiceName) -> ServiceRecord {
        let versions = self.versions.iter();
        let instances = self.instances.iter();
        ServiceRecord {
            name: name.clone(),
            versions: versions
                .map(|(version, spec)| VersionRecord {
                    version: *version,
                    spec: spec.clone(),
                })
                .collect(),
            current: self.current,
            stable: self.stable,
            proven: self.proven.iter().copied().collect(),
            wanted: self.wanted,
            auto_address: self.auto_address,
            next_instance: self.next_instance,
            course: match &self.course {
                Course::Settled => CourseRecord::Settled,
                Course::RollingOut(rollout) => CourseRecord::RollingOut {
                    back: rollout.back,
                    first_instance: rollout.first_instance,
                    started: rollout.started,
                    stage: rollout.stage,
                    gate: rollout.gate,
                    told: rollout.told.clone(),
                },
                Course::Failed { started } => CourseRecord::Failed { started: *started },
                Course::Removing => CourseRecord::Removing,
            },
            instances: instances
                .map(|(number, instance)| instance.record(*number))
                .collect(),
            prepared: self.prepared.iter().copied().collect(),
            schedule_done: self.timetable.done,
            last_run: self.timetable.last,
        }
    }

    pub(super) fn restore(
        record: ServiceRecord,
        epoch: Epoch,
        clock: Clock,
    ) -> Result<(ServiceName, Self), RestoreError> {
        let versions = record.versions.into_iter();
        let versions: BTreeMap<_, _> = versions.map(|one| (one.version, one.spec)).collect();
        let missing = |version| RestoreError::VersionMissing {
            service: record.name.clone(),
            version,
        };
        for version in [record.current].into_iter().chain(record.stable) {
            if !versions.contains_key(&version) {
                return Err(missing(version));
            }
        }
        let mut instances = BTreeMap::new();
        for one in record.instances {
            let spec = versions.get(&one.version);
            let spec = spec.ok_or_else(|| missing(one.version))?;
            instances.insert(one.number, Instance::restore(&one, spec, epoch, clock));
        }
        let current = versions.get(&record.current);
        let progress = current.map_or_else(Default::default, |spec| spec.rollout.progress);
        let service = Self {
            versions,
            current: record.current,
            stable: record.stable,
            proven: record.proven.into_iter().collect(),
            wanted: record.wanted,
            auto_address: record.auto_address,
            next_instance: record.next_instance,
            course: match record.course {
                CourseRecord::Settled => Course::Settled,
                CourseRecord::RollingOut {
                    back,
                    first_instance,
                    started,
                    stage,
                    gate,
                    told,
                } => Course::RollingOut(Rollout {
                    back,
                    first_instance,
                    started,
                    failure: None,
                    stage,
                    gate,
                    progress_by: clock.now.after(progress),
                    told,
                }),
                CourseRecord::Failed { started } => Course::Failed { started },
                CourseRecord::Removing => Course::Removing,
            },
            instances,
            prepared: record.prepared.into_iter().collect(),
            timetable: Timetable {
                done: record.schedule_done,
                next: None,
                next_at: None,
                last: record.last_run,
            },
        };
        Ok((record.name, service))
    }
}

impl Instance {
    fn record(&self, number: u64) -> InstanceRecord {
        InstanceRecord {
            number,
            version: self.version,
            duty: match self.duty {
                Duty::Serve => DutyRecord::Serve,
                Duty::Before { planned } => DutyRecord::Before { planned },
                Duty::Run { planned, .. } => DutyRecord::Run { planned },
                Duty::Over => DutyRecord::Over,
            },
            start: self.start,
            life: match self.life {
                Life::Kept => LifeRecord::Kept,
                Life::Draining(drain) => LifeRecord::Draining {
                    removed_in: drain.removed_in,
                    reason: drain.reason,
                },
                Life::Stopping { .. } => LifeRecord::Stopping,
            },
            standing: match self.standing {
                Standing::Planned => StandingRecord::Planned,
                Standing::Starting { attempt } => StandingRecord::Starting { attempt },
                Standing::Passing { attempt, .. } => StandingRecord::Passing { attempt },
                Standing::Ready { attempt } => StandingRecord::Ready { attempt },
                Standing::Failing { attempt } => StandingRecord::Failing { attempt },
                Standing::Ended { attempt } => StandingRecord::Ended { attempt },
            },
            exposure: self.exposure,
            crash_looping: self.crash_looping,
            intake: self.intake,
        }
    }

    fn restore(record: &InstanceRecord, spec: &ServiceSpec, epoch: Epoch, clock: Clock) -> Self {
        let now = clock.now;
        let mut trial = Trial::new(now, spec);
        let standing = match record.standing {
            StandingRecord::Planned => Standing::Planned,
            StandingRecord::Starting { attempt } => Standing::Starting { attempt },
            StandingRecord::Passing { attempt } => Standing::Passing {
                attempt,
                ready_at: now.after(spec.rollout.hold),
            },
            StandingRecord::Ready { attempt } => {
                trial.proof = Proof::WasReady { setbacks: 0 };
                Standing::Ready { attempt }
            }
            StandingRecord::Failing { attempt } => Standing::Failing { attempt },
            StandingRecord::Ended { attempt } => Standing::Ended { attempt },
        };
        let deadline = spec.schedule.as_ref().map(|schedule| schedule.deadline);
        Self {
            version: record.version,
            duty: match record.duty {
                DutyRecord::Serve => Duty::Serve,
                DutyRecord::Before { planned } => Duty::Before { planned },
                DutyRecord::Over => Duty::Over,
                DutyRecord::Run { planned } => Duty::Run {
                    planned,
                    stop_by: now.after(deadline.unwrap_or_default()),
                },
            },
            start: record.start,
            life: match record.life {
                LifeRecord::Kept => Life::Kept,
                LifeRecord::Draining { removed_in, reason } => Life::Draining(Drain {
                    removed_in,
                    since: now,
                    deadline: now.after(spec.drain),
                    reason,
                }),
                // The first plan of the new epoch says so, and every later one.
                LifeRecord::Stopping => Life::Stopping {
                    told_in: Generation::first(epoch),
                },
            },
            standing,
            exposure: record.exposure,
            doubted: Some(Generation::first(epoch)),
            crash_looping: record.crash_looping,
            intake: record.intake,
            trial,
            seen: None,
            missed: 0,
        }
    }
}
