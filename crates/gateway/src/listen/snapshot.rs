//! How the listeners stand, for who shows it: everything that HAProxy's statistics have of a
//! `listen`, in plain values.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mainstay_control::listen::{Standing, Wanted};
use mainstay_ids::{ListenName, Timestamp};
use mainstay_model::listen::{Balance, Mode, Rank, ServerName};

use crate::endpoint::EndpointState;
use crate::listen::CheckReport;
use crate::metrics::{FrontendCounts, ServiceCounts};

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ListenSnapshot {
    /// Its name.
    pub name: ListenName,
    /// Where it accepts.
    pub binds: Vec<BindSnapshot>,
    /// What it carries.
    pub mode: Mode,
    /// How servers are chosen.
    pub balance: Balance,
    /// Sessions now, those that still look for a server included; in HTTP mode connections of clients.
    pub sessions: u32,
    /// The most at once.
    pub sessions_high: u32,
    /// How many there may be.
    pub sessions_max: u32,
    /// Connections that were accepted.
    pub sessions_total: u64,
    /// From clients to servers.
    pub bytes_in: u64,
    /// From servers to clients.
    pub bytes_out: u64,
    /// Connections that were closed since they did not say for whom they were: from strangers, or
    /// with a malformed or late header of the PROXY protocol.
    pub refused: u64,
    /// Sessions that were closed since no server could be reached, or all were full for too long.
    pub unserved: u64,
    /// Its servers, as they were written.
    pub servers: Vec<ServerSnapshot>,
    /// Where its requests are counted, in HTTP mode.
    #[serde(skip)]
    pub(crate) http: Option<HttpCounts>,
}

/// Where the requests of a listener in HTTP mode are counted.
#[derive(Debug, Clone)]
pub(crate) struct HttpCounts {
    pub(crate) frontend: Arc<FrontendCounts>,
    pub(crate) counts: Arc<ServiceCounts>,
    /// In the order of the servers.
    pub(crate) servers: Vec<Arc<EndpointState>>,
}

impl PartialEq for HttpCounts {
    /// The same cells, whatever they hold.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.counts, &other.counts)
    }
}

impl Eq for HttpCounts {}

impl ListenSnapshot {
    /// Fills in what requests are counted by instead of sessions. At a server a request is what a
    /// session is otherwise.
    pub(crate) fn count_requests(&mut self, http: HttpCounts) {
        let frontend = http.frontend.tallies();
        self.bytes_in = frontend.sum(|tally| &tally.bytes_in);
        self.bytes_out = frontend.sum(|tally| &tally.bytes_out);
        for (server, state) in self.servers.iter_mut().zip(&http.servers) {
            let tallies = state.counters.all();
            server.sessions = state.in_flight();
            server.sessions_high = server.sessions_high.max(state.in_flight_max());
            server.sessions_total = tallies.sum(|tally| &tally.requests);
            server.bytes_in = tallies.sum(|tally| &tally.bytes_in);
            server.bytes_out = tallies.sum(|tally| &tally.bytes_out);
            server.connect_errors = tallies.sum(|tally| &tally.connect_failures);
            server.retries = tallies.sum(|tally| &tally.retries);
        }
        self.http = Some(http);
    }
}

/// An address on which a listener accepts.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BindSnapshot {
    /// The address.
    pub address: SocketAddr,
    /// Why it could not be bound; `None`: it is.
    pub failing: Option<String>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ServerSnapshot {
    /// Its name.
    pub name: ServerName,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it stands.
    pub standing: Standing,
    /// What an operator wants of it.
    pub wanted: Wanted,
    /// When it is used.
    pub rank: Rank,
    /// Its weight: as written, or as an operator set it.
    pub weight: u16,
    /// Sessions now; in HTTP mode requests that it has not answered to the end.
    pub sessions: u32,
    /// The most at once.
    pub sessions_high: u32,
    /// How many it may have.
    pub sessions_max: Option<u32>,
    /// Sessions for which it was reached.
    pub sessions_total: u64,
    /// From clients.
    pub bytes_in: u64,
    /// To clients.
    pub bytes_out: u64,
    /// Connections to it that could not be made.
    pub connect_errors: u64,
    /// Of those, how many were tried again, here or elsewhere.
    pub retries: u64,
    /// Sessions that it got since another server could not be reached.
    pub redispatches: u64,
    /// Sessions that were cut: it went down with `on_down = "close"`, was removed, or an operator
    /// wanted it.
    pub cut: u64,
    /// The last check; `None`: there was none.
    pub check: Option<CheckReport>,
    /// How often it went down.
    pub falls: u64,
    /// For how long it was down in all.
    #[serde(serialize_with = "milliseconds")]
    pub downtime: Duration,
    /// For how long it has stood as it does.
    #[serde(serialize_with = "milliseconds")]
    pub unchanged_for: Duration,
    /// When it came to stand so.
    pub changed: Timestamp,
}

/// A duration as a number of milliseconds.
pub(crate) fn milliseconds<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
