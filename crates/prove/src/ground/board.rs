//! The routing states, as a control centre publishes them.

use std::net::{Ipv4Addr, SocketAddr};

use mainstay_ids::{Attempt, Epoch, Generation, InstanceId, Revision, ServiceName, Version};
use mainstay_model::Routing;
use mainstay_model::intake::Intake;
use mainstay_model::routing::{Dead, Endpoint, EndpointHealth, ServiceRoutes};

/// How many services there are beside those that are asked, and how many instances each has.
pub(crate) const OTHERS: u16 = 5000;
const OTHERS_INSTANCES: u16 = 3;

/// What is wanted of forwarding now.
#[derive(Debug, Clone)]
pub(crate) struct Board(Routing);

impl Board {
    pub(crate) fn new() -> Self {
        Self(Routing {
            generation: Generation::first(Epoch(1)),
            services: Vec::new(),
        })
    }

    /// Adds services that nobody asks, each with instances that are nowhere.
    pub(crate) fn crowd(&mut self) {
        for number in 0..OTHERS {
            let [high, low] = number.to_be_bytes();
            let name = format!("other-{number}");
            let at = (Ipv4Addr::new(10, 96, high, low), 8080).into();
            self.add(&name, at);
            for index in 1..=OTHERS_INSTANCES {
                let at = (Ipv4Addr::new(10, 79, high, low), 8000 + index).into();
                self.route(&name, u64::from(index), at);
            }
        }
    }

    pub(crate) fn add(&mut self, service: &str, address: SocketAddr) {
        self.0.services.push(ServiceRoutes {
            service: named(service),
            http: None,
            address: Some(address),
            health_path: None,
            endpoints: Vec::new(),
            unavailable: None,
            dead: Vec::new(),
            traffic: mainstay_model::Traffic::default(),
            rewrites: Vec::new(),
            split: None,
        });
    }

    /// An instance that connections may go to.
    pub(crate) fn route(&mut self, service: &str, number: u64, address: SocketAddr) {
        let instance = identity(service, number);
        let endpoint = Endpoint {
            instance,
            attempt: Attempt(1),
            version: Version(1),
            address,
            health: EndpointHealth::Passing,
            handle: None,
            intake: Intake::default(),
        };
        self.of(service).endpoints.push(endpoint);
    }

    /// One that drains.
    pub(crate) fn withdraw(&mut self, service: &str, number: u64) {
        let instance = identity(service, number);
        let endpoints = &mut self.of(service).endpoints;
        endpoints.retain(|endpoint| endpoint.instance != instance);
    }

    /// One that is declared dead.
    pub(crate) fn bury(&mut self, service: &str, number: u64) {
        self.withdraw(service, number);
        let dead = Dead {
            instance: identity(service, number),
            attempt: Attempt(1),
        };
        self.of(service).dead.push(dead);
    }

    /// The next state, to be published.
    pub(crate) fn publish(&mut self) -> Routing {
        let Revision(revision) = self.0.generation.revision;
        self.0.generation.revision = Revision(revision + 1);
        self.0.clone()
    }

    fn of(&mut self, service: &str) -> &mut ServiceRoutes {
        let name = named(service);
        let mut services = self.0.services.iter_mut().rev();
        let found = services.find(|routes| routes.service == name);
        found.expect("services are added before they are changed")
    }
}

fn named(service: &str) -> ServiceName {
    ServiceName::parse(service).expect("the names are literals of ours")
}

pub(crate) fn identity(service: &str, number: u64) -> InstanceId {
    let service = named(service);
    InstanceId { service, number }
}
