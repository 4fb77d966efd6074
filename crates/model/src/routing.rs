//! Who may receive traffic: what the control centre publishes to gateways, and what they answer.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use mainstay_ids::{Attempt, ConsumerId, Generation, InstanceId, ServiceName, Version};

use crate::intake::Intake;
use crate::rewrite::Rewrite;
use crate::route::{HttpMatches, PathPrefix};
use crate::traffic::{CanaryTraffic, Traffic};

/// One published routing state, whole. A consumer replaces what it had and acknowledges the
/// generation once every one of its workers has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Routing {
    /// Which state this is.
    pub generation: Generation,
    /// Every service that has a host, a path or a service address, by name.
    pub services: Vec<ServiceRoutes>,
}

/// The routes of one service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServiceRoutes {
    /// The service's name.
    pub service: ServiceName,
    /// Which requests at the entry are its own.
    pub http: Option<HttpMatches>,
    /// On which address the gateway listens for it.
    pub address: Option<SocketAddr>,
    /// The path at which the wanted version is asked whether it lives; `None`: it is asked otherwise.
    /// Monitors outside ask there, too, and an overload spares them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_path: Option<PathPrefix>,
    /// The instances that may be chosen. An instance that drains or stops is not among them.
    pub endpoints: Vec<Endpoint>,
    /// Why there is no endpoint, if there is none: told to the client with its 503.
    pub unavailable: Option<Unavailable>,
    /// Instances that were in the routes and are declared dead: nothing that they were sent will be
    /// carried out or answered any more. Unlike one that only left the endpoints to drain, a consumer
    /// ends what is under way to them at once. A hint that may be missed: whoever skips the state that
    /// has it waits until a connection breaks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dead: Vec<Dead>,
    /// What is done with its requests, as the wanted version has it. What belongs to a version is
    /// taken out of it: its `rewrite` is in `rewrites`, its `canary` in `split`.
    #[serde(default, skip_serializing_if = "Traffic::is_default")]
    pub traffic: Traffic,
    /// What is changed in requests to, and answers of, instances of a version; of one that is
    /// missing here nothing is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewrites: Vec<VersionRewrite>,
    /// Which requests go to a version for certain or by a share, while its canaries run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
}

/// An attempt of an instance that is declared dead.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Dead {
    /// Which instance.
    pub instance: InstanceId,
    /// The last attempt of it that has ended, and with it all before.
    pub attempt: Attempt,
}

/// What is changed for the instances of one version.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VersionRewrite {
    /// Which version.
    pub version: Version,
    /// What is changed.
    pub rewrite: Rewrite,
}

/// Two versions of a service at once, of which one gets a share that does not follow from the
/// number of its instances.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Split {
    /// The version on trial. All others together get what it does not.
    pub version: Version,
    /// Which requests it gets.
    pub traffic: CanaryTraffic,
}

/// One instance that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Endpoint {
    /// Which instance.
    pub instance: InstanceId,
    /// Which start of it: another attempt is another endpoint.
    pub attempt: Attempt,
    /// Which version it runs.
    pub version: Version,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether its probes pass.
    pub health: EndpointHealth,
    /// What names it to clients that stay with it; `None`: nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<Handle>,
    /// Whether it gets requests, and how many, as an operator wants it.
    #[serde(default, skip_serializing_if = "Intake::is_ordinary")]
    pub intake: Intake,
}

/// What names an instance to a client. It tells nothing of the instance, and nobody outside can
/// compute that of another. As text it is 16 hexadecimal digits.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Handle(pub u64);

/// The text is no handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a handle is 16 hexadecimal digits")]
pub struct HandleError;

impl Handle {
    /// Reads 16 hexadecimal digits in lower case. Anybody may have written them.
    pub fn parse(text: &[u8]) -> Result<Self, HandleError> {
        let digit = |b: &u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        if text.len() != 16 {
            return Err(HandleError);
        }
        let mut number = 0;
        for b in text {
            number = number << 4 | u64::from(digit(b).ok_or(HandleError)?);
        }
        Ok(Self(number))
    }
}

impl core::fmt::Display for Handle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl TryFrom<String> for Handle {
    type Error = HandleError;
    fn try_from(text: String) -> Result<Self, HandleError> {
        Self::parse(text.as_bytes())
    }
}

impl From<Handle> for String {
    fn from(handle: Handle) -> Self {
        alloc::format!("{handle}")
    }
}

/// What the active probes say of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EndpointHealth {
    /// The probes pass.
    Passing,
    /// The probes fail: it is ejected, and chosen only in panic.
    Failing,
}

/// Why a service has no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Unavailable {
    /// Instances have been started and none has passed its probe yet.
    Starting,
    /// Every instance ends again and again soon after its start.
    CrashLooping,
    /// No instance is wanted.
    ScaledToZero,
    /// The service is being taken down.
    Stopping,
    /// An operator has drained every instance. A gateway finds that by itself; the routes do not say so.
    Drained,
}

impl core::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Starting => "no instance is healthy yet",
            Self::CrashLooping => "every instance ends soon after its start",
            Self::ScaledToZero => "no instance is wanted",
            Self::Stopping => "the service is being taken down",
            Self::Drained => "every instance is drained, as somebody asked",
        })
    }
}

/// A consumer's word that a generation is in force everywhere in it. Sent when that becomes true,
/// whenever the last request to a removed instance ends, and once a second to stay live.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ack {
    /// Who acknowledges.
    pub consumer: ConsumerId,
    /// The newest generation that every worker has applied: no retry, queued request or idle
    /// pooled connection of this consumer can still go to an instance that it removed. `None`
    /// while there is none; this still renews the consumer.
    pub generation: Option<Generation>,
    /// The requests in flight to instances that are *not* in that generation; an instance that is
    /// missing here has none.
    pub in_flight: Vec<InFlight>,
    /// The service addresses on which it cannot listen, most often because another program does.
    #[serde(default)]
    pub unbound: Vec<SocketAddr>,
}

/// Requests that an instance has not yet answered.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InFlight {
    /// The instance that was removed from the routes.
    pub instance: InstanceId,
    /// How many requests, upgraded connections included.
    pub requests: u64,
}

/// What a consumer tells of itself when it begins to watch; see
/// [`mainstay_ids::Incarnation`] for what a new incarnation proves.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Farewell {
    /// The consumer that has ended its last request and will send no more.
    pub consumer: ConsumerId,
    /// Why, for the record.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_read_as_it_is_written_and_nothing_else_is_one() {
        let handle = Handle(0x00ab_0000_0000_00ff);
        assert_eq!(String::from(handle), "00ab0000000000ff");
        assert_eq!(Handle::parse(b"00ab0000000000ff"), Ok(handle));
        for wrong in [
            "",
            "ab",
            "00AB0000000000ff",
            "00ab0000000000fg",
            "00ab0000000000ff0",
        ] {
            assert_eq!(Handle::parse(wrong.as_bytes()), Err(HandleError), "{wrong}");
        }
    }
}
