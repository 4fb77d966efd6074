//! The calm: no more mishaps, everybody does their duty. All must come to rest as wanted, stay
//! there, and still be able to change.

use std::collections::BTreeSet;

use mainstay_control::{Apply, Input};
use mainstay_ids::InstanceId;
use mainstay_model::{EventKind, InstanceState, ServiceState};

use crate::broken::Promise;
use crate::people;
use crate::program::Behaviour;
use crate::simulation::Simulation;
use crate::told::Wish;
use crate::world::{Cut, World};

/// The time between two rounds of reports and acknowledgements.
const ROUND_MS: u64 = 200;
/// So long nothing may change at rest.
const STAY_MS: u64 = 8000;

impl Simulation {
    pub(crate) fn calm(&mut self) {
        self.world.note(|| "the calm begins".into());
        self.end_mishaps();
        if !self.world.agent.alive {
            self.world.agent.come_back(0);
        }
        self.world.agent.soothe();
        let heard = self.settle_consumers();
        let begin = self.world.now_ms;
        if self.rest() {
            self.world.judge_rest();
            self.world.judge_drains_in_vain(begin, heard);
            self.stay();
        }
        if self.world.collect_broken().is_empty() {
            self.encore(heard);
        }
        self.world.collect_broken();
    }

    /// Most come back and finish. One may stay mute for ever, one may have gone for good.
    fn settle_consumers(&mut self) -> Heard {
        let mut heard = Heard::All;
        let all = self.world.consumers.len();
        let (gone, mute) = (self.random.place(all * 4), self.random.place(all * 5));
        for at in 0..all {
            if self.world.consumers[at].dead {
                self.world.consumers[at].come_back();
            }
            self.world.consumers[at].finish_all();
            self.world.consumers[at].frozen = at == mute;
            if at == mute {
                heard = Heard::NotAll;
            } else if at == gone {
                let id = self.leave(at);
                self.world.hand_in(Input::Farewell(id), Cut::Never);
            }
        }
        heard
    }

    fn round(&mut self) {
        self.world.pass(ROUND_MS);
        let world = &mut self.world;
        world.agent.step(world.now_ms);
        if world.gives_plan() {
            world.agent.fetch(&world.plan);
        }
        let report = world.agent.report();
        world.hand_in(Input::Report(report), Cut::Never);
        for at in 0..self.world.consumers.len() {
            let consumer = &self.world.consumers[at];
            if consumer.frozen || consumer.dead {
                continue;
            }
            if !consumer.joined {
                let id = consumer.id.clone();
                self.join(&id);
            }
            if self.world.publishes() {
                self.world.consumers[at].apply_everywhere(&self.world.routing);
            }
            self.world.acknowledge(at);
        }
    }

    /// Until everything rests; whether it does.
    fn rest(&mut self) -> bool {
        let end = self.world.now_ms + self.world.rests_within_ms();
        self.round();
        while self.world.now_ms < end && !self.world.at_rest() {
            self.round();
            if !self.world.collect_broken().is_empty() {
                return false;
            }
        }
        let rests = self.world.at_rest();
        if !rests {
            let what = format!("no rest after all time: {}", self.world.judge.last);
            self.world.breaks(Promise::Ends, what);
        }
        rests
    }

    /// Nothing is decided any more where nothing happens.
    fn stay(&mut self) {
        let steady = self.world.is_steady();
        let from = self.world.events.len();
        let generation = self.world.routing.generation;
        let end = self.world.now_ms + STAY_MS;
        while self.world.now_ms < end && self.world.collect_broken().is_empty() {
            self.round();
        }
        let events = self.world.events.split_off(from);
        let decided = |kind: &EventKind| {
            matches!(
                kind,
                EventKind::InstancePlanned { .. }
                    | EventKind::DrainStarted { .. }
                    | EventKind::RolloutStarted { .. }
                    | EventKind::RollbackStarted { .. }
                    | EventKind::RemovalStarted
            )
        };
        // Where a program goes on ending or flapping, what follows from that may be decided.
        let mut restless = BTreeSet::new();
        for event in &events {
            let scheduled = event.service.as_ref().is_some_and(|service| {
                let view = self.world.control.service(service);
                view.is_some_and(|view| view.spec.schedule.is_some())
            });
            if scheduled {
                continue;
            }
            let quiet = !restless.contains(&event.service);
            if (steady && event.service.is_some()) || (decided(&event.kind) && quiet) {
                let what = format!("at rest: {}", event.kind);
                self.world.breaks(Promise::StaysAtRest, what);
            } else {
                restless.insert(event.service.clone());
            }
        }
        if steady && self.world.routing.generation != generation {
            let what = "at rest: other routes".into();
            self.world.breaks(Promise::StaysAtRest, what);
        }
    }

    /// A good version of some service gets there, and what is removed goes.
    fn encore(&mut self, heard: Heard) {
        let service = people::service(&mut self.random);
        let wanted = 1 + self.random.below(4) as u32;
        let begin = self.world.now_ms;
        let mut services = vec![people::good(&service, wanted, "good-170")];
        if service.as_str() == "web" {
            let pay = mainstay_ids::ServiceName::parse("pay").expect("a legal name");
            services.push(people::good(&pay, 1, "good-170"));
        }
        let apply = Input::Apply(Apply { services });
        let answer = self.world.hand_in(apply, Cut::Never);
        self.world.tally.count("encore");
        if !matches!(answer, crate::world::Answer::Taken(_)) {
            // Its route or address may belong to a version that another could go back to.
            self.world.tally.count("encore refused");
            return;
        }
        if !self.rest() {
            return;
        }
        self.world.judge_rest();
        self.world.judge_drains_in_vain(begin, heard);
        let state = self.world.control.service(&service).map(|view| view.state);
        if state != Some(ServiceState::Steady) {
            let what = format!("{service} is {state:?} after a good version");
            self.world.breaks(Promise::Arrives, what);
        }
        self.world.hand_in(Input::RemoveAll, Cut::Never);
        if self.rest() {
            let left = self.world.agent.all();
            if !left.is_empty() || !self.world.routing.services.is_empty() {
                let what = format!("everything was removed, and there are {left:?}");
                self.world.breaks(Promise::RestsAsWanted, what);
            }
        }
    }
}

/// Whether every consumer is there or has said farewell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    All,
    NotAll,
}

impl World {
    pub(crate) fn at_rest(&self) -> bool {
        let control = &self.control;
        let settled = control.services().all(|service| match service.state {
            ServiceState::Steady
            | ServiceState::Failed
            | ServiceState::Paused
            | ServiceState::AwaitsPromotion => true,
            ServiceState::Degraded => {
                let mut kept = self.judge.last.kept(service.service);
                let held = kept.any(|(_, one)| one.state == InstanceState::Held);
                held || !Behaviour::of(service.spec).is_good()
            }
            ServiceState::RollingOut | ServiceState::RollingBack | ServiceState::Removing => false,
        });
        let shown = &self.judge.last.instances;
        control.may_publish()
            && self.is_durable()
            && settled
            && shown
                .values()
                .all(|one| one.is_kept() || one.state == InstanceState::Held)
            && self.agent.plan_generation() == Some(self.plan.generation)
            && self.agent_has_them()
    }

    /// Whether the agent has the instances that the machine has. Of one that is held it may know.
    fn agent_has_them(&self) -> bool {
        let shown = &self.judge.last.instances;
        let held = |id: &InstanceId| {
            let state = shown.get(id).map(|one| one.state);
            state == Some(InstanceState::Held)
        };
        let all = self.agent.all();
        let has = all.iter().filter(|id| !held(id));
        has.eq(shown.keys().filter(|id| !held(id)))
    }

    /// Whether all are steady, with programs that stay as they are.
    fn is_steady(&self) -> bool {
        let services = &mut self.control.services();
        let steady = services.all(|service| service.state == ServiceState::Steady);
        steady
            && self
                .judge
                .last
                .instances
                .keys()
                .all(|id| self.agent.behaviour(id).is_some_and(Behaviour::is_good))
    }

    /// At rest, everything is as people want it.
    pub(crate) fn judge_rest(&mut self) {
        let mut broken = Vec::new();
        for (service, wish) in &self.judge.told.wishes {
            let view = self.control.service(service);
            match (wish, view) {
                (Wish::Gone, None) => {}
                (Wish::Gone, Some(_)) => broken.push(format!("{service} is not gone")),
                (Wish::Runs { .. }, None) => broken.push(format!("{service} is gone")),
                (Wish::Runs { wanted, .. }, Some(view)) => {
                    if view.wanted != *wanted {
                        broken.push(format!("{service} wants {}, not {wanted}", view.wanted));
                    }
                }
            }
        }
        if !self.agent_has_them() {
            broken.push("the agent has others than the control centre".into());
        }
        for view in self.control.services() {
            let kept = self.judge.last.kept(view.service);
            let ready = |version| {
                kept.filter(|(_, one)| one.version == version && one.state == InstanceState::Ready)
                    .map(|(id, _)| id.number)
                    .collect::<Vec<u64>>()
            };
            let ready = ready(view.version);
            let listed = self.listed(view.service.as_str());
            let steady = view.state == ServiceState::Steady;
            let routed = view.spec.http.is_some() || view.spec.address.is_some();
            if steady && ready.len() != view.wanted as usize {
                broken.push(format!("{} is steady with {ready:?}", view.service));
            }
            if steady && routed && listed != ready {
                let service = view.service;
                broken.push(format!("{service} has {ready:?} and lists {listed:?}"));
            }
        }
        for what in broken {
            self.breaks(Promise::RestsAsWanted, what);
        }
    }

    /// Whatever began to drain in the calm was acknowledged by all.
    pub(crate) fn judge_drains_in_vain(&mut self, begin: u64, heard: Heard) {
        // Those that began before may have lost their time to somebody frozen.
        let from = begin + crate::fixtures::DRAIN.as_millis() as u64 + ROUND_MS;
        if heard == Heard::All && self.drains_over.iter().any(|at| *at > from) {
            let what = "a drain took all its time although everybody acknowledged".into();
            self.breaks(Promise::NoDrainInVain, what);
        }
    }
}
