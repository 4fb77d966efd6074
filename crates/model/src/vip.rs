//! A floating address: an address that several machines can hold, and one holds.
//!
//! What a user typed has been checked when [`VipSpec::check`] and [`check_together`] found nothing; the election itself
//! is in `mainstay-vrrp`.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::num::{NonZeroU8, NonZeroU32};
use core::time::Duration;

use mainstay_ids::VipName;

/// Floating addresses of one node: each has its own socket, timers and packets.
pub const VIPS_MAX: usize = 64;
/// Addresses that move together. Each is an announcement of two packets, several times at each move.
pub const ADDRESSES_MAX: usize = 20;
/// Peers that are named: each gets a packet of its own every interval.
pub const PEERS_MAX: usize = 16;
/// What is looked at for one floating address.
pub const TRACKS_MAX: usize = 16;
/// The longest name of an interface (`IFNAMSIZ`, with the zero that ends it).
pub const INTERFACE_LEN_MAX: usize = 15;
/// The time between two adverts: three of them lost are a third of a second without the address.
pub const ADVERT: Duration = Duration::from_millis(100);
/// Whose priority nobody wrote.
pub const PRIORITY: u8 = 100;
/// The time between two looks at a port or runs of a program.
pub const TRACK_EVERY: Duration = Duration::from_millis(500);
/// How long a look may take.
pub const TRACK_TIMEOUT: Duration = Duration::from_secs(1);
/// Looks more often than this load what is looked at.
pub const TRACK_EVERY_MIN: Duration = Duration::from_millis(20);
/// Failed looks in a row that count: one may be an accident.
pub const TRACK_FALL: NonZeroU32 = NonZeroU32::new(2).expect("not zero");
/// Passed looks in a row that count.
pub const TRACK_RISE: NonZeroU32 = NonZeroU32::new(1).expect("not zero");

/// Which VRRP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VrrpVersion {
    /// RFC 3768: IPv4 and whole seconds.
    V2,
    /// RFC 9568.
    #[default]
    V3,
}

/// Whether the address is taken from a worse holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preempt {
    /// No: each move costs clients something.
    #[default]
    Never,
    /// Yes.
    Always,
    /// After so long.
    After(Duration),
}

/// What happens to the address when what stands behind it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDead {
    /// It is offered at once; the dead is started again meanwhile.
    #[default]
    YieldAtOnce,
    /// The dead has [`RESTART_WITHIN`] to serve again, unless it died three times in [`DEATHS_WITHIN`].
    RestartThenYield,
}

/// Which hardware address the address has on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hardware {
    /// The interface's, which is announced at each move.
    #[default]
    Own,
    /// That of the virtual router (RFC 9568, 7.3), which moves along.
    Virtual,
}

/// How long a restart may take before the address goes.
pub const RESTART_WITHIN: Duration = Duration::from_millis(500);
/// Three deaths in so short a time are no accident.
pub const DEATHS_WITHIN: Duration = Duration::from_secs(10);

/// An address with the length of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Floating {
    /// The address.
    pub address: IpAddr,
    /// How many of its bits are the network's: 32 or 128 for an address alone.
    pub prefix_len: u8,
}

impl fmt::Display for Floating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// What stands behind the address.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tracked {
    /// The gateway of this node.
    Gateway,
    /// A process of this name runs.
    Process(String),
    /// Something accepts connections there.
    Tcp(SocketAddr),
    /// This program, with its arguments, ends with code 0.
    Exec(Vec<String>),
}

impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("the gateway"),
            Self::Process(name) => write!(f, "the process {name}"),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Exec(command) => f.write_str(command.first().map_or("", String::as_str)),
        }
    }
}

/// How it is looked at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TrackSpec {
    /// What.
    pub what: Tracked,
    /// The time between two looks at a port or runs of a program.
    pub every: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Failures in a row that count.
    pub fall: NonZeroU32,
    /// Passes in a row that count.
    pub rise: NonZeroU32,
    /// What starts it again when it has died; empty: nothing of ours.
    pub restart: Vec<String>,
}

impl TrackSpec {
    /// As usual.
    pub fn of(what: Tracked) -> Self {
        Self {
            what,
            every: TRACK_EVERY,
            timeout: TRACK_TIMEOUT,
            fall: TRACK_FALL,
            rise: TRACK_RISE,
            restart: Vec::new(),
        }
    }
}

/// One virtual router: the addresses that move together.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct VipSpec {
    /// What people call it.
    pub name: VipName,
    /// On which interface.
    pub interface: String,
    /// Its number on the link.
    pub vrid: NonZeroU8,
    /// What is spoken.
    pub version: VrrpVersion,
    /// The addresses, of one family.
    pub addresses: Vec<Floating>,
    /// Who is preferred; 255 for the owner of the address.
    pub priority: NonZeroU8,
    /// Whether it is taken from a worse one.
    pub preempt: Preempt,
    /// The time between two adverts.
    pub advert: Duration,
    /// The only others, who get packets of their own; empty: everybody on the link.
    pub peers: Vec<IpAddr>,
    /// Its hardware address on the link.
    #[serde(default)]
    pub hardware: Hardware,
    /// What must work for the address to be here.
    pub track: Vec<TrackSpec>,
    /// What happens when it does not.
    pub on_dead: OnDead,
    /// What is run at each change, with what changed as arguments; empty: nothing.
    pub notify: Vec<String>,
}

/// Why something is not a floating address. The remedy stands behind the semicolon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VipError {
    /// None, or too many.
    #[error(
        "1 to {ADDRESSES_MAX} addresses move together, not {0}; write for instance `address = \"10.0.0.100/32\"`"
    )]
    Addresses(usize),
    /// One advert has one family.
    #[error(
        "{0} is of another family than the first address; give each family a table with a `vrid` of its own"
    )]
    Families(IpAddr),
    /// It cannot be held by one machine.
    #[error(
        "{0} is not an address that one machine can hold; choose one of the network of the interface"
    )]
    NoHost(IpAddr),
    /// More bits than there are.
    #[error("{0} has more bits of network than the address; write `/32` for IPv4, `/128` for IPv6")]
    Prefix(Floating),
    /// Twice in one.
    #[error("{0} stands twice; name it once")]
    Twice(IpAddr),
    /// No interface can be called so.
    #[error(
        "`{0}` is no name of an interface, which has 1 to {INTERFACE_LEN_MAX} characters without blanks and `/`; `ip link` lists them"
    )]
    Interface(String),
    /// RFC 3768.
    #[error("version 2 has no IPv6; take `version = 2` out")]
    VersionOfFamily,
    /// Others silently make it another one.
    #[error(
        "version 2 counts whole seconds from 1s to 255s, and `advert` is {0:?}; write such a time, or take `version = 2` out"
    )]
    AdvertV2(Duration),
    /// Twelve bits of hundredths.
    #[error(
        "version 3 counts hundredths of a second from 10ms to 40950ms, and `advert` is {0:?}; write such a time"
    )]
    AdvertV3(Duration),
    /// More than are of use.
    #[error(
        "{0} peers are listed, and {PEERS_MAX} are the most; without `peers` everybody on the link is one"
    )]
    Peers(usize),
    /// Adverts have one family.
    #[error("the peer {0} is of another family than the address; name an address of its family")]
    PeerFamily(IpAddr),
    /// It is an address of a link.
    #[error(
        "a virtual MAC address is of one link, and `peers` may be elsewhere; take one of the two out"
    )]
    VirtualMacOfPeers,
    /// More than are of use.
    #[error(
        "{0} things are tracked, and {TRACKS_MAX} are the most; track what is in front of the others"
    )]
    Tracks(usize),
    /// Nobody can be started.
    #[error(
        "a program is missing: the list is empty; write for instance `[\"/usr/local/bin/check\"]`"
    )]
    NoProgram,
    /// Two that hear each other.
    #[error(
        "`{other}` has the number {vrid} on `{interface}` already; give each a `vrid` of its own"
    )]
    SameNumber {
        /// The other one.
        other: VipName,
        /// The number.
        vrid: NonZeroU8,
        /// The interface.
        interface: String,
    },
    /// Two that each believe to hold it.
    #[error("{address} is an address of `{other}` already; an address belongs to one")]
    SameAddress {
        /// The other one.
        other: VipName,
        /// The address.
        address: IpAddr,
    },
}

impl VipSpec {
    /// All that is wrong with it.
    pub fn check(&self) -> Vec<VipError> {
        let mut wrong = Vec::new();
        self.check_addresses(&mut wrong);
        let name = self.interface.as_str();
        let legal = |c: char| !c.is_whitespace() && c != '/' && c != '\0';
        if name.is_empty() || name.len() > INTERFACE_LEN_MAX || !name.chars().all(legal) {
            wrong.push(VipError::Interface(self.interface.clone()));
        }
        let ms = self.advert.as_millis();
        match self.version {
            VrrpVersion::V2 if !ms.is_multiple_of(1000) || !(1000..=255_000).contains(&ms) => {
                wrong.push(VipError::AdvertV2(self.advert));
            }
            VrrpVersion::V3 if !ms.is_multiple_of(10) || !(10..=40_950).contains(&ms) => {
                wrong.push(VipError::AdvertV3(self.advert));
            }
            VrrpVersion::V2 | VrrpVersion::V3 => {}
        }
        if self.peers.len() > PEERS_MAX {
            wrong.push(VipError::Peers(self.peers.len()));
        }
        let other = |peer: &&IpAddr| peer.is_ipv6() != self.is_ipv6();
        wrong.extend(
            self.peers
                .iter()
                .find(other)
                .map(|peer| VipError::PeerFamily(*peer)),
        );
        if self.hardware == Hardware::Virtual && !self.peers.is_empty() {
            wrong.push(VipError::VirtualMacOfPeers);
        }
        if self.track.len() > TRACKS_MAX {
            wrong.push(VipError::Tracks(self.track.len()));
        }
        let empty =
            |track: &TrackSpec| matches!(&track.what, Tracked::Exec(list) if list.is_empty());
        if self.track.iter().any(empty) {
            wrong.push(VipError::NoProgram);
        }
        wrong
    }

    fn check_addresses(&self, wrong: &mut Vec<VipError>) {
        if self.addresses.is_empty() || self.addresses.len() > ADDRESSES_MAX {
            wrong.push(VipError::Addresses(self.addresses.len()));
        }
        for (at, floating) in self.addresses.iter().enumerate() {
            let Floating {
                address,
                prefix_len,
            } = *floating;
            if address.is_ipv6() != self.is_ipv6() {
                wrong.push(VipError::Families(address));
            }
            if address.is_multicast() || address.is_unspecified() || address.is_loopback() {
                wrong.push(VipError::NoHost(address));
            }
            if prefix_len > if address.is_ipv4() { 32 } else { 128 } {
                wrong.push(VipError::Prefix(*floating));
            }
            if self.addresses[..at]
                .iter()
                .any(|one| one.address == address)
            {
                wrong.push(VipError::Twice(address));
            }
        }
        if self.version == VrrpVersion::V2 && self.is_ipv6() {
            wrong.push(VipError::VersionOfFamily);
        }
    }

    /// Of which family its addresses are.
    pub fn is_ipv6(&self) -> bool {
        self.addresses
            .first()
            .is_some_and(|one| one.address.is_ipv6())
    }
}

/// What is wrong with the last of `specs` beside those before it: two virtual routers with one number hear each
/// other, unless they are of different families.
pub fn check_together(specs: &[VipSpec]) -> Vec<VipError> {
    let Some((last, before)) = specs.split_last() else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    for other in before {
        let same_link = other.interface == last.interface && other.is_ipv6() == last.is_ipv6();
        if same_link && other.vrid == last.vrid {
            wrong.push(VipError::SameNumber {
                other: other.name.clone(),
                vrid: last.vrid,
                interface: last.interface.clone(),
            });
        }
        let held = |one: &&Floating| other.addresses.iter().any(|two| two.address == one.address);
        wrong.extend(
            last.addresses
                .iter()
                .find(held)
                .map(|one| VipError::SameAddress {
                    other: other.name.clone(),
                    address: one.address,
                }),
        );
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn spec(name: &str, vrid: u8, address: &str) -> VipSpec {
        let address: IpAddr = address.parse().unwrap();
        let prefix_len = if address.is_ipv4() { 32 } else { 128 };
        VipSpec {
            name: VipName::parse(name).unwrap(),
            interface: "eth0".to_string(),
            vrid: NonZeroU8::new(vrid).unwrap(),
            version: VrrpVersion::V3,
            addresses: vec![Floating {
                address,
                prefix_len,
            }],
            priority: NonZeroU8::new(PRIORITY).unwrap(),
            preempt: Preempt::Never,
            advert: ADVERT,
            peers: vec![],
            hardware: Hardware::Own,
            track: vec![TrackSpec::of(Tracked::Gateway)],
            on_dead: OnDead::YieldAtOnce,
            notify: vec![],
        }
    }

    #[test]
    fn what_cannot_be_said_or_held_is_told_with_its_remedy() {
        let wrong = |change: fn(&mut VipSpec)| {
            let mut spec = spec("entry", 51, "10.0.0.100");
            change(&mut spec);
            spec.check()
        };
        assert_eq!(wrong(|_| {}), []);
        assert_eq!(wrong(|s| s.addresses.clear()), [VipError::Addresses(0)]);
        assert_eq!(wrong(|s| s.addresses[0].prefix_len = 33).len(), 1);
        assert!(matches!(
            wrong(|s| s.interface = "a b".to_string())[..],
            [VipError::Interface(_)]
        ));
        // The default is what others round in silence.
        assert_eq!(
            wrong(|s| s.version = VrrpVersion::V2),
            [VipError::AdvertV2(ADVERT)]
        );
        assert!(matches!(
            wrong(|s| s.advert = Duration::from_millis(15))[..],
            [VipError::AdvertV3(_)]
        ));
        assert!(matches!(
            wrong(|s| s.addresses.push(Floating {
                address: "fd00::1".parse().unwrap(),
                prefix_len: 128
            }))[..],
            [VipError::Families(_)]
        ));
        assert!(matches!(
            wrong(|s| s.peers = vec!["fd00::1".parse().unwrap()])[..],
            [VipError::PeerFamily(_)]
        ));
        assert!(matches!(
            wrong(|s| s.addresses[0].address = "224.0.0.1".parse().unwrap())[..],
            [VipError::NoHost(_)]
        ));
        for error in wrong(|s| s.track = vec![TrackSpec::of(Tracked::Exec(vec![]))]) {
            assert!(error.to_string().contains("; "), "{error}");
        }
    }

    #[test]
    fn two_with_one_number_on_one_link_or_with_one_address_are_told() {
        let together = |a: VipSpec, b: VipSpec| check_together(&[a, b]);
        let one = || spec("one", 51, "10.0.0.100");
        assert_eq!(together(one(), spec("two", 52, "10.0.0.101")), []);
        assert!(matches!(
            together(one(), spec("two", 51, "10.0.0.101"))[..],
            [VipError::SameNumber { .. }]
        ));
        assert!(matches!(
            together(one(), spec("two", 52, "10.0.0.100"))[..],
            [VipError::SameAddress { .. }]
        ));
        // Other families have other groups and do not hear each other.
        assert_eq!(together(one(), spec("two", 51, "fd00::100")), []);
    }
}
