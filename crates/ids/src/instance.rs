//! Ids of running copies and of those who follow the routing state.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::name::{NameError, ServiceName};

/// One copy of a service. The number is never used again for that service, so that an id in a log
/// means one copy for ever. Written `orders-17`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId {
    /// The service of which this is a copy.
    pub service: ServiceName,
    /// Which copy, counted from 1 over the life of the service.
    pub number: u64,
}

/// Why a text is not an instance's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstanceIdError {
    /// There is no `-NUMBER` at the end.
    #[error("an instance is written SERVICE-NUMBER, as in `orders-17`")]
    Form,
    /// The part before the number is not a service's name.
    #[error("the service's name in it is wrong")]
    Service(#[from] NameError),
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&alloc::format!("{}-{}", self.service, self.number))
    }
}

impl FromStr for InstanceId {
    type Err = InstanceIdError;

    fn from_str(text: &str) -> Result<Self, InstanceIdError> {
        let (service, number) = text.rsplit_once('-').ok_or(InstanceIdError::Form)?;
        let canonical = number == "0" || !(number.starts_with('0') || number.starts_with('+'));
        let number = number.parse().map_err(|_| InstanceIdError::Form)?;
        if !canonical {
            return Err(InstanceIdError::Form);
        }
        Ok(Self {
            service: ServiceName::parse(service)?,
            number,
        })
    }
}

impl TryFrom<String> for InstanceId {
    type Error = InstanceIdError;
    fn try_from(text: String) -> Result<Self, InstanceIdError> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        alloc::format!("{id}")
    }
}

/// How often an instance was started, counted from 1: each restart is a new attempt with its own
/// process and, perhaps, another port.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The first start.
    pub const FIRST: Self = Self(1);

    /// The start after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Which start of one of our own processes this is. The supervisor starts the next incarnation
/// only after it has reaped the one before: a higher number is the verdict that the lower is dead.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Incarnation(pub u64);

/// Somebody who sends traffic by the routing state and acknowledges each generation.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConsumerId {
    /// The process's name on its node, for instance `gateway`.
    pub name: String,
    /// Which start of it.
    pub incarnation: Incarnation,
}

impl fmt::Display for ConsumerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.incarnation.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_instance_id_is_read_back_as_it_was_written() {
        for text in ["orders-17", "orders-2-1", "a-0"] {
            assert_eq!(
                text.parse::<InstanceId>()
                    .map(|id| id.to_string())
                    .as_deref(),
                Ok(text)
            );
        }
        for bad in [
            "orders",
            "orders-",
            "-3",
            "orders--3x",
            "orders-03",
            "orders-+3",
            "Orders-1",
        ] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }
}
