//! Fills rows from the routes and the counters.

use std::net::SocketAddr;
use std::sync::Arc;

use mainstay_ids::{Instant, ListenName, ServiceName};
use mainstay_model::listen::ServerName;
use mainstay_model::routing::EndpointHealth;
use mainstay_model::{IntakeState, Weight};

use super::Shown;
use super::listens::{self, Listeners};
use super::past::{Past, Subject};
use super::rows::{
    Errors, Flow, Instances, Kind, Level, Mode, Own, Roles, Row, Snapshot, Status, Times,
};
use crate::endpoint::{EndpointKey, EndpointState};
use crate::metrics::{
    Counts, Denied, EndpointTally, FrontendCounts, FrontendKey, GatewayCounters, Histogram,
    PerWorker, RESPONSE_CLASSES, ServiceCounts, ServiceTally,
};
use crate::refusal::Reason;
use crate::roster::Roster;
use crate::table::{TableEndpoint, TableService};

/// The name of the entry's row.
pub(crate) const ENTRY: &str = "entry";

/// What something is remembered by.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Frontend(FrontendKey),
    Service(ServiceName),
    Server(EndpointKey),
    Listen(ListenName),
    ListenServers(ListenName),
    ListenServer(ListenName, ServerName),
}

/// Makes a [`Snapshot`] of everything, again and again.
#[derive(Debug)]
pub(crate) struct Gatherer {
    counters: Arc<GatewayCounters>,
    /// Where the entry listens.
    entry: Option<SocketAddr>,
    /// Connections at a time, over all frontends.
    limit: u64,
    past: Past<Key>,
}

impl Gatherer {
    /// A gatherer that has seen nothing yet.
    pub(crate) fn new(shown: &Shown) -> Self {
        Self {
            counters: Arc::clone(&shown.counters),
            entry: shown.entry,
            limit: shown.connections_max,
            past: Past::new(),
        }
    }

    /// Everything as of `now`. To be called once a second: rates are counted between two calls.
    pub(crate) fn gather(
        &mut self,
        now: Instant,
        roster: &Roster,
        listeners: &Listeners,
    ) -> Snapshot {
        let mut rows = self.frontends(now, roster);
        let taken = |name: &str| {
            let mut services = roster.table.services.iter();
            name == ENTRY || services.any(|service| service.name.as_str() == name)
        };
        let named: Vec<_> = listeners
            .iter()
            .map(|listen| (listen, listens::shown_name(listen, taken)))
            .collect();
        for (listen, name) in &named {
            rows.push(listens::frontend(listen, name, &mut self.past, now));
        }
        for service in &roster.table.services {
            self.service(now, roster, service, &mut rows);
        }
        for (listen, name) in &named {
            rows.extend(listens::backend(listen, name, &mut self.past, now));
        }
        self.past.forget_others(now);
        let counters = &self.counters;
        Snapshot {
            own: Own {
                uptime: now.since_start(),
                workers: counters.workers() as u64,
                generation: roster.acknowledged.map(|generation| generation.to_string()),
                log_dropped: counters.log_dropped.get(),
            },
            rows,
            listeners: Arc::clone(listeners),
            services: roster.table.services.iter().map(instances).collect(),
        }
    }

    fn frontends(&mut self, now: Instant, roster: &Roster) -> Vec<Row> {
        let mut rows = Vec::new();
        for (key, counts) in self.counters.all_frontends() {
            let (proxy, address) = match &key {
                FrontendKey::Entry => (ENTRY.to_owned(), self.entry),
                FrontendKey::Address(address) => {
                    let Some(found) = roster.table.find_address(*address) else {
                        continue;
                    };
                    let service = &roster.table.services[found.0];
                    (service.name.to_string(), Some(*address))
                }
            };
            let status = match address {
                Some(address) if roster.unbound.contains(&address) => Status::Unbound,
                Some(_) | None => Status::Open,
            };
            let past = self.past.of(Key::Frontend(key), now);
            rows.push(Row {
                address,
                status,
                since: past.status(now, status),
                ..frontend_row(proxy, &counts, self.limit, past, now)
            });
        }
        rows
    }

    fn service(
        &mut self,
        now: Instant,
        roster: &Roster,
        service: &TableService,
        rows: &mut Vec<Row>,
    ) {
        let at = rows.len();
        for endpoint in &service.endpoints {
            rows.push(self.server(now, service, Seen::Routed(endpoint)));
        }
        for state in &roster.draining {
            if state.key.is_of(&service.name) {
                rows.push(self.server(now, service, Seen::Draining(state)));
            }
        }
        let past = self.past.of(Key::Service(service.name.clone()), now);
        let words = service
            .unavailable
            .map_or(String::new(), |why| why.to_string());
        let row = Row {
            checks: Some(past.checks(now, words)),
            ..backend_row(
                service.name.as_str(),
                &service.counts,
                &rows[at..],
                past,
                now,
            )
        };
        rows.insert(at, row);
    }

    fn server(&mut self, now: Instant, service: &TableService, seen: Seen<'_>) -> Row {
        let state = seen.state();
        let past = self.past.of(Key::Server(state.key.clone()), now);
        let status = seen.status();
        Row {
            proxy: service.name.to_string(),
            name: seen.name(service),
            status,
            since: past.status(now, status),
            weight: Some(seen.weight()),
            checks: Some(past.checks(now, seen.words().to_owned())),
            ..server_row(state, past, now)
        }
    }
}

/// What requests to an endpoint show; whose it is, and how it is, the caller knows.
pub(super) fn server_row(state: &EndpointState, past: &mut Subject, now: Instant) -> Row {
    let tallies = state.counters.all();
    let count = |of: fn(&EndpointTally) -> &crate::metrics::Counter| tallies.sum(of);
    let flow = past.sessions(now, count(|tally| &tally.requests));
    Row {
        kind: Kind::Server,
        proxy: String::new(),
        name: String::new(),
        mode: Mode::Http,
        address: Some(state.key.address),
        status: Status::Up,
        since: std::time::Duration::ZERO,
        weight: None,
        roles: Roles {
            active: 1,
            backup: 0,
        },
        queue: Some(Level::default()),
        sessions: Level {
            now: u64::from(state.in_flight()),
            max: u64::from(state.in_flight_max()),
            limit: None,
        },
        session_flow: flow,
        requests: None,
        bytes_in: count(|tally| &tally.bytes_in),
        bytes_out: count(|tally| &tally.bytes_out),
        responses: classes(tallies, |tally, class| tally.responses.of(class)),
        errors: Errors {
            connect: count(|tally| &tally.connect_failures),
            response: count(|tally| &tally.failures),
            retries: count(|tally| &tally.retries),
            client_aborts: count(|tally| &tally.client_aborts),
            server_aborts: count(|tally| &tally.broken_answers),
            ejections: count(|tally| &tally.ejections),
            ..Errors::default()
        },
        checks: None,
        times: Some(Times {
            queue: super::rows::Quantiles::default(),
            connect: past
                .connect
                .look(now, &merged(tallies, |tally| &tally.connect)),
            first_byte: past
                .first_byte
                .look(now, &merged(tallies, |tally| &tally.first_byte)),
            total: past.total.look(now, &merged(tallies, |tally| &tally.total)),
        }),
        idle: past.idle(now),
        connects: merged(tallies, |tally| &tally.connect).count(),
    }
}

/// An endpoint with what the routes say of it.
#[derive(Clone, Copy)]
enum Seen<'a> {
    Routed(&'a TableEndpoint),
    Draining(&'a Arc<EndpointState>),
}

/// The instances of a service with what operators want of them.
fn instances(service: &TableService) -> Instances {
    let endpoints = service.endpoints.iter();
    let intake = |one: &TableEndpoint| Some((one.state.key.instance()?.clone(), one.intake));
    Instances {
        service: service.name.clone(),
        intakes: endpoints.filter_map(intake).collect(),
    }
}

impl Seen<'_> {
    fn weight(&self) -> u64 {
        match self {
            Self::Routed(endpoint) => endpoint.intake.weight.percent().into(),
            Self::Draining(_) => Weight::ORDINARY.percent().into(),
        }
    }

    fn state(&self) -> &EndpointState {
        match self {
            Self::Routed(endpoint) => &endpoint.state,
            Self::Draining(state) => state,
        }
    }

    fn status(&self) -> Status {
        match self {
            Self::Routed(endpoint) => match (endpoint.intake.state, endpoint.health) {
                (IntakeState::Maintenance, _) => Status::Maintenance,
                (_, EndpointHealth::Failing) => Status::Down,
                (IntakeState::Drain, EndpointHealth::Passing) => Status::Drain,
                (IntakeState::Ready, EndpointHealth::Passing) => Status::Up,
            },
            Self::Draining(_) => Status::Drain,
        }
    }

    fn words(&self) -> &'static str {
        match self {
            Self::Routed(endpoint) => match endpoint.health {
                EndpointHealth::Passing => "probe passes",
                EndpointHealth::Failing => "probe fails",
            },
            Self::Draining(_) => "left the routes",
        }
    }

    /// The instance; with its attempt, if a later attempt has the name already.
    fn name(&self, service: &TableService) -> String {
        let key = &self.state().key;
        let is_taken = |one: &TableEndpoint| one.state.key.who == key.who;
        match self {
            Self::Draining(_) if service.endpoints.iter().any(is_taken) => {
                format!("{}@{}", key.who, key.attempt.0)
            }
            Self::Routed(_) | Self::Draining(_) => key.who.to_string(),
        }
    }
}

/// What a place shows where clients come in.
pub(super) fn frontend_row(
    proxy: String,
    counts: &FrontendCounts,
    limit: u64,
    past: &mut Subject,
    now: Instant,
) -> Row {
    let tallies = counts.tallies();
    let responses = classes(tallies, |tally, class| tally.responses.of(class));
    let denied = Denied::ALL.into_iter().filter(|by| !by.is_ordinary());
    Row {
        kind: Kind::Frontend,
        proxy,
        name: "FRONTEND".to_owned(),
        mode: Mode::Http,
        address: None,
        status: Status::Open,
        since: std::time::Duration::ZERO,
        weight: None,
        roles: Roles::default(),
        queue: None,
        sessions: Level {
            now: u64::from(counts.connections().get()),
            max: u64::from(counts.connections().max()),
            limit: Some(limit),
        },
        session_flow: past.sessions(now, tallies.sum(|tally| &tally.connections)),
        requests: Some(past.requests(now, responses.iter().sum())),
        bytes_in: tallies.sum(|tally| &tally.bytes_in),
        bytes_out: tallies.sum(|tally| &tally.bytes_out),
        responses,
        errors: Errors {
            denied: denied
                .map(|by| tallies.sum(|tally| tally.denied.of(by)))
                .sum(),
            request: tallies.sum(|tally| tally.refusals.of(Reason::BadRequest)),
            ..Errors::default()
        },
        checks: None,
        times: None,
        idle: past.idle(now),
        connects: 0,
    }
}

/// What a service shows, or the servers of a listener together.
pub(super) fn backend_row(
    proxy: &str,
    counts: &ServiceCounts,
    servers: &[Row],
    past: &mut Subject,
    now: Instant,
) -> Row {
    let tallies = counts.tallies();
    let count = |of: fn(&ServiceTally) -> &crate::metrics::Counter| tallies.sum(of);
    let all = |of: fn(&Row) -> u64| servers.iter().map(of).sum::<u64>();
    let up = || servers.iter().filter(|row| row.status == Status::Up);
    let active = up().count() as u64;
    let status = if active > 0 { Status::Up } else { Status::Down };
    let in_flight = all(|row| row.sessions.now);
    let most = servers.iter().map(|row| row.sessions.max).max();
    let responses = classes(tallies, |tally, class| tally.responses.of(class));
    let queue = &counts.queue;
    Row {
        kind: Kind::Backend,
        proxy: proxy.to_owned(),
        name: "BACKEND".to_owned(),
        mode: Mode::Http,
        address: None,
        status,
        since: past.status(now, status),
        weight: Some(up().filter_map(|row| row.weight).sum()),
        roles: Roles { active, backup: 0 },
        queue: Some(Level {
            now: u64::from(queue.get()),
            max: u64::from(queue.max()),
            limit: None,
        }),
        sessions: Level {
            now: in_flight,
            // Looked at once a second; of one instance the highest is exact.
            max: past.highest(in_flight.max(most.unwrap_or(0))),
            limit: None,
        },
        session_flow: sessions_of(past, now, &responses),
        requests: None,
        bytes_in: count(|tally| &tally.bytes_in),
        bytes_out: count(|tally| &tally.bytes_out),
        responses,
        errors: Errors {
            connect: all(|row| row.errors.connect),
            response: all(|row| row.errors.response),
            retries: count(|tally| &tally.retries),
            redispatches: count(|tally| &tally.retried),
            client_aborts: count(|tally| &tally.client_aborts),
            server_aborts: count(|tally| &tally.broken_answers),
            ejections: all(|row| row.errors.ejections),
            ..Errors::default()
        },
        checks: None,
        times: Some(Times {
            queue: past.queue.look(now, &merged(tallies, |tally| &tally.queue)),
            connect: past
                .connect
                .look(now, &merged(tallies, |tally| &tally.connect)),
            first_byte: past
                .first_byte
                .look(now, &merged(tallies, |tally| &tally.first_byte)),
            total: past.total.look(now, &merged(tallies, |tally| &tally.total)),
        }),
        idle: past.idle(now),
        connects: merged(tallies, |tally| &tally.connect).count(),
    }
}

fn sessions_of(past: &mut Subject, now: Instant, responses: &[u64]) -> Flow {
    past.sessions(now, responses.iter().sum())
}

/// The durations of all workers.
pub(crate) fn merged<T: Default>(tallies: &PerWorker<T>, of: fn(&T) -> &Histogram) -> Counts {
    Counts::of(tallies.iter().map(of))
}

/// The answers of all workers by class.
pub(crate) fn classes<T: Default>(
    tallies: &PerWorker<T>,
    of: fn(&T, usize) -> &crate::metrics::Counter,
) -> [u64; RESPONSE_CLASSES.len()] {
    std::array::from_fn(|class| tallies.sum(|tally| of(tally, class)))
}
