//! The cgroups of instances: made with their limits, and removed when nothing is in them.

use std::path::Path;

use mainstay_ids::InstanceId;
use mainstay_kernel::cgroup::{
    Controller, Groups, LimitError, Limits, MakeError, Obstacle, Tree, Unusable,
};
use mainstay_model::report::{Limit, LimitObstacle};
use mainstay_model::service::LimitsSpec;
use mainstay_model::{PlannedInstance, StartFailure};

use crate::context::Context;
use crate::record::RunDir;

/// The group above those of all state directories.
const ROOT: &str = "mainstay";

/// Why an instance would run without a limit of its service. It is then not started: a limit that
/// is silently missing is found when the machine has no memory left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitRefused {
    #[error("the limit `{limit}` cannot be kept")]
    NoGroups {
        limit: Limit,
        #[source]
        source: Unusable,
    },
    #[error("the limit `{limit}` cannot be kept")]
    Group {
        limit: Limit,
        #[source]
        source: MakeError,
    },
    #[error("it would run without its limits")]
    Limit(#[from] LimitError),
}

impl LimitRefused {
    /// What it means to the user.
    pub(crate) fn failure(&self) -> StartFailure {
        let (limit, obstacle) = match self {
            Self::NoGroups { limit, source } => {
                let obstacle = match source {
                    Unusable::NotMounted => LimitObstacle::NoCgroups,
                    Unusable::NotRoot => LimitObstacle::NotRoot,
                    Unusable::ReadOnly => LimitObstacle::ReadOnly,
                };
                (*limit, obstacle)
            }
            Self::Group { limit, source } => {
                let errno = match source {
                    MakeError::Group { source, .. } => source.raw_os_error(),
                    MakeError::Limit(_) => None,
                };
                (*limit, LimitObstacle::Refused(errno.unwrap_or_default()))
            }
            Self::Limit(error) => {
                let limit = match error.controller {
                    Controller::Cpu => Limit::Cpu,
                    Controller::Memory => Limit::Memory,
                    Controller::Pids => Limit::Pids,
                };
                (limit, obstacle(&error.obstacle))
            }
        };
        StartFailure::Limit { limit, obstacle }
    }
}

fn obstacle(found: &Obstacle) -> LimitObstacle {
    match found {
        Obstacle::Missing => LimitObstacle::NoController,
        Obstacle::Occupied { .. } => LimitObstacle::Occupied,
        Obstacle::Write { source, .. } => {
            LimitObstacle::Refused(source.raw_os_error().unwrap_or_default())
        }
    }
}

/// One of the limits, if there is one.
fn first(limits: &LimitsSpec) -> Option<Limit> {
    let LimitsSpec {
        cpu_thousandths,
        memory_bytes,
        pids,
    } = limits;
    memory_bytes
        .map(|_| Limit::Memory)
        .or(cpu_thousandths.map(|_| Limit::Cpu))
        .or(pids.map(|_| Limit::Pids))
}

/// Makes the groups of an instance; `None`: it has no limits, and there are no groups here. That is
/// told, and it runs without.
pub(crate) fn make(
    context: &Context,
    planned: &PlannedInstance,
) -> Result<Option<Groups>, LimitRefused> {
    let limits = &planned.spec.limits;
    let limited = first(limits);
    let tree = match (&context.cgroups, limited) {
        (Ok(tree), _) => tree,
        (Err(_), None) => return Ok(None),
        (Err(reason), Some(limit)) => {
            let source = *reason;
            return Err(LimitRefused::NoGroups { limit, source });
        }
    };
    let name = format!("{ROOT}/{}/{}", context.mark(), planned.instance);
    let limits = Limits {
        cpu_thousandths: limits.cpu_thousandths,
        memory_bytes: limits.memory_bytes,
        pids: limits.pids,
    };
    match (tree.make(&name, limits), limited) {
        (Ok(groups), _) => Ok(Some(groups)),
        (Err(MakeError::Limit(error)), _) => Err(error.into()),
        (Err(source @ MakeError::Group { .. }), Some(limit)) => {
            Err(LimitRefused::Group { limit, source })
        }
        (Err(error @ MakeError::Group { .. }), None) => {
            let error = crate::chain(&error);
            tracing::warn!(instance = %planned.instance, error, "cannot make a cgroup; going on without");
            Ok(None)
        }
    }
}

/// Removes the groups of an instance that ended, and those above them that became empty by that.
pub(crate) fn remove(tree: &Tree, mark: &str, instance: &InstanceId) {
    if let Err(error) = tree.remove(&format!("{ROOT}/{mark}/{instance}")) {
        tracing::warn!(%instance, %error, "cannot remove its cgroup");
    }
    remove_above(tree, mark);
}

/// Removes the empty groups that killed agents and shims of this state directory left. Whoever
/// starts an instance holds its lock from before there is a group.
pub(crate) fn sweep(tree: &Tree, state: &Path, mark: &str) {
    let below = tree.below(&format!("{ROOT}/{mark}"));
    let names = below.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot look for cgroups of earlier runs");
        Vec::new()
    });
    for id in names.iter().filter_map(|name| name.parse().ok()) {
        let run = RunDir::of(state, &id);
        let _lock = match run.lock() {
            Ok(None) => continue,
            Ok(Some(lock)) => Some(lock),
            // There is no directory any more, and so nobody who could use its group.
            Err(_) => None,
        };
        // The kernel refuses it while something is in it; that is found and told elsewhere.
        let _ = tree.remove(&format!("{ROOT}/{mark}/{id}"));
    }
    remove_above(tree, mark);
}

/// Other instances, or other agents, have groups in them most of the time.
fn remove_above(tree: &Tree, mark: &str) {
    tree.remove_empty(&format!("{ROOT}/{mark}"));
    tree.remove_empty(ROOT);
}
