//! What an agent is to do, whole: what the control centre publishes to the agent of a node.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;

use mainstay_ids::{Generation, InstanceId, NodeName, ServiceName, Version};

use crate::service::ServiceSpec;

/// The wanted state of one node. An instance that the agent has and the plan does not name is left
/// alone and reported: an agent stops only what it is told to stop.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodePlan {
    /// Which state this is.
    pub generation: Generation,
    /// The node for which it is.
    pub node: NodeName,
    /// Its instances by id.
    pub instances: Vec<PlannedInstance>,
}

/// What one instance is to be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlannedInstance {
    /// Which instance.
    pub instance: InstanceId,
    /// Which version it runs.
    pub version: Version,
    /// What that version says.
    pub spec: ServiceSpec,
    /// The service addresses that stand in the specification, and those of the services that it needs.
    pub addresses: BTreeMap<ServiceName, SocketAddr>,
    /// What to do with it.
    pub action: PlannedAction,
}

/// What an agent is to do with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PlannedAction {
    /// Start it if it does not run, keep it running, restart it with back-off when it ends.
    Run,
    /// Start nothing of it yet: what it needs is not there. What runs of it goes on.
    Hold,
    /// Run it to its end, once: it is not probed, not started again, and reported as stopped with
    /// the way in which it ended.
    RunOnce,
    /// Stop it: SIGTERM, the service's grace, SIGKILL. Once reported as exited it leaves the plan.
    Stop,
}
