//! A worker's own view of the routing table: the shared table, and for each service and endpoint
//! what only this worker knows: what it has seen of their behaviour, and its idle connections.
//!
//! Nothing here is shared between threads, so nothing is locked. Latencies and ejections are each
//! worker's own, too: shared ones would put a contended cache line into every request, and a worker
//! learns of a sick endpoint from a handful of its own requests. Only the number of requests in
//! flight is shared, because the drain needs one number; the balancer gets it for nothing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use mainstay_control::balance::{
    self, Balancer, Course, Event, LANES, Learnt, Listed, Load, Next, Picked, Scene, Ticket,
    Traits, Wish,
};
use mainstay_http1::Request;
use mainstay_ids::{Instant, ServiceName, Version};
use mainstay_model::rewrite::Redirect;
use mainstay_model::routing::{Handle, Unavailable};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::connection::Scope;
use crate::endpoint::{EndpointKey, EndpointState};
use crate::exchange::Exchange;
use crate::limits::{UPSTREAM_IDLE_COUNT_MAX, UPSTREAM_IDLE_MAX};
use crate::metrics::{Level, ServiceCounts};
use crate::policy::{Policy, Usual};
use crate::table::{Found, Serial, Table, TableEndpoint, TableService};
use crate::upstream::{Assurance, Upstream};
use crate::wire::Buffers;
use crate::worker::Worker;

/// One generation as one worker sees it.
pub(crate) struct View {
    table: Arc<Table>,
    services: Vec<Rc<LocalService>>,
    endpoints: HashMap<EndpointKey, Rc<LocalEndpoint>>,
    /// Those of earlier views to which something is still under way.
    leaving: Vec<Weak<LocalEndpoint>>,
    deaths: Deaths,
}

/// Whether a table declares an endpoint dead that the one before had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deaths {
    None,
    Some,
}

impl View {
    /// The view before the first table.
    pub(crate) fn empty(table: Arc<Table>) -> Self {
        Self {
            table,
            services: Vec::new(),
            endpoints: HashMap::new(),
            leaving: Vec::new(),
            deaths: Deaths::None,
        }
    }

    /// The view of `table` that follows this one. Idle connections to endpoints that are gone are
    /// closed, and those that are under way will be closed instead of pooled.
    pub(crate) fn next(&self, table: Arc<Table>, clock: Clock, usual: Usual) -> Self {
        let now = clock.now();
        let names = self.services.iter().map(|service| &service.name);
        let known: HashMap<_, _> = names.zip(&self.services).collect();
        let mut endpoints = HashMap::with_capacity(self.endpoints.len());
        let mut services = Vec::with_capacity(table.services.len());
        for service in &table.services {
            let mut listed = Vec::with_capacity(service.endpoints.len());
            for endpoint in &service.endpoints {
                let key = &endpoint.state.key;
                let local = self
                    .endpoints
                    .get(key)
                    .map_or_else(|| Rc::new(LocalEndpoint::new(endpoint, clock)), Rc::clone);
                local.handle.set(endpoint.handle);
                endpoints.insert(key.clone(), Rc::clone(&local));
                listed.push(Listed {
                    endpoint: Candidate(local),
                    health: endpoint.health,
                    intake: endpoint.intake,
                });
            }
            let known = known.get(&service.name);
            let local =
                LocalService::new(service, known.map(|known| &***known), listed, (now, usual));
            services.push(Rc::new(local));
        }
        let mut deaths = Deaths::None;
        for old in &self.services {
            // Requests that have come to a service that is gone must not find anybody there.
            if !table
                .services
                .iter()
                .any(|service| service.name == old.name)
            {
                old.balance.update(now, usual.policy, Vec::new());
            }
        }
        let mut leaving = Vec::new();
        for local in self.known() {
            let key = &local.shared.key;
            if !endpoints.contains_key(key) {
                local.retire();
                leaving.push(Rc::downgrade(&local));
            }
            if table.declares_dead(key) {
                local.life.set(Life::Dead);
                deaths = Deaths::Some;
            }
        }
        Self {
            table,
            services,
            endpoints,
            leaving,
            deaths,
        }
    }

    /// All endpoints that requests of this worker can be at.
    fn known(&self) -> impl Iterator<Item = Rc<LocalEndpoint>> {
        let leaving = self.leaving.iter().filter_map(Weak::upgrade);
        self.endpoints.values().map(Rc::clone).chain(leaving)
    }

    /// Whether an endpoint of the view before has died.
    pub(crate) fn deaths(&self) -> Deaths {
        self.deaths
    }

    pub(crate) fn serial(&self) -> Serial {
        self.table.serial
    }

    /// The service that a request belongs to.
    pub(crate) fn find(&self, scope: Scope, request: &Request) -> Option<&Rc<LocalService>> {
        let index = match scope {
            Scope::Entry => match self.table.find(request)? {
                Found::Service(index) => index,
                // A new table came while the request was under way. It has been begun, and so it
                // is not sent elsewhere any more.
                Found::Redirect(..) => return None,
            },
            Scope::Address(address) => self.table.find_address(address)?,
        };
        self.services.get(index.0)
    }

    /// The redirect that takes a request, with the label of its service.
    pub(crate) fn find_redirect(
        &self,
        scope: Scope,
        request: &Request,
    ) -> Option<(&Rc<str>, &Redirect)> {
        if scope != Scope::Entry || !self.table.has_redirects() {
            return None;
        }
        match self.table.find(request)? {
            Found::Service(_) => None,
            Found::Redirect(index, redirect) => {
                let service = self.services.get(index.0)?;
                Some((&service.label, redirect))
            }
        }
    }

    /// Closes pooled connections that are too old or dead.
    pub(crate) fn sweep(&self) {
        for endpoint in self.endpoints.values() {
            endpoint.sweep();
        }
    }
}

/// The counters of a service, shared within one worker: a clone of an [`Arc`] for each request would
/// be a line that all workers write.
pub(crate) struct Counted(Arc<ServiceCounts>);

impl Counted {
    /// Requests that stand in the line, over all workers.
    pub(crate) fn standing(&self) -> &Level {
        &self.0.queue
    }
}

impl std::ops::Deref for Counted {
    type Target = ServiceCounts;

    fn deref(&self) -> &ServiceCounts {
        &self.0
    }
}

/// One service as one worker sees it.
pub(crate) struct LocalService {
    pub(crate) name: ServiceName,
    /// Its name, for whoever outlives this view without keeping it.
    pub(crate) label: Rc<str>,
    /// What is counted of it.
    pub(crate) counts: Rc<Counted>,
    pub(crate) unavailable: Option<Unavailable>,
    pub(crate) policy: Arc<Policy>,
    /// The endpoints of this view's table.
    pub(crate) endpoints: Vec<Rc<LocalEndpoint>>,
    balance: Rc<Balance>,
}

/// What a worker has learnt of a service. The same in all views, so that it survives a new table;
/// its endpoints are those of the newest.
struct Balance {
    balancer: RefCell<Balancer<Candidate>>,
    /// Wakes those who wait in the line.
    turns: RefCell<HashMap<Ticket, Rc<Notify>>>,
}

impl Balance {
    fn new(now: Instant, policy: balance::Policy) -> Self {
        Self {
            balancer: RefCell::new(Balancer::new(now, policy)),
            turns: RefCell::default(),
        }
    }

    fn update(&self, now: Instant, policy: balance::Policy, listed: Vec<Listed<Candidate>>) {
        let mut balancer = self.balancer.borrow_mut();
        balancer.change(policy);
        balancer.update(now, listed);
    }
}

/// An endpoint in the balancer's eyes. A [`View`] keeps one [`LocalEndpoint`] for one start of one
/// instance, so that the same pointer means the same endpoint.
struct Candidate(Rc<LocalEndpoint>);

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// What was learnt of endpoints by one event.
pub(crate) type Lessons = [Option<Learnt>; LANES];

impl LocalService {
    /// A service of a new table, with what was known of it.
    fn new(
        service: &TableService,
        known: Option<&Self>,
        listed: Vec<Listed<Candidate>>,
        (now, usual): (Instant, Usual),
    ) -> Self {
        let policy = service.policy.of_failures(usual);
        let balance = known.map_or_else(
            || Rc::new(Balance::new(now, policy)),
            |known| Rc::clone(&known.balance),
        );
        let endpoints = listed.iter().map(|one| Rc::clone(&one.endpoint.0));
        let endpoints = endpoints.collect();
        balance.update(now, policy, listed);
        Self {
            name: service.name.clone(),
            label: known.map_or_else(
                || Rc::from(service.name.as_str()),
                |known| Rc::clone(&known.label),
            ),
            counts: known
                .filter(|known| Arc::ptr_eq(&known.counts.0, &service.counts))
                .map_or_else(
                    || Rc::new(Counted(Arc::clone(&service.counts))),
                    |known| Rc::clone(&known.counts),
                ),
            unavailable: service.unavailable,
            policy: Arc::clone(&service.policy),
            endpoints,
            balance,
        }
    }

    /// How requests to it fail.
    pub(crate) fn failing(&self) -> balance::Policy {
        self.balance.balancer.borrow().policy()
    }

    /// Whether this is the same service as another view has it.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.balance, &other.balance)
    }

    /// Lets a request's course decide what follows an event.
    pub(crate) fn decide(
        &self,
        worker: &Worker,
        course: &mut Course,
        wish: Wish,
        event: Event,
    ) -> (Next, Lessons) {
        let mut lessons = Lessons::default();
        let mut count = 0;
        let mut note = |learnt: Learnt| {
            if let Some(place) = lessons.get_mut(count) {
                *place = Some(learnt);
                count += 1;
            }
        };
        let mut balancer = self.balance.balancer.borrow_mut();
        let mut scene = Scene {
            now: worker.now(),
            random: worker.random(),
            balancer: &mut balancer,
            budget: &mut worker.budget(),
            unavailable: self.unavailable,
            wish,
            traits: &|candidate: &Candidate| Traits {
                version: candidate.0.version,
                handle: candidate.0.handle.get(),
            },
            load: |candidate: &Candidate| Load {
                in_flight: candidate.0.shared.in_flight(),
                waiting: candidate.0.shared.waiting(),
            },
            learnt: &mut note,
        };
        let next = course.handle(&mut scene, event);
        (next, lessons)
    }

    /// The endpoint that was chosen in this moment.
    pub(crate) fn chosen(&self, picked: Picked) -> Option<Rc<LocalEndpoint>> {
        let balancer = self.balance.balancer.borrow();
        let Candidate(endpoint) = balancer.set().get(picked)?;
        Some(Rc::clone(endpoint))
    }

    /// Ends a request whose client has gone.
    pub(crate) fn abandon(&self, course: &mut Course) {
        course.abandon(&mut self.balance.balancer.borrow_mut());
    }

    /// What wakes the holder of a place in the line.
    pub(crate) fn await_turn(&self, ticket: Ticket) -> Rc<Notify> {
        let mut turns = self.balance.turns.borrow_mut();
        Rc::clone(turns.entry(ticket).or_default())
    }

    /// The holder of a place waits no longer.
    pub(crate) fn end_turn(&self, ticket: Ticket) {
        self.balance.turns.borrow_mut().remove(&ticket);
    }

    /// An endpoint may have room: wakes whoever is first in the line.
    pub(crate) fn call_first(&self, now: Instant) {
        let first = {
            let balancer = self.balance.balancer.borrow();
            if balancer.line().is_empty() {
                return;
            }
            balancer.line().first(now)
        };
        let turns = self.balance.turns.borrow();
        if let Some(turn) = first.and_then(|ticket| turns.get(&ticket)) {
            turn.notify_one();
        }
    }
}

/// Whether the worker's table names an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Routed {
    Yes,
    No,
}

/// Whether the control centre has declared an endpoint dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Alive,
    Dead,
}

/// One endpoint as one worker sees it.
pub(crate) struct LocalEndpoint {
    pub(crate) shared: Arc<EndpointState>,
    /// The same for as long as the attempt lives.
    pub(crate) version: Version,
    /// What names it to clients; it comes and goes with the service's stickiness.
    pub(crate) handle: Cell<Option<Handle>>,
    clock: Clock,
    routed: Cell<Routed>,
    life: Cell<Life>,
    /// The one used last is taken first, so that the others get old enough to be closed.
    idle: RefCell<Vec<Upstream>>,
}

impl LocalEndpoint {
    fn new(endpoint: &TableEndpoint, clock: Clock) -> Self {
        Self {
            shared: Arc::clone(&endpoint.state),
            version: endpoint.version,
            handle: Cell::new(endpoint.handle),
            clock,
            routed: Cell::new(Routed::Yes),
            life: Cell::new(Life::Alive),
            idle: RefCell::new(Vec::new()),
        }
    }

    /// An idle connection that is still open.
    pub(crate) fn take_idle(&self, assurance: Assurance) -> Option<Upstream> {
        let mut idle = self.idle.borrow_mut();
        while let Some(upstream) = idle.pop() {
            if upstream.is_alive(assurance) {
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps an idle connection for the next request, if there may be one.
    pub(crate) fn park(&self, mut upstream: Upstream, buffers: &Buffers) {
        let read = std::mem::take(&mut upstream.read);
        if read.capacity() > 0 {
            buffers.give(read);
        }
        let mut idle = self.idle.borrow_mut();
        if self.routed.get() == Routed::Yes && idle.len() < UPSTREAM_IDLE_COUNT_MAX {
            upstream.idle_since = self.clock.now();
            idle.push(upstream);
        }
    }

    /// Whether nothing that it was sent will be carried out or answered any more.
    pub(crate) fn is_dead(&self) -> bool {
        self.life.get() == Life::Dead
    }

    /// The table no longer names it, and no later one will: an instance that comes back does so
    /// with another attempt.
    fn retire(&self) {
        self.routed.set(Routed::No);
        self.idle.borrow_mut().clear();
    }

    fn sweep(&self) {
        let now = self.clock.now();
        self.idle.borrow_mut().retain(|upstream| {
            now.since(upstream.idle_since) < UPSTREAM_IDLE_MAX && upstream.is_alive(Assurance::Hint)
        });
    }
}

/// A request on its way to an endpoint, counted as in flight until this is dropped.
pub(crate) struct Flight {
    endpoint: Rc<LocalEndpoint>,
    stage: Stage,
    /// For how long it has waited for its client, as far as nobody was told of it.
    waited: Duration,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// The client is still sending its body, and the instance waits for it, since when.
    Uploading(Instant),
    Answered,
}

impl Flight {
    /// Counts a request; see [`EndpointState::enter`] for when this must be called.
    pub(crate) fn begin(endpoint: &Rc<LocalEndpoint>) -> Self {
        endpoint.shared.enter();
        endpoint.shared.begin_wait();
        Self {
            endpoint: Rc::clone(endpoint),
            stage: Stage::Waiting,
            waited: Duration::ZERO,
        }
    }

    pub(crate) fn endpoint(&self) -> &Rc<LocalEndpoint> {
        &self.endpoint
    }

    /// Whether it waits for the instance, or for its own client, which is no load: clients that
    /// dribble must not use up what an instance may have at once.
    pub(crate) fn follow(&mut self, exchange: &Exchange) {
        match (self.stage, exchange.awaits_client()) {
            (Stage::Waiting, true) => {
                self.stage = Stage::Uploading(self.endpoint.clock.now());
                self.endpoint.shared.end_wait();
            }
            (Stage::Uploading(since), false) => {
                self.waited += self.endpoint.clock.now().since(since);
                self.stage = Stage::Waiting;
                self.endpoint.shared.begin_wait();
            }
            (Stage::Waiting | Stage::Uploading(_) | Stage::Answered, _) => {}
        }
    }

    /// For how long it has waited for its client since this was last asked.
    pub(crate) fn take_waited(&mut self) -> Duration {
        if let Stage::Uploading(since) = self.stage {
            let now = self.endpoint.clock.now();
            self.waited += now.since(since);
            self.stage = Stage::Uploading(now);
        }
        std::mem::take(&mut self.waited)
    }

    /// The head of its answer is there.
    pub(crate) fn end_wait(&mut self) {
        if self.stage == Stage::Waiting {
            self.endpoint.shared.end_wait();
        }
        self.stage = Stage::Answered;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.end_wait();
        self.endpoint.shared.leave();
    }
}
