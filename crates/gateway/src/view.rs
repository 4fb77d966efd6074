//! A worker's own view of the routing table: the shared table, and for each service and endpoint
//! what only this worker knows: what it has seen of their behaviour, and its idle connections.
//!
//! Nothing here is shared between threads, so nothing is locked. Latencies and ejections are each
//! worker's own, too: shared ones would put a contended cache line into every request, and a worker
//! learns of a sick endpoint from a handful of its own requests. Only the number of requests in
//! flight is shared, because the drain needs one number; the balancer gets it for nothing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use mainstay_control::balance::{
    self, Balancer, Course, Event, LANES, Learnt, Listed, Load, Loss, Next, Picked, Scene, Ticket,
    Traits, Wish,
};
use mainstay_http1::Request;
use mainstay_ids::{Instant, Version};
use mainstay_model::rewrite::Redirect;
use mainstay_model::routing::{Handle, Unavailable};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::connection::Scope;
use crate::endpoint::{EndpointKey, EndpointState};
use crate::exchange::Exchange;
use crate::limits::{UPSTREAM_IDLE_COUNT_MAX, UPSTREAM_IDLE_MAX};
use crate::listen;
use crate::metrics::{Level, ServiceCounts};
use crate::policy::{Policy, Usual};
use crate::table::{Found, Group, Owner, Table, TableEndpoint, TableService};
use crate::upstream::{Assurance, Upstream};
use crate::wire::Buffers;
use crate::worker::Worker;

/// One generation as one worker sees it.
pub(crate) struct View {
    table: Arc<Table>,
    listens: Arc<listen::Roster>,
    /// Those of the table, in its order, then the listeners in HTTP mode.
    services: Vec<Rc<LocalService>>,
    /// The place in `services` by an address of a listener.
    listening: HashMap<SocketAddr, usize>,
    endpoints: HashMap<EndpointKey, Rc<LocalEndpoint>>,
    /// Those of earlier views to which something is still under way.
    leaving: Vec<Weak<LocalEndpoint>>,
    deaths: Deaths,
}

/// Whether an endpoint of the view before is waited for no longer.
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
            listens: Arc::default(),
            services: Vec::new(),
            listening: HashMap::new(),
            endpoints: HashMap::new(),
            leaving: Vec::new(),
            deaths: Deaths::None,
        }
    }

    /// The view of `table` and `listens` that follows this one. Idle connections to endpoints that
    /// are gone are closed, and those that are under way will be closed instead of pooled.
    pub(crate) fn next(
        &self,
        table: Arc<Table>,
        listens: Arc<listen::Roster>,
        clock: Clock,
        usual: Usual,
    ) -> Self {
        let now = clock.now();
        let owners = self.services.iter().map(|service| &service.owner);
        let known: HashMap<_, _> = owners.zip(&self.services).collect();
        let mut endpoints = HashMap::with_capacity(self.endpoints.len());
        let mut services = Vec::with_capacity(self.services.len());
        let groups = table.services.iter().map(TableService::group);
        for group in groups.chain(listens.groups()) {
            let mut listed = Vec::with_capacity(group.endpoints.len());
            for endpoint in group.endpoints {
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
                    role: endpoint.role,
                    intake: endpoint.intake,
                });
            }
            let known = known.get(&group.owner);
            let local =
                LocalService::new(group, known.map(|known| &***known), listed, (now, usual));
            services.push(Rc::new(local));
        }
        for old in &self.services {
            // Requests that have come to a service that is gone must not find anybody there.
            if !services.iter().any(|service| service.is(old)) {
                old.balance.update(now, usual.policy, Vec::new());
            }
        }
        let (leaving, deaths) = self.part(&table, &endpoints);
        Self {
            listening: listens.places(table.services.len()),
            table,
            listens,
            services,
            endpoints,
            leaving,
            deaths,
        }
    }

    /// Lets endpoints go that the next view does not have, and marks those that are dead.
    fn part(
        &self,
        table: &Table,
        endpoints: &HashMap<EndpointKey, Rc<LocalEndpoint>>,
    ) -> (Vec<Weak<LocalEndpoint>>, Deaths) {
        let (mut leaving, mut deaths) = (Vec::new(), Deaths::None);
        for local in self.known() {
            let key = &local.shared.key;
            // A server that comes back from an operator's hands begins anew beside what it still has.
            let stays = endpoints
                .get(key)
                .is_some_and(|one| Rc::ptr_eq(one, &local));
            if !stays {
                local.retire();
                leaving.push(Rc::downgrade(&local));
            }
            let life = if table.declares_dead(key) {
                Life::Dead
            } else if local.shared.is_given_up() {
                Life::GivenUp
            } else {
                continue;
            };
            local.life.set(life);
            deaths = Deaths::Some;
        }
        (leaving, deaths)
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

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub(crate) fn listens(&self) -> &Arc<listen::Roster> {
        &self.listens
    }

    /// Whether a connection that came so still has somebody to serve it.
    pub(crate) fn serves(&self, scope: Scope) -> bool {
        match scope {
            Scope::Entry | Scope::Address(_) => true,
            Scope::Listen(address) => self.listening.contains_key(&address),
        }
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
            Scope::Listen(address) => return self.services.get(*self.listening.get(&address)?),
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
    pub(crate) owner: Owner,
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
        group: Group<'_>,
        known: Option<&Self>,
        listed: Vec<Listed<Candidate>>,
        (now, usual): (Instant, Usual),
    ) -> Self {
        let policy = group.policy.of_failures(usual);
        let balance = known.map_or_else(
            || Rc::new(Balance::new(now, policy)),
            |known| Rc::clone(&known.balance),
        );
        let endpoints = listed.iter().map(|one| Rc::clone(&one.endpoint.0));
        let endpoints = endpoints.collect();
        balance.update(now, policy, listed);
        Self {
            label: known.map_or_else(
                || Rc::from(group.owner.as_str()),
                |known| Rc::clone(&known.label),
            ),
            counts: known
                .filter(|known| Arc::ptr_eq(&known.counts.0, group.counts))
                .map_or_else(
                    || Rc::new(Counted(Arc::clone(group.counts))),
                    |known| Rc::clone(&known.counts),
                ),
            unavailable: group.unavailable,
            policy: Arc::clone(group.policy),
            owner: group.owner,
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
        self.call(self.first(now));
    }

    /// Only the first of the line looks now and then whether there is room, which another worker may
    /// have made. Who was first may have ceased to be it, without anybody having come or gone.
    pub(crate) fn pass_look_on(&self, from: Ticket, now: Instant) {
        let first = self.first(now);
        if first != Some(from) {
            self.call(first);
        }
    }

    fn first(&self, now: Instant) -> Option<Ticket> {
        let balancer = self.balance.balancer.borrow();
        let line = balancer.line();
        if line.is_empty() {
            None
        } else {
            line.first(now)
        }
    }

    fn call(&self, first: Option<Ticket>) {
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

/// Whether an endpoint is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Alive,
    /// The control centre has declared it dead.
    Dead,
    /// A server that Mainstay did not start was given up, and may go on working all the same.
    GivenUp,
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

    /// What became of requests that are under way to it, if none is waited for any more.
    pub(crate) fn end(&self) -> Option<Loss> {
        match self.life.get() {
            Life::Alive => None,
            Life::Dead => Some(Loss::Dead),
            // As after a time-out: it may still carry out what it was sent.
            Life::GivenUp => Some(Loss::TimedOut),
        }
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
