//! What of the host stands in the way of forwarding, or soon will: whether it forwards at all, what
//! drops packets that it would forward, how full the table of connections is.
//!
//! [`survey`] looks, [`Survey::concerns`] says what of it is wrong, and what to do. Looking costs some
//! ten milliseconds, since programs of iptables are started: it is for once in a while.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use mainstay_kernel::netlink::conntrack::Fill;
use mainstay_kernel::netlink::nft::{Hooked, Policy};
use mainstay_kernel::netlink::route::{Leads, Routes};
use mainstay_kernel::netlink::{Prefix, Socket};

use crate::reading::percent;
use crate::xtables;

#[cfg(test)]
mod tests;

/// From here on the table of connections is a concern: in a burst of new connections the rest is gone
/// within seconds, and then the kernel drops what would begin one.
pub const FILL_ALARM_PERCENT: u64 = 80;
/// `NF_INET_FORWARD`.
const FORWARD_HOOK: u32 = 2;
/// `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// Of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The setting that has the host forward.
    pub fn forwarding(self) -> &'static str {
        match self {
            Self::V4 => "net.ipv4.ip_forward",
            Self::V6 => "net.ipv6.conf.all.forwarding",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A setting of the kernel, of this thread's network namespace, as sysctl(8) names it; `None` if there
/// is none of this name.
pub fn setting(name: &str) -> Option<String> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

/// What drops packets that the host would forward, unless a rule accepts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dropping {
    /// The chain `FORWARD` of iptables, as Docker leaves it.
    Iptables {
        /// The program that shows it, as `iptables-nft`.
        program: String,
        /// The chain for rules of others.
        chain: &'static str,
        /// Of which version of IP.
        version: Version,
    },
    /// A chain of nf_tables, as firewalls have it. Whether a rule of it accepts ours is not looked for.
    Nft {
        /// Its table, with the family in front.
        table: String,
        /// The chain.
        chain: String,
    },
}

impl fmt::Display for Dropping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iptables { program, .. } => write!(f, "the chain FORWARD of {program}"),
            Self::Nft { table, chain } => write!(f, "the chain `{chain}` of table `{table}`"),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Ranges of service addresses that were asked for.
    ranges: Vec<Prefix>,
    /// Whether the host forwards IPv4, and IPv6.
    pub forwards: [bool; 2],
    /// The table of connections; `None`: nothing is tracked, or it cannot be known.
    pub tracked: Option<Fill>,
    /// What drops what would be forwarded, and has no rule that lets connections to service addresses
    /// pass.
    pub dropping: Vec<Dropping>,
    /// Of the instances that were asked for, those on other hosts or in containers, and those on
    /// 127.0.0.0/8.
    elsewhere: Vec<IpAddr>,
    on_loopback: bool,
    route_localnet: bool,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concern {
    /// Of which kind.
    pub kind: ConcernKind,
    /// What is so, and what follows from it.
    pub what: String,
    /// What to do about it, as a command if there is one.
    pub remedy: String,
}

/// Kinds of concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConcernKind {
    /// The host does not forward.
    NotForwarding,
    /// It forwards, and something drops that.
    ForwardDropped,
    /// Instances on 127.0.0.0/8 cannot be reached from elsewhere.
    LoopbackUnreachable,
    /// The table of connections is nearly full.
    TableFilling,
    /// Another host on the network has a service's address. Told by whoever asks the network.
    AddressInUse,
}

impl ConcernKind {
    /// All that there are.
    pub const ALL: [Self; 5] = [
        Self::NotForwarding,
        Self::ForwardDropped,
        Self::LoopbackUnreachable,
        Self::TableFilling,
        Self::AddressInUse,
    ];

    /// As a word, for metrics and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotForwarding => "not-forwarding",
            Self::ForwardDropped => "forward-dropped",
            Self::LoopbackUnreachable => "loopback-unreachable",
            Self::TableFilling => "table-filling",
            Self::AddressInUse => "address-in-use",
        }
    }
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Looks at this thread's network namespace, for services of these ranges with these instances. What
/// cannot be seen is left out: nothing here fails.
pub fn survey(ranges: &[Prefix], instances: &[IpAddr]) -> Survey {
    let on = |name: &str| setting(name).is_some_and(|value| value != "0");
    let on_loopback = |address: &IpAddr| matches!(address, IpAddr::V4(v4) if v4.is_loopback());
    Survey {
        ranges: ranges.to_vec(),
        forwards: [Version::V4, Version::V6].map(|version| on(version.forwarding())),
        tracked: Fill::read().ok(),
        dropping: dropping(ranges),
        elsewhere: elsewhere(instances),
        on_loopback: instances.iter().any(on_loopback),
        route_localnet: any_interface("route_localnet"),
    }
}

/// Whether the setting of IPv4 is on for any interface.
fn any_interface(name: &str) -> bool {
    let interfaces = std::fs::read_dir("/proc/sys/net/ipv4/conf");
    let mut interfaces = interfaces.into_iter().flatten().flatten();
    interfaces.any(|interface| {
        let value = std::fs::read_to_string(interface.path().join(name));
        value.is_ok_and(|value| value.trim() != "0")
    })
}

fn elsewhere(instances: &[IpAddr]) -> Vec<IpAddr> {
    let Ok(routes) = Routes::open() else {
        return Vec::new();
    };
    let is_on = |address: &&IpAddr| {
        let way = routes.way(**address, None).ok().flatten();
        way.is_some_and(|way| way.leads == Leads::On)
    };
    instances.iter().filter(is_on).copied().collect()
}

fn dropping(ranges: &[Prefix]) -> Vec<Dropping> {
    let mut found = Vec::new();
    let of = |version: Version| -> Vec<Prefix> {
        let same = |range: &&Prefix| Version::of(range.address()) == version;
        ranges.iter().filter(same).copied().collect()
    };
    for variant in xtables::variants() {
        let version = if variant.ipv6 {
            Version::V6
        } else {
            Version::V4
        };
        let ranges = of(version);
        let saved = variant.save(Some("filter")).ok();
        let forwarding = saved.and_then(|saved| xtables::forwarding(&saved.text, &ranges));
        if let Some(found_there) = forwarding
            && !ranges.is_empty()
            && found_there.drops
            && !found_there.passes_ours
        {
            found.push(Dropping::Iptables {
                program: variant.name,
                chain: if found_there.has_docker_chain {
                    "DOCKER-USER"
                } else {
                    "FORWARD"
                },
                version,
            });
        }
    }
    let chains = Socket::open().and_then(|socket| socket.hooked_chains());
    let chains = chains.unwrap_or_default();
    let is_asked = |chain: &&Hooked| match chain.family {
        INET => true,
        IPV4 => !of(Version::V4).is_empty(),
        IPV6 => !of(Version::V6).is_empty(),
        _ => false,
    };
    let others = chains.iter().filter(is_asked).filter(|chain| {
        // Those of iptables were seen through its program, with their rules.
        let is_iptables = (chain.table.as_str(), chain.chain.as_str()) == ("filter", "FORWARD");
        let drops = chain.hook == FORWARD_HOOK && chain.policy == Policy::Drop;
        drops && !(is_iptables && chain.family != INET)
    });
    found.extend(others.map(|chain| Dropping::Nft {
        table: format!("{} {}", family_word(chain.family), chain.table),
        chain: chain.chain.clone(),
    }));
    found
}

/// As `nft` writes a family (`NFPROTO_*`).
pub(crate) fn family_word(family: u8) -> &'static str {
    match family {
        INET => "inet",
        IPV4 => "ip",
        IPV6 => "ip6",
        _ => "of another family",
    }
}

impl Survey {
    /// Whether the host forwards a version of IP.
    pub fn forwards(&self, version: Version) -> bool {
        match version {
            Version::V4 => self.forwards[0],
            Version::V6 => self.forwards[1],
        }
    }

    /// Whether packets that came by an interface may go to 127.0.0.0/8.
    pub fn takes_loopback(&self) -> bool {
        self.route_localnet
    }

    /// For which versions of IP the host would have to forward, and does not.
    pub fn unforwarded(&self) -> Vec<Version> {
        let both = [Version::V4, Version::V6].into_iter();
        both.filter(|version| self.leads_on(*version) && !self.forwards(*version))
            .collect()
    }

    /// All that is wrong, the worst first.
    pub fn concerns(&self) -> Vec<Concern> {
        let mut found = Vec::new();
        found.extend(self.filling());
        found.extend(self.unforwarded().into_iter().map(not_forwarding));
        let dropping = self.dropping.iter();
        found.extend(dropping.filter_map(|dropping| self.dropped(dropping)));
        if self.on_loopback && !self.route_localnet {
            found.push(loopback_unreachable());
        }
        found
    }

    fn leads_on(&self, version: Version) -> bool {
        let mut elsewhere = self.elsewhere.iter();
        elsewhere.any(|address| Version::of(*address) == version)
    }

    /// The table of connections, from 80 % on.
    pub fn filling(&self) -> Option<Concern> {
        let Fill {
            entries,
            entries_max,
        } = self.tracked?;
        let share = entries.saturating_mul(100).checked_div(entries_max)?;
        (share >= FILL_ALARM_PERCENT).then(|| Concern {
            kind: ConcernKind::TableFilling,
            what: format!(
                "the table of connections holds {entries} of {entries_max} ({}): when it is full, the \
                 kernel drops what would begin a connection, to everybody",
                percent(entries, entries_max)
            ),
            remedy: format!(
                "give it more room: sysctl -w net.netfilter.nf_conntrack_max={}",
                entries_max.saturating_mul(2)
            ),
        })
    }

    /// What one of [`Self::dropping`] does to connections that the host forwards to instances.
    pub fn dropped(&self, by: &Dropping) -> Option<Concern> {
        let (applies, command) = match by {
            Dropping::Iptables {
                program,
                chain,
                version,
            } => {
                let ranges = self.ranges.iter();
                let ranges = ranges.filter(|range| Version::of(range.address()) == *version);
                let command = |range: &Prefix| {
                    format!("{program} -I {chain} -m conntrack --ctorigdst {range} -j ACCEPT")
                };
                let commands: Vec<String> = ranges.map(command).collect();
                (self.leads_on(*version), commands.join("; "))
            }
            Dropping::Nft { table, chain } => {
                let command = |range: &Prefix| {
                    let ip = match Version::of(range.address()) {
                        Version::V4 => "ip",
                        Version::V6 => "ip6",
                    };
                    format!("nft insert rule {table} {chain} ct original {ip} daddr {range} accept")
                };
                let commands: Vec<String> = self.ranges.iter().map(command).collect();
                (!self.elsewhere.is_empty(), commands.join("; "))
            }
        };
        let whose = match by {
            Dropping::Iptables { chain, .. } if *chain == "DOCKER-USER" => " (Docker sets it so)",
            Dropping::Iptables { .. } | Dropping::Nft { .. } => "",
        };
        applies.then(|| Concern {
            kind: ConcernKind::ForwardDropped,
            what: format!(
                "{by} drops what no rule of it accepts{whose}: containers and other hosts do not reach \
                 instances on other hosts through this one, and their connections time out"
            ),
            remedy: format!("let connections to service addresses pass: {command}"),
        })
    }
}

pub(crate) fn not_forwarding(version: Version) -> Concern {
    let name = version.forwarding();
    Concern {
        kind: ConcernKind::NotForwarding,
        what: format!(
            "this host does not forward {version} ({name} is 0): containers and other hosts do not reach \
             instances on other hosts through this one; programs of this host do. By the back end nft the \
             agent switches it on itself, for service addresses alone, unless `ip_forward = false` in \
             `[forward]` forbids it, or somebody switched it off again"
        ),
        remedy: format!("switch it on: sysctl -w {name}=1"),
    }
}

pub(crate) fn loopback_unreachable() -> Concern {
    Concern {
        kind: ConcernKind::LoopbackUnreachable,
        what: "instances listen on 127.0.0.0/8, and the kernel takes no packets to there that came by an \
               interface (route_localnet is 0): programs of this host reach them, containers and other \
               hosts time out"
            .to_owned(),
        remedy: "have the instances listen on an address of this host; or, if everybody on the network \
                 may reach whatever listens on 127.0.0.0/8, sysctl -w net.ipv4.conf.all.route_localnet=1"
            .to_owned(),
    }
}
