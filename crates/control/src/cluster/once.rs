//! What runs to its end: once before a rollout, and at the times of a schedule.
//!
//! Nothing of it is ever started twice: each run is an instance with a number of its own, which is
//! durable before the agent learns of it, and its end is durable before the next is planned.

use mainstay_ids::{InstanceId, ServiceName, Timestamp, Version};
use mainstay_model::event::{PlanReason, RolloutFailure};
use mainstay_model::{Cron, EventKind, Exit};

use super::instance::{Duty, Instance, Life, Start};
use super::service::{Course, Ended, Gate, Service, Stage, Timetable, instance_id};
use super::step::Step;

/// How many missed times are counted one by one. The minutes of a day and a half: whoever was away
/// for longer knows that it was long.
const MISSED_COUNTED_MAX: u32 = 2000;

/// The times of a schedule that have come since the last look.
struct Due {
    /// The newest of them.
    at: Timestamp,
    /// How many came before it.
    missed: u32,
}

fn due(cron: &Cron, done: Timestamp, now: Timestamp) -> Option<Due> {
    let mut at = cron.next_after(done).filter(|at| *at <= now)?;
    let mut missed = 0;
    while let Some(next) = cron.next_after(at).filter(|next| *next <= now) {
        if missed == MISSED_COUNTED_MAX {
            return Some(Due { at: now, missed });
        }
        at = next;
        missed += 1;
    }
    Some(Due { at, missed })
}

impl Service {
    /// Plans what runs before the rollout under way, unless it or that of an earlier version runs:
    /// two at a time could harm one another.
    pub(super) fn prepare(&mut self, name: &ServiceName, step: &mut Step<'_>) {
        let alone = self.instances.values().all(Instance::serves);
        // One that failed while its rollout was paused is not run again when nobody looks.
        let due = match &self.course {
            Course::RollingOut(rollout) => {
                rollout.stage == Stage::Before
                    && rollout.gate == Gate::Open
                    && rollout.failure.is_none()
            }
            Course::Settled | Course::Failed { .. } | Course::Removing => false,
        };
        if due && alone {
            self.plan_instance(name, self.current, PlanReason::Before, step);
        }
    }

    /// What has not started before a version that is not wanted any more does not start.
    pub(super) fn drop_unstarted(&mut self, step: &mut Step<'_>) {
        let current = self.current;
        for instance in self.instances.values_mut() {
            let before = matches!(instance.duty, Duty::Before { .. });
            let superseded = instance.version != current;
            if before && superseded && instance.is_kept() && instance.start != Start::Allowed {
                instance.stop(step);
            }
        }
    }

    /// What runs before a rollout, of whichever version.
    pub(super) fn runs_before(&self) -> impl Iterator<Item = (u64, &Instance)> {
        let all = self.instances.iter();
        all.filter(|(_, instance)| matches!(instance.duty, Duty::Before { .. }))
            .map(|(number, instance)| (*number, instance))
    }

    /// Starts the run whose time has come, stops the one that takes too long.
    pub(super) fn follow_schedule(&mut self, name: &ServiceName, step: &mut Step<'_>) {
        self.stop_overdue(name, step);
        let schedule = match self.course {
            Course::Removing => None,
            Course::Settled | Course::RollingOut(_) | Course::Failed { .. } => {
                self.spec().schedule.clone()
            }
        };
        let Some(schedule) = schedule else {
            self.timetable = Timetable::default();
            return;
        };
        let (now, at) = (step.clock.now, step.clock.at);
        let done = *self.timetable.done.get_or_insert_with(|| {
            step.mark_changed();
            at
        });
        // A clock that is set back finds its times done with: none is run twice.
        if let Some(due) = due(&schedule.cron, done, at) {
            self.timetable.done = Some(due.at);
            self.start_run(name, &due, step);
        }
        let done = self.timetable.done.unwrap_or(at).max(at);
        self.timetable.next_at = schedule.cron.next_after(done);
        self.timetable.next = self
            .timetable
            .next_at
            .map(|next| now.after(core::time::Duration::from_millis(next.0 - at.0)));
    }

    fn start_run(&mut self, name: &ServiceName, due: &Due, step: &mut Step<'_>) {
        if due.missed > 0 {
            let count = due.missed;
            step.record(name, EventKind::RunsMissed { count });
        }
        // One that was given up may run until its agent has stopped it.
        let mut runs = self.instances.iter();
        let running = runs.find(|(_, instance)| !instance.serves());
        match running {
            Some((number, _)) => {
                let running = instance_id(name, *number);
                let due = due.at;
                step.record(name, EventKind::RunSkipped { due, running });
            }
            None => self.plan_instance(name, self.current, PlanReason::Scheduled, step),
        }
    }

    fn stop_overdue(&mut self, name: &ServiceName, step: &mut Step<'_>) {
        for (number, instance) in &mut self.instances {
            let Duty::Run { stop_by, .. } = instance.duty else {
                continue;
            };
            if !instance.is_kept() || step.clock.now < stop_by {
                continue;
            }
            let spec = self.versions.get(&instance.version);
            let schedule = spec.and_then(|spec| spec.schedule.as_ref());
            let deadline = schedule.map(|one| one.deadline.as_millis());
            let overdue = EventKind::RunOverdue {
                instance: instance_id(name, *number),
                deadline_ms: deadline.map_or(0, |ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            };
            instance.stop(step);
            step.record(name, overdue);
        }
    }

    /// Stops what runs to its end: nobody needs it any more.
    pub(super) fn stop_once(&mut self, step: &mut Step<'_>) {
        for instance in self.instances.values_mut() {
            if instance.is_kept() && !instance.serves() {
                instance.stop(step);
            }
        }
    }

    /// What ran to its end has ended, and its agent keeps nothing of it.
    pub(super) fn ended_once(
        &mut self,
        name: &ServiceName,
        number: u64,
        exit: Option<Exit>,
        step: &mut Step<'_>,
    ) {
        self.conclude_once(name, number, exit, step);
        if self.instances.remove(&number).is_some() {
            step.mark_changed();
        }
    }

    /// The end of what ran to its end is known. Whatever its agent still has of it is to go: it is
    /// not started again.
    pub(super) fn conclude_once(
        &mut self,
        name: &ServiceName,
        number: u64,
        exit: Option<Exit>,
        step: &mut Step<'_>,
    ) {
        let Some(ended) = self.instances.get_mut(&number) else {
            return;
        };
        let version = ended.version;
        let was_kept = ended.is_kept();
        let duty = core::mem::replace(&mut ended.duty, Duty::Over);
        if was_kept {
            ended.stop(step);
        }
        let instance = instance_id(name, number);
        let took = |planned: Timestamp| step.clock.at.0.saturating_sub(planned.0);
        match duty {
            Duty::Serve | Duty::Over => {}
            Duty::Run { planned, .. } => {
                self.timetable.last = Some(Ended {
                    number,
                    exit,
                    at: step.clock.at,
                });
                let finished = EventKind::RunFinished {
                    instance,
                    exit,
                    took_ms: took(planned),
                };
                step.record(name, finished);
            }
            Duty::Before { planned } => {
                let finished = EventKind::BeforeFinished {
                    instance: instance.clone(),
                    version,
                    exit,
                    took_ms: took(planned),
                };
                step.record(name, finished);
                self.before_ended(version, instance, exit, step);
            }
        }
    }

    fn before_ended(
        &mut self,
        version: Version,
        instance: InstanceId,
        exit: Option<Exit>,
        step: &Step<'_>,
    ) {
        let well = exit == Some(Exit::Code(0));
        if well {
            self.prepared.insert(version);
        }
        if version != self.current {
            return;
        }
        let Course::RollingOut(rollout) = &self.course else {
            return;
        };
        let next = self.stage_after_before(rollout.back);
        let progress_by = step.clock.now.after(self.spec().rollout.progress);
        let Course::RollingOut(rollout) = &mut self.course else {
            return;
        };
        match (rollout.stage, well) {
            (Stage::Before, true) => {
                rollout.stage = next;
                rollout.progress_by = progress_by;
            }
            (Stage::Before, false) => {
                let failure = RolloutFailure::BeforeFailed { instance, exit };
                rollout.failure.get_or_insert(failure);
            }
            (Stage::Canary | Stage::Replacing, _) => {}
        }
    }
}

impl Instance {
    /// Tells it to stop. Only for one that was never in the routes.
    fn stop(&mut self, step: &mut Step<'_>) {
        self.life = Life::Stopping {
            told_in: step.upcoming,
        };
        step.mark_changed();
    }
}
