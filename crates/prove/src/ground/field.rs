//! The networks, and where everybody is in them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::namespace::Namespace;
use crate::scenario::Trouble;

/// Where service addresses lie.
pub(crate) const RANGE: &str = "10.96.0.0/16";

/// The node's address, from which its programs speak.
pub(crate) const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 1));

/// Until the kernel forgets a connection that has ended: clients that connect for each request would
/// fill its table.
const FORGET_AFTER: [(&str, &str); 2] = [
    ("netfilter/nf_conntrack_tcp_timeout_close", "1"),
    ("netfilter/nf_conntrack_tcp_timeout_time_wait", "1"),
];

/// Everything that comes and goes is lost, and nobody is told.
const HOLE: &str = "table inet hole {
  chain in { type filter hook prerouting priority -400; drop; }
  chain out { type filter hook output priority -400; drop; }
}
";

/// Where an instance runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Node,
    FirstHost,
    SecondHost,
}

impl Place {
    pub(crate) fn at(self, port: u16) -> SocketAddr {
        let ip = match self {
            Self::Node => NODE,
            Self::FirstHost => Ipv4Addr::new(10, 77, 1, 2).into(),
            Self::SecondHost => Ipv4Addr::new(10, 77, 2, 2).into(),
        };
        SocketAddr::new(ip, port)
    }
}

/// A node, two hosts behind it, and a client on another host.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) node: Namespace,
    pub(crate) client: Namespace,
    hosts: [Namespace; 2],
}

impl Field {
    pub(crate) fn make() -> Result<Self, Trouble> {
        let (node, client) = (Namespace::new()?, Namespace::new()?);
        let hosts = [Namespace::new()?, Namespace::new()?];
        Namespace::join(
            "host1",
            (&node, "10.77.1.1/24"),
            (&hosts[0], "10.77.1.2/24"),
        )?;
        Namespace::join(
            "host2",
            (&node, "10.77.2.1/24"),
            (&hosts[1], "10.77.2.2/24"),
        )?;
        Namespace::join("client", (&node, "10.78.0.1/24"), (&client, "10.78.0.2/24"))?;
        hosts[0].run("ip", "route add default via 10.77.1.1")?;
        hosts[1].run("ip", "route add default via 10.77.2.1")?;
        client.run("ip", "route add default via 10.78.0.1")?;
        node.set("ipv4/ip_forward", "1")?;
        for (setting, value) in FORGET_AFTER {
            node.set(setting, value)?;
        }
        Ok(Self {
            node,
            client,
            hosts,
        })
    }

    pub(crate) fn namespace(&self, place: Place) -> &Namespace {
        match place {
            Place::Node => &self.node,
            Place::FirstHost => &self.hosts[0],
            Place::SecondHost => &self.hosts[1],
        }
    }

    /// Cuts a host off: its packets vanish.
    pub(crate) fn cut(&self, place: Place) -> Result<(), Trouble> {
        self.namespace(place).feed("nft", "-f -", HOLE)
    }

    /// It is back.
    pub(crate) fn mend(&self, place: Place) -> Result<(), Trouble> {
        self.namespace(place).run("nft", "delete table inet hole")
    }
}
