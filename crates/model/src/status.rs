//! What is going on with services and instances, as it is decided and as it is told.

/// What is going on with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// All that is wanted is ready.
    Steady,
    /// A version is being rolled out.
    RollingOut,
    /// A version is being rolled back.
    RollingBack,
    /// Somebody stopped a rollout where it is.
    Paused,
    /// A few instances of a new version are ready, and somebody is to promote them.
    AwaitsPromotion,
    /// A rollout failed and stays as it is.
    Failed,
    /// No rollout is under way, and fewer instances are ready than wanted.
    Degraded,
    /// It is being taken down.
    Removing,
}

/// What an instance is doing, in one word for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Its agent has not started it yet.
    Planned,
    /// It is not started yet: what it needs is not ready.
    Held,
    /// It runs to its end, and takes no requests.
    Running,
    /// Its process runs and has not passed a probe.
    Starting,
    /// It passes, for less than the minimum healthy time.
    Healthy,
    /// It has passed for the minimum healthy time.
    Ready,
    /// It fails its probes.
    Failing,
    /// It has ended and will be started again.
    BackingOff,
    /// It ends again and again soon after its start.
    CrashLooping,
    /// It takes no new requests and finishes the old.
    Draining,
    /// It was told to stop.
    Stopping,
}
