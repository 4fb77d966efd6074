//! What the machine shows of itself at one moment, to be compared with the moment before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use mainstay_control::Control;
use mainstay_ids::{Attempt, InstanceId, ServiceName, Version};
use mainstay_model::{InstanceState, Intake, ServiceState};

/// One instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) state: InstanceState,
    pub(crate) version: Version,
    pub(crate) attempt: Option<Attempt>,
    pub(crate) duty: Duty,
    pub(crate) intake: Intake,
}

/// Whether an instance is kept running, or runs to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    Serve,
    Once,
}

impl Shown {
    pub(crate) fn is_kept(&self) -> bool {
        self.duty == Duty::Serve && !self.is_going()
    }

    pub(crate) fn is_going(&self) -> bool {
        matches!(
            self.state,
            InstanceState::Draining | InstanceState::Stopping
        )
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state == InstanceState::Ready
    }

    /// Whether it gets requests of any client.
    pub(crate) fn takes(&self) -> bool {
        self.serves() && self.intake.takes_any()
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
    pub(crate) canaries: u32,
}

/// Everything at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Glance {
    pub(crate) instances: BTreeMap<InstanceId, Shown>,
    pub(crate) services: BTreeMap<ServiceName, ShownService>,
}

impl Glance {
    pub(crate) fn at(control: &Control, once: &BTreeSet<InstanceId>) -> Self {
        let instances = control.instances().map(|one| {
            let shown = Shown {
                state: one.state,
                version: one.version,
                attempt: one.attempt,
                intake: one.intake,
                duty: if once.contains(&one.instance) {
                    Duty::Once
                } else {
                    Duty::Serve
                },
            };
            (one.instance, shown)
        });
        let services = control.services().map(|one| {
            let shown = ShownService {
                state: one.state,
                version: one.version,
                wanted: one.wanted,
                step: one.spec.rollout.step.of(one.wanted),
                canaries: one
                    .spec
                    .rollout
                    .canary
                    .map_or(0, |step| step.of(one.wanted)),
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

impl fmt::Display for Glance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (service, shown) in &self.services {
            let (state, version, wanted) = (shown.state, shown.version, shown.wanted);
            write!(f, "[{service} {version} {state:?}, wants {wanted}] ")?;
        }
        for (id, shown) in &self.instances {
            write!(f, "{id}({}) {:?} ", shown.version, shown.state)?;
        }
        Ok(())
    }
}
