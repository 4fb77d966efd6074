//! What instances wait for before they are started: services that are ready, and memory.
//!
//! Only memory is admitted: who gets less processor time than it may use is slower, while who gets
//! less memory is killed.

use alloc::collections::BTreeSet;

use mainstay_ids::ServiceName;
use mainstay_model::{Capacity, Phase, ServiceSpec};

use super::contract::Refusal;
use super::declare::Services;
use super::instance::{Duty, Instance, Start};
use super::service::{Course, Service};

/// What there is at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Supply {
    /// The services of which an instance is ready.
    pub(super) ready: BTreeSet<ServiceName>,
    pub(super) memory: Memory,
}

/// What the node has for instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Room {
    /// Its agent has not reported yet: nothing could be started anyway.
    #[default]
    Unreported,
    /// Its agent cannot tell: everything fits.
    Untold,
    Told(Capacity),
}

/// The node's memory that is not promised to anybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Memory {
    #[default]
    Unreported,
    Unbounded,
    /// So many bytes.
    Free(u64),
}

impl Memory {
    /// Whether there are so many bytes.
    pub(super) fn holds(self, needed: u64) -> bool {
        match self {
            Self::Unreported => needed == 0,
            Self::Unbounded => true,
            Self::Free(free) => needed <= free,
        }
    }

    /// What is left once so many are promised.
    pub(super) fn without(self, promised: u64) -> Self {
        match self {
            Self::Unreported | Self::Unbounded => self,
            Self::Free(free) => Self::Free(free.saturating_sub(promised)),
        }
    }

    pub(super) fn free(self) -> u64 {
        match self {
            Self::Unreported => 0,
            Self::Unbounded => u64::MAX,
            Self::Free(free) => free,
        }
    }
}

impl Supply {
    /// Those of `needs` of which no instance is ready.
    pub(super) fn missing(&self, needs: &BTreeSet<ServiceName>) -> BTreeSet<ServiceName> {
        needs.difference(&self.ready).cloned().collect()
    }
}

impl Services {
    /// What there is now.
    pub(super) fn supply(&self) -> Supply {
        let services = self.by_name.iter();
        let ready = services
            .filter(|(_, service)| service.kept().any(|(_, instance)| instance.is_ready()))
            .map(|(name, _)| name.clone());
        let promised: u64 = self.by_name.values().map(Service::promised_memory).sum();
        Supply {
            ready: ready.collect(),
            memory: match self.room {
                Room::Unreported => Memory::Unreported,
                Room::Untold => Memory::Unbounded,
                Room::Told(node) => Memory::Free(node.memory_bytes).without(promised),
            },
        }
    }

    /// Refuses `spec`, of which `instances` are wanted, if the node could not hold it with all
    /// others (`declared` ones as they will be), or could never replace one of its instances.
    pub(super) fn check_room(
        &self,
        spec: &ServiceSpec,
        instances: u32,
        declared: &[ServiceSpec],
    ) -> Result<(), Refusal> {
        let node = match self.room {
            Room::Told(node) => node,
            Room::Unreported | Room::Untold => return Ok(()),
        };
        let service = spec.name.clone();
        if let Some(cpu) = spec.limits.cpu_thousandths
            && cpu > node.cpu_thousandths
        {
            let node = node.cpu_thousandths;
            return Err(Refusal::TooFewProcessors { service, cpu, node });
        }
        let Some(each) = spec.limits.memory_bytes else {
            return Ok(());
        };
        let named = |name: &ServiceName| declared.iter().any(|other| other.name == *name);
        let others = self.by_name.iter().filter(|(name, other)| {
            **name != spec.name && !named(name) && other.course != Course::Removing
        });
        let others: u64 = others
            .map(|(_, other)| memory_of(other.spec(), other.wanted))
            .sum();
        let beside = declared.iter().filter(|other| other.name != spec.name);
        let beside: u64 = beside.map(|other| memory_of(other, other.instances)).sum();
        // One more: a new instance is started before an old one is stopped.
        let own = memory_of(spec, instances).saturating_add(each);
        let needed = own.saturating_add(others).saturating_add(beside);
        if needed > node.memory_bytes {
            let node = node.memory_bytes;
            return Err(Refusal::NoRoom {
                service,
                needed,
                node,
            });
        }
        Ok(())
    }
}

fn memory_of(spec: &ServiceSpec, instances: u32) -> u64 {
    let each = spec.limits.memory_bytes.unwrap_or(0);
    each.saturating_mul(u64::from(instances))
}

/// Whether it ran to its end, and was seen to have ended: one that was given up may run until its
/// agent has stopped it.
fn is_over(instance: &Instance) -> bool {
    let ended = instance.seen.as_ref().is_some_and(|seen| match seen.phase {
        Phase::BackingOff { .. } | Phase::Stopped { .. } => true,
        Phase::Running { .. } | Phase::Stopping { .. } => false,
    });
    instance.duty == Duty::Over && ended
}

impl Service {
    /// The memory of all instances that may run until they are gone.
    fn promised_memory(&self) -> u64 {
        let all = self.instances.values();
        all.filter(|instance| instance.start == Start::Allowed && !is_over(instance))
            .filter_map(|instance| self.spec_of(instance.version).limits.memory_bytes)
            .fold(0, u64::saturating_add)
    }
}
