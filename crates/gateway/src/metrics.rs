//! What is counted, and how the request path counts it without paying for it.
//!
//! Each worker writes cells of its own ([`PerWorker`]), which no other thread writes, so that
//! counting is a load, an addition and a store in a line of the cache that this core has already.
//! Whoever reads sums over the workers. Nothing is decided by a count, so all of it is relaxed: a
//! sum may be one request older in one of its terms than in another.
//!
//! The request path calls [`recorded::Recorded::count`] once at a request's end, [`FrontendCounts::open`] once
//! per connection, and adds to single counters where something rare happens (a refused connect, a
//! hedge). What is counted of an endpoint lives and ends with it, so no label grows for ever.

mod cell;
mod histogram;
pub(crate) mod recorded;
mod tally;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use cell::{Counter, Level, PerWorker, SharedCounter, this_thread_is};
pub(crate) use histogram::{Counts, Histogram};
pub(crate) use tally::{Denied, EndpointTally, FrontendTally, RESPONSE_CLASSES, ServiceTally};

/// Of the whole gateway.
#[derive(Debug)]
pub(crate) struct GatewayCounters {
    /// `log_dropped_total`: lines of the access log that were not written.
    pub(crate) log_dropped: SharedCounter,
    workers: usize,
    /// Locked when something begins or ceases to listen and when the page is made, never for a request.
    frontends: Mutex<BTreeMap<FrontendKey, Arc<FrontendCounts>>>,
}

impl GatewayCounters {
    /// Counters that so many workers write.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            log_dropped: SharedCounter::default(),
            workers,
            frontends: Mutex::default(),
        }
    }

    /// How many threads serve requests.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// The counters of a place where clients come in, the same for all workers as long as it is kept.
    pub(crate) fn frontend(&self, key: FrontendKey) -> Arc<FrontendCounts> {
        let mut frontends = self.frontends();
        let counts = frontends
            .entry(key)
            .or_insert_with(|| Arc::new(FrontendCounts::new(self.workers)));
        Arc::clone(counts)
    }

    /// Forgets the places that are no longer listened on and whose last connection has ended.
    pub(crate) fn keep_frontends(&self, listened: impl Fn(&FrontendKey) -> bool) {
        self.frontends()
            .retain(|key, counts| listened(key) || counts.open.get() > 0);
    }

    /// All places, by kind and address.
    pub(crate) fn all_frontends(&self) -> Vec<(FrontendKey, Arc<FrontendCounts>)> {
        let frontends = self.frontends();
        let pairs = frontends.iter();
        pairs
            .map(|(key, counts)| (key.clone(), Arc::clone(counts)))
            .collect()
    }

    /// Tells the counts at the gateway's end.
    pub(crate) fn tell(&self) {
        let (mut connections, mut requests) = (0, 0);
        for (_, counts) in self.all_frontends() {
            let tallies = counts.tallies();
            connections += tallies.sum(|tally| &tally.connections);
            let classes = 0..RESPONSE_CLASSES.len();
            requests += classes
                .map(|class| tallies.sum(|tally| tally.responses.of(class)))
                .sum::<u64>();
        }
        tracing::info!(
            connections,
            requests,
            log_dropped = self.log_dropped.get(),
            "the gateway has stopped"
        );
    }

    fn frontends(&self) -> MutexGuard<'_, BTreeMap<FrontendKey, Arc<FrontendCounts>>> {
        // Each change of the map is whole, also if a thread panicked beside it.
        self.frontends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place where clients come in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum FrontendKey {
    /// The entry for all services.
    Entry,
    /// A service's own address.
    Address(SocketAddr),
}

/// Of one place where clients come in; each worker sees its own [`FrontendTally`] through it.
#[derive(Debug)]
pub(crate) struct FrontendCounts {
    tallies: PerWorker<FrontendTally>,
    /// Connections that are open, over all workers: written once per connection, not per request,
    /// and shared so that the highest count is exact.
    open: Level,
}

impl std::ops::Deref for FrontendCounts {
    type Target = FrontendTally;

    fn deref(&self) -> &FrontendTally {
        self.tallies.mine()
    }
}

impl FrontendCounts {
    /// Counters that so many workers write.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            tallies: PerWorker::new(workers),
            open: Level::default(),
        }
    }

    /// Counts a connection, which is open until the guard is dropped.
    pub(crate) fn open(self: &Arc<Self>) -> Open {
        self.connections.add(1);
        self.open.rise();
        Open(Arc::clone(self))
    }

    /// The connections that are open.
    pub(crate) fn connections(&self) -> &Level {
        &self.open
    }

    /// What the workers have counted.
    pub(crate) fn tallies(&self) -> &PerWorker<FrontendTally> {
        &self.tallies
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Open(Arc<FrontendCounts>);

impl std::ops::Deref for Open {
    type Target = FrontendCounts;

    fn deref(&self) -> &FrontendCounts {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fall();
    }
}

/// Of one service; each worker sees its own [`ServiceTally`] through it.
#[derive(Debug)]
pub(crate) struct ServiceCounts {
    tallies: PerWorker<ServiceTally>,
    /// Requests that wait for an instance, over all workers: the queue's bound is over all, too.
    pub(crate) queue: Level,
}

impl std::ops::Deref for ServiceCounts {
    type Target = ServiceTally;

    fn deref(&self) -> &ServiceTally {
        self.tallies.mine()
    }
}

impl ServiceCounts {
    /// Counters that so many workers write.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            tallies: PerWorker::new(workers),
            queue: Level::default(),
        }
    }

    /// What the workers have counted.
    pub(crate) fn tallies(&self) -> &PerWorker<ServiceTally> {
        &self.tallies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_open_until_its_guard_is_dropped_and_the_highest_count_is_kept() {
        let counters = GatewayCounters::new(2);
        let other = counters.frontend(FrontendKey::Address(([127, 0, 0, 1], 1).into()));
        let entry = counters.frontend(FrontendKey::Entry);
        assert!(!Arc::ptr_eq(&other, &entry));
        let (one, two) = (entry.open(), entry.open());
        drop(one);
        assert_eq!((entry.open.get(), entry.open.max()), (1, 2));
        drop(two);
        let again = counters.frontend(FrontendKey::Entry);
        assert!(Arc::ptr_eq(&entry, &again));
        assert_eq!(again.tallies().sum(|tally| &tally.connections), 2);
    }

    #[test]
    fn a_place_that_is_no_longer_listened_on_is_kept_until_its_last_connection_ends() {
        let counters = GatewayCounters::new(1);
        let key = FrontendKey::Address(([127, 0, 0, 1], 1).into());
        let open = counters.frontend(key.clone()).open();
        counters.keep_frontends(|_| false);
        assert_eq!(counters.all_frontends().len(), 1);
        drop(open);
        counters.keep_frontends(|_| false);
        assert!(counters.all_frontends().is_empty());
    }
}
