//! What a rollout waits for, and the words with which people hold it and let it go on.

use mainstay_ids::ServiceName;
use mainstay_model::EventKind;
use mainstay_model::event::Wait;

use super::contract::Refusal;
use super::declare::Services;
use super::instance::{Instance, Life, Standing, Start, Trial};
use super::service::{Course, Gate, Service, Stage, instance_id};
use super::step::Step;
use super::supply::Supply;

impl Services {
    /// Stops the rollout of a service where it is.
    pub(super) fn pause(&mut self, name: &ServiceName, step: &mut Step<'_>) -> Result<(), Refusal> {
        let service = self.changeable_mut(name)?;
        let version = service.current;
        let Course::RollingOut(rollout) = &mut service.course else {
            let service = name.clone();
            return Err(Refusal::NothingToPause { service });
        };
        if rollout.gate == Gate::Open {
            rollout.gate = Gate::Paused;
            step.record(name, EventKind::RolloutHeld { version });
        }
        Ok(())
    }

    /// Lets a paused rollout go on with all its deadlines before it, or begins a failed one anew.
    pub(super) fn resume(
        &mut self,
        name: &ServiceName,
        step: &mut Step<'_>,
    ) -> Result<(), Refusal> {
        let service = self.changeable_mut(name)?;
        let version = service.current;
        match &service.course {
            Course::RollingOut(rollout) if rollout.gate == Gate::Paused => {
                step.record(name, EventKind::RolloutResumed { version });
                service.open_gate(step);
            }
            Course::Failed { .. } => {
                step.record(name, EventKind::RolloutResumed { version });
                service.begin_rollout(version, None, step);
            }
            Course::RollingOut(_) | Course::Settled | Course::Removing => {
                let service = name.clone();
                return Err(Refusal::NothingToResume { service });
            }
        }
        Ok(())
    }

    /// Lets the canaries' version replace the old one.
    pub(super) fn promote(
        &mut self,
        name: &ServiceName,
        step: &mut Step<'_>,
    ) -> Result<(), Refusal> {
        let service = self.changeable_mut(name)?;
        if service.stage() != Some(Stage::Canary) {
            let service = name.clone();
            return Err(Refusal::NothingToPromote { service });
        }
        let (ready, canaries) = (service.ready(), service.canaries());
        if ready < canaries {
            let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            return Err(Refusal::CanariesNotReady {
                service: name.clone(),
                canaries: number(canaries),
                ready: number(ready),
            });
        }
        let version = service.current;
        let progress_by = step.clock.now.after(service.spec().rollout.progress);
        if let Course::RollingOut(rollout) = &mut service.course {
            rollout.stage = Stage::Replacing;
            rollout.progress_by = progress_by;
        }
        step.record(name, EventKind::Promoted { version });
        Ok(())
    }
}

impl Service {
    fn open_gate(&mut self, step: &Step<'_>) {
        let now = step.clock.now;
        let spec = self.spec().clone();
        let current = self.current;
        if let Course::RollingOut(rollout) = &mut self.course {
            rollout.gate = Gate::Open;
            rollout.progress_by = now.after(spec.rollout.progress);
        }
        for instance in self.instances.values_mut() {
            if instance.version == current && !instance.is_ready() {
                let proof = instance.trial.proof;
                instance.trial = Trial {
                    proof,
                    ..Trial::new(now, &spec)
                };
            }
        }
    }

    /// Whether the rollout waits for nothing but somebody's word.
    pub(super) fn awaits_promotion(&self) -> bool {
        self.stage() == Some(Stage::Canary) && self.ready() >= self.canaries()
    }

    /// What the rollout under way waits for.
    pub(super) fn wait(&self, supply: &Supply) -> Option<Wait> {
        let Course::RollingOut(rollout) = &self.course else {
            return None;
        };
        let name = &self.spec().name;
        if rollout.gate == Gate::Paused {
            return Some(Wait::Resume);
        }
        if let Some(wait) = self.waits_to_start(supply) {
            return Some(wait);
        }
        if rollout.stage == Stage::Before
            && let Some((number, _)) = self.runs_before().next()
        {
            let instance = instance_id(name, number);
            return Some(Wait::Before { instance });
        }
        if self.awaits_promotion() {
            let ready = u32::try_from(self.ready()).unwrap_or(u32::MAX);
            return Some(Wait::Promotion { ready });
        }
        let current = self.current;
        let unready = |(_, instance): &(u64, &Instance)| {
            instance.version == current && !instance.is_ready() && instance.start == Start::Allowed
        };
        if let Some((number, instance)) = self.kept().find(unready) {
            return Some(instance.wait_to_be_ready(name, number));
        }
        if let Some(wait) = self.waits_for_intake(name) {
            return Some(wait);
        }
        let draining = |instance: &Instance| matches!(instance.life, Life::Draining(_));
        let mut all = self.instances.iter();
        let drain = all.find(|(_, instance)| draining(instance));
        drain.map(|(number, _)| Wait::Drain {
            instance: instance_id(name, *number),
        })
    }

    /// Records what the rollout waits for where nothing else that is recorded says so.
    pub(super) fn tell_wait(&mut self, name: &ServiceName, step: &mut Step<'_>) {
        let wait = self.wait(step.supply).filter(is_worth_telling);
        let version = self.current;
        let Course::RollingOut(rollout) = &mut self.course else {
            return;
        };
        if rollout.told == wait {
            return;
        }
        rollout.told.clone_from(&wait);
        match wait {
            Some(wait) => step.record(name, EventKind::RolloutWaits { version, wait }),
            None => step.mark_changed(),
        }
    }
}

/// That somebody paused it is an event of its own, and so is each step of an instance.
fn is_worth_telling(wait: &Wait) -> bool {
    match wait {
        Wait::Promotion { .. }
        | Wait::Before { .. }
        | Wait::Needs { .. }
        | Wait::Room { .. }
        | Wait::Intake { .. } => true,
        Wait::Resume | Wait::Health { .. } | Wait::MinimumHealthy { .. } | Wait::Drain { .. } => {
            false
        }
    }
}

impl Instance {
    fn wait_to_be_ready(&self, name: &ServiceName, number: u64) -> Wait {
        let instance = instance_id(name, number);
        match self.standing {
            Standing::Passing { .. } | Standing::Ready { .. } => Wait::MinimumHealthy { instance },
            Standing::Planned
            | Standing::Starting { .. }
            | Standing::Failing { .. }
            | Standing::Ended { .. } => Wait::Health {
                instance,
                probe_failure: self
                    .seen
                    .as_ref()
                    .and_then(|seen| seen.probe_failure.clone()),
            },
        }
    }
}
