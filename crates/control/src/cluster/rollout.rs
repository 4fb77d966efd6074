//! How a service gets from what it has to what is wanted, one input at a time.
//!
//! Level-triggered: each call looks at the whole service and decides what is to be done now. It
//! holds, and the invariants check, that
//! - at most the wanted number plus the step is kept at any time,
//! - no ready instance is drained unless as many as wanted stay ready,
//! - a rollout waits for nothing without a deadline, so that it ends.

use alloc::vec::Vec;

use mainstay_ids::{ServiceName, Version};
use mainstay_model::EventKind;
use mainstay_model::event::{DrainReason, PauseReason, PlanReason, RollbackAsked, RolloutFailure};
use mainstay_model::service::OnFailure;

use super::instance::{Instance, Setback, Start, Weight};
use super::service::{Course, Gate, Rollout, Service, Stage, instance_id, same_content};
use super::step::Step;

impl Service {
    /// Decides everything that is to be decided now.
    pub(super) fn advance(&mut self, name: &ServiceName, step: &mut Step<'_>) {
        let ready_before = self.ready();
        for (number, instance) in &mut self.instances {
            instance.trust(name, *number, step);
            instance.promote(name, *number, step);
        }
        if self.ready() > ready_before {
            self.note_progress(step);
        }
        self.drop_unstarted(step);
        if let Some(failure) = self.failure_by_now(name, step) {
            self.fail(name, failure, step);
        }
        match &self.course {
            Course::Removing => {
                let all = self.ranked(|_| true);
                self.drain(name, &all, DrainReason::Removed, step);
                self.stop_once(step);
            }
            Course::Failed { .. } => self.hold_still(name, step),
            Course::Settled => self.replace(name, DrainReason::Replaced, step),
            Course::RollingOut(rollout)
                if rollout.gate == Gate::Paused || rollout.stage == Stage::Before =>
            {
                self.hold_where_it_is(name, step);
                self.prepare(name, step);
            }
            Course::RollingOut(rollout) => {
                let reason = match rollout.back {
                    Some(RollbackAsked::ByFailure) => DrainReason::FailedVersion,
                    Some(RollbackAsked::ByUser) | None => DrainReason::Replaced,
                };
                self.replace(name, reason, step);
            }
        }
        self.finish_drains(name, step);
        self.conclude(name, step);
        self.follow_schedule(name, step);
        self.tell_wait(name, step);
        if self.forget_versions() > 0 {
            step.mark_changed();
        }
    }

    /// Drains and stops every instance; what is wanted stays as it is.
    pub(super) fn wind_down(&mut self, name: &ServiceName, step: &mut Step<'_>) {
        let all = self.ranked(|_| true);
        self.drain(name, &all, DrainReason::Removed, step);
        self.stop_once(step);
        self.finish_drains(name, step);
    }

    /// Something went on: the progress deadline begins anew.
    fn note_progress(&mut self, step: &Step<'_>) {
        let progress_by = step.clock.now.after(self.spec().rollout.progress);
        match &mut self.course {
            Course::RollingOut(rollout) => rollout.progress_by = progress_by,
            Course::Settled | Course::Failed { .. } | Course::Removing => {}
        }
    }

    /// The version with which the wanted number is followed while no rollout goes on; `None`: there
    /// is none, since what has to run before the only one has not come to a good end.
    pub(super) fn base(&self) -> Option<Version> {
        self.stable.or(self.is_prepared().then_some(self.current))
    }

    /// Whether what runs before the wanted version, if anything does, has come to a good end.
    fn is_prepared(&self) -> bool {
        self.spec().before.is_empty() || self.prepared.contains(&self.current)
    }

    /// Follows the wanted number alone, with the version that serves.
    fn hold_where_it_is(&mut self, name: &ServiceName, step: &mut Step<'_>) {
        let wanted = self.wanted();
        let mut excess = self.ranked(|_| true);
        let excess = excess.split_off((wanted + self.surge()).min(excess.len()));
        self.drain(name, &excess, DrainReason::ScaledIn, step);
        let Some(base) = self.base() else {
            return;
        };
        for _ in self.kept().count()..wanted {
            self.plan_instance(name, base, PlanReason::Wanted, step);
        }
    }

    /// Goes one step from the old versions to the current one, and to the wanted number.
    fn replace(&mut self, name: &ServiceName, reason: DrainReason, step: &mut Step<'_>) {
        let (wanted, target, current) = (self.wanted(), self.target(), self.current);
        let asks = self.stage() == Some(Stage::Canary);
        let mut new = self.ranked(|instance| instance.version == current);
        let excess = new.split_off(target.min(new.len()));
        self.drain(name, &excess, DrainReason::ScaledIn, step);

        let ready = new.iter().filter(|number| self.is_ready(**number)).count();
        let mut old = self.ranked(|instance| instance.version != current);
        let unprotected = self.stable.is_none() && !self.any_serves(&old);
        // One of the old goes for each of the new that is ready, the least useful first. What no
        // version ever made healthy and serves nothing is not worth waiting for.
        let stays = match (asks, unprotected) {
            (true, _) => wanted,
            (false, true) => 0,
            // Somebody keeps the requests from all that are new: one of the old goes on taking them.
            (false, false) if !self.any_takes(&new) && self.any_takes(&old) => {
                (wanted - ready).max(1)
            }
            (false, false) => wanted - ready,
        };
        let replaced = old.split_off(stays.min(old.len()));
        self.drain(name, &replaced, reason, step);

        if asks && let Some(stable) = self.stable {
            for _ in old.len()..wanted {
                self.plan_instance(name, stable, PlanReason::Wanted, step);
            }
            old = self.ranked(|instance| instance.version != current);
        }

        // A smaller number or step, or a way back, may leave more unready ones than there is room
        // for. Whoever is of least use goes, of whatever version; among equals the older version.
        let surge = if asks { target } else { self.step() };
        let room = wanted + surge;
        let surplus = self.least_useful(&old, &new, (old.len() + new.len()).saturating_sub(room));
        old.retain(|number| !surplus.contains(number));
        new.retain(|number| !surplus.contains(number));
        self.drain(name, &surplus, DrainReason::ScaledIn, step);

        let starts = if old.is_empty() {
            target - new.len()
        } else {
            let unready = new.len() - ready;
            let missing = target - new.len();
            let room = room.saturating_sub(old.len() + new.len());
            missing.min(room).min(surge.saturating_sub(unready))
        };
        let reason = if old.is_empty() {
            PlanReason::Wanted
        } else {
            PlanReason::Replaces
        };
        for _ in 0..starts {
            self.plan_instance(name, current, reason, step);
        }
    }

    /// So many of the least useful of both, each of which is ranked by usefulness.
    fn least_useful(&self, old: &[u64], new: &[u64], many: usize) -> Vec<u64> {
        let useful = |number: &u64| {
            let instance = self.instances.get(number);
            instance.map_or(0, Instance::usefulness)
        };
        let mut all: Vec<u64> = old.iter().rev().chain(new.iter().rev()).copied().collect();
        // Stable: equals stay in this order.
        all.sort_by_key(useful);
        all.truncate(many);
        all
    }

    fn any_takes(&self, numbers: &[u64]) -> bool {
        let takes = |number| self.instances.get(number).is_some_and(Instance::takes_any);
        numbers.iter().any(takes)
    }

    fn any_serves(&self, numbers: &[u64]) -> bool {
        numbers.iter().any(|number| {
            let instance = self.instances.get(number);
            instance.is_some_and(|instance| instance.standing.serves())
        })
    }

    /// Keeps what a failed rollout left, but for the wanted number, which is still followed with
    /// the stable version.
    fn hold_still(&mut self, name: &ServiceName, step: &mut Step<'_>) {
        let wanted = self.wanted();
        let room = wanted + self.step();
        let mut excess = self.ranked(|_| true);
        let mut place = 0;
        excess.retain(|number| {
            // Unready ones stay for whoever wants to see why the rollout failed.
            let stays = place < wanted || (place < room && !self.is_ready(*number));
            place += 1;
            !stays
        });
        self.drain(name, &excess, DrainReason::ScaledIn, step);
        let Some(base) = self.base() else {
            return;
        };
        for _ in self.kept().count()..wanted {
            self.plan_instance(name, base, PlanReason::Wanted, step);
        }
    }

    /// A report told something bad of an instance: remembers it if it fails the rollout.
    pub(super) fn set_back(
        &mut self,
        name: &ServiceName,
        number: u64,
        setback: Setback,
        step: &Step<'_>,
    ) {
        let current = self.current;
        let Course::RollingOut(rollout) = &mut self.course else {
            return;
        };
        let Some(instance) = self.instances.get_mut(&number) else {
            return;
        };
        let on_trial = number >= rollout.first_instance && instance.version == current;
        if !on_trial || !instance.is_kept() {
            return;
        }
        let spec = self.versions.get(&current);
        let spec = spec.expect("the current version is kept");
        let instance_id = instance_id(name, number);
        let failure = match instance.trial.weigh(setback, step.clock.now, spec) {
            Weight::Forgiven => return,
            Weight::EndedUnready(exit) => RolloutFailure::Exited {
                instance: instance_id,
                exit,
            },
            Weight::TooMany => RolloutFailure::Flapping {
                instance: instance_id,
            },
        };
        rollout.failure.get_or_insert(failure);
    }

    /// Why the rollout under way has failed, if it has.
    fn failure_by_now(&mut self, name: &ServiceName, step: &Step<'_>) -> Option<RolloutFailure> {
        let current = self.current;
        let late = |instance: &Instance| {
            instance.version == current
                && !instance.is_ready()
                && instance.start == Start::Allowed
                && instance.trial.ready_by <= step.clock.now
        };
        let late = self.kept().find(|(_, instance)| late(instance));
        let late = late.map(|(number, instance)| RolloutFailure::NotReady {
            instance: instance_id(name, number),
            probe_failure: instance
                .seen
                .as_ref()
                .and_then(|seen| seen.probe_failure.clone()),
            deadline_ms: u64::try_from(self.spec().rollout.deadline.as_millis())
                .unwrap_or(u64::MAX),
        });
        let late = late.or_else(|| self.without_progress(step));
        match &mut self.course {
            Course::RollingOut(rollout) if rollout.gate == Gate::Paused => None,
            Course::RollingOut(rollout) => rollout.failure.take().or(late),
            Course::Settled | Course::Failed { .. } | Course::Removing => None,
        }
    }

    fn without_progress(&self, step: &Step<'_>) -> Option<RolloutFailure> {
        let Course::RollingOut(rollout) = &self.course else {
            return None;
        };
        if self.awaits_promotion() || step.clock.now < rollout.progress_by {
            return None;
        }
        let deadline = self.spec().rollout.progress.as_millis();
        Some(RolloutFailure::NoProgress {
            deadline_ms: u64::try_from(deadline).unwrap_or(u64::MAX),
            wait: self.wait(step.supply),
        })
    }

    /// The rollout under way has failed: back to the stable version, or stay.
    fn fail(&mut self, name: &ServiceName, cause: RolloutFailure, step: &mut Step<'_>) {
        let Course::RollingOut(Rollout { back, started, .. }) = self.course.clone() else {
            return;
        };
        let version = self.current;
        step.record(name, EventKind::RolloutFailed { version, cause });
        // It is of a version that is not wanted any more, or did not end in its time.
        self.stop_once(step);
        match self.way_back(back) {
            Ok(to) => {
                let rollback = EventKind::RollbackStarted {
                    from: version,
                    to,
                    asked: RollbackAsked::ByFailure,
                };
                step.record(name, rollback);
                self.begin_rollout(to, Some(RollbackAsked::ByFailure), step);
            }
            Err(reason) => {
                step.record(name, EventKind::RolloutPaused { version, reason });
                self.course = Course::Failed { started };
            }
        }
    }

    /// The version to go back to after the failure of a rollout, or why there is none. It is never
    /// one that says the same as the failed one: that would only fail again.
    fn way_back(&self, back: Option<RollbackAsked>) -> Result<Version, PauseReason> {
        if back.is_some() {
            return Err(PauseReason::RollbackFailed);
        }
        match self.spec().rollout.on_failure {
            OnFailure::Pause => Err(PauseReason::OnFailurePause),
            OnFailure::Rollback => self
                .stable
                .filter(|stable| !same_content(self.spec_of(*stable), self.spec()))
                .ok_or(PauseReason::NothingToGoBackTo),
        }
    }

    /// Whether the wanted version may not be in force yet, not even with no instances: they could be
    /// wanted later.
    fn is_unprepared(&self) -> bool {
        match &self.course {
            Course::RollingOut(rollout) => rollout.stage == Stage::Before,
            Course::Failed { .. } => self.wanted == 0 && !self.is_prepared(),
            Course::Settled | Course::Removing => false,
        }
    }

    /// Ends the rollout if all is as wanted, and remembers which version was wholly ready.
    fn conclude(&mut self, name: &ServiceName, step: &mut Step<'_>) {
        if self.is_unprepared() {
            return;
        }
        let started = match &self.course {
            Course::Removing => return,
            Course::Settled => None,
            Course::RollingOut(Rollout { started, .. }) | Course::Failed { started } => {
                Some(*started)
            }
        };
        if !self.is_whole() {
            return;
        }
        let version = self.current;
        // No instance proves nothing.
        if self.wanted > 0 && self.stable != Some(version) {
            self.stable = Some(version);
            step.mark_changed();
        }
        if self.wanted > 0 && self.proven.insert(version) {
            step.mark_changed();
        }
        if let Some(started) = started {
            let took_ms = step.clock.at.0.saturating_sub(started.0);
            self.course = Course::Settled;
            step.record(name, EventKind::RolloutFinished { version, took_ms });
        }
    }
}
