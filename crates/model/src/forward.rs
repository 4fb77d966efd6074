//! How a node forwards connections to service addresses, below HTTP.

use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::Network;

/// Networks of service addresses. Each costs a few rules that packets meet.
pub const RANGES_MAX: usize = 16;

/// Where an agent shows what it measures of forwarding, if nothing else is said: beside the gateway's
/// statistics.
pub const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8889);

/// The networks in which service addresses lie: 1 to 16 that do not overlap.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Vec<Network>", into = "Vec<Network>")]
pub struct Ranges(Vec<Network>);

/// Networks that cannot be ranges of service addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangesError {
    /// None, or too many.
    #[error("service addresses need 1 to {RANGES_MAX} networks, found {0}")]
    Count(usize),
    /// An address would be in both.
    #[error("the networks {0} and {1} of service addresses overlap; one of them is enough")]
    Overlap(Network, Network),
}

impl Ranges {
    /// Checks networks and takes them.
    pub fn new(networks: Vec<Network>) -> Result<Self, RangesError> {
        if !(1..=RANGES_MAX).contains(&networks.len()) {
            return Err(RangesError::Count(networks.len()));
        }
        for (index, one) in networks.iter().enumerate() {
            if let Some(other) = networks[..index].iter().find(|other| one.overlaps(other)) {
                return Err(RangesError::Overlap(*other, *one));
            }
        }
        Ok(Self(networks))
    }

    /// All of them.
    pub fn networks(&self) -> &[Network] {
        &self.0
    }

    /// Whether an address is a service's.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl TryFrom<Vec<Network>> for Ranges {
    type Error = RangesError;
    fn try_from(networks: Vec<Network>) -> Result<Self, RangesError> {
        Self::new(networks)
    }
}

impl From<Ranges> for Vec<Network> {
    fn from(ranges: Ranges) -> Self {
        ranges.0
    }
}

/// What forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum BackEndKind {
    /// Maps of nf_tables.
    Nft,
    /// Rules of iptables, one for each instance.
    Iptables,
    /// Sockets of our own, and copying.
    Userspace,
}

impl BackEndKind {
    /// The best first.
    pub const ALL: [Self; 3] = [Self::Nft, Self::Iptables, Self::Userspace];

    /// The word in files and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
            Self::Userspace => "userspace",
        }
    }
}

impl fmt::Display for BackEndKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether bytes are counted for each instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counting {
    /// They are, which costs each packet to and from an instance that carries something a look into a
    /// set.
    #[default]
    On,
    /// They are not.
    Off,
}

/// Whether this node says on its links that service addresses are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answering {
    /// It does not answer who asks for them by ARP: each node has them, and other hosts come by a
    /// route.
    #[default]
    Off,
    /// It does.
    On,
}

/// Whether the agent may have this host forward packets, which it needs for containers and other hosts
/// whose connections go on to instances elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    /// When it is needed, for connections to service addresses alone.
    #[default]
    WhenNeeded,
    /// Never: whoever needs it switches it on himself.
    Never,
}

/// How a node forwards, checked.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardSettings {
    /// Where service addresses lie that it forwards. Others are the gateway's.
    pub ranges: Ranges,
    /// By what; `None`: the best that the host can have.
    pub back_end: Option<BackEndKind>,
    /// Whether bytes are counted.
    pub counting: Counting,
    /// Whether ARP is answered.
    pub answering: Answering,
    /// Whether it may have the host forward packets.
    #[serde(default)]
    pub opening: Opening,
    /// Where it shows what it measures, on loopback; `None`: nowhere.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// Where this node itself listens within the ranges: these are no services, and nobody is refused
    /// there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<SocketAddr>,
}

impl ForwardSettings {
    /// For these ranges, everything else as usual.
    pub fn new(ranges: Ranges) -> Self {
        Self {
            ranges,
            back_end: None,
            counting: Counting::default(),
            answering: Answering::default(),
            opening: Opening::default(),
            metrics: Some(METRICS),
            own: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    #[test]
    fn ranges_that_overlap_are_refused() {
        let network = |text| Network::parse(text).expect("a network");
        let both = vec![network("10.96.0.0/16"), network("10.0.0.0/8")];
        let message = Ranges::new(both).map_err(|error| error.to_string());
        assert_eq!(
            message.expect_err("refused"),
            "the networks 10.96.0.0/16 and 10.0.0.0/8 of service addresses overlap; one of them is \
             enough"
        );
        assert_eq!(Ranges::new(vec![]), Err(RangesError::Count(0)));
        let ranges = Ranges::new(vec![network("10.96.0.0/16"), network("fd96::/112")]);
        let ranges = ranges.expect("they do not overlap");
        assert!(ranges.contain(IpAddr::from([10, 96, 1, 1])));
        assert!(!ranges.contain(IpAddr::from([10, 97, 1, 1])));
    }
}
