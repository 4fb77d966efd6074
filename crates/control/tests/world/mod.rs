//! A small world around the machine, in virtual time: an agent with processes, consumers with
//! workers, a disk with the last snapshot, and a judge who knows the truth and looks after each
//! input whether a promise was broken.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod agent;
pub(crate) mod consumer;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use mainstay_control::{
    Apply, Clock, Control, Input, Refusal, Reply, ServiceView, Settings, Snapshot,
};
use mainstay_ids::{Generation, InstanceId, Instant, NodeName, ServiceName, Timestamp};
use mainstay_model::event::DrainOutcome;
use mainstay_model::plan::PlannedAction;
use mainstay_model::route::{HttpMatch, PathPrefix};
use mainstay_model::service::{
    Check, HealthSpec, LimitsSpec, LogSpec, OnFailure, RolloutSpec, Step,
};
use mainstay_model::{
    Event, EventKind, InstanceState, NodePlan, Routing, ServiceSpec, ServiceState, Template,
};

pub(crate) use agent::Agent;
pub(crate) use consumer::Consumer;

pub(crate) const HOLD: Duration = Duration::from_millis(500);
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
pub(crate) const DRAIN: Duration = Duration::from_secs(4);

pub(crate) fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).expect("a legal name")
}

/// A service whose program is a behaviour of [`agent::Behaviour`].
pub(crate) fn spec(service: &str, instances: u32, behaviour: &str) -> ServiceSpec {
    let one = NonZeroU32::MIN;
    ServiceSpec {
        name: name(service),
        exec: vec![Template::parse(behaviour).expect("legal")],
        dir: "/".into(),
        user: None,
        env: BTreeMap::new(),
        address: None,
        http: Some(HttpMatch {
            host: None,
            path: PathPrefix::parse(&format!("/{service}")).expect("legal"),
        }),
        health: HealthSpec {
            check: Check::Tcp,
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            fall: one,
            rise: one,
            start: None,
            restart: None,
        },
        instances,
        rollout: RolloutSpec {
            step: Step::Count(one),
            hold: HOLD,
            deadline: DEADLINE,
            progress: mainstay_model::service::PROGRESS,
            canary: None,
            on_failure: OnFailure::Rollback,
        },
        drain: DRAIN,
        grace: Duration::from_secs(1),
        log: LogSpec {
            size: 1 << 20,
            keep: 1,
        },
        slo: None,
        needs: BTreeSet::new(),
        before: Vec::new(),
        schedule: None,
        limits: LimitsSpec::default(),
        secrets: BTreeMap::new(),
        artifact: None,
    }
}

/// When the control centre is killed in the course of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Never,
    BeforeSaving,
    BeforePublishing,
}

/// What the judge noted of an instance.
#[derive(Debug, Default)]
struct Record {
    drain_started: Option<u64>,
    finished: Option<DrainOutcome>,
}

pub(crate) struct World {
    pub(crate) control: Control,
    pub(crate) settings: Settings,
    pub(crate) now_ms: u64,
    clock_set_ms: i64,
    /// The disk: the last durable snapshot.
    saved: Option<String>,
    saves: u32,
    /// What watchers get at present.
    pub(crate) routing: Routing,
    pub(crate) plan: NodePlan,
    pub(crate) agent: Agent,
    pub(crate) consumers: Vec<Consumer>,
    pub(crate) events: Vec<Event>,
    pub(crate) restores: u32,
    records: BTreeMap<InstanceId, Record>,
    stopped: BTreeSet<InstanceId>,
    /// Every broken promise.
    pub(crate) broken: Vec<String>,
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let node = NodeName::parse("local").expect("a legal name");
        let control = Control::new(node, settings);
        Self {
            routing: control.routing().clone(),
            plan: control.plan().clone(),
            control,
            settings,
            now_ms: 1000,
            clock_set_ms: 0,
            saved: None,
            saves: 0,
            agent: Agent::new(),
            consumers: Vec::new(),
            events: Vec::new(),
            restores: 0,
            records: BTreeMap::new(),
            stopped: BTreeSet::new(),
            broken: Vec::new(),
        }
    }

    /// The time of day at so many milliseconds of the world's life, where nobody sets the clock.
    pub(crate) fn at(ms: u64) -> Timestamp {
        Timestamp(1_800_000_000_000 + ms)
    }

    /// Sets the time of day forward or back.
    pub(crate) fn set_clock(&mut self, by_ms: i64) {
        self.clock_set_ms += by_ms;
    }

    pub(crate) fn clock(&self) -> Clock {
        Clock {
            now: Instant::from_start(Duration::from_millis(self.now_ms)),
            at: Timestamp(
                Self::at(self.now_ms)
                    .0
                    .saturating_add_signed(self.clock_set_ms),
            ),
        }
    }

    pub(crate) fn input(&mut self, input: Input) -> Result<Reply, Refusal> {
        self.input_cut(input, Cut::Never)
    }

    /// Hands in one input as the server does: decide, save, publish.
    pub(crate) fn input_cut(&mut self, input: Input, cut: Cut) -> Result<Reply, Refusal> {
        let ready_before = self.ready();
        let clock = self.clock();
        let reply = self.control.handle(clock, input);
        let events = self.control.take_events();
        let mut useful = ready_before;
        for event in &events {
            if let EventKind::InstanceExited { instance, .. }
            | EventKind::InstanceFailing { instance, .. } = &event.kind
            {
                useful.remove(instance);
            }
        }
        self.judge_drains(&useful);
        if cut == Cut::BeforeSaving {
            self.restart_control();
            return reply;
        }
        self.save();
        for event in events {
            self.judge_event(event);
        }
        if cut == Cut::BeforePublishing {
            self.restart_control();
            return reply;
        }
        self.publish();
        reply
    }

    fn save(&mut self) {
        self.saves += 1;
        let changed = self.control.snapshot_changed();
        // To write all of it each time only to compare would take most of the test's time.
        if changed || self.saves.is_multiple_of(8) {
            let snapshot = serde_json::to_string(&self.control.snapshot()).expect("it is JSON");
            if !changed && self.saved.as_ref() != Some(&snapshot) {
                self.broken
                    .push("the snapshot changed and does not say so".into());
            }
            self.saved = Some(snapshot);
        }
    }

    /// SIGKILL of the control centre, and the next one starts from the disk.
    pub(crate) fn restart_control(&mut self) {
        self.restores += 1;
        let Some(saved) = &self.saved else {
            let node = NodeName::parse("local").expect("a legal name");
            self.control = Control::new(node, self.settings);
            return;
        };
        let snapshot: Snapshot = serde_json::from_str(saved).expect("it was written by us");
        let restored = Control::restore(snapshot, self.settings, self.clock());
        self.control = restored.expect("it was written by us");
        let events = self.control.take_events();
        self.save();
        for event in events {
            self.judge_event(event);
        }
        self.publish();
    }

    fn publish(&mut self) {
        if !self.control.may_publish() {
            return;
        }
        let (routing, plan) = (self.control.routing().clone(), self.control.plan().clone());
        self.judge_order(
            "routing",
            self.routing.generation,
            routing.generation,
            self.routing.services == routing.services,
        );
        self.judge_order(
            "plan",
            self.plan.generation,
            plan.generation,
            self.plan.instances == plan.instances,
        );
        self.routing = routing;
        let before = std::mem::replace(&mut self.plan, plan);
        let told: Vec<InstanceId> = self
            .plan
            .instances
            .iter()
            .filter(|one| one.action == PlannedAction::Stop)
            .map(|one| one.instance.clone())
            .collect();
        for id in told {
            if self.stopped.insert(id.clone()) {
                self.judge_stop(&id);
            }
        }
        drop(before);
    }

    fn judge_order(&mut self, what: &str, old: Generation, new: Generation, same: bool) {
        if new < old || (new == old && !same) {
            self.broken.push(format!("{what} went from {old} to {new}"));
        }
    }

    fn judge_event(&mut self, event: Event) {
        if let Some(last) = self.events.last()
            && event.number <= last.number
        {
            self.broken
                .push(format!("event {} after {}", event.number, last.number));
        }
        match &event.kind {
            EventKind::DrainStarted { instance, .. } => {
                let record = self.records.entry(instance.clone()).or_default();
                if record.drain_started.replace(self.now_ms).is_some() {
                    self.broken.push(format!("{instance} is drained twice"));
                }
            }
            EventKind::DrainFinished {
                instance, outcome, ..
            } => {
                self.records.entry(instance.clone()).or_default().finished = Some(*outcome);
            }
            _ => {}
        }
        self.events.push(event);
    }

    /// Whether the drain time of the instance is over, by the judge's own clock.
    fn drain_over(&self, id: &InstanceId) -> bool {
        let started = self.records.get(id).and_then(|record| record.drain_started);
        started.is_some_and(|at| self.now_ms >= at + DRAIN.as_millis() as u64)
    }

    /// An instance is told to stop: nobody alive may be able to reach it, unless its time is over.
    fn judge_stop(&mut self, id: &InstanceId) {
        let Some(attempt) = self.agent.running_attempt(id) else {
            return;
        };
        if self.drain_over(id) {
            return;
        }
        for consumer in &self.consumers {
            if let Some(how) = consumer.can_reach(id, attempt) {
                let who = &consumer.id;
                self.broken
                    .push(format!("{id} is told to stop while {who} {how}"));
            }
        }
    }

    /// A worker sends a request: whoever gets it must not have been told to stop.
    pub(crate) fn judge_request(&mut self, id: &InstanceId) {
        if self.stopped.contains(id)
            && self.agent.running_attempt(id).is_some()
            && !self.drain_over(id)
        {
            self.broken.push(format!(
                "a request was sent to {id}, which was told to stop"
            ));
        }
    }

    fn ready(&self) -> BTreeSet<InstanceId> {
        let ready = self
            .control
            .instances()
            .filter(|one| one.state == InstanceState::Ready);
        ready.map(|one| one.instance).collect()
    }

    /// Whoever was ready and is drained must not be missed.
    fn judge_drains(&mut self, before: &BTreeSet<InstanceId>) {
        let after = self.ready();
        for service in self.control.services() {
            if service.state == ServiceState::Removing {
                continue;
            }
            let drained = self.control.instances().any(|one| {
                one.instance.service == *service.service
                    && matches!(one.state, InstanceState::Draining | InstanceState::Stopping)
                    && before.contains(&one.instance)
            });
            let ready = after
                .iter()
                .filter(|id| id.service == *service.service)
                .count();
            if drained && ready < service.wanted as usize {
                self.broken.push(format!(
                    "{} has {ready} ready of {} after a drain",
                    service.service, service.wanted
                ));
            }
        }
    }

    pub(crate) fn service(&self, service: &str) -> ServiceView<'_> {
        self.control.service(&name(service)).expect("it exists")
    }

    pub(crate) fn apply(&mut self, spec: ServiceSpec) -> Reply {
        let services = vec![spec];
        self.input(Input::Apply(Apply { services }))
            .expect("it is legal")
    }

    pub(crate) fn happened(&self, is: impl Fn(&EventKind) -> bool) -> usize {
        self.events.iter().filter(|event| is(&event.kind)).count()
    }

    /// Lets everybody do their duty for so long, every 25 ms.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now_ms + duration.as_millis() as u64;
        while self.now_ms < end {
            self.now_ms += 25;
            self.tick();
            self.agent.fetch(&self.plan);
            self.agent.step(self.now_ms);
            let report = self.agent.report();
            self.input(Input::Report(report)).expect("our node");
            for at in 0..self.consumers.len() {
                if self.consumers[at].frozen {
                    continue;
                }
                let routing = self.routing.clone();
                self.consumers[at].apply_everywhere(&routing);
                let ack = self.consumers[at].ack();
                self.input(Input::Ack(ack)).expect("few consumers");
            }
        }
    }

    /// The time of a deadline has come.
    pub(crate) fn tick(&mut self) {
        let now = self.clock().now;
        let mut ticks = 0;
        while self.control.next_deadline().is_some_and(|at| at <= now) {
            self.input(Input::Tick).expect("a tick is never refused");
            ticks += 1;
            assert!(ticks < 100, "a deadline stays in the past");
        }
    }

    pub(crate) fn join(&mut self, consumer: Consumer) {
        let id = consumer.id.clone();
        self.consumers.push(consumer);
        self.input(Input::ConsumerJoined(id))
            .expect("few consumers");
    }

    /// Instances in the routes of a service.
    pub(crate) fn listed(&self, service: &str) -> Vec<u64> {
        let service = name(service);
        let routes = self
            .routing
            .services
            .iter()
            .find(|one| one.service == service);
        routes.map_or_else(Vec::new, |routes| {
            routes
                .endpoints
                .iter()
                .map(|one| one.instance.number)
                .collect()
        })
    }

    pub(crate) fn stopped(&self, id: &InstanceId) -> bool {
        self.stopped.contains(id)
    }
}
