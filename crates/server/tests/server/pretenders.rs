//! An agent and a gateway that speak the real API and only pretend to have processes and requests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use mainstay_api::client::{Client, Error};
use mainstay_api::wire::Accepted;
use mainstay_ids::{Attempt, ConsumerId, Generation, Incarnation, InstanceId, Timestamp, Version};
use mainstay_model::routing::EndpointHealth;
use mainstay_model::{
    Ack, Endpoint, Exit, InFlight, InstanceReport, NodePlan, NodeReport, Phase, PlannedAction,
    ProbedHealth, Routing,
};
use tokio::time::{Interval, interval};
use tokio_util::task::AbortOnDropHandle;

use crate::centre::node;

/// How often they report without a cause; faster than the real ones, so that tests are.
const BEAT: Duration = Duration::from_millis(50);

/// An agent whose instances pass at once and stop at once.
pub(crate) struct Agent {
    seen: Arc<Mutex<Seen>>,
    _task: AbortOnDropHandle<()>,
}

/// What the agent has and what it was told.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) plan: Option<NodePlan>,
    pub(crate) running: BTreeMap<InstanceId, Version>,
    pub(crate) stopped: BTreeMap<InstanceId, Version>,
    /// Every instance that was ever started.
    pub(crate) started: BTreeSet<InstanceId>,
    /// Reports that were taken.
    pub(crate) reports: u64,
    /// The one that fails its probes.
    lost: Option<InstanceId>,
    /// What no control centre may ever ask for.
    pub(crate) wrong: Vec<String>,
}

impl Seen {
    fn follow(&mut self, plan: NodePlan) {
        if let Some(last) = &self.plan
            && last.generation > plan.generation
        {
            let (last, next) = (last.generation, plan.generation);
            self.wrong.push(format!("plan {next} came after {last}"));
        }
        let planned: BTreeSet<_> = plan
            .instances
            .iter()
            .map(|planned| &planned.instance)
            .collect();
        self.stopped
            .retain(|instance, _| planned.contains(instance));
        for planned in &plan.instances {
            let (instance, version) = (&planned.instance, planned.version);
            match planned.action {
                PlannedAction::Run | PlannedAction::Hold | PlannedAction::RunOnce => {
                    if self.stopped.contains_key(instance) {
                        self.wrong
                            .push(format!("{instance} was stopped and is to run again"));
                    }
                    let running = self.running.get(instance).copied();
                    if running.is_some_and(|running| running != version) {
                        self.wrong
                            .push(format!("{instance} is planned as two versions"));
                    }
                    if running.is_none() && !self.started.insert(instance.clone()) {
                        self.wrong.push(format!("{instance} is planned twice"));
                    }
                    self.running.insert(instance.clone(), version);
                }
                PlannedAction::Stop => {
                    self.running.remove(instance);
                    self.stopped.insert(instance.clone(), version);
                }
            }
        }
        self.plan = Some(plan);
    }

    fn report(&self, incarnation: Incarnation) -> NodeReport {
        let running = self.running.iter().map(|(instance, version)| {
            let port = 20_000 + u16::try_from(instance.number).expect("few instances");
            let phase = Phase::Running {
                pid: u32::from(port),
                address: SocketAddr::from(([127, 0, 0, 1], port)),
                health: match &self.lost {
                    Some(lost) if lost == instance => ProbedHealth::Failing,
                    Some(_) | None => ProbedHealth::Passing,
                },
                since: Timestamp(0),
            };
            (instance, *version, phase)
        });
        let stopped = self.stopped.iter().map(|(instance, version)| {
            let exit = Some(Exit::Code(0));
            (instance, *version, Phase::Stopped { exit })
        });
        let mut instances: Vec<_> = running
            .chain(stopped)
            .map(|(instance, version, phase)| InstanceReport {
                instance: instance.clone(),
                version,
                attempt: Attempt::FIRST,
                phase,
                last_exit: None,
                probe_failure: None,
                log_dropped: 0,
            })
            .collect();
        instances.sort_by(|a, b| a.instance.cmp(&b.instance));
        NodeReport {
            node: node(),
            incarnation,
            plan: self.plan.as_ref().map(|plan| plan.generation),
            boot: None,
            instances,
            capacity: None,
            happenings: Vec::new(),
        }
    }
}

impl Agent {
    pub(crate) fn start(client: Client) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(follow_plan(client, seen.clone()));
        Self {
            seen,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic while it was held")
    }

    /// How many instances it runs, and how many it has stopped and not forgotten.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let seen = self.seen();
        (seen.running.len(), seen.stopped.len())
    }

    /// From now on one of its instances fails its probes; which.
    pub(crate) fn lose(&self) -> String {
        let mut seen = self.seen();
        seen.lost = seen.running.keys().next().cloned();
        seen.lost.as_ref().expect("one runs").to_string()
    }

    /// Every instance passes again.
    pub(crate) fn find(&self) {
        self.seen().lost = None;
    }

    /// The ids that the plan names with this action.
    pub(crate) fn planned(&self, action: PlannedAction) -> Vec<String> {
        let seen = self.seen();
        let planned = seen.plan.iter().flat_map(|plan| &plan.instances);
        let named = planned.filter(|planned| planned.action == action);
        named.map(|planned| planned.instance.to_string()).collect()
    }
}

async fn follow_plan(client: Client, seen: Arc<Mutex<Seen>>) {
    let incarnation = Incarnation(1);
    let mut beat = interval(BEAT);
    loop {
        // It ends with each control centre; a real agent backs off, this one looks again soon.
        let _ = follow_one_plan(&client, &seen, incarnation, &mut beat).await;
        beat.tick().await;
    }
}

async fn follow_one_plan(
    client: &Client,
    seen: &Mutex<Seen>,
    incarnation: Incarnation,
    beat: &mut Interval,
) -> Result<(), Error> {
    let path = format!("/v1/watch/plan?node=local&incarnation={}", incarnation.0);
    let mut plans = client.watch::<NodePlan>(&path).await?;
    loop {
        tokio::select! {
            plan = plans.next() => match plan? {
                Some(plan) => seen.lock().expect("no panic").follow(plan),
                None => return Ok(()),
            },
            _ = beat.tick() => {}
        }
        let report = seen.lock().expect("no panic").report(incarnation);
        client
            .post::<_, Accepted>("/v1/nodes/report", &report)
            .await?;
        seen.lock().expect("no panic").reports += 1;
    }
}

/// A gateway that acknowledges what it is allowed to.
pub(crate) struct Gateway {
    state: Arc<Mutex<GatewayState>>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct GatewayState {
    routing: Option<Routing>,
    /// It applies no newer generation than this; `None`: each one at once.
    hold: Option<Generation>,
    busy: BTreeMap<InstanceId, u64>,
    acks: u64,
    wrong: Vec<String>,
}

impl GatewayState {
    fn ack(&self, consumer: &ConsumerId) -> Ack {
        let newest = self.routing.as_ref().map(|routing| routing.generation);
        let in_flight = self.busy.iter().map(|(instance, requests)| InFlight {
            instance: instance.clone(),
            requests: *requests,
        });
        Ack {
            unbound: Vec::new(),
            consumer: consumer.clone(),
            generation: match self.hold {
                Some(hold) => newest.min(Some(hold)),
                None => newest,
            },
            in_flight: in_flight.collect(),
        }
    }
}

impl Gateway {
    pub(crate) fn start(client: Client) -> Self {
        let state = Arc::new(Mutex::new(GatewayState::default()));
        let task = tokio::spawn(follow_routes(client, state.clone()));
        Self {
            state,
            _task: AbortOnDropHandle::new(task),
        }
    }

    fn state(&self) -> MutexGuard<'_, GatewayState> {
        self.state.lock().expect("no panic while it was held")
    }

    pub(crate) fn generation(&self) -> Option<Generation> {
        let state = self.state();
        state.routing.as_ref().map(|routing| routing.generation)
    }

    /// The instances that it may choose, as long as one passes.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let state = self.state();
        let services = state.routing.iter().flat_map(|routing| &routing.services);
        let endpoints = services.flat_map(|service| &service.endpoints);
        let endpoints = endpoints.filter(|endpoint| endpoint.health == EndpointHealth::Passing);
        endpoints
            .map(|Endpoint { instance, .. }| instance.to_string())
            .collect()
    }

    /// From now on nothing newer than what it has is applied.
    pub(crate) fn hold(&self) {
        let newest = self.generation();
        self.state().hold = newest;
    }

    pub(crate) fn release(&self) {
        self.state().hold = None;
    }

    /// Pretends to have requests in flight to an instance.
    pub(crate) fn set_busy(&self, instance: &str, requests: u64) {
        let instance = instance.parse().expect("an id");
        self.state().busy.insert(instance, requests);
    }

    /// How many acknowledgements were taken.
    pub(crate) fn acks(&self) -> u64 {
        self.state().acks
    }

    pub(crate) fn wrong(&self) -> Vec<String> {
        self.state().wrong.clone()
    }
}

async fn follow_routes(client: Client, state: Arc<Mutex<GatewayState>>) {
    let consumer = ConsumerId {
        name: "gateway".to_owned(),
        incarnation: Incarnation(1),
    };
    let mut beat = interval(BEAT);
    loop {
        let _ = follow_one_watch(&client, &state, &consumer, &mut beat).await;
        beat.tick().await;
    }
}

async fn follow_one_watch(
    client: &Client,
    state: &Mutex<GatewayState>,
    consumer: &ConsumerId,
    beat: &mut Interval,
) -> Result<(), Error> {
    let path = format!(
        "/v1/watch/routes?name={}&incarnation={}",
        consumer.name, consumer.incarnation.0
    );
    let mut states = client.watch::<Routing>(&path).await?;
    loop {
        tokio::select! {
            routing = states.next() => match routing? {
                Some(routing) => {
                    let mut state = state.lock().expect("no panic");
                    let last = state.routing.as_ref().map(|routing| routing.generation);
                    if last > Some(routing.generation) {
                        let next = routing.generation;
                        state.wrong.push(format!("routing {next} came after {last:?}"));
                    }
                    state.routing = Some(routing);
                }
                None => return Ok(()),
            },
            _ = beat.tick() => {}
        }
        let ack = state.lock().expect("no panic").ack(consumer);
        client
            .post::<_, Accepted>("/v1/consumers/ack", &ack)
            .await?;
        state.lock().expect("no panic").acks += 1;
    }
}
