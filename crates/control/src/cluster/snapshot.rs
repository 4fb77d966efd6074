//! What must survive SIGKILL of the control centre: durable before anything of it is published.

use alloc::vec::Vec;
use core::net::SocketAddr;

use mainstay_ids::{
    Attempt, ConsumerId, Epoch, Generation, InstanceId, NodeName, ServiceName, Timestamp, Version,
};
use mainstay_model::event::{DrainReason, RollbackAsked, Wait};
use mainstay_model::report::CrashLooping;
use mainstay_model::{BootId, Intake, ServiceSpec};

use super::Purpose;
use super::consumers::Presence;
use super::handle::StickyKey;
use super::happenings::SeenRecord;
use super::instance::{Exposure, Start};
use super::service::{Ended, Gate, Stage};

/// The format that this program writes, and the newest that it reads.
pub const SNAPSHOT_FORMAT: u32 = 1;

/// Why a machine cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A newer program wrote it.
    #[error("the state has format {found}, this program reads up to {SNAPSHOT_FORMAT}")]
    NewerFormat {
        /// The format it has.
        found: u32,
    },
    /// It names a version whose content it does not hold: no program of ours wrote it so.
    #[error("the state of service `{service}` lacks the content of {version}")]
    VersionMissing {
        /// The service.
        service: ServiceName,
        /// The version.
        version: Version,
    },
}

/// Everything durable. Its parts are for the machine alone; a driver stores and returns it whole.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Snapshot {
    /// [`SNAPSHOT_FORMAT`] of the program that wrote it.
    pub format: u32,
    pub(super) node: NodeName,
    pub(super) epoch: Epoch,
    #[serde(default)]
    pub(super) purpose: Purpose,
    /// The number of the last event.
    pub(super) event: u64,
    pub(super) services: Vec<ServiceRecord>,
    pub(super) consumers: Vec<ConsumerRecord>,
    /// Which start of the node was seen last.
    #[serde(default)]
    pub(super) boot: Option<BootId>,
    /// How far the node's records of what happens beside its instances were seen.
    #[serde(default)]
    pub(super) happenings: Vec<SeenRecord>,
    /// `None`: it was stored before there was one.
    #[serde(default)]
    pub(super) sticky_key: Option<StickyKey>,
    /// Services that are gone, with the number that their next instance would have had.
    pub(super) retired: Vec<(ServiceName, u64)>,
}

impl Snapshot {
    /// The number of the last event recorded: events behind it in a file were never published.
    pub fn last_event(&self) -> u64 {
        self.event
    }

    /// The machine that is restored from it begins with this epoch, or a later one: for a snapshot
    /// that may be older than what was published last.
    pub fn restore_at_least_in(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(Epoch(epoch.0.saturating_sub(1)));
    }

    /// The node that it is of.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// The epoch in which it was taken.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many services it holds.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// Makes this copy of an earlier time fit to take the place of `replaced`, the state of now, if
    /// that can be read: no epoch, event or instance number that was given since is given again,
    /// also not one of those that were `seen` elsewhere. Who follows the routes is who did so last:
    /// whoever did when the copy was made may be another incarnation, on another machine.
    pub fn take_place_of(&mut self, replaced: Option<&Self>, seen: &Seen) {
        self.epoch = self.epoch.max(seen.epoch);
        self.consumers.clear();
        self.boot = None;
        if let Some(replaced) = replaced {
            self.epoch = self.epoch.max(replaced.epoch);
            self.event = self.event.max(replaced.event);
            self.consumers.clone_from(&replaced.consumers);
            self.boot.clone_from(&replaced.boot);
            self.happenings.clone_from(&replaced.happenings);
            // Clients have what was made with it last.
            self.sticky_key = replaced.sticky_key.or(self.sticky_key);
            for (service, next) in &replaced.retired {
                self.spare(service, *next);
            }
            for record in &replaced.services {
                self.spare(&record.name, record.next_instance);
            }
        }
        for instance in &seen.instances {
            self.spare(&instance.service, instance.number.saturating_add(1));
        }
    }

    /// No instance of `service` gets a number below `next`.
    fn spare(&mut self, service: &ServiceName, next: u64) {
        let known = self.services.iter_mut().find(|one| one.name == *service);
        if let Some(record) = known {
            record.next_instance = record.next_instance.max(next);
            return;
        }
        match self.retired.iter_mut().find(|(name, _)| name == service) {
            Some((_, kept)) => *kept = next.max(*kept),
            None => self.retired.push((service.clone(), next)),
        }
    }
}

/// What is found of a cluster outside of its state.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The highest epoch.
    pub epoch: Epoch,
    /// Instances that are or were there.
    pub instances: Vec<InstanceId>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct ServiceRecord {
    pub(super) name: ServiceName,
    /// The oldest first.
    pub(super) versions: Vec<VersionRecord>,
    pub(super) current: Version,
    pub(super) stable: Option<Version>,
    pub(super) proven: Vec<Version>,
    pub(super) wanted: u32,
    pub(super) auto_address: Option<SocketAddr>,
    pub(super) next_instance: u64,
    pub(super) course: CourseRecord,
    pub(super) instances: Vec<InstanceRecord>,
    /// The versions before which what runs before them has come to a good end.
    #[serde(default)]
    pub(super) prepared: Vec<Version>,
    /// Times of its schedule up to this one are done with.
    #[serde(default)]
    pub(super) schedule_done: Option<Timestamp>,
    /// Its last run that has ended.
    #[serde(default)]
    pub(super) last_run: Option<Ended>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct VersionRecord {
    pub(super) version: Version,
    pub(super) spec: ServiceSpec,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "course")]
pub(super) enum CourseRecord {
    Settled,
    RollingOut {
        back: Option<RollbackAsked>,
        first_instance: u64,
        started: Timestamp,
        #[serde(default)]
        stage: Stage,
        #[serde(default)]
        gate: Gate,
        #[serde(default)]
        told: Option<Wait>,
    },
    Failed {
        started: Timestamp,
    },
    Removing,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct InstanceRecord {
    pub(super) number: u64,
    pub(super) version: Version,
    #[serde(default)]
    pub(super) duty: DutyRecord,
    #[serde(default)]
    pub(super) start: Start,
    pub(super) life: LifeRecord,
    pub(super) standing: StandingRecord,
    pub(super) exposure: Exposure,
    pub(super) crash_looping: CrashLooping,
    #[serde(default, skip_serializing_if = "Intake::is_ordinary")]
    pub(super) intake: Intake,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "duty")]
pub(super) enum DutyRecord {
    #[default]
    Serve,
    Before {
        planned: Timestamp,
    },
    Run {
        planned: Timestamp,
    },
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "life")]
pub(super) enum LifeRecord {
    Kept,
    Draining {
        removed_in: Generation,
        reason: DrainReason,
    },
    Stopping,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "standing")]
pub(super) enum StandingRecord {
    Planned,
    Starting { attempt: Attempt },
    Passing { attempt: Attempt },
    Ready { attempt: Attempt },
    Failing { attempt: Attempt },
    Ended { attempt: Attempt },
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct ConsumerRecord {
    pub(super) consumer: ConsumerId,
    pub(super) presence: Presence,
}
