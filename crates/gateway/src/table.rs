//! The routing table: one published state, made ready for look-ups. Built once by the coordinator,
//! shared by all workers, never changed.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use mainstay_ids::{Attempt, Generation, InstanceId, ServiceName};
use mainstay_model::routing::{EndpointHealth, Unavailable};
use mainstay_model::{PathPrefix, Routing, ServiceRoutes};

use crate::endpoint::{EndpointKey, EndpointState, Registry};

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
    hosts: HashMap<Box<str>, Prefixes>,
    any_host: Prefixes,
    addresses: HashMap<SocketAddr, ServiceIndex>,
    keys: HashSet<EndpointKey>,
    instances: HashSet<InstanceId>,
    dead: HashMap<InstanceId, Attempt>,
}

/// The place of a service in [`Table::services`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServiceIndex(pub(crate) usize);

/// One service in a table.
#[derive(Debug)]
pub(crate) struct TableService {
    pub(crate) name: ServiceName,
    pub(crate) unavailable: Option<Unavailable>,
    pub(crate) endpoints: Vec<TableEndpoint>,
}

/// One endpoint in a table.
#[derive(Debug)]
pub(crate) struct TableEndpoint {
    pub(crate) state: Arc<EndpointState>,
    pub(crate) health: EndpointHealth,
}

/// The paths of one host, the longest first.
#[derive(Debug, Default)]
struct Prefixes(Vec<(PathPrefix, ServiceIndex)>);

impl Prefixes {
    fn insert(&mut self, prefix: PathPrefix, service: ServiceIndex) {
        // After its equals: of two services with the same match the first by name wins.
        let len = prefix.as_str().len();
        let at = self
            .0
            .partition_point(|(other, _)| other.as_str().len() >= len);
        self.0.insert(at, (prefix, service));
    }

    fn find(&self, path: &str) -> Option<ServiceIndex> {
        let found = self.0.iter().find(|(prefix, _)| prefix.covers(path));
        found.map(|(_, service)| *service)
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
            any_host: Prefixes::default(),
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
        let dead = self.dead.get(&key.instance);
        dead.is_some_and(|attempt| key.attempt <= *attempt)
    }

    fn insert(&mut self, routes: &ServiceRoutes, registry: &mut Registry) {
        let index = ServiceIndex(self.services.len());
        if let Some(http) = &routes.http {
            let prefixes = match &http.host {
                Some(host) => self.hosts.entry(host.as_str().into()).or_default(),
                None => &mut self.any_host,
            };
            prefixes.insert(http.path.clone(), index);
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
            });
        }
        self.services.push(TableService {
            name: routes.service.clone(),
            unavailable: routes.unavailable,
            endpoints,
        });
    }

    /// The service of a request at the entry. `host` is as the client wrote it, with its port.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<ServiceIndex> {
        self.find_host(host)
            .and_then(|prefixes| prefixes.find(path))
            .or_else(|| self.any_host.find(path))
    }

    fn find_host(&self, host: &str) -> Option<&Prefixes> {
        if self.hosts.is_empty() {
            return None;
        }
        let name = bare_host(host);
        let mut lower = [0; HOST_LEN_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        let name = std::str::from_utf8(lower).ok()?;
        self.hosts.get(name)
    }

    /// The service whose own address this is.
    pub(crate) fn find_address(&self, address: SocketAddr) -> Option<ServiceIndex> {
        self.addresses.get(&address).copied()
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
    use mainstay_ids::Epoch;
    use mainstay_model::{HostName, HttpMatch};
    use tokio::sync::Notify;

    fn routes(name: &str, host: Option<&str>, path: &str) -> ServiceRoutes {
        ServiceRoutes {
            service: ServiceName::parse(name).unwrap(),
            http: Some(HttpMatch {
                host: host.map(|host| HostName::parse(host).unwrap()),
                path: PathPrefix::parse(path).unwrap(),
            }),
            address: None,
            endpoints: Vec::new(),
            unavailable: None,
            dead: Vec::new(),
        }
    }

    #[test]
    fn a_host_wins_over_any_host_and_then_the_longest_path_wins() {
        let routing = Routing {
            generation: Generation::first(Epoch(1)),
            services: vec![
                routes("any", None, "/"),
                routes("any-shop", None, "/shop"),
                routes("host", Some("a.example.com"), "/x"),
                routes("host-deep", Some("a.example.com"), "/x/y"),
            ],
        };
        let mut registry = Registry::new(Arc::new(Notify::new()));
        let table = Table::build(&routing, Serial::default(), &mut registry);
        let found = |host: &str, path: &str| {
            let ServiceIndex(index) = table.find(host, path).unwrap();
            table.services[index].name.as_str().to_owned()
        };
        assert_eq!(found("a.example.com", "/x"), "host");
        assert_eq!(found("A.Example.COM:8080", "/x/yy"), "host");
        assert_eq!(found("a.example.com.", "/x/y/z"), "host-deep");
        assert_eq!(
            found("a.example.com", "/shop/1"),
            "any-shop",
            "no path of the host covers it"
        );
        assert_eq!(found("[::1]:80", "/shopping"), "any");
        assert_eq!(found(&"a".repeat(300), "/"), "any");
    }
}
