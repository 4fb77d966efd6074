//! Where services are found by name: what the control centre publishes to those who answer for names.

use alloc::vec::Vec;
use core::net::SocketAddr;

use mainstay_ids::{Generation, InstanceId, ServiceName};

use crate::intake::Weight;
use crate::routing::Unavailable;

/// The name below which services are found: `SERVICE.mainstay.internal`. `internal` is kept for
/// private use and never delegated by the root of the names (ICANN, 2024).
pub const ZONE: &str = "mainstay.internal";

/// Of how many servers other names are asked: as many as a C library takes of resolv.conf (MAXNS).
pub const UPSTREAMS_MAX: usize = 3;

/// How many networks may be answered; each costs every query of a stranger a comparison.
pub const ALLOW_MAX: usize = 64;

/// All services at one moment, whole. Unlike routes it is acknowledged by nobody: whoever was given an
/// address keeps it for as long as he likes, so no drain could wait for him.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Directory {
    /// Which state this is.
    pub generation: Generation,
    /// Every service that serves, by name: all but those with a schedule.
    pub services: Vec<Listing>,
}

/// Where one service is found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Listing {
    /// The service's name.
    pub service: ServiceName,
    /// Its service address. `None`: it has none, and is found at its instances.
    pub address: Option<SocketAddr>,
    /// The instances to which whoever chooses by himself may go: those whose probes pass and that are
    /// not drained; if there is none of these, all that a gateway would still try.
    pub instances: Vec<Listed>,
    /// Why there is no instance, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<Unavailable>,
}

/// Where one instance is found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Listed {
    /// Which.
    pub instance: InstanceId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share beside the others.
    #[serde(default)]
    pub weight: Weight,
}
