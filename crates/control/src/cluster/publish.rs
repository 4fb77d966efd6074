//! From the state to what others are told: the routes and the plan, each change a generation.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::num::NonZeroU32;
use core::time::Duration;

use mainstay_ids::{Generation, InstanceId, ServiceName, Version};
use mainstay_model::plan::{PlannedAction, PlannedInstance};
use mainstay_model::rewrite::Rewrite;
use mainstay_model::routing::{Dead, Endpoint, EndpointHealth, ServiceRoutes, VersionRewrite};
use mainstay_model::service::{
    Check, HealthSpec, LimitsSpec, LogSpec, OnFailure, RolloutSpec, Step,
};
use mainstay_model::{Directory, Listed, Listing, NodePlan, Routing, ServiceSpec, Traffic};

use super::Purpose;
use super::declare::Services;
use super::handle::StickyKey;
use super::instance::{Duty, Exposure, Instance, Life, Start};
use super::report::Strangers;
use super::service::{Service, instance_id};

impl Services {
    /// Brings the routing up to date. A changed content has the generation `upcoming`.
    pub(super) fn publish_routing(
        &mut self,
        purpose: Purpose,
        key: StickyKey,
        routing: &mut Routing,
        upcoming: Generation,
    ) {
        let services = self.by_name.iter();
        let routed = services.filter(|(_, service)| service.spec().is_routed());
        let services: Vec<ServiceRoutes> = routed
            .map(|(name, service)| routes(name, service, purpose, key))
            .collect();
        if services != routing.services {
            routing.services = services;
            routing.generation = upcoming;
        }
        let mut listed = BTreeMap::new();
        for endpoint in routing.services.iter().flat_map(|one| &one.endpoints) {
            listed.insert(endpoint.instance.clone(), endpoint.attempt);
        }
        for (name, service) in &mut self.by_name {
            for (number, instance) in &mut service.instances {
                let now = listed.get(&instance_id(name, *number)).copied();
                instance.exposure = match (now, instance.exposure) {
                    (Some(attempt), _) => Exposure::Listed { attempt },
                    (None, Exposure::Listed { attempt }) => Exposure::Unlisted {
                        attempt,
                        since: routing.generation,
                    },
                    (None, kept @ (Exposure::Never | Exposure::Unlisted { .. })) => kept,
                };
            }
        }
    }

    /// Brings the directory up to date. A changed content has the generation `upcoming`.
    pub(super) fn publish_directory(
        &self,
        purpose: Purpose,
        directory: &mut Directory,
        upcoming: Generation,
    ) {
        let services = self.by_name.iter();
        let serving = services.filter(|(_, service)| service.spec().schedule.is_none());
        let services: Vec<Listing> = serving
            .map(|(name, service)| listing(name, service, purpose))
            .collect();
        if services != directory.services {
            directory.services = services;
            directory.generation = upcoming;
        }
    }

    /// Brings the plan up to date. A changed content has the generation `upcoming`.
    pub(super) fn publish_plan(
        &self,
        strangers: &Strangers,
        plan: &mut NodePlan,
        upcoming: Generation,
    ) {
        let mut instances = Vec::new();
        for (name, service) in &self.by_name {
            let known = service.instances.iter();
            instances.extend(known.map(|(number, instance)| {
                self.planned(instance_id(name, *number), service, instance)
            }));
        }
        for (id, version) in strangers.to_stop() {
            instances.push(self.to_stop(id, version));
        }
        instances.sort_by(|one, other| one.instance.cmp(&other.instance));
        if instances != plan.instances {
            plan.instances = instances;
            plan.generation = upcoming;
        }
    }

    fn planned(&self, id: InstanceId, service: &Service, instance: &Instance) -> PlannedInstance {
        let mut spec = service.spec_of(instance.version).clone();
        if let Duty::Before { .. } = instance.duty {
            spec.exec = core::mem::take(&mut spec.before);
        }
        PlannedInstance {
            instance: id,
            version: instance.version,
            addresses: self.addresses_in(&spec),
            spec,
            action: match (instance.life, instance.start, instance.duty) {
                (Life::Kept | Life::Draining(_), Start::Held | Start::Queued, _) => {
                    PlannedAction::Hold
                }
                (
                    Life::Kept,
                    Start::Allowed,
                    Duty::Before { .. } | Duty::Run { .. } | Duty::Over,
                ) => PlannedAction::RunOnce,
                (Life::Kept, Start::Allowed, Duty::Serve)
                | (Life::Draining(_), Start::Allowed, _) => PlannedAction::Run,
                (Life::Stopping { .. }, _, _) => PlannedAction::Stop,
            },
        }
    }

    /// Those that stand in it, and those of the services that it needs.
    fn addresses_in(&self, spec: &ServiceSpec) -> BTreeMap<ServiceName, SocketAddr> {
        let address = |name: &ServiceName| self.by_name.get(name)?.address();
        spec.addressed()
            .chain(&spec.needs)
            .filter_map(|name| Some((name.clone(), address(name)?)))
            .collect()
    }

    /// The order to stop an instance that we do not know.
    fn to_stop(&self, id: &InstanceId, version: Version) -> PlannedInstance {
        let service = self.by_name.get(&id.service);
        let spec = service.map(|service| service.spec().clone());
        PlannedInstance {
            instance: id.clone(),
            version,
            spec: spec.unwrap_or_else(|| unknown_spec(id.service.clone())),
            addresses: BTreeMap::new(),
            action: PlannedAction::Stop,
        }
    }
}

fn routes(
    name: &ServiceName,
    service: &Service,
    purpose: Purpose,
    key: StickyKey,
) -> ServiceRoutes {
    let sticky = service.spec().traffic.sticky.is_some();
    let instances = service.instances.iter();
    let endpoints: Vec<_> = instances
        .filter_map(|(number, instance)| {
            let id = instance_id(name, *number);
            let handle = sticky.then(|| key.handle(&id));
            let endpoint = instance.endpoint(id)?;
            Some(Endpoint { handle, ..endpoint })
        })
        .collect();
    let instances = service.instances.iter();
    let dead = instances.filter_map(|(number, instance)| {
        let attempt = instance.dead()?;
        let instance = instance_id(name, *number);
        Some(Dead { instance, attempt })
    });
    let versions: BTreeSet<Version> = endpoints.iter().map(|one| one.version).collect();
    let rewrite = |version: Version| {
        let rewrite = &service.spec_of(version).traffic.rewrite;
        (!rewrite.is_empty()).then(|| VersionRewrite {
            version,
            rewrite: rewrite.clone(),
        })
    };
    ServiceRoutes {
        service: name.clone(),
        http: service.spec().http.clone(),
        address: service.address(),
        health_path: match &service.spec().health.check {
            Check::Http(path) => Some(path.clone()),
            Check::Tcp | Check::Exec(_) => None,
        },
        unavailable: endpoints.is_empty().then(|| service.unavailable(purpose)),
        dead: dead.collect(),
        endpoints,
        rewrites: versions.into_iter().filter_map(rewrite).collect(),
        split: service.split(),
        traffic: Traffic {
            rewrite: Rewrite::default(),
            canary: None,
            ..service.spec().traffic.clone()
        },
    }
}

fn listing(name: &ServiceName, service: &Service, purpose: Purpose) -> Listing {
    let instances = service.instances.iter();
    let endpoints: Vec<Endpoint> = instances
        .filter_map(|(number, instance)| instance.endpoint(instance_id(name, *number)))
        .collect();
    let good = |endpoint: &Endpoint| {
        endpoint.health == EndpointHealth::Passing && endpoint.intake.takes_any()
    };
    let any_good = endpoints.iter().any(good);
    let unavailable = endpoints.is_empty().then(|| service.unavailable(purpose));
    let instances = endpoints
        .into_iter()
        .filter(|endpoint| !any_good || good(endpoint))
        .map(|endpoint| Listed {
            instance: endpoint.instance,
            address: endpoint.address,
            weight: endpoint.intake.weight,
        });
    Listing {
        service: name.clone(),
        address: service.address(),
        instances: instances.collect(),
        unavailable,
    }
}

/// What stands in the order to stop an instance of a service that is not known any more. Only the
/// grace means something.
fn unknown_spec(name: ServiceName) -> ServiceSpec {
    const GRACE: Duration = Duration::from_secs(10);
    const ONE: NonZeroU32 = NonZeroU32::MIN;
    ServiceSpec {
        name,
        exec: Vec::new(),
        dir: String::from("/"),
        user: None,
        env: BTreeMap::new(),
        address: None,
        http: None,
        traffic: Traffic::default(),
        health: HealthSpec {
            check: Check::Tcp,
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            fall: ONE,
            rise: ONE,
            start: None,
            restart: None,
        },
        instances: 0,
        rollout: RolloutSpec {
            step: Step::Count(ONE),
            hold: Duration::ZERO,
            deadline: Duration::ZERO,
            progress: mainstay_model::service::PROGRESS,
            canary: None,
            on_failure: OnFailure::Pause,
        },
        drain: Duration::ZERO,
        grace: GRACE,
        log: LogSpec { size: 0, keep: 0 },
        slo: None,
        needs: BTreeSet::new(),
        before: Vec::new(),
        schedule: None,
        limits: LimitsSpec::default(),
        secrets: BTreeMap::new(),
        artifact: None,
    }
}
