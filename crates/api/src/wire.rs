//! What goes over the API: HTTP with JSON on the unix socket `api.sock` of the state directory
//! (whoever may open it is trusted, like the owner of the files) and on a loopback port with the
//! bearer token of the file `token`.
//!
//! Which path takes and gives what is the table of [`crate::calls`].
//!
//! A watch sends the newest state at once, unless the reader has it (`after`), and on each change;
//! states in between may be skipped. Events are never skipped in silence: a [`Gap`] says which are
//! missing. An empty line each second shows that the other side is alive. Every refusal is a [`Problem`].

use std::net::SocketAddr;

use mainstay_ids::generation::GenerationError;
use mainstay_ids::{
    Attempt, ConsumerId, Generation, Incarnation, InstanceId, NodeName, SecretName, ServiceName,
    Timestamp, Version,
};
use mainstay_model::routing::Unavailable;
use mainstay_model::secret::SecretText;
use mainstay_model::{Cron, Event, Exit, Intake, IntakeState, ServiceSpec, Weight};
pub use mainstay_model::{InstanceState, ProblemCode, ServiceState};
use mainstay_model::{MemoryOutlook, ServiceOutlook};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The largest request body that the API takes: a file with a few hundred services is below 1 MiB.
pub const BODY_LEN_MAX: usize = 4 * 1024 * 1024;

/// The time within which a watch sends at least an empty line; three of them missed, and the
/// reader takes the connection for dead.
pub const WATCH_PULSE: std::time::Duration = std::time::Duration::from_secs(1);

/// Declares services: each is added, or changed if it differs; others are left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// The services.
    pub services: Vec<ServiceSpec>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What became of a declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// One entry per declared service, in its order.
    pub services: Vec<AppliedService>,
    /// The number of the last event before it: follow the events behind it to see the rollout.
    pub event: u64,
    /// What the user should know, each a sentence.
    #[serde(default)]
    pub notes: Vec<String>,
    /// For a dry run: the memory that all services may need then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryOutlook>,
}

/// What became of one service's declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AppliedService {
    /// The service.
    pub service: ServiceName,
    /// The version that is now wanted.
    pub version: Version,
    /// What the declaration changes.
    pub change: Change,
    /// For a dry run: what would differ, and by which steps it would be brought about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlook: Option<ServiceOutlook>,
}

/// What a declaration changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The service is new.
    Created,
    /// It is a new version, which is rolled out.
    Updated,
    /// Only the wanted number differs.
    Scaled,
    /// It is what is wanted already.
    Unchanged,
}

/// Sets the wanted number of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// 0 to [`mainstay_model::service::INSTANCES_MAX`].
    pub instances: u32,
}

/// Takes requests from an instance, or gives it some. What is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetIntake {
    /// Whether it gets requests.
    #[serde(default)]
    pub state: Option<IntakeState>,
    /// How many beside the others of its service: 0 to 256, in percent of an ordinary instance.
    #[serde(default)]
    pub weight: Option<Weight>,
    /// Also if no other instance of the service would get any.
    #[serde(default)]
    pub force: bool,
    /// On whose behalf the caller asks, for the record, as a page that somebody uses.
    #[serde(default)]
    pub asked_by: Option<String>,
}

/// Goes back to an earlier version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Which; `None` is the last one before the current that was wholly healthy.
    pub to: Option<Version>,
}

/// The value of a secret, on its way in, or out to the agent that starts an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretValue {
    /// The value.
    pub value: SecretText,
}

/// What may stand behind `?` when a secret is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRemoveQuery {
    /// Also if services name it.
    #[serde(default)]
    pub force: bool,
}

/// A secret was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretSet {
    /// How often it was set by now.
    pub revision: u64,
    /// The services that name it. Their instances take the value at their next start.
    pub used_by: Vec<ServiceName>,
}

/// A secret was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRemoved {
    /// The services that name it all the same: none of their instances can be started any more.
    pub used_by: Vec<ServiceName>,
}

/// What is told of a secret: everything but its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretStatus {
    /// Its name.
    pub name: SecretName,
    /// How often it was set.
    pub revision: u64,
    /// When it was last set.
    pub changed: Timestamp,
    /// The services that name it.
    pub used_by: Vec<ServiceName>,
}

/// A change was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    /// The number of the last event before it.
    pub event: u64,
    /// What the user should know, each a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A copy of the control centre's state was made, in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backup {
    /// The file, below the state directory. Whoever asked takes it away; what is left for an
    /// hour is removed.
    pub file: String,
    /// Its length.
    pub bytes: u64,
}

/// The whole at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The program's version.
    pub mainstay: String,
    /// When the control centre began to publish.
    pub since: Timestamp,
    /// The newest published generation.
    pub generation: Generation,
    /// Where the gateway listens for clients outside.
    pub entry: Vec<SocketAddr>,
    /// Where the gateway shows statistics, if it does.
    #[serde(default)]
    pub stats: Option<SocketAddr>,
    /// Who follows the routes.
    pub consumers: Vec<ConsumerStatus>,
    /// The nodes.
    pub nodes: Vec<NodeStatus>,
    /// The services, by name.
    pub services: Vec<ServiceStatus>,
}

/// One follower of the routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsumerStatus {
    /// Who.
    pub consumer: ConsumerId,
    /// The newest generation that it acknowledged.
    pub acknowledged: Option<Generation>,
    /// Milliseconds since it last renewed its watch.
    pub silent_ms: u64,
    /// The service addresses on which it cannot listen, most often because another program does.
    #[serde(default)]
    pub unbound: Vec<SocketAddr>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// Its name.
    pub node: NodeName,
    /// Milliseconds since its agent last reported; `None`: not since the control centre's start.
    pub silent_ms: Option<u64>,
    /// How many instances it has.
    pub instances: u32,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStatus {
    /// Its name.
    pub service: ServiceName,
    /// The version that is wanted.
    pub version: Version,
    /// The last version that was wholly healthy.
    pub stable: Option<Version>,
    /// The wanted number of instances.
    pub wanted: u32,
    /// How many instances of the wanted version are ready.
    pub ready: u32,
    /// How many of its instances get no requests because somebody said so.
    #[serde(default)]
    pub withheld: u32,
    /// What is going on.
    pub state: ServiceState,
    /// Its service address.
    pub address: Option<SocketAddr>,
    /// Its host at the entry, `*` for any, with the path; of several the first without conditions.
    pub http: Option<String>,
    /// All requests that it claims at the entry, redirects among them.
    #[serde(default)]
    pub routes: Vec<String>,
    /// Why it has no endpoint, if it has none.
    pub unavailable: Option<Unavailable>,
    /// The objective from its file.
    pub slo: Option<mainstay_model::service::Slo>,
    /// Its versions that can be gone back to, the oldest first.
    pub versions: Vec<Version>,
    /// What its rollout waits for, if one is under way.
    #[serde(default)]
    pub wait: Option<mainstay_model::event::Wait>,
    /// Where it is in its schedule, if it has one.
    #[serde(default)]
    pub schedule: Option<ScheduleStatus>,
}

/// Where a service is in its schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScheduleStatus {
    /// The schedule, as in the service file.
    pub cron: Cron,
    /// When it runs next; `None`: that is not decided yet.
    pub next: Option<Timestamp>,
    /// The last run that has ended.
    pub last: Option<LastRun>,
}

/// A run of a schedule that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastRun {
    /// Which instance it was.
    pub instance: InstanceId,
    /// How it ended; `None`: it was not started.
    pub exit: Option<Exit>,
    /// When that was known.
    pub ended: Timestamp,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceStatus {
    /// Which.
    pub instance: InstanceId,
    /// Of which service.
    pub service: ServiceName,
    /// Its version.
    pub version: Version,
    /// Its node.
    pub node: NodeName,
    /// Which start of it.
    pub attempt: Option<Attempt>,
    /// What it is doing.
    pub state: InstanceState,
    /// Its process, while it has one.
    pub pid: Option<u32>,
    /// Where it listens, while it does.
    pub address: Option<SocketAddr>,
    /// When this attempt was started.
    pub since: Option<Timestamp>,
    /// How the attempt before this one ended.
    pub last_exit: Option<Exit>,
    /// Why its last probe failed; `None` if it passed, or none has ended yet.
    #[serde(default)]
    pub probe_failure: Option<String>,
    /// When the next attempt is due, while none runs.
    #[serde(default)]
    pub again_at: Option<Timestamp>,
    /// What has to be there before it starts, if that is not: services or memory.
    #[serde(default)]
    pub wait: Option<mainstay_model::event::Wait>,
    /// Whether it gets requests, and how many, as somebody wants it.
    #[serde(default)]
    pub intake: Intake,
}

/// The query of `/v1/why/services/{name}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyQuery {
    /// Not how it is, but how it was at this moment, as far as that was known.
    pub at: Option<Timestamp>,
}

/// The query of `/v1/watch/routes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoutesQuery {
    /// The follower's name; it is waited for before an instance is stopped.
    pub name: String,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// The generation that the reader has: it is not sent again, the next one is.
    pub after: Option<After>,
}

/// The query of `/v1/watch/plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanQuery {
    /// The agent's node.
    pub node: NodeName,
    /// Which start of the agent.
    pub incarnation: Incarnation,
    /// The generation that the reader has: it is not sent again, the next one is.
    pub after: Option<After>,
}

/// The query of `/v1/watch/directory`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DirectoryQuery {
    /// The generation that the reader has: it is not sent again, the next one is.
    pub after: Option<After>,
}

/// A generation in a query, as `3.17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct After(pub Generation);

impl TryFrom<String> for After {
    type Error = GenerationError;

    fn try_from(text: String) -> Result<Self, GenerationError> {
        text.parse().map(Self)
    }
}

impl From<After> for String {
    fn from(After(generation): After) -> Self {
        generation.to_string()
    }
}

/// The query of `/v1/events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only events behind this number, and a [`Gap`] for those that are missing behind it. Without
    /// it, from the oldest that is known.
    pub after: Option<u64>,
    /// Go on behind the last one that there is.
    #[serde(default)]
    pub follow: bool,
    /// Only events of this service.
    pub service: Option<ServiceName>,
    /// Only events that speak of this instance.
    pub instance: Option<InstanceId>,
    /// Where to begin: at the first event that is not older, in milliseconds since 1970.
    #[serde(default)]
    pub since: Timestamp,
}

/// A line of `/v1/events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EventLine {
    /// Something happened.
    Event(Box<Event>),
    /// Something happened that nobody can tell any more.
    Gap {
        /// Which.
        gap: Gap,
    },
}

/// The numbers of events that a reader asked for and does not get: it was away for longer than they
/// are kept, or they were never durable and the numbers are given anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why a reader does not get events that it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GapReason {
    /// They are no longer kept. What the reader shows may be out of date: it should look anew.
    Forgotten,
    /// The control centre does not know them: it went on from a state before them, after a loss of
    /// power or with a restored state. The numbers will be given again.
    Renumbered,
}

impl Gap {
    /// The number behind which a reader goes on that has taken note of the gap.
    pub fn resume(&self) -> u64 {
        match self.reason {
            GapReason::Forgotten => self.to,
            GapReason::Renumbered => self.from - 1,
        }
    }
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, to, reason } = self;
        match reason {
            GapReason::Forgotten => write!(f, "events {from} to {to} are no longer kept"),
            GapReason::Renumbered => write!(
                f,
                "events {from} to {to} are not known, their numbers are given anew"
            ),
        }
    }
}

/// A refusal, as the body of a 4xx or 5xx answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// A stable word for programs; `mainstay explain CODE` tells more.
    pub code: ProblemCode,
    /// What was attempted, on what, and why it was refused.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// A refusal with the code's own remedy.
    pub fn new(code: ProblemCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            remedy: code.remedy().to_owned(),
        }
    }

    /// The same with a remedy that knows more of the case.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}
