//! The routing table: one published state, made ready for look-ups. Built once by the coordinator,
//! shared by all workers, never changed.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use mainstay_control::balance::Role;
use mainstay_http1::Request;
use mainstay_ids::{Attempt, Generation, InstanceId, ListenName, ServiceName, Version};
use mainstay_model::rewrite::Redirect;
use mainstay_model::routing::{EndpointHealth, Handle, Unavailable};
use mainstay_model::{HostPattern, HttpMatch, Intake, Routing, ServiceRoutes};

use crate::endpoint::{EndpointKey, EndpointState, Registry};
use crate::matching::Match;
use crate::metrics::ServiceCounts;
use crate::policy::Policy;

/// The longest host name that can be in a table; see [`mainstay_model::HostName`].
const HOST_LEN_MAX: usize = 253;

/// Which table this is, counted over the life of the gateway. Unlike a generation it also tells a
/// stored state from a live one with the same number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Serial(u64);

impl Serial {
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One routing state.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) serial: Serial,
    pub(crate) generation: Generation,
    pub(crate) services: Vec<TableService>,
    hosts: HashMap<Box<str>, Claims>,
    /// By what follows `*.`.
    domains: HashMap<Box<str>, Claims>,
    any_host: Claims,
    /// Whether there is a redirect at all.
    redirects: bool,
    addresses: HashMap<SocketAddr, ServiceIndex>,
    keys: HashSet<EndpointKey>,
    instances: HashSet<InstanceId>,
    dead: HashMap<InstanceId, Attempt>,
}

/// The place of a service in [`Table::services`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServiceIndex(pub(crate) usize);

/// To whom requests belong.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    Service(ServiceName),
    /// A listener in HTTP mode.
    Listen(ListenName),
}

impl Owner {
    /// Its name, which a service and a listener may share.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Service(name) => name.as_str(),
            Self::Listen(name) => name.as_str(),
        }
    }
}

/// Endpoints among which a worker chooses, and how requests to them are served: of a service, or of
/// a listener in HTTP mode.
pub(crate) struct Group<'t> {
    pub(crate) owner: Owner,
    pub(crate) counts: &'t Arc<ServiceCounts>,
    pub(crate) unavailable: Option<Unavailable>,
    pub(crate) policy: &'t Arc<Policy>,
    pub(crate) endpoints: &'t [TableEndpoint],
}

/// One service in a table.
#[derive(Debug)]
pub(crate) struct TableService {
    pub(crate) name: ServiceName,
    pub(crate) counts: Arc<ServiceCounts>,
    pub(crate) unavailable: Option<Unavailable>,
    pub(crate) endpoints: Vec<TableEndpoint>,
    pub(crate) policy: Arc<Policy>,
    redirects: Vec<Redirect>,
}

impl TableService {
    pub(crate) fn group(&self) -> Group<'_> {
        Group {
            owner: Owner::Service(self.name.clone()),
            counts: &self.counts,
            unavailable: self.unavailable,
            policy: &self.policy,
            endpoints: &self.endpoints,
        }
    }
}

/// One endpoint in a table.
#[derive(Debug)]
pub(crate) struct TableEndpoint {
    pub(crate) state: Arc<EndpointState>,
    pub(crate) health: EndpointHealth,
    pub(crate) version: Version,
    /// What names it to clients that stay with it.
    pub(crate) handle: Option<Handle>,
    /// What it is beside the others.
    pub(crate) role: Role,
    /// Whether it gets requests, and how many, as an operator wants it.
    pub(crate) intake: Intake,
}

/// Whether there are endpoints, and operators have drained every one. The routes do not say it, since a
/// gateway of an earlier version would not understand the word.
fn drained(routes: &ServiceRoutes) -> Option<Unavailable> {
    let takes = routes.endpoints.iter().any(|one| one.intake.takes_any());
    (!takes && !routes.endpoints.is_empty()).then_some(Unavailable::Drained)
}

/// Where a match leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    Service,
    /// The place in [`TableService::redirects`].
    Redirect(usize),
}

/// What the entry does with a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found<'t> {
    /// It belongs to this service.
    Service(ServiceIndex),
    /// This service sends it elsewhere.
    Redirect(ServiceIndex, &'t Redirect),
}

#[derive(Debug)]
struct Claim {
    on: Match,
    service: ServiceIndex,
    destination: Destination,
}

/// The matches of one host, those first that win over others.
#[derive(Debug, Default)]
struct Claims(Vec<Claim>);

impl Claims {
    fn insert(&mut self, claim: Claim) {
        // After its equals: of two that rank the same the first by the service's name wins, then
        // the first in its list.
        let rank = claim.on.rank();
        let at = self.0.partition_point(|other| other.on.rank() >= rank);
        self.0.insert(at, claim);
    }

    fn find(&self, request: &Request, path: &str) -> Option<&Claim> {
        self.0.iter().find(|claim| claim.on.takes(request, path))
    }
}

impl Table {
    /// Makes a table of `routing`; its endpoints are admitted to `registry`.
    pub(crate) fn build(routing: &Routing, serial: Serial, registry: &mut Registry) -> Self {
        let mut table = Self {
            serial,
            generation: routing.generation,
            services: Vec::with_capacity(routing.services.len()),
            hosts: HashMap::new(),
            domains: HashMap::new(),
            any_host: Claims::default(),
            redirects: false,
            addresses: HashMap::new(),
            keys: HashSet::new(),
            instances: HashSet::new(),
            dead: HashMap::new(),
        };
        for routes in &routing.services {
            table.insert(routes, registry);
            let dead = routes.dead.iter();
            let dead = dead.map(|one| (one.instance.clone(), one.attempt));
            table.dead.extend(dead);
        }
        table
    }

    /// Whether an endpoint is declared dead.
    pub(crate) fn declares_dead(&self, key: &EndpointKey) -> bool {
        let dead = key.instance().and_then(|instance| self.dead.get(instance));
        dead.is_some_and(|attempt| key.attempt <= *attempt)
    }

    fn insert(&mut self, routes: &ServiceRoutes, registry: &mut Registry) {
        let index = ServiceIndex(self.services.len());
        for http in routes.http.iter().flatten() {
            self.claim(http, index, Destination::Service);
        }
        for (place, redirect) in routes.traffic.redirects.iter().enumerate() {
            self.claim(&redirect.on, index, Destination::Redirect(place));
            self.redirects = true;
        }
        if let Some(address) = routes.address {
            self.addresses.insert(address, index);
        }
        let mut endpoints = Vec::with_capacity(routes.endpoints.len());
        for endpoint in &routes.endpoints {
            let state = registry.admit(endpoint);
            self.keys.insert(state.key.clone());
            self.instances.insert(endpoint.instance.clone());
            endpoints.push(TableEndpoint {
                state,
                health: endpoint.health,
                version: endpoint.version,
                handle: endpoint.handle,
                role: Role::EVEN,
                intake: endpoint.intake,
            });
        }
        self.services.push(TableService {
            name: routes.service.clone(),
            counts: registry.admit_service(&routes.service),
            unavailable: routes.unavailable.or_else(|| drained(routes)),
            endpoints,
            policy: Arc::new(Policy::of(routes)),
            redirects: routes.traffic.redirects.clone(),
        });
    }

    fn claim(&mut self, http: &HttpMatch, service: ServiceIndex, destination: Destination) {
        let claims = match &http.host {
            Some(HostPattern::Exactly(host)) => self.hosts.entry(host.as_str().into()).or_default(),
            Some(HostPattern::Below(domain)) => {
                self.domains.entry(domain.as_str().into()).or_default()
            }
            None => &mut self.any_host,
        };
        claims.insert(Claim {
            on: Match::of(http),
            service,
            destination,
        });
    }

    /// What the entry does with a request: the host as it stands wins over `*.` and a longer domain
    /// over a shorter one, and each over any host.
    pub(crate) fn find(&self, request: &Request) -> Option<Found<'_>> {
        let path = request.path();
        let mut lower = [0; HOST_LEN_MAX];
        let host = lower_host(request.host().unwrap_or_default(), &mut lower);
        let claim = host
            .and_then(|host| self.find_host(host, request, path))
            .or_else(|| self.any_host.find(request, path))?;
        Some(match claim.destination {
            Destination::Service => Found::Service(claim.service),
            Destination::Redirect(place) => {
                let service = self.services.get(claim.service.0)?;
                Found::Redirect(claim.service, service.redirects.get(place)?)
            }
        })
    }

    /// Whether a request at the entry may be sent elsewhere.
    pub(crate) fn has_redirects(&self) -> bool {
        self.redirects
    }

    fn find_host(&self, host: &str, request: &Request, path: &str) -> Option<&Claim> {
        let exact = self.hosts.get(host);
        if let Some(claim) = exact.and_then(|claims| claims.find(request, path)) {
            return Some(claim);
        }
        if self.domains.is_empty() {
            return None;
        }
        let mut rest = host;
        while let Some((_, domain)) = rest.split_once('.') {
            let claims = self.domains.get(domain);
            if let Some(claim) = claims.and_then(|claims| claims.find(request, path)) {
                return Some(claim);
            }
            rest = domain;
        }
        None
    }

    /// The service whose own address this is.
    pub(crate) fn find_address(&self, address: SocketAddr) -> Option<ServiceIndex> {
        self.addresses.get(&address).copied()
    }

    /// Whether it names this service.
    pub(crate) fn names(&self, service: &ServiceName) -> bool {
        self.services.iter().any(|one| one.name == *service)
    }

    /// The service addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.addresses.keys().copied()
    }

    /// Whether a worker may choose this endpoint.
    pub(crate) fn routes_to(&self, key: &EndpointKey) -> bool {
        self.keys.contains(key)
    }

    /// Whether a worker may choose any endpoint of this instance.
    pub(crate) fn holds(&self, instance: &InstanceId) -> bool {
        self.instances.contains(instance)
    }
}

/// A host as tables have it. `None`: none of them can have it.
fn lower_host<'l>(host: &str, lower: &'l mut [u8; HOST_LEN_MAX]) -> Option<&'l str> {
    let name = bare_host(host);
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    str::from_utf8(lower).ok()
}

/// A host without its port and final dot; what stands in brackets (IPv6) is left alone.
fn bare_host(host: &str) -> &str {
    let name = if host.starts_with('[') {
        host
    } else {
        host.split_once(':').map_or(host, |(name, _)| name)
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::tests::request;
    use mainstay_ids::Epoch;
    use mainstay_model::rewrite::{RedirectStatus, Target};
    use mainstay_model::route::{CookieName, FieldName, HttpMatches, MatchValue, MethodName};
    use mainstay_model::{PathPrefix, Traffic};
    use tokio::sync::Notify;

    fn on(host: Option<&str>, path: &str) -> HttpMatch {
        let host = host.map(|host| HostPattern::parse(host).unwrap());
        HttpMatch::new(host, PathPrefix::parse(path).unwrap())
    }

    fn routes(name: &str, http: Vec<HttpMatch>) -> ServiceRoutes {
        ServiceRoutes {
            service: ServiceName::parse(name).unwrap(),
            http: HttpMatches::new(http).ok(),
            address: None,
            health_path: None,
            endpoints: Vec::new(),
            unavailable: None,
            dead: Vec::new(),
            traffic: Traffic::default(),
            rewrites: Vec::new(),
            split: None,
        }
    }

    fn table(services: Vec<ServiceRoutes>) -> Table {
        let routing = Routing {
            generation: Generation::first(Epoch(1)),
            services,
        };
        let mut registry = Registry::new(Arc::new(Notify::new()), 1);
        Table::build(&routing, Serial::default(), &mut registry)
    }

    fn found(table: &Table, first: &str, lines: &str) -> String {
        match table.find(&request(first, lines)) {
            None => "nobody".to_owned(),
            Some(Found::Service(ServiceIndex(index))) => table.services[index].name.to_string(),
            Some(Found::Redirect(ServiceIndex(index), redirect)) => {
                format!("{} to {}", table.services[index].name, redirect.to)
            }
        }
    }

    #[test]
    fn a_host_wins_over_a_domain_over_any_host_and_then_the_longest_path_wins() {
        let table = table(vec![
            routes("any", vec![on(None, "/")]),
            routes("any-shop", vec![on(None, "/shop")]),
            routes("domain", vec![on(Some("*.example.com"), "/")]),
            routes(
                "host",
                vec![
                    on(Some("a.example.com"), "/x"),
                    on(Some("b.example.org"), "/x"),
                ],
            ),
            routes("host-deep", vec![on(Some("a.example.com"), "/x/y")]),
            routes("sub", vec![on(Some("*.b.example.com"), "/x")]),
        ]);
        for (host, path, expected) in [
            ("a.example.com", "/x", "host"),
            ("A.Example.COM:8080", "/x/yy", "host"),
            ("b.example.org", "/x", "host"),
            ("a.example.com.", "/x/y/z?q", "host-deep"),
            ("a.example.com", "/shop/1", "domain"),
            ("c.b.example.com", "/x", "sub"),
            ("d.c.b.example.com", "/x", "sub"),
            ("b.example.com", "/x", "domain"),
            ("c.b.example.com", "/y", "domain"),
            ("example.com", "/shop/1", "any-shop"),
            ("[::1]:80", "/shopping", "any"),
        ] {
            let host = format!("host: {host}\r\n");
            assert_eq!(
                found(&table, &format!("GET {path}"), &host),
                expected,
                "{host} {path}"
            );
        }
    }

    #[test]
    fn with_the_same_path_more_conditions_win_and_all_of_them_must_hold() {
        let header = |value: Option<&str>| {
            let name = FieldName::parse("X-Version").unwrap();
            let mut http = on(None, "/");
            let value = value.map(|value| MatchValue::parse(value).unwrap());
            http.headers.insert(name, value);
            http
        };
        let mut beta = header(Some("2"));
        beta.cookies
            .insert(CookieName::parse("beta").unwrap(), None);
        let mut writes = on(None, "/");
        writes.methods = ["POST", "PUT"]
            .map(|one| MethodName::parse(one).unwrap())
            .into();
        let table = table(vec![
            routes("a", vec![on(None, "/")]),
            routes("b", vec![header(Some("2"))]),
            routes("c", vec![beta]),
            routes("d", vec![header(None)]),
            routes("e", vec![writes]),
            routes("f", vec![on(None, "/deep")]),
        ]);
        for (first, lines, expected) in [
            ("GET /", "", "a"),
            ("GET /", "X-VERSION: 2\r\n", "b"),
            ("GET /", "x-version: 2\r\ncookie: beta=1\r\n", "c"),
            ("GET /", "x-version: 3\r\ncookie: beta=1\r\n", "d"),
            ("GET /", "x-version: 3\r\nx-version: 2\r\n", "b"),
            ("PUT /", "", "e"),
            ("PUT /", "x-version: 2\r\n", "b"),
            ("GET /deep", "x-version: 2\r\n", "f"),
        ] {
            let lines = format!("host: a\r\n{lines}");
            assert_eq!(found(&table, first, &lines), expected, "{first} {lines}");
        }
    }

    #[test]
    fn a_redirect_is_matched_among_all_others() {
        let mut shop = routes("shop", vec![on(None, "/old/kept")]);
        shop.traffic.redirects.push(Redirect {
            on: on(None, "/old"),
            to: Target::parse("/new{rest}").unwrap(),
            status: RedirectStatus::Found,
        });
        let table = table(vec![routes("any", vec![on(None, "/")]), shop]);
        let found = |first: &str| found(&table, first, "host: a\r\n");
        assert_eq!(found("GET /old/x"), "shop to /new{rest}");
        assert_eq!(found("GET /old/kept/x"), "shop");
        assert_eq!(found("GET /other"), "any");
        assert!(table.has_redirects());
    }
}
