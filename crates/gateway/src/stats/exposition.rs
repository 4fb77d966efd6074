//! The counters in Prometheus' text format, version 0.0.4.
//!
//! The counters live in cells of each worker and are summed here. Labels are services, instances, places to listen and
//! words of ours: all of them end with what they name.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use mainstay_exposition::{Buckets, Family, HelpEnds, Text, families};
use mainstay_ids::{InstanceId, Instant};
use mainstay_model::routing::EndpointHealth;

use super::Shown;
use super::gather::{ENTRY, classes, merged};
use crate::endpoint::EndpointState;
use crate::listen::snapshot::{HttpCounts, ListenSnapshot, ServerSnapshot};
use crate::metrics::{
    Counter, Counts, Denied, EndpointTally, FrontendCounts, FrontendKey, FrontendTally,
    GatewayCounters, Histogram, PerWorker, RESPONSE_CLASSES, ServiceTally,
};
use crate::refusal::Reason;
use crate::roster::Roster;
use crate::table::TableService;

#[rustfmt::skip]
families! {
    BUILD = Gauge "mainstay_gateway_build_info" ["version"] "Always 1; the label tells the program's version";
    UPTIME = Gauge "mainstay_gateway_uptime_seconds" [] "Time since the gateway's process started";
    WORKERS = Gauge "mainstay_gateway_workers" [] "Threads that serve requests";
    EPOCH = Gauge "mainstay_gateway_routes_epoch" [] "Epoch of the routes that are in force in every worker; 0 before the first";
    REVISION = Gauge "mainstay_gateway_routes_revision" [] "Revision of the routes that are in force in every worker; 0 before the first";
    UNBOUND = Gauge "mainstay_gateway_unbound_addresses" [] "Service addresses on which another program listens";
    LIMIT = Gauge "mainstay_gateway_connections_limit" [] "How many connections of clients there may be";
    LOG_DROPPED = Counter "mainstay_gateway_access_log_dropped_lines_total" [] "Lines of the access log that were not written";

    F_OPEN = Gauge "mainstay_frontend_connections" ["frontend" "listen"] "Connections of clients that are open";
    F_OPEN_MAX = Gauge "mainstay_frontend_connections_max" ["frontend" "listen"] "The most connections that were open at a time";
    F_CONNECTIONS = Counter "mainstay_frontend_connections_total" ["frontend" "listen"] "Connections that were accepted";
    F_RESPONSES = Counter "mainstay_frontend_responses_total" ["frontend" "listen" "code"] "Answers to clients by class of status; other: the client went away before";
    F_REFUSALS = Counter "mainstay_frontend_refusals_total" ["frontend" "listen" "reason"] "Answers of the gateway's own, by mainstay-reason";
    F_DENIED = Counter "mainstay_frontend_denied_total" ["frontend" "listen" "limit"] "Connections and requests that a limit ended or kept out";
    F_IN = Counter "mainstay_frontend_request_body_bytes_total" ["frontend" "listen"] "Bytes of bodies of requests";
    F_OUT = Counter "mainstay_frontend_response_body_bytes_total" ["frontend" "listen"] "Bytes of bodies of answers";

    S_INSTANCES = Gauge "mainstay_service_instances" ["service" "state"] "Instances that pass their probes, fail them, or left the routes and finish requests";
    S_IN_FLIGHT = Gauge "mainstay_service_requests_in_flight" ["service"] "Requests that instances have not answered to the end";
    S_QUEUE = Gauge "mainstay_service_queue_requests" ["service"] "Requests that wait for an instance";
    S_QUEUE_MAX = Gauge "mainstay_service_queue_requests_max" ["service"] "The most requests that waited at a time";
    S_RESPONSES = Counter "mainstay_service_responses_total" ["service" "code"] "Answers to clients by class of status; other: the client went away before";
    S_REFUSALS = Counter "mainstay_service_refusals_total" ["service" "reason"] "Answers of the gateway's own, by mainstay-reason";
    S_RETRIES = Counter "mainstay_service_retries_total" ["service"] "Tries after the first of a request";
    S_RETRIED = Counter "mainstay_service_retried_requests_total" ["service"] "Requests that were tried more than once";
    S_HEDGES = Counter "mainstay_service_hedges_total" ["service" "result"] "Requests that were sent to a second instance because the first was slow; won: the second answered first";
    S_ABORTS = Counter "mainstay_service_client_aborts_total" ["service"] "Clients that went away before their answer was complete";
    S_BROKEN = Counter "mainstay_service_broken_answers_total" ["service"] "Answers that an instance broke off after their head";
    S_IN = Counter "mainstay_service_request_body_bytes_total" ["service"] "Bytes of bodies of requests";
    S_OUT = Counter "mainstay_service_response_body_bytes_total" ["service"] "Bytes of bodies of answers";
    S_TOTAL = Histogram "mainstay_service_request_duration_seconds" ["service"] "From a request's first byte to its answer's last; without upgraded connections";
    S_FIRST = Histogram "mainstay_service_first_byte_seconds" ["service"] "From a request's first byte to the head of an instance's answer";
    S_CONNECT = Histogram "mainstay_service_connect_seconds" ["service"] "Time to a new connection to an instance";
    S_WAITED = Histogram "mainstay_service_queue_seconds" ["service"] "Time that requests waited for an instance; without those that did not wait";

    I_UP = Gauge "mainstay_instance_up" ["service" "instance"] "1 if its probes pass and it is in the routes";
    I_IN_FLIGHT = Gauge "mainstay_instance_requests_in_flight" ["service" "instance"] "Requests that it has not answered to the end";
    I_IN_FLIGHT_MAX = Gauge "mainstay_instance_requests_in_flight_max" ["service" "instance"] "The most requests in flight at a time";
    I_REQUESTS = Counter "mainstay_instance_requests_total" ["service" "instance"] "Requests that were given to it, each try of one counted";
    I_RESPONSES = Counter "mainstay_instance_responses_total" ["service" "instance" "code"] "Its answers that were passed on, by class of status";
    I_FAILURES = Counter "mainstay_instance_failures_total" ["service" "instance"] "Requests to which it gave no answer, or one of 502 to 504";
    I_CONNECT_FAILURES = Counter "mainstay_instance_connect_failures_total" ["service" "instance"] "Connections to it that did not come about";
    I_RETRIES = Counter "mainstay_instance_retries_total" ["service" "instance"] "Tries elsewhere because it gave no answer";
    I_EJECTIONS = Counter "mainstay_instance_ejections_total" ["service" "instance"] "How often a worker took it out for its failures";
    I_HEDGES = Counter "mainstay_instance_hedges_total" ["service" "instance" "result"] "Requests that were sent here because another was slow; won: this answered first";
    I_ABORTS = Counter "mainstay_instance_client_aborts_total" ["service" "instance"] "Clients that went away before its answer was complete";
    I_BROKEN = Counter "mainstay_instance_broken_answers_total" ["service" "instance"] "Answers that it broke off after their head";
    I_IN = Counter "mainstay_instance_request_body_bytes_total" ["service" "instance"] "Bytes of bodies of requests";
    I_OUT = Counter "mainstay_instance_response_body_bytes_total" ["service" "instance"] "Bytes of bodies of answers";
    I_FIRST = Histogram "mainstay_instance_first_byte_seconds" ["service" "instance"] "From a request's first byte to the head of its answer";

    L_BOUND = Gauge "mainstay_listen_bound" ["listen"] "1 if the listener accepts on all its addresses";
    L_SESSIONS = Gauge "mainstay_listen_sessions" ["listen"] "Sessions now, those that still look for a server included; in HTTP mode connections of clients";
    L_MAX = Gauge "mainstay_listen_sessions_max" ["listen"] "The most of them at a time";
    L_LIMIT = Gauge "mainstay_listen_sessions_limit" ["listen"] "How many of them there may be";
    L_TOTAL = Counter "mainstay_listen_sessions_total" ["listen"] "Connections that were accepted";
    L_REFUSED = Counter "mainstay_listen_refused_total" ["listen"] "Connections that did not say for whom they were: strangers, or a wrong or late header of the PROXY protocol";
    L_UNSERVED = Counter "mainstay_listen_unserved_total" ["listen"] "Sessions that were closed because no server could be reached or all were full for too long";
    L_IN = Counter "mainstay_listen_received_bytes_total" ["listen"] "Bytes from clients; in HTTP mode of bodies of requests";
    L_OUT = Counter "mainstay_listen_sent_bytes_total" ["listen"] "Bytes to clients; in HTTP mode of bodies of answers";
    L_RESPONSES = Counter "mainstay_listen_responses_total" ["listen" "code"] "In HTTP mode: answers to clients by class of status; other: the client went away before";
    L_REFUSALS = Counter "mainstay_listen_refusals_total" ["listen" "reason"] "In HTTP mode: answers of the gateway's own, by mainstay-reason";
    L_DENIED = Counter "mainstay_listen_denied_total" ["listen" "limit"] "In HTTP mode: connections and requests that a limit of the gateway ended or kept out";
    L_QUEUE = Gauge "mainstay_listen_queue_requests" ["listen"] "In HTTP mode: requests that wait for a server";
    L_DURATION = Histogram "mainstay_listen_request_duration_seconds" ["listen"] "In HTTP mode: from a request's first byte to its answer's last; without upgraded connections";

    V_UP = Gauge "mainstay_listen_server_up" ["listen" "server"] "1 if new sessions or requests may go there";
    V_WEIGHT = Gauge "mainstay_listen_server_weight" ["listen" "server"] "Its share beside the others";
    V_SESSIONS = Gauge "mainstay_listen_server_sessions" ["listen" "server"] "Sessions now; in HTTP mode requests that it has not answered to the end";
    V_MAX = Gauge "mainstay_listen_server_sessions_max" ["listen" "server"] "The most of them at a time";
    V_TOTAL = Counter "mainstay_listen_server_sessions_total" ["listen" "server"] "Sessions for which it was reached; in HTTP mode requests that were given to it, each try of one counted";
    V_FAILURES = Counter "mainstay_listen_server_connect_failures_total" ["listen" "server"] "Connections to it that did not come about";
    V_RETRIES = Counter "mainstay_listen_server_retries_total" ["listen" "server"] "Of these, how many were tried again, here or elsewhere";
    V_REDISPATCHES = Counter "mainstay_listen_server_redispatches_total" ["listen" "server"] "Sessions that it got because another server could not be reached";
    V_CUT = Counter "mainstay_listen_server_cut_sessions_total" ["listen" "server"] "Sessions or requests that were cut when it went down, was removed or an operator wanted it";
    V_FALLS = Counter "mainstay_listen_server_falls_total" ["listen" "server"] "How often it went down";
    V_DOWN = Counter "mainstay_listen_server_down_seconds_total" ["listen" "server"] "For how long it was down in all";
    V_IN = Counter "mainstay_listen_server_received_bytes_total" ["listen" "server"] "Bytes from clients; in HTTP mode of bodies of requests";
    V_OUT = Counter "mainstay_listen_server_sent_bytes_total" ["listen" "server"] "Bytes to clients; in HTTP mode of bodies of answers";
    V_RESPONSES = Counter "mainstay_listen_server_responses_total" ["listen" "server" "code"] "In HTTP mode: its answers that were passed on, by class of status";
    V_FAILED = Counter "mainstay_listen_server_failures_total" ["listen" "server"] "In HTTP mode: requests to which it gave no answer, or one of 502 to 504";
    V_FIRST = Histogram "mainstay_listen_server_first_byte_seconds" ["listen" "server"] "In HTTP mode: from a request's first byte to the head of its answer";
}

/// Everything as of now; `listeners` as they were seen last.
pub(crate) fn write(shown: &Shown, listeners: &[ListenSnapshot]) -> String {
    let Shown {
        counters,
        entry,
        rosters,
        clock,
        connections_max,
        listens: _,
        centre: _,
    } = shown;
    let roster = &*Arc::clone(&rosters.borrow());
    let now = clock.now();
    let mut text = Text::new(HelpEnds::Stopped, 64 * 1024);
    write_own(&mut text, counters, roster, now);
    text.one(&LIMIT, connections_max);
    write_frontends(&mut text, &frontends(counters, *entry, roster));
    let services: Vec<Service<'_>> = roster
        .table
        .services
        .iter()
        .map(|service| Service::of(service, roster))
        .collect();
    write_services(&mut text, &services);
    write_service_times(&mut text, &services);
    write_instances(&mut text, &instances(roster));
    write_listeners(&mut text, listeners);
    text.into_string()
}

/// The counts of a histogram as they are written.
fn buckets(counts: &Counts) -> Buckets<'static, f64> {
    let cumulative = counts.cumulative();
    Buckets {
        cumulative: cumulative
            .map(|(bound, below)| (bound.text, below))
            .collect(),
        count: counts.count(),
        sum: counts.sum_seconds(),
    }
}

fn write_own(text: &mut Text, counters: &GatewayCounters, roster: &Roster, now: Instant) {
    let generation = roster.acknowledged.unwrap_or_default();
    text.begin(&BUILD);
    text.value(&BUILD, &[env!("CARGO_PKG_VERSION")], 1);
    text.one(&UPTIME, now.since_start().as_secs_f64());
    for (family, value) in [
        (&WORKERS, counters.workers() as u64),
        (&EPOCH, generation.epoch.0),
        (&REVISION, generation.revision.0),
        (&UNBOUND, roster.unbound.len() as u64),
        (&LOG_DROPPED, counters.log_dropped.get()),
    ] {
        text.one(family, value);
    }
}

/// Which of its counters a family of one thing shows.
type Shows<T> = (&'static Family, fn(&T) -> &Counter);

/// The answers by class, with the words of the classes.
fn by_class(counts: [u64; RESPONSE_CLASSES.len()]) -> Vec<(&'static str, u64)> {
    RESPONSE_CLASSES.into_iter().zip(counts).collect()
}

/// Refusals by reason.
fn by_reason(of: impl Fn(Reason) -> u64) -> Vec<(&'static str, u64)> {
    let reasons = Reason::ALL.into_iter();
    reasons.map(|reason| (reason.word(), of(reason))).collect()
}

/// A place where clients come in, with its labels.
struct Frontend {
    name: String,
    listen: String,
    counts: Arc<FrontendCounts>,
}

impl Frontend {
    fn labels(&self) -> Vec<&str> {
        vec![&self.name, &self.listen]
    }

    fn sum(&self, of: impl Fn(&FrontendTally) -> &Counter) -> u64 {
        self.counts.tallies().sum(of)
    }
}

fn frontends(
    counters: &GatewayCounters,
    entry: Option<SocketAddr>,
    roster: &Roster,
) -> Vec<Frontend> {
    let entry = entry.map_or(String::new(), |address| address.to_string());
    let named = |key: FrontendKey| match key {
        FrontendKey::Entry => Some((ENTRY.to_owned(), entry.clone())),
        FrontendKey::Address(address) => {
            let found = roster.table.find_address(address)?;
            let service = &roster.table.services[found.0];
            Some((service.name.to_string(), address.to_string()))
        }
    };
    let all = counters.all_frontends().into_iter();
    all.filter_map(|(key, counts)| {
        let (name, listen) = named(key)?;
        Some(Frontend {
            name,
            listen,
            counts,
        })
    })
    .collect()
}

fn write_frontends(text: &mut Text, all: &[Frontend]) {
    text.each(&F_OPEN, all, |one| {
        (one.labels(), one.counts.connections().get().into())
    });
    text.each(&F_OPEN_MAX, all, |one| {
        (one.labels(), one.counts.connections().max().into())
    });
    text.each(&F_CONNECTIONS, all, |one| {
        (one.labels(), one.sum(|tally| &tally.connections))
    });
    text.each_word(&F_RESPONSES, all, |one| {
        let counts = classes(one.counts.tallies(), |tally, class| {
            tally.responses.of(class)
        });
        (one.labels(), by_class(counts))
    });
    text.each_word(&F_REFUSALS, all, |one| {
        let of = |reason| one.sum(|tally| tally.refusals.of(reason));
        (one.labels(), by_reason(of))
    });
    text.each_word(&F_DENIED, all, |one| {
        let limits = Denied::ALL.into_iter();
        let counts = limits.map(|by| (by.word(), one.sum(|tally| tally.denied.of(by))));
        (one.labels(), counts.collect())
    });
    text.each(&F_IN, all, |one| {
        (one.labels(), one.sum(|tally| &tally.bytes_in))
    });
    text.each(&F_OUT, all, |one| {
        (one.labels(), one.sum(|tally| &tally.bytes_out))
    });
}

/// A service with its instances counted.
struct Service<'a> {
    routes: &'a TableService,
    passing: u64,
    failing: u64,
    draining: u64,
    in_flight: u64,
}

impl<'a> Service<'a> {
    fn of(routes: &'a TableService, roster: &Roster) -> Self {
        let is = |health| {
            let endpoints = routes.endpoints.iter();
            endpoints.filter(|one| one.health == health).count() as u64
        };
        let draining = roster.draining.iter();
        let draining: Vec<_> = draining
            .filter(|state| state.key.is_of(&routes.name))
            .collect();
        let here = routes.endpoints.iter().map(|one| one.state.in_flight());
        let left = draining.iter().map(|state| state.in_flight());
        Self {
            routes,
            passing: is(EndpointHealth::Passing),
            failing: is(EndpointHealth::Failing),
            draining: draining.len() as u64,
            in_flight: here.chain(left).map(u64::from).sum(),
        }
    }

    fn labels(&self) -> Vec<&str> {
        vec![self.routes.name.as_str()]
    }

    fn tallies(&self) -> &PerWorker<ServiceTally> {
        self.routes.counts.tallies()
    }

    fn sum(&self, of: impl Fn(&ServiceTally) -> &Counter) -> u64 {
        self.tallies().sum(of)
    }
}

fn write_services(text: &mut Text, all: &[Service<'_>]) {
    text.each_word(&S_INSTANCES, all, |one| {
        let states = vec![
            ("passing", one.passing),
            ("failing", one.failing),
            ("draining", one.draining),
        ];
        (one.labels(), states)
    });
    text.each(&S_IN_FLIGHT, all, |one| (one.labels(), one.in_flight));
    text.each(&S_QUEUE, all, |one| {
        (one.labels(), one.routes.counts.queue.get().into())
    });
    text.each(&S_QUEUE_MAX, all, |one| {
        (one.labels(), one.routes.counts.queue.max().into())
    });
    text.each_word(&S_RESPONSES, all, |one| {
        let counts = classes(one.tallies(), |tally, class| tally.responses.of(class));
        (one.labels(), by_class(counts))
    });
    text.each_word(&S_REFUSALS, all, |one| {
        let of = |reason| one.sum(|tally| tally.refusals.of(reason));
        (one.labels(), by_reason(of))
    });
    let shown: [Shows<ServiceTally>; 6] = [
        (&S_RETRIES, |tally| &tally.retries),
        (&S_RETRIED, |tally| &tally.retried),
        (&S_ABORTS, |tally| &tally.client_aborts),
        (&S_BROKEN, |tally| &tally.broken_answers),
        (&S_IN, |tally| &tally.bytes_in),
        (&S_OUT, |tally| &tally.bytes_out),
    ];
    for (family, of) in shown {
        text.each(family, all, |one| (one.labels(), one.sum(of)));
    }
    text.each_word(&S_HEDGES, all, |one| {
        let won = one.sum(|tally| &tally.hedges_won);
        let lost = one.sum(|tally| &tally.hedges_lost);
        (one.labels(), vec![("won", won), ("lost", lost)])
    });
}

fn write_service_times(text: &mut Text, all: &[Service<'_>]) {
    /// A family, and the histogram that it shows.
    type Shows = (&'static Family, fn(&ServiceTally) -> &Histogram);
    let shown: [Shows; 4] = [
        (&S_TOTAL, |tally| &tally.total),
        (&S_FIRST, |tally| &tally.first_byte),
        (&S_CONNECT, |tally| &tally.connect),
        (&S_WAITED, |tally| &tally.queue),
    ];
    for (family, of) in shown {
        text.begin(family);
        for one in all {
            text.histogram(family, &one.labels(), &buckets(&merged(one.tallies(), of)));
        }
    }
}

/// An instance with all its attempts that are in the routes or finish requests: a name may stand
/// only once with the same labels.
struct Instance<'a> {
    service: &'a str,
    name: String,
    up: u64,
    states: Vec<&'a EndpointState>,
}

impl Instance<'_> {
    fn labels(&self) -> Vec<&str> {
        vec![self.service, &self.name]
    }

    fn sum(&self, of: impl Fn(&EndpointTally) -> &Counter) -> u64 {
        let states = self.states.iter();
        states.map(|state| state.counters.all().sum(&of)).sum()
    }

    fn in_flight(&self) -> u64 {
        let states = self.states.iter();
        states.map(|state| u64::from(state.in_flight())).sum()
    }

    fn in_flight_max(&self) -> u64 {
        let states = self.states.iter().map(|state| state.in_flight_max());
        states.max().unwrap_or(0).into()
    }
}

fn instances(roster: &Roster) -> Vec<Instance<'_>> {
    let mut found: BTreeMap<&InstanceId, Instance<'_>> = BTreeMap::new();
    let routed = roster
        .table
        .services
        .iter()
        .flat_map(|service| &service.endpoints);
    let routed = routed.map(|one| {
        (
            &*one.state,
            u64::from(one.health == EndpointHealth::Passing),
        )
    });
    let draining = roster.draining.iter().map(|state| (&**state, 0));
    for (state, up) in routed.chain(draining) {
        let Some(id) = state.key.instance() else {
            continue;
        };
        let instance = found.entry(id).or_insert_with(|| Instance {
            service: id.service.as_str(),
            name: id.to_string(),
            up: 0,
            states: Vec::new(),
        });
        instance.up = instance.up.max(up);
        instance.states.push(state);
    }
    found.into_values().collect()
}

fn write_instances(text: &mut Text, all: &[Instance<'_>]) {
    text.each(&I_UP, all, |one| (one.labels(), one.up));
    text.each(&I_IN_FLIGHT, all, |one| (one.labels(), one.in_flight()));
    text.each(&I_IN_FLIGHT_MAX, all, |one| {
        (one.labels(), one.in_flight_max())
    });
    text.each_word(&I_RESPONSES, all, |one| {
        let counts =
            (0..RESPONSE_CLASSES.len()).map(|class| one.sum(|tally| tally.responses.of(class)));
        let words = RESPONSE_CLASSES.into_iter();
        (one.labels(), words.zip(counts).collect())
    });
    let shown: [Shows<EndpointTally>; 9] = [
        (&I_REQUESTS, |tally| &tally.requests),
        (&I_FAILURES, |tally| &tally.failures),
        (&I_CONNECT_FAILURES, |tally| &tally.connect_failures),
        (&I_RETRIES, |tally| &tally.retries),
        (&I_EJECTIONS, |tally| &tally.ejections),
        (&I_ABORTS, |tally| &tally.client_aborts),
        (&I_BROKEN, |tally| &tally.broken_answers),
        (&I_IN, |tally| &tally.bytes_in),
        (&I_OUT, |tally| &tally.bytes_out),
    ];
    for (family, of) in shown {
        text.each(family, all, |one| (one.labels(), one.sum(of)));
    }
    text.each_word(&I_HEDGES, all, |one| {
        let won = one.sum(|tally| &tally.hedges_won);
        let lost = one.sum(|tally| &tally.hedges_lost);
        (one.labels(), vec![("won", won), ("lost", lost)])
    });
    text.begin(&I_FIRST);
    for one in all {
        let cells = one
            .states
            .iter()
            .flat_map(|state| state.counters.all().iter());
        let counts = Counts::of(cells.map(|tally| &tally.first_byte));
        text.histogram(&I_FIRST, &one.labels(), &buckets(&counts));
    }
}

fn write_listeners(text: &mut Text, all: &[ListenSnapshot]) {
    /// A family, and its value of a listener.
    type Shows = (&'static Family, fn(&ListenSnapshot) -> u64);
    let shown: [Shows; 9] = [
        (&L_BOUND, |one| {
            one.binds.iter().all(|bind| bind.failing.is_none()).into()
        }),
        (&L_SESSIONS, |one| one.sessions.into()),
        (&L_MAX, |one| one.sessions_high.into()),
        (&L_LIMIT, |one| one.sessions_max.into()),
        (&L_TOTAL, |one| one.sessions_total),
        (&L_REFUSED, |one| one.refused),
        (&L_UNSERVED, |one| one.unserved),
        (&L_IN, |one| one.bytes_in),
        (&L_OUT, |one| one.bytes_out),
    ];
    for (family, of) in shown {
        text.each(family, all, |one| (vec![one.name.as_str()], of(one)));
    }
    write_servers(text, all);
    write_requests(text, all);
}

/// What listeners in HTTP mode have beside the others.
fn write_requests(text: &mut Text, all: &[ListenSnapshot]) {
    let all: Vec<(&str, &HttpCounts)> = all
        .iter()
        .filter_map(|listen| Some((listen.name.as_str(), listen.http.as_ref()?)))
        .collect();
    text.each_word(&L_RESPONSES, &all, |(name, http)| {
        let counts = classes(http.frontend.tallies(), |tally, class| {
            tally.responses.of(class)
        });
        (vec![*name], by_class(counts))
    });
    text.each_word(&L_REFUSALS, &all, |(name, http)| {
        let tallies = http.frontend.tallies();
        let of = |reason| tallies.sum(|tally| tally.refusals.of(reason));
        (vec![*name], by_reason(of))
    });
    text.each_word(&L_DENIED, &all, |(name, http)| {
        let tallies = http.frontend.tallies();
        let limits = Denied::ALL.into_iter();
        let counts = limits.map(|by| (by.word(), tallies.sum(|tally| tally.denied.of(by))));
        (vec![*name], counts.collect())
    });
    text.each(&L_QUEUE, &all, |(name, http)| {
        (vec![*name], http.counts.queue.get().into())
    });
    text.begin(&L_DURATION);
    for (name, http) in &all {
        let counts = merged(http.counts.tallies(), |tally| &tally.total);
        text.histogram(&L_DURATION, &[*name], &buckets(&counts));
    }
    write_requests_of_servers(text, &all);
}

fn write_requests_of_servers(text: &mut Text, all: &[(&str, &HttpCounts)]) {
    let servers: Vec<(&str, &EndpointState)> = all
        .iter()
        .flat_map(|(name, http)| http.servers.iter().map(move |state| (*name, &**state)))
        .collect();
    let labels = |name, state| vec![name, label(state)];
    text.each_word(&V_RESPONSES, &servers, |&(name, state)| {
        let counts = classes(state.counters.all(), |tally, class| {
            tally.responses.of(class)
        });
        (labels(name, state), by_class(counts))
    });
    text.each(&V_FAILED, &servers, |&(name, state)| {
        let failed = state.counters.all().sum(|tally| &tally.failures);
        (labels(name, state), failed)
    });
    text.begin(&V_FIRST);
    for &(name, state) in &servers {
        let counts = merged(state.counters.all(), |tally| &tally.first_byte);
        text.histogram(&V_FIRST, &labels(name, state), &buckets(&counts));
    }
}

/// A server's name, which was text before it was bytes.
fn label(state: &EndpointState) -> &str {
    str::from_utf8(&state.label).unwrap_or_default()
}

fn write_servers(text: &mut Text, all: &[ListenSnapshot]) {
    /// A family, and its value of a server.
    type Shows = (&'static Family, fn(&ServerSnapshot) -> u64);
    let shown: [Shows; 12] = [
        (&V_UP, |one| one.standing.takes_new().into()),
        (&V_WEIGHT, |one| one.weight.into()),
        (&V_SESSIONS, |one| one.sessions.into()),
        (&V_MAX, |one| one.sessions_high.into()),
        (&V_TOTAL, |one| one.sessions_total),
        (&V_FAILURES, |one| one.connect_errors),
        (&V_RETRIES, |one| one.retries),
        (&V_REDISPATCHES, |one| one.redispatches),
        (&V_CUT, |one| one.cut),
        (&V_FALLS, |one| one.falls),
        (&V_IN, |one| one.bytes_in),
        (&V_OUT, |one| one.bytes_out),
    ];
    let servers: Vec<(&str, &ServerSnapshot)> = all
        .iter()
        .flat_map(|listen| {
            let servers = listen.servers.iter();
            servers.map(|one| (listen.name.as_str(), one))
        })
        .collect();
    for (family, of) in shown {
        text.each(family, &servers, |&(listen, one)| {
            (vec![listen, one.name.as_str()], of(one))
        });
    }
    text.begin(&V_DOWN);
    for (listen, one) in &servers {
        let labels = [*listen, one.name.as_str()];
        text.value(&V_DOWN, &labels, one.downtime.as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
