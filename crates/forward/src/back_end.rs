//! What forwards: the trait, and what it is told.

use std::net::{IpAddr, SocketAddr};

use mainstay_control::forward::Spread;
use mainstay_model::Network;

/// Networks of service addresses. Each costs a few rules that packets meet.
const RANGES_MAX: usize = 16;

/// Which back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackEndKind {
    /// Maps of nf_tables.
    Nft,
    /// Rules of iptables, one for each instance.
    Iptables,
    /// Sockets of our own, and copying.
    Userspace,
}

impl std::fmt::Display for BackEndKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
            Self::Userspace => "userspace",
        })
    }
}

/// The networks in which service addresses lie: 1 to 16 that do not overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What is to be changed, all at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// How connections to these service addresses are spread from now on. To one of which nobody
    /// gets any share they are refused.
    pub services: Vec<(SocketAddr, Spread)>,
    /// Service addresses that are no more. Connections to them are refused.
    pub gone: Vec<SocketAddr>,
    /// Instances that are declared dead: what is under way to them is reset as soon as it sends.
    pub dead: Vec<SocketAddr>,
    /// Of those, addresses that an instance listens on again.
    pub revived: Vec<SocketAddr>,
}

impl Batch {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        let Self {
            services,
            gone,
            dead,
            revived,
        } = self;
        services.is_empty() && gone.is_empty() && dead.is_empty() && revived.is_empty()
    }
}

/// What a look at the rules found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// They are as we left them.
    InForce,
    /// Somebody had changed them, and they are as we left them again. In words: what was wrong.
    Repaired(String),
}

/// What an instance was sent and has sent through service addresses, in bytes, packets and new
/// connections since counting began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Bytes to it.
    pub sent: u64,
    /// Bytes from it.
    pub received: u64,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// Rules need a right that this process does not have.
    #[error("forwarding by {back_end} needs CAP_NET_ADMIN in this network namespace")]
    Forbidden {
        /// By what.
        back_end: BackEndKind,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The host does not have what it takes.
    #[error("this host cannot forward by {back_end}")]
    Missing {
        /// By what.
        back_end: BackEndKind,
        /// What is missing.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A change was refused; everything is as before.
    #[error("{back_end} could not change {what}; everything is as before")]
    Refused {
        /// By what.
        back_end: BackEndKind,
        /// Of which service, if it is known.
        what: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another program changes the same rules again and again.
    #[error("another program changes rules all the time: tried {0} times")]
    Overtaken(usize),
}

/// Brings about what it is told. Calls block for as long as the kernel takes: some milliseconds for a
/// change, a second for all of very many services.
pub trait BackEnd: Send {
    /// Which one it is.
    fn kind(&self) -> BackEndKind;

    /// The service addresses and dead instances that are in force: after a start, those that an
    /// earlier process left.
    fn in_force(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>);

    /// Changes all of it or nothing. In force when it returns.
    fn apply(&mut self, batch: &Batch) -> Result<(), ForwardError>;

    /// Looks whether rules are as they were left, and repairs them. Cheap if nobody changed any.
    fn check(&mut self) -> Result<Found, ForwardError>;

    /// New connections to each service address since its rules were made.
    fn connections(&mut self) -> Result<Vec<(SocketAddr, u64)>, ForwardError>;

    /// What each instance was sent and has sent.
    fn traffic(&mut self) -> Result<Vec<(SocketAddr, Counted)>, ForwardError>;

    /// Connections and flows of each instance that are open now, if the back end has them in its own
    /// hands. `None`: the kernel has them.
    fn in_flight(&mut self) -> Result<Option<Vec<(SocketAddr, u64)>>, ForwardError> {
        Ok(None)
    }

    /// What it has in force for one service address, in its own language, for people. Empty: it has
    /// nothing.
    fn rules(&mut self, _address: SocketAddr) -> Result<String, ForwardError> {
        Ok(String::new())
    }

    /// Takes everything away that it made.
    fn remove(&mut self) -> Result<(), ForwardError>;
}
