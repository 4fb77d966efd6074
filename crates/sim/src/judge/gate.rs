//! What may begin only when its time has come: needs, pauses.

use mainstay_ids::ServiceName;
use mainstay_model::event::{DrainReason, PlanReason};
use mainstay_model::plan::PlannedAction;
use mainstay_model::{Event, EventKind, ServiceState};

use crate::broken::Promise;
use crate::glance::Glance;
use crate::world::World;

impl World {
    /// Who is held may start when one of each that it needs is ready; it may have to wait for memory
    /// then, which holds even if they go.
    pub(crate) fn judge_releases(&mut self, last: &Glance, events: &[Event]) {
        for event in events {
            if let EventKind::InstanceHeld { instance, .. } = &event.kind {
                self.judge.ordered.remove(instance);
            }
            let EventKind::InstanceReleased { instance: id } = &event.kind else {
                continue;
            };
            self.judge.ordered.insert(id.clone());
            let shown = self.judge.last.instances.get(id);
            let version = shown.map(|shown| shown.version);
            let content = version.and_then(|version| self.judge.content(&id.service, version));
            let missing = content.and_then(|spec| {
                let mut needs = spec.needs.iter();
                needs.find(|needed| !self.is_ready(last, needed)).cloned()
            });
            // What runs already was started by somebody else.
            let runs = self.agent.running_attempt(id).is_some();
            if let (Some(needed), false) = (missing, runs) {
                let what = format!("{id} may start, and `{needed}` is not ready");
                self.breaks(Promise::NeedsFirst, what);
            }
        }
    }

    /// Whether a service is ready, or was: it may go with the very input that lets another start.
    fn is_ready(&self, last: &Glance, needed: &ServiceName) -> bool {
        let mut kept = self.judge.last.kept(needed).chain(last.kept(needed));
        kept.any(|(_, shown)| shown.is_ready())
    }

    /// The first instance of a service is ordered to run when one of each that it needs is ready.
    pub(crate) fn judge_needs(&mut self, last: &Glance) {
        if !self.control.may_publish() {
            return;
        }
        let mut broken = Vec::new();
        let mut late = Vec::new();
        let mut ordered = std::mem::take(&mut self.judge.ordered);
        let before: std::collections::BTreeSet<_> =
            ordered.iter().map(|id| id.service.clone()).collect();
        for planned in &self.control.plan().instances {
            let id = &planned.instance;
            match planned.action {
                PlannedAction::Run => {}
                PlannedAction::RunOnce => {
                    let first = self.judge.ordered_once.insert(id.clone());
                    let current = self.judge.last.services.get(&id.service);
                    let content = self.judge.content(&id.service, planned.version);
                    let before = content.is_some_and(|one| one.before == planned.spec.exec);
                    if first && before && current.is_none_or(|one| one.version != planned.version) {
                        let what =
                            format!("{id} runs before {}, which is not wanted", planned.version);
                        late.push(what);
                    }
                    continue;
                }
                PlannedAction::Hold | PlannedAction::Stop => continue,
            }
            if !ordered.insert(id.clone()) || before.contains(&id.service) {
                continue;
            }
            let mut needs = planned.spec.needs.iter();
            let missing = needs.find(|needed| !self.is_ready(last, needed));
            if let Some(needed) = missing {
                broken.push(format!("{id} is to run, and `{needed}` is not ready"));
            }
        }
        ordered.retain(|id| self.judge.last.instances.contains_key(id));
        self.judge.ordered = ordered;
        for what in broken {
            self.breaks(Promise::NeedsFirst, what);
        }
        for what in late {
            self.breaks(Promise::OneAtATime, what);
        }
    }

    /// Of a rollout that is paused before and after an input nothing is decided.
    pub(crate) fn judge_paused(&mut self, before: &Glance, events: &[Event]) {
        for event in events {
            let Some(service) = &event.service else {
                continue;
            };
            let paused = |glance: &Glance| {
                let shown = glance.services.get(service);
                shown.is_some_and(|shown| shown.state == ServiceState::Paused)
            };
            let decided = match &event.kind {
                EventKind::InstancePlanned { reason, .. } => {
                    matches!(reason, PlanReason::Replaces | PlanReason::Before)
                }
                EventKind::DrainStarted { reason, .. } => {
                    matches!(reason, DrainReason::Replaced | DrainReason::FailedVersion)
                }
                EventKind::RolloutFailed { .. } | EventKind::RollbackStarted { .. } => true,
                _ => false,
            };
            if decided && paused(before) && paused(&self.judge.last) {
                let what = format!("of {service}: {}", event.kind);
                self.breaks(Promise::PausedRests, what);
            }
        }
    }
}
