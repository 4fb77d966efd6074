//! What a declaration would do, told before it does.

use alloc::string::String;
use alloc::vec::Vec;

use mainstay_ids::{ServiceName, Version};

use crate::cron::Cron;
use crate::difference::Difference;
use crate::service::OnFailure;

/// What a whole declaration would do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Outlook {
    /// One entry per declared service, in its order.
    pub services: Vec<ServiceOutlook>,
    /// The memory that all services may need then.
    pub memory: MemoryOutlook,
}

/// What would differ for one service, and by which steps it would be brought about.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceOutlook {
    /// The version from which the rollout would start; `None`: nothing runs yet, or there would be
    /// no rollout.
    pub from: Option<Version>,
    /// The keys of the service file that differ from the wanted version.
    pub differences: Vec<Difference>,
    /// How many instances are wanted now; `None`: the service is new.
    pub was: Option<u32>,
    /// How many would be wanted.
    pub wanted: u32,
    /// The rollout; `None`: there would be none.
    pub rollout: Option<RolloutOutlook>,
    /// What it needs before it is first started.
    pub needs: Vec<NeedOutlook>,
    /// When it would run, if it is no server.
    pub schedule: Option<Cron>,
}

/// The steps of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RolloutOutlook {
    /// What would run once before, with its arguments; empty: nothing.
    pub before: Vec<String>,
    /// How many of the new version would run beside all of the old until somebody promotes them.
    pub canaries: u32,
    /// How many instances would be started at a time.
    pub step: u32,
    /// How long each has to be healthy before the next, in milliseconds.
    pub hold_ms: u64,
    /// What its failure would lead to; `None`: it would stay as it is, since there is no version
    /// to go back to.
    pub on_failure: Option<OnFailure>,
}

/// A service that another needs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NeedOutlook {
    /// Which.
    pub service: ServiceName,
    /// Whether one instance of it is ready now.
    pub ready: bool,
}

/// The memory that all services may need at the most, by their `limits.memory`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemoryOutlook {
    /// For all instances with a limit, in bytes, while the rollouts go on.
    pub most_bytes: u64,
    /// What the node has, in bytes; `None`: its agent has not told.
    pub node_bytes: Option<u64>,
    /// Services without a limit: what they need is not known.
    pub unlimited: Vec<ServiceName>,
}

impl MemoryOutlook {
    /// Whether the node has as much as may be needed; `None`: nobody can tell.
    pub fn fits(&self) -> Option<bool> {
        let node = self.node_bytes?;
        if self.most_bytes > node {
            return Some(false);
        }
        self.unlimited.is_empty().then_some(true)
    }
}
