//! What is counted. Plain atomics without labels that grow: a stats page reads them from a table.

use std::sync::atomic::{AtomicU64, Ordering};

/// Of one endpoint, over all workers.
#[derive(Debug, Default)]
pub(crate) struct EndpointCounters {
    /// `requests_total`: requests that were given to it, each try of one counted.
    pub(crate) requests: Counter,
    /// `failures_total`: those to which it gave no answer, or one of 500 and more.
    pub(crate) failures: Counter,
    /// `retries_total`: tries elsewhere because it gave no answer.
    pub(crate) retries: Counter,
    /// `hedges_total`: second copies that went elsewhere because its answer was late.
    pub(crate) hedges: Counter,
    /// `ejections_total`: how often a worker took it out for its failures.
    pub(crate) ejections: Counter,
}

/// Of the whole gateway.
#[derive(Debug, Default)]
pub(crate) struct GatewayCounters {
    /// `connections_total`: accepted connections.
    pub(crate) connections: Counter,
    /// `connections_denied_total`: connections of addresses that had as many as they may have.
    pub(crate) denied: Counter,
    /// `floods_total`: connections of HTTP/2 that were cut off for their frames.
    pub(crate) floods: Counter,
    /// `requests_total`: requests of clients.
    pub(crate) requests: Counter,
    /// `refusals_total`: requests that the gateway answered itself.
    pub(crate) refusals: Counter,
    /// `log_dropped_total`: lines of the access log that were not written.
    pub(crate) log_dropped: Counter,
}

impl GatewayCounters {
    /// Tells the counts at the gateway's end.
    pub(crate) fn tell(&self) {
        tracing::info!(
            connections = self.connections.get(),
            requests = self.requests.get(),
            refusals = self.refusals.get(),
            log_dropped = self.log_dropped.get(),
            "the gateway has stopped"
        );
    }
}

/// A counter on a cache line that several workers write; relaxed, since nothing is decided by it.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
