//! What people ask for: apply, scale, rollback, remove.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::SocketAddr;

use mainstay_ids::{ServiceName, Version};
use mainstay_model::event::RollbackAsked;
use mainstay_model::forward::Ranges;
use mainstay_model::service::{AddressSpec, INSTANCES_MAX};
use mainstay_model::{EventKind, Network, ServiceSpec};

use super::address::{Claims, pick};
use super::contract::{Apply, Change, Note, Refusal, ServiceChange};
use super::service::{Course, Service, same_content};
use super::step::Step;
use super::supply::Room;

/// All services, with what is left of those that are gone.
#[derive(Debug, Clone, Default)]
pub(super) struct Services {
    pub(super) by_name: BTreeMap<ServiceName, Service>,
    /// The number of the next instance of services that are gone: an id means one copy for ever.
    pub(super) retired: BTreeMap<ServiceName, u64>,
    /// [`Settings::address_seed`](super::contract::Settings::address_seed).
    pub(super) address_seed: u32,
    /// [`Settings::ranges`](super::contract::Settings::ranges).
    pub(super) ranges: Option<Ranges>,
    /// What the node has for instances, as far as its agent has told.
    pub(super) room: Room,
}

/// Names of services that are gone, of which the next instance's number is kept. More than anybody
/// declares by hand; the rest start at 1 again, long after their instances are forgotten.
const RETIRED_MAX: usize = 1000;

/// A declaration that can be taken over.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) services: Vec<CheckedService>,
    pub(super) notes: Vec<Note>,
}

/// How a service is reached by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    NoService,
    NoAddress,
    At(SocketAddr),
}

#[derive(Debug)]
pub(super) struct CheckedService {
    pub(super) spec: ServiceSpec,
    auto_address: Option<SocketAddr>,
    pub(super) change: ServiceChange,
}

impl Services {
    /// Checks a declaration against itself and all that is there.
    pub(super) fn check(&self, apply: Apply) -> Result<Checked, Refusal> {
        let mut names = BTreeSet::new();
        for spec in &apply.services {
            let service = spec.name.clone();
            if spec.instances > INSTANCES_MAX {
                let instances = spec.instances;
                return Err(Refusal::TooMany { service, instances });
            }
            if let Err(error) = spec.check() {
                return Err(Refusal::Impossible { service, error });
            }
            if !names.insert(spec.name.clone()) {
                return Err(Refusal::DeclaredTwice { service });
            }
        }
        let autos = self.check_claims(&apply.services, &names)?;
        let reach = |name: &ServiceName| self.reach_after(&apply.services, &autos, name);
        check_addressed(&apply.services, reach)?;
        self.check_needs(&apply.services)?;
        for spec in &apply.services {
            self.check_room(spec, spec.instances, &apply.services)?;
        }
        let mut notes = Vec::new();
        for spec in &apply.services {
            let before = self.by_name.get(&spec.name).and_then(Service::address);
            if before.is_some_and(|before| reach(&spec.name) != Reach::At(before)) {
                self.note_addressed(&spec.name, &names, &mut notes);
            }
        }
        let is_left = |(name, service): &(&ServiceName, &Service)| {
            service.course != Course::Removing && !names.contains(*name)
        };
        let left = self.by_name.iter().filter(is_left);
        let services: Vec<ServiceName> = left.map(|(name, _)| name.clone()).collect();
        if !services.is_empty() {
            notes.push(Note::LeftAlone { services });
        }
        let checked = |spec: ServiceSpec| CheckedService {
            auto_address: autos.get(&spec.name).copied(),
            change: self.change(&spec),
            spec,
        };
        Ok(Checked {
            services: apply.services.into_iter().map(checked).collect(),
            notes,
        })
    }

    /// Checks that no two services would have the same match or address, not even after a
    /// rollback. Gives the addresses for `auto`.
    fn check_claims(
        &self,
        specs: &[ServiceSpec],
        declared: &BTreeSet<ServiceName>,
    ) -> Result<BTreeMap<ServiceName, SocketAddr>, Refusal> {
        for spec in specs {
            self.check_place(spec)?;
        }
        let mut claims = Claims::default();
        for (name, service) in &self.by_name {
            let stable = service.stable.map(|stable| service.spec_of(stable));
            let current = (!declared.contains(name)).then(|| service.spec());
            for spec in current.into_iter().chain(stable) {
                claims.claim(name, spec, service.auto_address)?;
            }
        }
        for spec in specs {
            claims.claim(&spec.name, spec, self.auto_address(&spec.name))?;
        }
        let mut taken = claims.addresses();
        let mut autos = BTreeMap::new();
        for spec in specs {
            let kept = self.auto_address(&spec.name);
            if spec.address == Some(AddressSpec::Auto) {
                let service = &spec.name;
                let address =
                    kept.or_else(|| pick(service, self.address_seed, self.auto_range(), &taken));
                let Some(address) = address else {
                    let service = service.clone();
                    return Err(Refusal::NoAddressFree { service });
                };
                taken.insert(address);
                autos.insert(service.clone(), address);
            }
        }
        Ok(autos)
    }

    /// Whether anybody serves the address.
    fn check_place(&self, spec: &ServiceSpec) -> Result<(), Refusal> {
        let Some(AddressSpec::Fixed(address)) = spec.address else {
            return Ok(());
        };
        let forwarded = self.ranges.as_ref();
        let forwarded = forwarded.is_some_and(|ranges| ranges.contain(address.ip()));
        let of_gateway = address.is_ipv4() && address.ip().is_loopback();
        if forwarded || of_gateway {
            return Ok(());
        }
        Err(Refusal::AddressOutside {
            service: spec.name.clone(),
            address,
        })
    }

    /// From which `auto` addresses are picked.
    fn auto_range(&self) -> Option<Network> {
        self.ranges.as_ref()?.networks().first().copied()
    }

    fn auto_address(&self, name: &ServiceName) -> Option<SocketAddr> {
        self.by_name.get(name)?.auto_address
    }

    /// How a service will be reached.
    fn reach_after(
        &self,
        specs: &[ServiceSpec],
        autos: &BTreeMap<ServiceName, SocketAddr>,
        name: &ServiceName,
    ) -> Reach {
        let declared = specs.iter().find(|spec| spec.name == *name);
        let address = match (declared, self.by_name.get(name)) {
            (Some(spec), _) => match spec.address {
                Some(AddressSpec::Auto) => autos.get(name).copied(),
                Some(AddressSpec::Fixed(address)) => Some(address),
                None => None,
            },
            (None, Some(service)) if service.course != Course::Removing => service.address(),
            (None, Some(_) | None) => return Reach::NoService,
        };
        address.map_or(Reach::NoAddress, Reach::At)
    }

    /// Tells which services, but for `declared` ones, address one whose address changes or goes.
    pub(super) fn note_addressed(
        &self,
        service: &ServiceName,
        declared: &BTreeSet<ServiceName>,
        notes: &mut Vec<Note>,
    ) {
        for (by, other) in &self.by_name {
            let stays = other.course != Course::Removing && !declared.contains(by);
            if stays && by != service && other.spec().addressed().any(|name| name == service) {
                notes.push(Note::StillAddressed {
                    service: service.clone(),
                    by: by.clone(),
                });
            }
        }
    }

    fn change(&self, spec: &ServiceSpec) -> ServiceChange {
        let (version, change) = match self.by_name.get(&spec.name) {
            None => (Version::FIRST, Change::Created),
            Some(service) => {
                let same = same_content(service.spec(), spec);
                let last = service.versions.last_key_value();
                let next = last.map_or(Version::FIRST, |(last, _)| last.next());
                let version = if same { service.current } else { next };
                let change = match (&service.course, same) {
                    (Course::Removing, _) => Change::Created,
                    (Course::Settled | Course::RollingOut(_) | Course::Failed { .. }, false)
                    | (Course::Failed { .. }, true) => Change::Updated,
                    (Course::Settled | Course::RollingOut(_), true)
                        if service.wanted != spec.instances =>
                    {
                        Change::Scaled
                    }
                    (Course::Settled | Course::RollingOut(_), true) => Change::Unchanged,
                };
                (version, change)
            }
        };
        ServiceChange {
            service: spec.name.clone(),
            version,
            change,
        }
    }

    /// Takes over one service of a checked declaration.
    pub(super) fn declare(&mut self, checked: CheckedService, step: &mut Step<'_>) {
        let CheckedService {
            spec,
            auto_address,
            change,
        } = checked;
        let name = spec.name.clone();
        match change.change {
            Change::Unchanged => {}
            Change::Scaled => self.scale_known(&name, spec.instances, step),
            Change::Created | Change::Updated => {
                let wanted = spec.instances;
                let (service, from) = self.enter_version(&name, spec, step);
                service.auto_address = service.auto_address.or(auto_address);
                service.wanted = wanted;
                service.begin_rollout(change.version, None, step);
                let started = EventKind::RolloutStarted {
                    from,
                    to: change.version,
                    step: service.spec().rollout.step.of(wanted),
                    wanted,
                };
                step.record(&name, started);
            }
        }
    }

    /// Keeps the content as a version if it is new. Gives the version from which a rollout starts:
    /// the stable one, else the one that is running.
    fn enter_version(
        &mut self,
        name: &ServiceName,
        spec: ServiceSpec,
        step: &mut Step<'_>,
    ) -> (&mut Service, Option<Version>) {
        let next_instance = self.retired.remove(name).unwrap_or(1);
        let mut from = None;
        let mut accepted = None;
        let service = match self.by_name.entry(name.clone()) {
            alloc::collections::btree_map::Entry::Vacant(vacant) => {
                accepted = Some(Version::FIRST);
                vacant.insert(Service::new(spec, next_instance))
            }
            alloc::collections::btree_map::Entry::Occupied(occupied) => {
                let service = occupied.into_mut();
                from = service.rolls_from();
                if !same_content(service.spec(), &spec) {
                    accepted = Some(service.add_version(spec));
                }
                service
            }
        };
        if let Some(version) = accepted {
            step.record(name, EventKind::Accepted { version });
        }
        (service, from)
    }

    /// The same, to be changed.
    pub(super) fn changeable_mut(&mut self, name: &ServiceName) -> Result<&mut Service, Refusal> {
        self.changeable(name)?;
        let found = self.by_name.get_mut(name);
        found.ok_or_else(|| Refusal::UnknownService {
            service: name.clone(),
        })
    }

    /// The service, unless it is being taken down.
    fn changeable(&self, name: &ServiceName) -> Result<&Service, Refusal> {
        let service = name.clone();
        match self.by_name.get(name) {
            None => Err(Refusal::UnknownService { service }),
            Some(found) if found.course == Course::Removing => Err(Refusal::Removing { service }),
            Some(found) => Ok(found),
        }
    }

    pub(super) fn scale(
        &mut self,
        name: &ServiceName,
        instances: u32,
        step: &mut Step<'_>,
    ) -> Result<(), Refusal> {
        if self.changeable(name)?.spec().schedule.is_some() {
            let service = name.clone();
            return Err(Refusal::Scheduled { service });
        }
        if instances > INSTANCES_MAX {
            let service = name.clone();
            return Err(Refusal::TooMany { service, instances });
        }
        let found = self.changeable(name)?;
        if instances > found.wanted {
            self.check_room(found.spec(), instances, &[])?;
        }
        self.scale_known(name, instances, step);
        Ok(())
    }

    fn scale_known(&mut self, name: &ServiceName, to: u32, step: &mut Step<'_>) {
        let Some(service) = self.by_name.get_mut(name) else {
            return;
        };
        let from = core::mem::replace(&mut service.wanted, to);
        if from != to {
            step.record(name, EventKind::Scaled { from, to });
        }
    }

    pub(super) fn roll_back(
        &mut self,
        name: &ServiceName,
        to: Option<Version>,
        step: &mut Step<'_>,
    ) -> Result<(), Refusal> {
        let found = self.changeable(name)?;
        let service = name.clone();
        let from = found.current;
        let to = match to {
            Some(version) => version,
            None => match found.proven.range(..from).next_back() {
                Some(version) => *version,
                None => return Err(Refusal::NothingToGoBackTo { service }),
            },
        };
        if to == from {
            let version = to;
            return Err(Refusal::AlreadyCurrent { service, version });
        }
        let Some(spec) = found.versions.get(&to) else {
            let version = to;
            return Err(Refusal::UnknownVersion { service, version });
        };
        // Others may have taken meanwhile what that version had.
        let checked = self.check(Apply {
            services: Vec::from([ServiceSpec {
                instances: found.wanted,
                ..spec.clone()
            }]),
        })?;
        let auto_address = checked
            .services
            .into_iter()
            .find_map(|one| one.auto_address);
        let rollback = EventKind::RollbackStarted {
            from,
            to,
            asked: RollbackAsked::ByUser,
        };
        step.record(name, rollback);
        if let Some(found) = self.by_name.get_mut(name) {
            found.auto_address = found.auto_address.or(auto_address);
            found.begin_rollout(to, Some(RollbackAsked::ByUser), step);
        }
        Ok(())
    }

    /// Takes a service down. One that others address is taken down all the same, and told.
    pub(super) fn remove(
        &mut self,
        name: &ServiceName,
        step: &mut Step<'_>,
    ) -> Result<Vec<Note>, Refusal> {
        let mut notes = Vec::new();
        self.note_addressed(name, &BTreeSet::new(), &mut notes);
        self.note_needed(name, &mut notes);
        let Some(service) = self.by_name.get_mut(name) else {
            let service = name.clone();
            return Err(Refusal::UnknownService { service });
        };
        if service.course != Course::Removing {
            service.course = Course::Removing;
            step.record(name, EventKind::RemovalStarted);
        }
        Ok(notes)
    }

    pub(super) fn remove_all(&mut self, step: &mut Step<'_>) {
        for (name, service) in &mut self.by_name {
            if service.course != Course::Removing {
                service.course = Course::Removing;
                step.record(name, EventKind::RemovalStarted);
            }
        }
    }

    /// Forgets the services of which nothing is left.
    pub(super) fn retire(&mut self, step: &mut Step<'_>) {
        let retired = &mut self.retired;
        self.by_name.retain(|name, service| {
            let gone = service.course == Course::Removing && service.instances.is_empty();
            if gone {
                retired.insert(name.clone(), service.next_instance);
                step.record(name, EventKind::Removed);
            }
            !gone
        });
        while self.retired.len() > RETIRED_MAX {
            self.retired.pop_first();
        }
    }
}

/// Checks that every service address that stands in a specification will exist.
fn check_addressed(
    specs: &[ServiceSpec],
    reach: impl Fn(&ServiceName) -> Reach,
) -> Result<(), Refusal> {
    for spec in specs {
        for addressed in spec.addressed() {
            let service = spec.name.clone();
            let addressed = addressed.clone();
            match reach(&addressed) {
                Reach::NoService => return Err(Refusal::AddressedUnknown { service, addressed }),
                Reach::NoAddress => return Err(Refusal::AddressedWithout { service, addressed }),
                Reach::At(_) => {}
            }
        }
    }
    Ok(())
}
