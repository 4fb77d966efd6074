//! What happened and why: each decision with its inputs, as it was made.

mod cause;
mod subject;
mod text;

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use mainstay_ids::{
    Attempt, ConsumerId, Generation, InstanceId, NodeName, ServiceName, Timestamp, Version,
};

pub use cause::{
    DrainOutcome, DrainReason, HeldUp, PauseReason, PlanReason, RollbackAsked, RolloutFailure, Wait,
};

use crate::backup::BackupNews;
use crate::happening::Happening;
use crate::intake::{IntakeState, Weight};
use crate::report::{BootId, Exit};

/// One recorded decision or observation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// Its number, growing; a reader resumes behind the last that it saw.
    pub number: u64,
    /// When, for people.
    pub at: Timestamp,
    /// The service that it concerns, if one.
    pub service: Option<ServiceName>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", tag = "what")]
#[expect(
    missing_docs,
    reason = "each variant's sentence says what its fields are"
)]
pub enum EventKind {
    /// A declaration was accepted as a new version.
    Accepted { version: Version },
    /// A rollout began.
    RolloutStarted {
        from: Option<Version>,
        to: Version,
        step: u32,
        wanted: u32,
    },
    /// Every wanted instance runs the version and is ready.
    RolloutFinished { version: Version, took_ms: u64 },
    /// A rollout failed.
    RolloutFailed {
        version: Version,
        cause: RolloutFailure,
    },
    /// The service goes back to a version that was wholly healthy.
    RollbackStarted {
        from: Version,
        to: Version,
        asked: RollbackAsked,
    },
    /// A failed rollout stays as it is.
    RolloutPaused {
        version: Version,
        reason: PauseReason,
    },
    /// What a rollout that does not go on waits for; told when that changes.
    RolloutWaits { version: Version, wait: Wait },
    /// Somebody stopped a rollout where it is.
    RolloutHeld { version: Version },
    /// Somebody let it go on.
    RolloutResumed { version: Version },
    /// Somebody let the version replace all of the old.
    Promoted { version: Version },
    /// What runs once before a rollout has ended.
    BeforeFinished {
        instance: InstanceId,
        version: Version,
        exit: Option<Exit>,
        took_ms: u64,
    },
    /// A run of a schedule has ended.
    RunFinished {
        instance: InstanceId,
        exit: Option<Exit>,
        took_ms: u64,
    },
    /// A run of a schedule took longer than its deadline and is stopped.
    RunOverdue {
        instance: InstanceId,
        deadline_ms: u64,
    },
    /// A time of the schedule came while the run before it went on: there is none for it.
    RunSkipped { due: Timestamp, running: InstanceId },
    /// Times of the schedule passed while nothing could be started; the last of them is run now.
    RunsMissed { count: u32 },
    /// The wanted number changed.
    Scaled { from: u32, to: u32 },
    /// An instance was placed and will be started.
    InstancePlanned {
        instance: InstanceId,
        version: Version,
        #[serde(default)]
        reason: PlanReason,
    },
    /// An instance is not started yet: of these services none is ready.
    InstanceHeld {
        instance: InstanceId,
        needs: BTreeSet<ServiceName>,
    },
    /// What an instance needs is there: it may start.
    InstanceReleased { instance: InstanceId },
    /// An instance's process was started.
    InstanceStarted {
        instance: InstanceId,
        attempt: Attempt,
        pid: u32,
    },
    /// An instance passed its probe and gets traffic with this generation.
    InstancePassing {
        instance: InstanceId,
        attempt: Attempt,
        generation: Generation,
    },
    /// An instance has been healthy for the minimum healthy time.
    InstanceReady { instance: InstanceId },
    /// An instance fails its probes and gets no more traffic with this generation.
    InstanceFailing {
        instance: InstanceId,
        generation: Generation,
        /// Why its last probe failed.
        #[serde(default)]
        probe_failure: Option<String>,
    },
    /// An instance ended without being told to.
    InstanceExited {
        instance: InstanceId,
        attempt: Attempt,
        exit: Exit,
        /// Why its last probe failed, if it did.
        #[serde(default)]
        probe_failure: Option<String>,
        /// When its agent starts the next attempt, if it said so.
        #[serde(default)]
        again_at: Option<Timestamp>,
    },
    /// An instance ends again and again soon after its start.
    InstanceCrashLooping { instance: InstanceId, attempts: u32 },
    /// Somebody wants an instance to get fewer or more requests, or none, from this generation on.
    IntakeSet {
        instance: InstanceId,
        state: IntakeState,
        weight: Weight,
        /// Who.
        by: String,
        generation: Generation,
    },
    /// An instance is taken out of the routes by this generation, to be stopped.
    DrainStarted {
        instance: InstanceId,
        generation: Generation,
        reason: DrainReason,
        /// How many of the service are ready without it, and how many are wanted.
        #[serde(default)]
        ready: u32,
        #[serde(default)]
        wanted: u32,
    },
    /// Nothing can reach the instance any more, or the time was over; it is told to stop.
    DrainFinished {
        instance: InstanceId,
        waited_ms: u64,
        outcome: DrainOutcome,
        /// Who could still reach it when the time was over.
        #[serde(default)]
        held_up_by: Vec<HeldUp>,
    },
    /// Nothing of the instance is left.
    InstanceStopped {
        instance: InstanceId,
        exit: Option<Exit>,
    },
    /// A service was told to go away.
    RemovalStarted,
    /// Nothing of a service is left.
    Removed,
    /// A consumer of the routing state joined.
    ConsumerJoined { consumer: ConsumerId },
    /// A consumer did not renew its watch for 3 s.
    ConsumerMute { consumer: ConsumerId },
    /// A consumer is dead: its successor has come, or it said farewell.
    ConsumerGone { consumer: ConsumerId },
    /// The node was started anew: what ran on it has ended.
    NodeRebooted { boot: BootId },
    /// Something happened on the node beside its instances, at that time; it is told when it is known.
    Happened {
        node: NodeName,
        happened_at: Timestamp,
        happened: Happening,
    },
    /// So many things happened on the node before the next one that is told, and nobody could be told of them.
    HappenedUntold { node: NodeName, count: u64 },
    /// Backups of the node are late, fail, or are made again.
    Backups { news: BackupNews },
    /// The control centre began to publish.
    ControlStarted { services: u32, instances: u32 },
}
