//! The answer to "why?": what was decided, with its inputs, as a chain of reasons.

use alloc::string::String;
use alloc::vec::Vec;

use mainstay_ids::Timestamp;

use crate::event::EventKind;

/// Why something is as it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Why {
    /// What was asked about: a service, an instance.
    pub about: String,
    /// The reasons, the newest first; the first says how it is.
    pub chain: Vec<Reason>,
    /// What happened up to this number is no longer in memory, and the answer may lack it; `None`: it
    /// lacks nothing.
    pub forgotten: Option<u64>,
    /// So many older decisions are left out; `mainstay events` tells them.
    #[serde(default)]
    pub left_out: u32,
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reason {
    /// Since when, or when it was decided.
    pub at: Timestamp,
    /// What it speaks of.
    pub topic: Topic,
    /// The reason as a sentence, with what it was decided from.
    pub text: String,
    /// The number of the recorded decision; `None`: it is how things stand now.
    pub event: Option<u64>,
    /// The recorded decision with its inputs.
    pub decision: Option<EventKind>,
}

/// What a reason speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// How things stand.
    State,
    /// Whether an instance gets requests.
    Traffic,
    /// What is waited for.
    Wait,
    /// That an attempt ended, or was started again.
    Restart,
    /// A failed rollout, and what it led to.
    Rollback,
    /// Another decision.
    Decision,
}
