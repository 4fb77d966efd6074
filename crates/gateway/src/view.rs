//! A worker's own view of the routing table: the shared table, and for each service and endpoint
//! what only this worker knows: what it has seen of their behaviour, and its idle connections.
//!
//! Nothing here is shared between threads, so nothing is locked. Latencies and ejections are each
//! worker's own, too: shared ones would put a contended cache line into every request, and a worker
//! learns of a sick endpoint from a handful of its own requests. Only the number of requests in
//! flight is shared, because the drain needs one number; the balancer gets it for nothing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use mainstay_control::balance::{Listed, Outcome, Picked, Set, Tag, Traits, Wish, ejection};
use mainstay_http1::Request;
use mainstay_ids::{Instant, ServiceName, Version};
use mainstay_model::rewrite::Redirect;
use mainstay_model::routing::{Handle, Unavailable};

use crate::clock::Clock;
use crate::connection::Scope;
use crate::endpoint::{EndpointKey, EndpointState};
use crate::limits::{UPSTREAM_IDLE_COUNT_MAX, UPSTREAM_IDLE_MAX};
use crate::metrics::ServiceCounts;
use crate::policy::Policy;
use crate::table::{Found, Serial, Table, TableEndpoint};
use crate::upstream::{Assurance, Upstream};
use crate::wire::Buffers;

/// One generation as one worker sees it.
pub(crate) struct View {
    table: Arc<Table>,
    services: Vec<Rc<LocalService>>,
    endpoints: HashMap<EndpointKey, Rc<LocalEndpoint>>,
}

impl View {
    /// The view before the first table.
    pub(crate) fn empty(table: Arc<Table>) -> Self {
        Self {
            table,
            services: Vec::new(),
            endpoints: HashMap::new(),
        }
    }

    /// The view of `table` that follows this one. Idle connections to endpoints that are gone are
    /// closed, and those that are under way will be closed instead of pooled.
    pub(crate) fn next(&self, table: Arc<Table>, clock: Clock) -> Self {
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
                });
            }
            let known = known.get(&service.name);
            let balance = known.map_or_else(Rc::default, |known| Rc::clone(&known.balance));
            let snapshot = listed
                .iter()
                .map(|one| Rc::clone(&one.endpoint.0))
                .collect();
            balance.borrow_mut().update(now, listed);
            services.push(Rc::new(LocalService {
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
                endpoints: snapshot,
                balance,
            }));
        }
        for (key, local) in &self.endpoints {
            if !endpoints.contains_key(key) {
                local.retire();
            }
        }
        Self {
            table,
            services,
            endpoints,
        }
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
    /// The same in all views, so that what it has learnt survives a new table; its endpoints are
    /// those of the newest.
    balance: Rc<RefCell<Set<Candidate>>>,
}

/// An endpoint in the balancer's eyes. A [`View`] keeps one [`LocalEndpoint`] for one start of one
/// instance, so that the same pointer means the same endpoint.
struct Candidate(Rc<LocalEndpoint>);

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// A choice of the balancer.
pub(crate) struct Chosen {
    pub(crate) endpoint: Rc<LocalEndpoint>,
    picked: Picked,
}

impl Chosen {
    pub(crate) fn tag(&self) -> Tag {
        self.picked.tag
    }
}

/// A finished try, for [`LocalService::learn`].
pub(crate) struct Finished {
    pub(crate) outcome: Outcome,
    pub(crate) sent: Instant,
    pub(crate) ended: Instant,
    /// In 0..1.
    pub(crate) jitter: f64,
}

impl LocalService {
    /// Chooses an endpoint; one of `tried` only if there is no other.
    pub(crate) fn choose(
        &self,
        now: Instant,
        random: u64,
        tried: &[Tag],
        wish: Wish,
    ) -> Option<Chosen> {
        let mut balance = self.balance.borrow_mut();
        let pending = |candidate: &Candidate| candidate.0.shared.in_flight();
        let traits = |candidate: &Candidate| Traits {
            version: candidate.0.version,
            handle: candidate.0.handle.get(),
            weight: 1,
        };
        let picked = balance.pick_by(now, random, tried, wish, traits, pending)?;
        let Candidate(endpoint) = balance.get(picked)?;
        Some(Chosen {
            endpoint: Rc::clone(endpoint),
            picked,
        })
    }

    /// Takes in what became of a try.
    pub(crate) fn learn(&self, chosen: &Chosen, finished: &Finished) {
        let took = finished.ended.since(finished.sent);
        let tried = ejection::Try {
            outcome: finished.outcome,
            sent: finished.sent,
            jitter: finished.jitter,
        };
        let verdict =
            self.balance
                .borrow_mut()
                .finished(finished.ended, chosen.picked, took, tried);
        let shared = &chosen.endpoint.shared;
        if finished.outcome != Outcome::Answered {
            shared.counters.failures.add(1);
        }
        match verdict {
            ejection::Verdict::Unchanged => {}
            ejection::Verdict::Returned => {
                tracing::info!(instance = %shared.key.instance, "gets requests again");
            }
            ejection::Verdict::Ejected { until } => {
                shared.counters.ejections.add(1);
                let pause = until.since(finished.ended);
                tracing::warn!(instance = %shared.key.instance, outcome = ?finished.outcome, ?pause, "gets no requests for a while");
            }
        }
    }
}

/// Whether the worker's table names an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Routed {
    Yes,
    No,
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
pub(crate) struct Flight(Rc<LocalEndpoint>);

impl Flight {
    /// Counts a request; see [`EndpointState::enter`] for when this must be called.
    pub(crate) fn begin(endpoint: &Rc<LocalEndpoint>) -> Self {
        endpoint.shared.enter();
        Self(Rc::clone(endpoint))
    }

    pub(crate) fn endpoint(&self) -> &Rc<LocalEndpoint> {
        &self.0
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.shared.leave();
    }
}
