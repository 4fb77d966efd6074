//! What goes into the machine and what comes back at once.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use super::handle::StickyKey;
use mainstay_ids::{ConsumerId, InstanceId, Instant, NodeName, ServiceName, Timestamp, Version};
use mainstay_model::forward::Ranges;
use mainstay_model::limits::SpecError;
use mainstay_model::service::INSTANCES_MAX;
use mainstay_model::{
    Ack, BackupNews, HttpMatch, IntakeState, NodeReport, Outlook, ProblemCode, ServiceSpec, Weight,
};

/// The time of an input: `now` for decisions, `at` for the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Monotonic, for decisions.
    pub now: Instant,
    /// Of day, for people.
    pub at: Timestamp,
}

/// Whether an instance is told to stop only when nobody can reach it any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AcknowledgedDrain {
    /// It is.
    #[default]
    On,
    /// It is told to stop in the moment it leaves the routes. A test seam: it shows that a check
    /// of the drain can fail. Nothing else may set it.
    Off,
}

/// What is fixed for the life of a control centre.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether drains are acknowledged.
    pub acknowledged_drain: AcknowledgedDrain,
    /// Where the search for `auto` addresses begins: different for two Mainstays on one machine,
    /// so that they do not want the same ones.
    pub address_seed: u32,
    /// Service addresses may lie in these, beside those of loopback that the gateway has, and `auto`
    /// ones are picked from the first.
    pub ranges: Option<Ranges>,
    /// The key of the handles by which clients stay with instances, where the state has none yet:
    /// random, and kept from then on.
    pub sticky_key: StickyKey,
}

/// A declaration of services: each is added, or changed if it differs; others are left alone. It is
/// taken over whole or refused whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apply {
    /// The services.
    pub services: Vec<ServiceSpec>,
}

/// What somebody wants of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntakeWish {
    /// Of which.
    pub instance: InstanceId,
    /// Whether it gets requests; `None`: as before.
    pub state: Option<IntakeState>,
    /// How many beside the others; `None`: as before.
    pub weight: Option<Weight>,
    /// What if nobody else of the service would get any.
    pub last: LastOne,
    /// Who wants it, for the record.
    pub by: String,
}

/// Whether requests may be taken from the last instance that gets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastOne {
    /// They may not.
    Refuse,
    /// They may: then clients are answered 503.
    Take,
}

/// Something that happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Somebody declares services.
    Apply(Apply),
    /// Somebody asks what [`Input::Apply`] would do: nothing changes.
    DryRun(Apply),
    /// Somebody wants another number of instances.
    Scale {
        /// Of which service.
        service: ServiceName,
        /// How many.
        instances: u32,
    },
    /// Somebody wants an earlier version back.
    Rollback {
        /// Of which service.
        service: ServiceName,
        /// Which; `None` is the last one before the current that was wholly healthy.
        to: Option<Version>,
    },
    /// Somebody stops the rollout of a service where it is.
    Pause {
        /// Which service.
        service: ServiceName,
    },
    /// Somebody lets a paused rollout go on, or a failed one begin anew.
    Resume {
        /// Which service.
        service: ServiceName,
    },
    /// Somebody lets the canaries' version replace the old one.
    Promote {
        /// Which service.
        service: ServiceName,
    },
    /// Somebody takes requests from an instance, or gives it some.
    SetIntake(IntakeWish),
    /// Somebody takes a service down.
    Remove {
        /// Which.
        service: ServiceName,
    },
    /// Somebody takes everything down.
    RemoveAll,
    /// Somebody stops everything for now: each instance is drained and stopped as in a removal, and
    /// the declarations stay, for [`crate::Control::keep_up`] after the next start.
    StopAll,
    /// An agent tells all that it sees.
    Report(NodeReport),
    /// A consumer began to follow the routes, or renewed its watch.
    ConsumerJoined(ConsumerId),
    /// A consumer acknowledges a generation.
    Ack(Ack),
    /// A consumer has ended its last request and will send no more.
    Farewell(ConsumerId),
    /// A supervisor tells how its node's backups stand, when that has changed.
    Backups(BackupNews),
    /// The time of [`crate::Control::next_deadline`] has come.
    Tick,
}

/// What a declaration changes for one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The service is new.
    Created,
    /// Another version is rolled out, or a failed rollout is tried again.
    Updated,
    /// Only the wanted number differs.
    Scaled,
    /// It is what is wanted already.
    Unchanged,
}

/// What became of one service's declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceChange {
    /// The service.
    pub service: ServiceName,
    /// The version that is now wanted.
    pub version: Version,
    /// What the declaration changes.
    pub change: Change,
}

/// Something the user should know about an accepted change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The address of this service stands in another's specification, and that one goes without.
    StillAddressed {
        /// The service whose address changes or goes.
        service: ServiceName,
        /// The service that addresses it.
        by: ServiceName,
    },
    /// This service goes, and that one needs it at its next start.
    StillNeeded {
        /// The service that goes.
        service: ServiceName,
        /// The service that needs it.
        by: ServiceName,
    },
    /// These services are there and were not declared.
    LeftAlone {
        /// Which.
        services: Vec<ServiceName>,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StillAddressed { service, by } => write!(
                f,
                "`{by}` addresses `{service}`, whose address changes or goes: declare `{by}` anew"
            ),
            Self::StillNeeded { service, by } => write!(
                f,
                "`{by}` needs `{service}` and will not start again without it: declare `{by}` anew"
            ),
            Self::LeftAlone { services } => {
                f.write_str("not in this file, and left as they are:")?;
                for service in services {
                    write!(f, " {service}")?;
                }
                Ok(())
            }
        }
    }
}

/// An input was taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The number of the last event before it: what it causes is behind that.
    pub event: u64,
    /// For a declaration: one entry per declared service, in its order.
    pub services: Vec<ServiceChange>,
    /// What the user should know.
    pub notes: Vec<Note>,
    /// For a dry run: what the declaration would do, with an entry for each of `services`.
    pub outlook: Option<Outlook>,
}

/// An input was refused; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such service.
    #[error("there is no service `{service}`")]
    UnknownService {
        /// The name asked for.
        service: ServiceName,
    },
    /// There is no such instance.
    #[error("there is no instance `{instance}`")]
    UnknownInstance {
        /// The name asked for.
        instance: InstanceId,
    },
    /// The instance gets no requests in any case.
    #[error("instance `{instance}` gets no requests that could be taken from it")]
    Unrouted {
        /// Which.
        instance: InstanceId,
    },
    /// The instance is being stopped, and gets no new requests.
    #[error("instance `{instance}` is being stopped, and gets no new requests already")]
    Leaving {
        /// Which.
        instance: InstanceId,
    },
    /// No other instance of the service would get requests.
    #[error(
        "no other instance of `{}` passes its probes and gets requests: without `{instance}` clients \
         would be answered 503", instance.service
    )]
    LastOne {
        /// Which.
        instance: InstanceId,
    },
    /// A name stands twice in one declaration.
    #[error("service `{service}` is declared twice")]
    DeclaredTwice {
        /// The name.
        service: ServiceName,
    },
    /// A specification that no service file can have.
    #[error("service `{service}` cannot be carried out: {error}")]
    Impossible {
        /// The declared service.
        service: ServiceName,
        /// Which field, and what it may be.
        error: SpecError,
    },
    /// The service is being taken down.
    #[error("service `{service}` is being taken down")]
    Removing {
        /// The service.
        service: ServiceName,
    },
    /// More instances than one service may have.
    #[error("service `{service}` cannot have {instances} instances, at most {INSTANCES_MAX}")]
    TooMany {
        /// The service.
        service: ServiceName,
        /// The number asked for.
        instances: u32,
    },
    /// Another service has the address.
    #[error("service `{service}` wants the address {address}, which belongs to `{by}`")]
    AddressTaken {
        /// The declared service.
        service: ServiceName,
        /// The address.
        address: SocketAddr,
        /// Whose it is.
        by: ServiceName,
    },
    /// Nobody serves the address.
    #[error(
        "service `{service}` wants the address {address}, which is neither on 127.0.0.0/8 nor in a \
         range that this node forwards"
    )]
    AddressOutside {
        /// The declared service.
        service: ServiceName,
        /// The address.
        address: SocketAddr,
    },
    /// Another service has the same match, or would have it again after a rollback.
    #[error("service `{service}` wants requests that belong to `{by}`: `{route}`")]
    RouteTaken {
        /// The declared service.
        service: ServiceName,
        /// The match.
        route: Box<HttpMatch>,
        /// Whose they are.
        by: ServiceName,
    },
    /// All addresses for `auto` are taken.
    #[error("no address is free for service `{service}`")]
    NoAddressFree {
        /// The declared service.
        service: ServiceName,
    },
    /// A specification addresses a service that does not exist.
    #[error("service `{service}` addresses `{addressed}`, which does not exist")]
    AddressedUnknown {
        /// The declared service.
        service: ServiceName,
        /// The service in its `{address:..}`.
        addressed: ServiceName,
    },
    /// A specification addresses a service without an address.
    #[error("service `{service}` addresses `{addressed}`, which has no address")]
    AddressedWithout {
        /// The declared service.
        service: ServiceName,
        /// The service in its `{address:..}`.
        addressed: ServiceName,
    },
    /// A service needs one that does not exist.
    #[error("service `{service}` needs `{needed}`, which does not exist")]
    NeedsUnknown {
        /// The declared service.
        service: ServiceName,
        /// The service in its `needs`.
        needed: ServiceName,
    },
    /// A service needs one that is no server.
    #[error("service `{service}` needs `{needed}`, which has a schedule and is never ready")]
    NeedsScheduled {
        /// The declared service.
        service: ServiceName,
        /// The service in its `needs`.
        needed: ServiceName,
    },
    /// A service needs itself, by whatever way round.
    #[error("service `{service}` needs itself, by way of its needs")]
    NeedsItself {
        /// The declared service.
        service: ServiceName,
    },
    /// A service with a schedule has no instances to scale.
    #[error("service `{service}` has a schedule: one run at a time, and no number of instances")]
    Scheduled {
        /// The service.
        service: ServiceName,
    },
    /// There is no rollout to pause.
    #[error("no rollout of service `{service}` is under way")]
    NothingToPause {
        /// The service.
        service: ServiceName,
    },
    /// There is no rollout that was paused or has failed.
    #[error("no rollout of service `{service}` is paused or has failed")]
    NothingToResume {
        /// The service.
        service: ServiceName,
    },
    /// The rollout under way, if any, has no canaries.
    #[error("no version of service `{service}` waits to be promoted")]
    NothingToPromote {
        /// The service.
        service: ServiceName,
    },
    /// Not all canaries are ready.
    #[error("{ready} of {canaries} canaries of service `{service}` are ready")]
    CanariesNotReady {
        /// The service.
        service: ServiceName,
        /// How many there are to be.
        canaries: u32,
        /// How many are ready.
        ready: u32,
    },
    /// The node has not enough memory.
    #[error(
        "service `{service}` needs {needed} bytes of memory with all others, and the node has {node}"
    )]
    NoRoom {
        /// The service.
        service: ServiceName,
        /// What all limits come to, with one more instance of the service for its rollouts.
        needed: u64,
        /// What the node has.
        node: u64,
    },
    /// The node has not enough processors.
    #[error(
        "an instance of service `{service}` may use {cpu} thousandths of a processor, and the node \
         has {node}"
    )]
    TooFewProcessors {
        /// The service.
        service: ServiceName,
        /// The limit.
        cpu: u32,
        /// What the node has.
        node: u32,
    },
    /// No version before the current one was ever wholly healthy.
    #[error("service `{service}` has no earlier version that was wholly healthy")]
    NothingToGoBackTo {
        /// The service.
        service: ServiceName,
    },
    /// The version is unknown or no longer kept.
    #[error("service `{service}` has no version {version}")]
    UnknownVersion {
        /// The service.
        service: ServiceName,
        /// The version asked for.
        version: Version,
    },
    /// Everything is being stopped; the next start of the control centre takes changes again.
    #[error("everything is being stopped, nothing new is started")]
    StoppingAll,
    /// The version is the current one.
    #[error("service `{service}` is at {version} already")]
    AlreadyCurrent {
        /// The service.
        service: ServiceName,
        /// The version asked for.
        version: Version,
    },
    /// The report is of another node.
    #[error("node `{node}` is not part of this cluster")]
    UnknownNode {
        /// The node.
        node: NodeName,
    },
    /// More followers of the routes than can be waited for.
    #[error("`{consumer}` cannot follow the routes: too many others do")]
    TooManyConsumers {
        /// Who asked.
        consumer: ConsumerId,
    },
}

impl Refusal {
    /// The stable word for programs; it has a remedy, too.
    pub const fn code(&self) -> ProblemCode {
        match self {
            Self::UnknownService { .. } => ProblemCode::ServiceUnknown,
            Self::UnknownInstance { .. } => ProblemCode::InstanceUnknown,
            Self::Unrouted { .. } => ProblemCode::InstanceUnrouted,
            Self::Leaving { .. } => ProblemCode::InstanceLeaving,
            Self::LastOne { .. } => ProblemCode::InstanceLast,
            Self::UnknownVersion { .. } => ProblemCode::VersionUnknown,
            Self::UnknownNode { .. } => ProblemCode::NodeUnknown,
            Self::Removing { .. } => ProblemCode::ServiceRemoving,
            Self::NothingToGoBackTo { .. } => ProblemCode::NoEarlierVersion,
            Self::AlreadyCurrent { .. } => ProblemCode::VersionCurrent,
            Self::StoppingAll => ProblemCode::StoppingAll,
            Self::NoAddressFree { .. } => ProblemCode::NoAddressFree,
            Self::TooManyConsumers { .. } => ProblemCode::TooManyConsumers,
            Self::Impossible { .. } => ProblemCode::SpecInvalid,
            Self::DeclaredTwice { .. } => ProblemCode::ServiceDeclaredTwice,
            Self::TooMany { .. } => ProblemCode::TooManyInstances,
            Self::AddressTaken { .. } => ProblemCode::AddressTaken,
            Self::AddressOutside { .. } => ProblemCode::AddressOutside,
            Self::RouteTaken { .. } => ProblemCode::RouteTaken,
            Self::AddressedUnknown { .. } => ProblemCode::AddressedUnknown,
            Self::AddressedWithout { .. } => ProblemCode::AddressedWithoutAddress,
            Self::NeedsUnknown { .. } => ProblemCode::NeedsUnknown,
            Self::NeedsScheduled { .. } => ProblemCode::NeedsScheduled,
            Self::NeedsItself { .. } => ProblemCode::NeedsItself,
            Self::Scheduled { .. } => ProblemCode::ServiceScheduled,
            Self::NoRoom { .. } | Self::TooFewProcessors { .. } => ProblemCode::NoRoom,
            Self::NothingToPause { .. } => ProblemCode::NothingToPause,
            Self::NothingToResume { .. } => ProblemCode::NothingToResume,
            Self::NothingToPromote { .. } => ProblemCode::NothingToPromote,
            Self::CanariesNotReady { .. } => ProblemCode::CanariesNotReady,
        }
    }
}
