//! What the user wants: one checked specification per service.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::num::NonZeroU32;
use core::time::Duration;

use mainstay_ids::{SecretName, ServiceName};

use crate::cron::Cron;
use crate::route::{HttpMatch, HttpMatches, PathPrefix};
use crate::template::Template;
use crate::traffic::Traffic;

/// How many instances of one service may be wanted. A node's ports and a drain's bookkeeping are
/// sized for this; more on one machine is surely a typing mistake.
pub const INSTANCES_MAX: u32 = 500;

/// Everything about one service, checked. Two equal specifications are the same version.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// The service's name.
    pub name: ServiceName,
    /// The program and its arguments; never empty. The first is an absolute path or a bare name
    /// that is looked up in `PATH`.
    pub exec: Vec<Template>,
    /// The absolute directory in which instances run.
    pub dir: String,
    /// The account under which instances run. `None`: as root an unprivileged one, which the agent
    /// chooses; otherwise the one that runs Mainstay.
    pub user: Option<String>,
    /// Environment variables of the instances, on top of a small fixed set.
    pub env: BTreeMap<String, Template>,
    /// The service address; `None`: the service has none.
    pub address: Option<AddressSpec>,
    /// Which requests at the gateway's entry belong to the service; `None`: none of them.
    pub http: Option<HttpMatches>,
    /// What the gateway does with its requests.
    #[serde(default, skip_serializing_if = "Traffic::is_default")]
    pub traffic: Traffic,
    /// How to tell that an instance can serve.
    pub health: HealthSpec,
    /// How many instances are wanted, 0 to [`INSTANCES_MAX`].
    pub instances: u32,
    /// How one version replaces another.
    pub rollout: RolloutSpec,
    /// How long an instance may finish its requests before it is told to stop all the same.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub drain: Duration,
    /// How long an instance may take from SIGTERM to its end before SIGKILL.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub grace: Duration,
    /// How much output is kept.
    pub log: LogSpec,
    /// What each instance may use.
    #[serde(default, skip_serializing_if = "LimitsSpec::is_unlimited")]
    pub limits: LimitsSpec,
    /// Environment variables whose values are secrets, by the variable's name; none of them stands
    /// in `env`, too. Only the name of the secret is part of a version: a changed value is taken at
    /// an instance's next start.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretName>,
    /// The objective that `prove` holds the service to.
    pub slo: Option<Slo>,
    /// The services of which one instance must be ready before one of this is first started.
    #[serde(default)]
    pub needs: BTreeSet<ServiceName>,
    /// A program and its arguments that runs once, to a good end, before a new version is rolled
    /// out; empty: nothing does.
    #[serde(default)]
    pub before: Vec<Template>,
    /// `Some`: the program is no server. It is started at these times, one run at a time, and ends
    /// by itself; it has no address, no instances and no rollouts.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// What was found where `exec` points when the file was read, so that a program that was built
    /// anew is a new version although its file says the same.
    pub artifact: Option<Artifact>,
}

/// Where a service is reached by other services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AddressSpec {
    /// The control centre picks one and keeps it for the life of the service.
    Auto,
    /// The user picked one.
    Fixed(SocketAddr),
}

/// How health is probed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HealthSpec {
    /// What is tried.
    pub check: Check,
    /// The time between two probes.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub every: Duration,
    /// How long a probe may take before it counts as failed.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub timeout: Duration,
    /// How many failures in a row turn a passing instance into a failing one.
    pub fall: NonZeroU32,
    /// How many successes in a row turn a failing instance into a passing one.
    pub rise: NonZeroU32,
    /// Start-up grace: an attempt that has not passed within it is ended and started again.
    /// `None`: it may take for ever.
    #[serde(default, with = "mainstay_ids::duration::text::optional")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub start: Option<Duration>,
    /// An attempt that has failed for so long without a pass is ended and started again. `None`:
    /// it is only taken out of the routes.
    #[serde(default, with = "mainstay_ids::duration::text::optional")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub restart: Option<Duration>,
}

/// One kind of probe.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// GET of this path on the instance's port answers 200 to 399.
    Http(PathPrefix),
    /// The instance's port accepts a connection.
    Tcp,
    /// This program, run in the service's directory with its environment, exits with 0.
    Exec(Vec<Template>),
}

/// How one version replaces another: start first, never fewer ready instances than wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RolloutSpec {
    /// How many instances are replaced at a time.
    pub step: Step,
    /// Minimum healthy time: how long an instance must pass its probes without interruption before
    /// it counts as ready.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub hold: Duration,
    /// Healthy deadline: an instance that is not ready this long after its start fails the rollout.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub deadline: Duration,
    /// Progress deadline: a rollout in which for so long no further instance got ready has failed.
    /// It does not run while somebody's word is waited for.
    #[serde(default = "progress_by_default", with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub progress: Duration,
    /// How many instances of a new version run beside all of the old until somebody promotes it;
    /// `None`: nobody is asked.
    #[serde(default)]
    pub canary: Option<Step>,
    /// What a failed rollout leads to.
    pub on_failure: OnFailure,
}

/// What holds for specifications that were stored before there was a progress deadline.
fn progress_by_default() -> Duration {
    PROGRESS
}

/// The progress deadline where none is written: ten times the healthy deadline's default.
pub const PROGRESS: Duration = Duration::from_mins(10);

/// When a program that is no server runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// At which minutes, in UTC.
    pub cron: Cron,
    /// A run that takes longer is stopped.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub deadline: Duration,
}

/// How many instances a rollout replaces at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// So many.
    Count(NonZeroU32),
    /// So many of a hundred wanted ones, rounded up, 1 to 100.
    Percent(NonZeroU32),
}

impl Step {
    /// The number of instances for `wanted` ones; at least one.
    pub fn of(self, wanted: u32) -> u32 {
        match self {
            Self::Count(count) => count.get(),
            Self::Percent(percent) => {
                let share = u64::from(wanted) * u64::from(percent.get().min(100));
                u32::try_from(share.div_ceil(100))
                    .unwrap_or(u32::MAX)
                    .max(1)
            }
        }
    }
}

/// What a failed rollout leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Back to the last version that was wholly healthy.
    Rollback,
    /// Stop replacing and keep what there is.
    Pause,
}

/// How much of an instance's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LogSpec {
    /// The size in bytes at which a file is rotated.
    pub size: u64,
    /// How many rotated files are kept beside the current one.
    pub keep: u32,
}

/// What one instance may use, with everything that it starts; `None`: as much as the node has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSpec {
    /// Processor time, in thousandths of one processor.
    pub cpu_thousandths: Option<u32>,
    /// Memory in bytes. Who needs more is killed by the kernel.
    pub memory_bytes: Option<u64>,
    /// Processes and threads. Who makes more is refused them.
    pub pids: Option<u32>,
}

impl LimitsSpec {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// A service level objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Slo {
    /// The share of requests that must succeed, in parts per million.
    pub success_ppm: u32,
    /// The 99th percentile of latency must stay at or below this.
    #[serde(with = "mainstay_ids::duration::text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub p99: Duration,
}

/// What a program's file looked like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Its length in bytes.
    pub len: u64,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified_ns: u64,
}

impl ServiceSpec {
    /// Which requests at the entry are its own, redirects among them.
    pub fn matches(&self) -> impl Iterator<Item = &HttpMatch> {
        let redirects = self.traffic.redirects.iter();
        let http = self.http.iter().flatten();
        http.chain(redirects.map(|redirect| &redirect.on))
    }

    /// Whether the gateway has to know of it.
    pub fn is_routed(&self) -> bool {
        self.address.is_some() || self.matches().next().is_some()
    }

    /// The services whose address stands in this one's arguments or environment.
    pub fn addressed(&self) -> impl Iterator<Item = &ServiceName> {
        let check = match &self.health.check {
            Check::Exec(argv) => argv.as_slice(),
            Check::Http(_) | Check::Tcp => &[],
        };
        self.exec
            .iter()
            .chain(&self.before)
            .chain(self.env.values())
            .chain(check)
            .flat_map(Template::addressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_rounded_up_and_never_nothing() {
        let percent = |p| Step::Percent(NonZeroU32::new(p).expect("not zero"));
        for (step, wanted, expected) in [(25, 3, 1), (25, 8, 2), (25, 9, 3), (100, 3, 3), (1, 0, 1)]
        {
            assert_eq!(percent(step).of(wanted), expected, "{step} % of {wanted}");
        }
    }
}
