//! Which processes there are.

use std::collections::BTreeSet;

use mainstay_api::node::Role;

/// One of our processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The control centre.
    Server,
    /// The agent.
    Agent,
    /// A gateway. There are two places for one, so that a new one can take over from an old one
    /// that finishes what it began; each is a consumer of the routes by its own name.
    Gateway(Seat),
    /// The broker.
    Broker,
    /// What holds the floating addresses.
    Vip,
}

/// The places of gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Seat {
    First,
    Second,
}

/// The gateways, in the order in which they are looked at.
pub(crate) const GATEWAYS: [Kind; 2] = [Kind::Gateway(Seat::First), Kind::Gateway(Seat::Second)];

/// In the order of their start: instances find the broker there. At the end the floating addresses go first, before clients find
/// nobody there, and then the gateways, so that they still hear of the last instances.
pub(crate) const KINDS: [Kind; 6] = [
    Kind::Server,
    Kind::Broker,
    Kind::Agent,
    GATEWAYS[0],
    GATEWAYS[1],
    Kind::Vip,
];

impl Kind {
    /// The name in files, and for a gateway also that under which it follows the routes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
            Self::Gateway(Seat::First) => "gateway",
            Self::Gateway(Seat::Second) => "gateway-2",
            Self::Broker => "broker",
            Self::Vip => "vip",
        }
    }

    /// The word behind `mainstay internal`, and the name of its log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
            Self::Gateway(_) => "gateway",
            Self::Broker => "broker",
            Self::Vip => "vip",
        }
    }

    /// Where a gateway offers its sockets, in the state directory; the name is as short as that of
    /// the API's, since the path of a unix socket is limited.
    pub(crate) fn hand(self) -> Option<&'static str> {
        match self {
            Self::Gateway(Seat::First) => Some("gw1.sock"),
            Self::Gateway(Seat::Second) => Some("gw2.sock"),
            Self::Server | Self::Agent | Self::Broker | Self::Vip => None,
        }
    }

    /// The role of a node to which it belongs.
    pub(crate) fn role(self) -> Role {
        match self {
            Self::Server => Role::Control,
            Self::Agent => Role::Agent,
            Self::Gateway(_) => Role::Gateway,
            Self::Broker => Role::Broker,
            Self::Vip => Role::Vip,
        }
    }
}

impl Kind {
    /// The other place of a gateway.
    pub(crate) fn other_gateway(self) -> Self {
        match self {
            Self::Gateway(Seat::First) => GATEWAYS[1],
            Self::Gateway(Seat::Second) | Self::Server | Self::Agent | Self::Broker | Self::Vip => {
                GATEWAYS[0]
            }
        }
    }
}

/// Everything that one machine alone does.
pub(crate) fn all_roles() -> BTreeSet<Role> {
    BTreeSet::from([Role::Control, Role::Agent, Role::Gateway, Role::Broker])
}
