//! What is published: its order, its truth, and that nothing in it comes twice.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_ids::{Generation, InstanceId};
use mainstay_model::plan::PlannedAction;
use mainstay_model::routing::EndpointHealth;
use mainstay_model::{Event, NodePlan, Routing};

use crate::broken::Promise;
use crate::glance::Shown;
use crate::told::{Health, Word};
use crate::world::World;

impl World {
    fn judge_order(&mut self, what: &str, old: Generation, new: Generation) {
        if new <= old {
            self.breaks(Promise::Order, format!("{what} went from {old} to {new}"));
        }
    }

    /// Other routes are published.
    pub(crate) fn judge_routing_order(&mut self, routing: &Routing) {
        self.judge_order("routing", self.routing.generation, routing.generation);
    }

    /// The routes list exactly the kept instances that were told as passing or failing.
    pub(crate) fn judge_routing(&mut self) {
        let routing = &self.routing;
        let mut broken = Vec::new();
        let mut listed = BTreeSet::new();
        for endpoint in routing.services.iter().flat_map(|one| &one.endpoints) {
            let id = &endpoint.instance;
            if !listed.insert(id) {
                broken.push(format!("{id} is listed twice"));
            }
            let word = self.judge.told.words.get(id);
            let fits = word.is_some_and(|word| {
                let health = match word.health {
                    Health::Passing { .. } => Some(EndpointHealth::Passing),
                    Health::Failing => Some(EndpointHealth::Failing),
                    Health::Starting | Health::Ended => None,
                };
                word.attempt == endpoint.attempt
                    && word.address == Some(endpoint.address)
                    && health == Some(endpoint.health)
            });
            let kept = self.judge.last.instances.get(id);
            if !fits || !kept.is_some_and(Shown::is_kept) {
                broken.push(format!(
                    "{endpoint:?} is listed, it is {kept:?}, told {word:?}"
                ));
            }
        }
        let routed: BTreeSet<_> = routing.services.iter().map(|one| &one.service).collect();
        let lists = |word: &Word| matches!(word.health, Health::Passing { .. } | Health::Failing);
        for (id, shown) in &self.judge.last.instances {
            let word = self.judge.told.words.get(id);
            let due = word.is_some_and(|word| word.fresh && lists(word));
            if due && shown.is_kept() && routed.contains(&id.service) && !listed.contains(id) {
                broken.push(format!("{id} is not listed, it was told as {word:?}"));
            }
        }
        for what in broken {
            self.breaks(Promise::RoutesAreTrue, what);
        }
    }

    /// No number means two copies, and none runs again after its end.
    pub(crate) fn judge_plan(&mut self, plan: &NodePlan) {
        self.judge_order("plan", self.plan.generation, plan.generation);
        let mut broken = Vec::new();
        let mut actions = BTreeMap::new();
        for planned in &plan.instances {
            let id = &planned.instance;
            if actions.insert(id, planned.action).is_some() {
                broken.push(format!("{id} is planned twice"));
            }
            let runs = planned.action == PlannedAction::Run;
            if runs && (self.judge.gone.contains(id) || self.judge.stopped.contains(id)) {
                broken.push(format!("{id} is to run again after its end"));
            }
            let version = *self
                .judge
                .planned
                .entry(id.clone())
                .or_insert(planned.version);
            if runs && version != planned.version {
                broken.push(format!(
                    "{id} was of {version} and is of {}",
                    planned.version
                ));
            }
        }
        let before = self.plan.instances.iter().map(|one| &one.instance);
        let left = before.filter(|id| !actions.contains_key(id)).cloned();
        let left: Vec<InstanceId> = left.collect();
        let of_action = actions.iter();
        let told: Vec<InstanceId> = of_action
            .filter(|(_, action)| **action == PlannedAction::Stop)
            .map(|(id, _)| (*id).clone())
            .collect();
        self.judge.gone.extend(left);
        for what in broken {
            self.breaks(Promise::NothingTwice, what);
        }
        for id in told {
            if self.judge.stopped.insert(id.clone()) {
                self.judge_stop(&id);
            }
        }
    }

    /// An event is durable.
    pub(crate) fn judge_event(&mut self, event: &Event) {
        if event.number <= self.judge.last_event {
            let (number, last) = (event.number, self.judge.last_event);
            self.breaks(Promise::Order, format!("event {number} after {last}"));
        }
        self.judge.last_event = event.number;
        self.judge_course(event);
    }
}
