//! What an explanation is made of, gathered from the kernel.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mainstay_kernel::netlink::diag::{End, Sockets, State};
use mainstay_kernel::netlink::nft::Name;
use mainstay_kernel::netlink::route::{Routes, Way};
use mainstay_kernel::netlink::{Prefix, Socket};

use crate::back_end::ForwardError;
use crate::host::{self, Survey, Version};
use crate::reading::Reading;
use crate::router::Opened;
use crate::{iptables, nft};

/// `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_OUT`.
const PREROUTING_HOOK: u32 = 0;
const OUTPUT_HOOK: u32 = 3;

/// A connection that somebody might make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// To which address.
    pub to: IpAddr,
    /// To which port; `None`: to whichever has a service.
    pub port: Option<u16>,
    /// By a client of this address; `None`: by a program of this network namespace.
    pub from: Option<IpAddr>,
}

/// The answer to whether the rules could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rules {
    /// So they are.
    Read(Reading),
    /// There are none.
    None,
    /// In words: why not.
    Unreadable(String),
}

impl Rules {
    /// Reads them in this thread's network namespace.
    pub fn read(table: &Name) -> Self {
        let of_nft = match nft::read(table) {
            Ok(Some(reading)) => return Self::Read(reading),
            Ok(None) => Self::None,
            Err(error) => Self::unreadable(&error),
        };
        let ranges = Routes::open().and_then(|routes| routes.locals());
        let ranges = ranges.unwrap_or_default();
        let ranges: Vec<Prefix> = ranges.iter().map(|route| route.prefix).collect();
        match (of_nft, iptables::read(&ranges)) {
            (_, Ok(Some(reading))) => Self::Read(reading),
            (Self::None, Err(error)) => Self::unreadable(&error),
            (of_nft, Ok(None) | Err(_)) => of_nft,
        }
    }

    fn unreadable(error: &ForwardError) -> Self {
        if let ForwardError::Forbidden { .. } = error {
            return Self::Unreadable(error.to_string());
        }
        let source = std::error::Error::source(error).map(ToString::to_string);
        Self::Unreadable(format!("{error}: {}", source.unwrap_or_default()))
    }

    /// What they are, if they could be read.
    pub fn reading(&self) -> Option<&Reading> {
        match self {
            Self::Read(reading) => Some(reading),
            Self::None | Self::Unreadable(_) => None,
        }
    }
}

/// All that bears on a connection.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What was asked.
    pub question: Question,
    /// The route to the address.
    pub way: Option<Way>,
    /// Ranges that Mainstay made the machine's own.
    pub ranges: Vec<Prefix>,
    /// Our rules.
    pub rules: Rules,
    /// The name of our table.
    pub table: String,
    /// Programs that listen at the port on all addresses, on this one, or on an instance's.
    pub listeners: Vec<SocketAddr>,
    /// The route to each instance of the service, by the instance's address.
    pub ways: BTreeMap<IpAddr, Option<Way>>,
    /// The route back to the client.
    pub client_way: Option<Way>,
    /// The rp_filter of each interface of IPv4: the greater of its own and that of all.
    pub reverse_path: BTreeMap<String, u8>,
    /// What of the host stands in the way.
    pub survey: Survey,
    /// For which versions of IP it was Mainstay who had the host forward.
    pub opened: Opened,
    /// Chains of others that may translate first connections before ours: in words.
    pub earlier: Vec<String>,
    /// Bridges pass what they carry by the rules of IP, too.
    pub bridges_filtered: bool,
}

/// Gathers what this thread's network namespace has. `opened` is what the state directory says of it
/// ([`crate::router::opened`]).
pub fn gather(question: Question, table: &Name, opened: Opened) -> io::Result<Facts> {
    let routes = Routes::open()?;
    let way = |to| routes.way(to, None);
    let rules = Rules::read(table);
    let ranges: Vec<Prefix> = routes.locals()?.iter().map(|route| route.prefix).collect();
    let mut ways = BTreeMap::new();
    for instance in instances(&rules, question) {
        ways.insert(instance.ip(), way(instance.ip())?);
    }
    let addresses: Vec<IpAddr> = ways.keys().copied().collect();
    let own = ranges.iter().filter(|range| range.contains(question.to));
    let mut own: Vec<Prefix> = own.copied().collect();
    if own.is_empty() {
        // It is the machine's own without us, as addresses of loopback are.
        own.push(Prefix::of(question.to));
    }
    Ok(Facts {
        question,
        way: way(question.to)?,
        listeners: listeners(question.port)?,
        client_way: question.from.map(way).transpose()?.flatten(),
        reverse_path: reverse_path(),
        survey: host::survey(&own, &addresses),
        earlier: earlier(table, Version::of(question.to)),
        bridges_filtered: is_filtered_by_bridges(question.to),
        table: format!("inet {table}"),
        ranges,
        rules,
        ways,
        opened,
    })
}

/// All that may get a connection of the question.
fn instances(rules: &Rules, question: Question) -> Vec<SocketAddr> {
    let services = rules.reading().map_or(&[][..], |reading| &reading.services);
    let is_asked = |address: SocketAddr| {
        address.ip() == question.to && question.port.is_none_or(|port| port == address.port())
    };
    let services = services.iter().filter(|service| is_asked(service.address));
    let counts = services.flat_map(super::ServiceReading::counts);
    counts.map(|(instance, _)| instance).collect()
}

fn listeners(port: Option<u16>) -> io::Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    let Some(port) = port else {
        return Ok(found);
    };
    let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listening = [State::Listening];
    Sockets::open()?.each(&[End::Local(anywhere)], &listening, |_, socket| {
        found.push(socket.local);
    })?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn reverse_path() -> BTreeMap<String, u8> {
    let value = |name: &str| -> u8 {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    let all = value("all");
    let interfaces = std::fs::read_dir("/proc/sys/net/ipv4/conf");
    let names = interfaces.into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let names = names.filter(|name| !["all", "default", "lo"].contains(&name.as_str()));
    names
        .map(|name| (name.clone(), value(&name).max(all)))
        .collect()
}

fn earlier(table: &Name, version: Version) -> Vec<String> {
    let chains = Socket::open().and_then(|socket| socket.hooked_chains());
    let chains = chains.unwrap_or_default();
    let family = match version {
        Version::V4 => "ip",
        Version::V6 => "ip6",
    };
    let others = chains.iter().filter(|chain| {
        let of = host::family_word(chain.family);
        let translates =
            chain.kind == "nat" && [PREROUTING_HOOK, OUTPUT_HOOK].contains(&chain.hook);
        let is_first = chain.priority <= nft::TRANSLATION_PRIORITY;
        let is_ours = chain.table == table.as_str();
        translates && is_first && !is_ours && [family, "inet"].contains(&of)
    });
    let named = others.map(|chain| {
        format!(
            "`{}` of table `{} {}` (priority {})",
            chain.chain,
            host::family_word(chain.family),
            chain.table,
            chain.priority
        )
    });
    named.collect()
}

fn is_filtered_by_bridges(to: IpAddr) -> bool {
    let name = match Version::of(to) {
        Version::V4 => "net.bridge.bridge-nf-call-iptables",
        Version::V6 => "net.bridge.bridge-nf-call-ip6tables",
    };
    host::setting(name).is_some_and(|value| value != "0")
}
