//! What all workers share about one endpoint: where it is, what is in flight to it, what became of
//! its requests. It lives from the first table that names the endpoint until the last request to
//! it has ended, whatever tables come in between.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use mainstay_ids::{Attempt, InstanceId, ServiceName};
use mainstay_model::Endpoint;
use tokio::sync::Notify;

use crate::listen::ServerAt;
use crate::metrics::{EndpointTally, PerWorker, ServiceCounts};

/// Whom requests are sent to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// Started by Mainstay.
    Instance(InstanceId),
    /// A server of a listener, which Mainstay did not start.
    Server(ServerAt),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(instance) => instance.fmt(f),
            Self::Server(ServerAt { listen, server }) => write!(f, "{listen}/{server}"),
        }
    }
}

/// One start of one instance, or one life of a server between two times at which it was given up.
/// Another attempt, or another address, is another endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct EndpointKey {
    pub(crate) who: Who,
    pub(crate) attempt: Attempt,
    pub(crate) address: SocketAddr,
}

impl EndpointKey {
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        Self {
            who: Who::Instance(endpoint.instance.clone()),
            attempt: endpoint.attempt,
            address: endpoint.address,
        }
    }

    /// Whether it is an instance of this service.
    pub(crate) fn is_of(&self, service: &ServiceName) -> bool {
        self.instance().is_some_and(|one| one.service == *service)
    }

    /// The instance, if it is one.
    pub(crate) fn instance(&self) -> Option<&InstanceId> {
        match &self.who {
            Who::Instance(instance) => Some(instance),
            Who::Server(_) => None,
        }
    }
}

/// The part of an endpoint that all workers share.
#[derive(Debug)]
pub(crate) struct EndpointState {
    pub(crate) key: EndpointKey,
    /// The instance's name for the header `mainstay-instance`.
    pub(crate) label: Bytes,
    /// What each worker has counted of it; a dereference gives this worker's own.
    pub(crate) counters: EndpointCounters,
    in_flight: AtomicU32,
    /// Of those in flight, whose answer has not begun. Only the choice among endpoints and their
    /// limits look at it, so that no order is asked of it.
    waiting: AtomicU32,
    /// The most requests that were in flight at a time.
    in_flight_max: AtomicU32,
    /// Whether what is under way to it is waited for no longer.
    given_up: AtomicBool,
    /// Whether the coordinator waits for `in_flight` to become 0.
    draining: AtomicBool,
    drained: Arc<Notify>,
}

impl EndpointState {
    fn new(endpoint: &Endpoint, workers: usize, drained: Arc<Notify>) -> Self {
        let label = Bytes::from(endpoint.instance.to_string());
        let counters = EndpointCounters(Arc::new(PerWorker::new(workers)));
        Self::with(EndpointKey::of(endpoint), label, counters, drained)
    }

    /// A server of a listener, of which so many workers count.
    pub(crate) fn of_server(at: ServerAt, address: SocketAddr, workers: usize) -> Self {
        let label = Bytes::from(at.server.to_string());
        let key = EndpointKey {
            who: Who::Server(at),
            attempt: Attempt::FIRST,
            address,
        };
        let counters = EndpointCounters(Arc::new(PerWorker::new(workers)));
        Self::with(key, label, counters, Arc::default())
    }

    /// The same server after it was given up, with the same counters.
    pub(crate) fn again(&self) -> Self {
        let key = EndpointKey {
            attempt: self.key.attempt.next(),
            ..self.key.clone()
        };
        let counters = EndpointCounters(Arc::clone(&self.counters.0));
        Self {
            in_flight_max: AtomicU32::new(self.in_flight_max()),
            ..Self::with(key, self.label.clone(), counters, Arc::default())
        }
    }

    fn with(
        key: EndpointKey,
        label: Bytes,
        counters: EndpointCounters,
        drained: Arc<Notify>,
    ) -> Self {
        Self {
            key,
            label,
            counters,
            in_flight: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            in_flight_max: AtomicU32::new(0),
            given_up: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            drained,
        }
    }

    /// Requests that were sent to it, or are about to be, and whose answer is not complete.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Requests that wait for the head of its answer.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Counts a request that waits for its answer.
    pub(crate) fn begin_wait(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends what [`Self::begin_wait`] began.
    pub(crate) fn end_wait(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a request. The caller must do this in the same step in which it chose the endpoint,
    /// without an await in between: the drain rests on it.
    pub(crate) fn enter(&self) {
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        // The same cache line, and mostly a look alone.
        if now > self.in_flight_max.load(Ordering::Relaxed) {
            self.in_flight_max.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// The most requests that were in flight at a time.
    pub(crate) fn in_flight_max(&self) -> u32 {
        self.in_flight_max.load(Ordering::Relaxed)
    }

    /// Ends what [`Self::enter`] began. Sequentially consistent with [`Self::begin_drain`]: either
    /// the coordinator sees the new count, or this sees that the coordinator waits.
    pub(crate) fn leave(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(
            before > 0,
            "a request left an endpoint that it did not enter"
        );
        if before == 1 && self.draining.load(Ordering::SeqCst) {
            self.drained.notify_one();
        }
    }

    /// Nobody waits any more for what is under way to it; workers see it with their next view.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
    }

    /// Whether it was given up.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::SeqCst)
    }

    fn begin_drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    fn end_drain(&self) {
        self.draining.store(false, Ordering::SeqCst);
    }
}

/// Of one endpoint, over all workers.
#[derive(Debug)]
pub(crate) struct EndpointCounters(Arc<PerWorker<EndpointTally>>);

impl EndpointCounters {
    /// Of this worker.
    #[inline]
    pub(crate) fn mine(&self) -> &EndpointTally {
        self.0.mine()
    }

    /// Of all workers.
    pub(crate) fn all(&self) -> &PerWorker<EndpointTally> {
        &self.0
    }
}

impl std::ops::Deref for EndpointCounters {
    type Target = EndpointTally;

    #[inline]
    fn deref(&self) -> &EndpointTally {
        self.mine()
    }
}

/// Every endpoint that is in the newest table or still has requests in flight. Owned by the
/// coordinator.
#[derive(Debug)]
pub(crate) struct Registry {
    endpoints: HashMap<EndpointKey, Arc<EndpointState>>,
    /// What is counted of each service in the newest table.
    services: HashMap<ServiceName, Arc<ServiceCounts>>,
    drained: Arc<Notify>,
    workers: usize,
}

impl Registry {
    /// A registry whose drained endpoints wake `drained`, and of which so many workers count.
    pub(crate) fn new(drained: Arc<Notify>, workers: usize) -> Self {
        Self {
            endpoints: HashMap::new(),
            services: HashMap::new(),
            drained,
            workers,
        }
    }

    /// The counters of a service, the same as long as tables name it.
    pub(crate) fn admit_service(&mut self, name: &ServiceName) -> Arc<ServiceCounts> {
        let workers = self.workers;
        let counts = self
            .services
            .entry(name.clone())
            .or_insert_with(|| Arc::new(ServiceCounts::new(workers)));
        Arc::clone(counts)
    }

    /// Forgets the counters of services for which `routed` is false.
    pub(crate) fn forget_services(&mut self, routed: impl Fn(&ServiceName) -> bool) {
        self.services.retain(|name, _| routed(name));
    }

    /// The shared state of `endpoint`, the same as long as it is known.
    pub(crate) fn admit(&mut self, endpoint: &Endpoint) -> Arc<EndpointState> {
        let key = EndpointKey::of(endpoint);
        let (drained, workers) = (&self.drained, self.workers);
        let state = self.endpoints.entry(key).or_insert_with(|| {
            Arc::new(EndpointState::new(endpoint, workers, Arc::clone(drained)))
        });
        state.end_drain();
        Arc::clone(state)
    }

    /// Watches every endpoint for which `routed` is false for the end of its last request.
    pub(crate) fn drain_others(&self, routed: impl Fn(&EndpointKey) -> bool) {
        for (key, state) in &self.endpoints {
            if !routed(key) {
                state.begin_drain();
            }
        }
    }

    /// Forgets the endpoints for which `routed` is false and that have nothing in flight. Only
    /// right when no worker can choose one of them any more.
    pub(crate) fn forget_drained(&mut self, routed: impl Fn(&EndpointKey) -> bool) {
        self.endpoints
            .retain(|key, state| routed(key) || state.in_flight() > 0);
    }

    /// Endpoints that are known.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<EndpointState>> {
        self.endpoints.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use mainstay_ids::Version;
    use mainstay_model::routing::EndpointHealth;

    fn endpoint() -> Endpoint {
        Endpoint {
            instance: InstanceId {
                service: ServiceName::parse("orders").unwrap(),
                number: 1,
            },
            attempt: Attempt::FIRST,
            version: Version::FIRST,
            address: ([127, 0, 0, 1], 1).into(),
            health: EndpointHealth::Passing,
            handle: None,
            intake: mainstay_model::Intake::default(),
        }
    }

    #[test]
    fn the_last_request_to_leave_a_draining_endpoint_tells_it_at_once() {
        let drained = Arc::new(Notify::new());
        let mut registry = Registry::new(Arc::clone(&drained), 1);
        let state = registry.admit(&endpoint());
        let told = || drained.notified().now_or_never().is_some();
        state.enter();
        state.leave();
        assert!(!told(), "it does not drain");
        state.enter();
        state.enter();
        registry.drain_others(|_| false);
        state.leave();
        assert!(!told(), "one is left");
        state.leave();
        assert!(told());
    }

    #[test]
    fn an_endpoint_is_remembered_until_it_has_left_the_routes_and_drained() {
        let mut registry = Registry::new(Arc::new(Notify::new()), 1);
        let state = registry.admit(&endpoint());
        state.enter();
        registry.forget_drained(|_| false);
        assert!(Arc::ptr_eq(&state, &registry.admit(&endpoint())));
        state.enter();
        state.leave();
        state.leave();
        assert_eq!((state.in_flight(), state.in_flight_max()), (0, 2));
        registry.forget_drained(|_| false);
        assert!(!Arc::ptr_eq(&state, &registry.admit(&endpoint())));
    }
}
