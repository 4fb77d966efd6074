//! What must hold, and what must never be, after each input. Checked in debug builds.

use alloc::collections::BTreeSet;

use super::instance::{Instance, Life};
use super::service::{Course, Service, Stage};
use super::{Control, Purpose};

impl Control {
    /// Panics if the machine has made a mistake of its own. Nothing that comes from outside can
    /// make it panic.
    pub(super) fn check_invariants(&self) {
        let mut addresses = BTreeSet::new();
        for (name, service) in &self.services.by_name {
            service.check_versions();
            if let Some(address) = service.address() {
                assert!(
                    addresses.insert(address),
                    "two services have the address of {name}"
                );
            }
        }
        if !self.may_publish() {
            return;
        }
        self.check_published();
        match self.purpose {
            Purpose::KeepUp => self
                .services
                .by_name
                .values()
                .for_each(Service::check_numbers),
            Purpose::StopAll => {}
        }
    }

    fn check_published(&self) {
        let endpoints = self.routing.services.iter().flat_map(|one| &one.endpoints);
        let mut listed = BTreeSet::new();
        for endpoint in endpoints {
            let id = &endpoint.instance;
            assert!(listed.insert(id), "{id} is listed twice");
            let service = self.services.by_name.get(&id.service);
            let instance = service.and_then(|service| service.instances.get(&id.number));
            let kept = instance.is_some_and(Instance::is_kept);
            assert!(kept, "{id} is in the routes and is not to run");
        }
        for (name, service) in &self.services.by_name {
            for (number, instance) in &service.instances {
                let Life::Draining(drain) = instance.life else {
                    continue;
                };
                // A removal that was never published could never be acknowledged.
                assert!(
                    drain.removed_in <= self.routing.generation,
                    "{name}-{number} waits for a generation that does not come"
                );
            }
        }
        let mut planned = BTreeSet::new();
        for instance in &self.plan.instances {
            assert!(
                planned.insert(&instance.instance),
                "an instance is planned twice"
            );
        }
    }
}

impl Service {
    fn check_versions(&self) {
        let needed = self.instances.values().map(|instance| instance.version);
        for version in needed.chain([self.current]).chain(self.stable) {
            assert!(
                self.versions.contains_key(&version),
                "{version} is forgotten and needed"
            );
        }
        let last = self.instances.last_key_value();
        assert!(last.is_none_or(|(number, _)| *number < self.next_instance));
    }

    fn check_numbers(&self) {
        let kept = self.kept().count();
        match &self.course {
            Course::Removing => assert_eq!(kept, 0, "a service that goes keeps nothing"),
            Course::Settled | Course::RollingOut(_) | Course::Failed { .. } => {
                let room = self.wanted() + self.surge();
                assert!(kept <= room, "{kept} are kept, {room} is the most");
                assert!(
                    kept >= self.wanted() || self.is_waiting_for_room(),
                    "too few are kept"
                );
            }
        }
    }

    /// Fewer than wanted are kept only while a rollout's step holds back the next start, and while
    /// there is no version that may serve.
    fn is_waiting_for_room(&self) -> bool {
        match self.stage() {
            Some(Stage::Before) => true,
            Some(Stage::Canary | Stage::Replacing) => self.kept().count() > self.ready(),
            None => self.base().is_none(),
        }
    }
}
