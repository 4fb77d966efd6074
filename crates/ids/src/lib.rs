//! Identifiers, generations and time: the words that every other crate speaks.
//!
//! Nothing here reads a clock, draws a random number or touches a socket; a value that needs one of
//! these is made by a driver and handed in. Start reading at [`name`] for what users type, at
//! [`generation`] for the numbers that order every change of traffic.
#![no_std]

extern crate alloc;

pub mod duration;
pub mod generation;
pub mod instance;
pub mod name;
pub mod time;

pub use generation::{Epoch, Generation, Revision};
pub use instance::{Attempt, ConsumerId, Incarnation, InstanceId};
pub use name::{ListenName, NodeName, SecretName, ServiceName, VipName};
pub use time::{Instant, Timestamp};

/// The number of one accepted content of a service's declaration, counted from 1 per service.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Version(pub u32);

impl Version {
    /// The version of a service's first declaration.
    pub const FIRST: Self = Self(1);

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl core::fmt::Display for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "v{}", self.0)
    }
}
