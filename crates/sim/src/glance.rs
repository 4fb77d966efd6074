//! What the machine shows of itself at one moment, to be compared with the moment before.

use std::collections::BTreeMap;

use mainstay_control::Control;
use mainstay_ids::{Attempt, InstanceId, ServiceName, Version};
use mainstay_model::{InstanceState, ServiceState};

/// One instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) state: InstanceState,
    pub(crate) version: Version,
    pub(crate) attempt: Option<Attempt>,
}

impl Shown {
    pub(crate) fn is_kept(&self) -> bool {
        !matches!(self.state, InstanceState::Draining | InstanceState::Stopping)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state == InstanceState::Ready
    }

    pub(crate) fn serves(&self) -> bool {
        matches!(self.state, InstanceState::Ready | InstanceState::Healthy)
    }
}

/// One service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShownService {
    pub(crate) state: ServiceState,
    pub(crate) version: Version,
    pub(crate) wanted: u32,
    pub(crate) step: u32,
}

/// Everything at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Glance {
    pub(crate) instances: BTreeMap<InstanceId, Shown>,
    pub(crate) services: BTreeMap<ServiceName, ShownService>,
}

impl Glance {
    pub(crate) fn at(control: &Control) -> Self {
        let instances = control.instances().map(|one| {
            let shown = Shown {
                state: one.state,
                version: one.version,
                attempt: one.attempt,
            };
            (one.instance, shown)
        });
        let services = control.services().map(|one| {
            let shown = ShownService {
                state: one.state,
                version: one.version,
                wanted: one.wanted,
                step: one.spec.rollout.step.of(one.wanted),
            };
            (one.service.clone(), shown)
        });
        Self {
            instances: instances.collect(),
            services: services.collect(),
        }
    }

    /// The kept instances of a service.
    pub(crate) fn kept<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> impl Iterator<Item = (&'a InstanceId, &'a Shown)> {
        let of = self.instances.iter();
        of.filter(move |(id, shown)| id.service == *service && shown.is_kept())
    }
}
