//! The constant part: sets, maps, chains and rules. What changes are elements alone.
//!
//! ```text
//! prerouting, output (nat)   first packet to ADDRESS:PORT ── services4 ──> goto random4-3
//! random4-3                  dnat to slots4[ADDRESS:PORT, random below 3]
//! postrouting (nat)          masquerade what leaves for another host
//! output, input, forward     what is translated ──> goto led4, at input counted4;
//!                            refuse what is still addressed to a service: no map translated it
//! forward                    drop what is nobody's, if the host forwards for us alone
//! led4                       reset what is under way to a dead instance, and as counted4
//! counted4                   count bytes per instance, without what only opens, acknowledges and closes
//! ```
//!
//! Each packet of a connection to a service passes once by a chain of these, and each chain that a hook
//! calls costs it some 0.1 us: so there are no more of them than hooks, and one look tells what is ours.
//!
//! A rule that concerns connections to service addresses alone knows them by the destination of
//! their first packet, so that nothing of anybody else is ever touched, other programs' translations
//! included.

use std::net::{IpAddr, SocketAddr};

use mainstay_control::forward::{Class, Draw};
use mainstay_kernel::netlink::nft::{
    Base, Chain, Comparison, ConntrackKey, Dynamic, Expression, Family, Fields, Hook, Kind,
    MetaKey, Name, Policy, Register, Rejection, Set, Transaction, Values, Verdict,
};
use mainstay_model::Network;

use super::{Counting, Settings};
use crate::router::Opened;

/// `IPPROTO_*`.
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The index of the loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;
/// `RTN_LOCAL`.
const LOCAL_ADDRESS: u32 = 2;
/// Where TCP has its flags, and the one that ends a connection at once (RFC 9293, 3.1).
const FLAGS_AT: u32 = 13;
const RESET: u8 = 0x04;
/// `IPS_DST_NAT`.
const DESTINATION_NAT: u32 = 0x20;
/// `IP_CT_DIR_*`.
const REPLY: u8 = 1;
/// Jenkins' hash of a client's address is changed by it; the same on every node, so that a client
/// comes to the same instance by each.
pub(crate) const SOURCE_SEED: u32 = 0x5eed_0001;
/// `IFNAMSIZ`.
const INTERFACE_KIND_LEN: usize = 16;
/// Priorities as `nft` names them: `dstnat`, `srcnat`, `filter`.
const DSTNAT: i32 = super::TRANSLATION_PRIORITY;
const SRCNAT: i32 = 100;
const FILTER: i32 = 0;
/// How many instances' traffic is counted. Beyond, packets of new ones pass uncounted.
const COUNTED_MAX: u32 = 65_536;
/// How long the counters of an instance that gets no packets stay.
const COUNTED_IDLE: std::time::Duration = std::time::Duration::from_hours(1);

/// A version of IP, with where it has what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ip {
    V4,
    V6,
}

impl Ip {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }

    fn family(self) -> Family {
        match self {
            Self::V4 => Family::Ipv4,
            Self::V6 => Family::Ipv6,
        }
    }

    /// `NFPROTO_*`.
    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// Where the length of a packet stands, and which of them has no room for more than headers of TCP with
    /// its usual options, and eight bytes.
    fn bare(self) -> (u32, u16) {
        match self {
            Self::V4 => (2, 60),
            // Of what is behind the header of IPv6.
            Self::V6 => (4, 40),
        }
    }

    fn icmp(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 58,
        }
    }

    pub(super) fn address_len(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    fn source_at(self) -> u32 {
        match self {
            Self::V4 => 12,
            Self::V6 => 8,
        }
    }

    fn destination_at(self) -> u32 {
        match self {
            Self::V4 => 16,
            Self::V6 => 24,
        }
    }

    fn place(self) -> Fields {
        match self {
            Self::V4 => Fields(&[Kind::Ipv4, Kind::Port]),
            Self::V6 => Fields(&[Kind::Ipv6, Kind::Port]),
        }
    }

    fn slot(self) -> Fields {
        match self {
            Self::V4 => Fields(&[Kind::Ipv4, Kind::Port, Kind::Number]),
            Self::V6 => Fields(&[Kind::Ipv6, Kind::Port, Kind::Number]),
        }
    }

    fn original_destination(self) -> ConntrackKey {
        match self {
            Self::V4 => ConntrackKey::OriginalIpv4Destination,
            Self::V6 => ConntrackKey::OriginalIpv6Destination,
        }
    }

    /// Behind an address that begins in the first register.
    fn behind_address(self) -> u32 {
        u32::try_from(self.address_len() / 4).unwrap_or(u32::MAX)
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("names here are constants, or consist of digits beside one")
}

/// Address and port -> the chain of its class.
pub(super) fn services(ip: Ip) -> Name {
    name(&format!("services{}", ip.digit()))
}

/// Address, port and slot -> an instance's address and port.
pub(super) fn slots(ip: Ip) -> Name {
    name(&format!("slots{}", ip.digit()))
}

/// The addresses and ports of dead instances.
pub(super) fn dead(ip: Ip) -> Name {
    name(&format!("dead{}", ip.digit()))
}

/// Bytes to instances.
pub(super) fn sent(ip: Ip) -> Name {
    name(&format!("sent{}", ip.digit()))
}

/// Bytes from instances.
pub(super) fn received(ip: Ip) -> Name {
    name(&format!("received{}", ip.digit()))
}

/// The chain in which it is decided how something is refused.
fn refusal(ip: Ip) -> Name {
    name(&format!("refuse{}", ip.digit()))
}

/// The chain of what is translated.
fn led(ip: Ip) -> Name {
    name(&format!("led{}", ip.digit()))
}

/// The chain in which bytes are counted, where nothing else is to be done.
fn counted(ip: Ip) -> Name {
    name(&format!("counted{}", ip.digit()))
}

/// The chain of a class.
pub(super) fn chain_of(ip: Ip, class: Class) -> Name {
    let draw = match class.draw() {
        Draw::Random => "random",
        Draw::Source => "source",
    };
    name(&format!("{draw}{}-{}", ip.digit(), class.slots()))
}

/// The class of a chain, by its name.
pub(super) fn class_of(ip: Ip, chain: &str) -> Option<Class> {
    Class::all().find(|class| chain_of(ip, *class).as_str() == chain)
}

/// Everything constant, into a table that is there and has none of it.
pub(super) fn write(into: &mut Transaction, settings: &Settings) {
    for set in sets(settings) {
        into.add_set(&set);
    }
    write_chains(into, settings);
}

/// Chains and rules alone. Chains that are there stay, and must be without rules.
pub(super) fn write_chains(into: &mut Transaction, settings: &Settings) {
    let chains = chains(settings);
    for (chain, _) in &chains {
        into.add_chain(chain);
    }
    for (chain, rules) in &chains {
        for rule in rules {
            into.add_rule(&chain.name, rule);
        }
    }
}

/// The names of all chains.
pub(super) fn chain_names(settings: &Settings) -> Vec<Name> {
    let chains = chains(settings).into_iter();
    chains.map(|(chain, _)| chain.name).collect()
}

fn sets(settings: &Settings) -> Vec<Set> {
    let mut sets = Vec::new();
    for ip in Ip::BOTH {
        let set = |name, key, values, counted| Set {
            name,
            key,
            values,
            counted,
            dynamic: None,
        };
        sets.push(set(services(ip), ip.place(), Values::Verdicts, true));
        sets.push(set(slots(ip), ip.slot(), Values::Fields(ip.place()), false));
        sets.push(set(dead(ip), ip.place(), Values::None, false));
        if settings.counting == Counting::On {
            let dynamic = Some(Dynamic {
                size: COUNTED_MAX,
                idle: COUNTED_IDLE,
            });
            for name in [sent(ip), received(ip)] {
                let set = set(name, ip.place(), Values::None, false);
                sets.push(Set { dynamic, ..set });
            }
        }
    }
    sets
}

type Rule = Vec<Expression>;

/// A chain has to stand in front of those that lead to it.
fn chains(settings: &Settings) -> Vec<(Chain, Vec<Rule>)> {
    let mut chains = Vec::new();
    for ip in Ip::BOTH {
        for class in Class::all() {
            let name = chain_of(ip, class);
            let chain = Chain { name, base: None };
            // A packet may have found the class and find its slot gone, by a change in between: the
            // first slot is there as long as the service is.
            let first = translate(ip, Class::SINGLE);
            chains.push((chain, vec![translate(ip, class), first]));
        }
    }
    let networks = settings.ranges.networks();
    chains.extend(Ip::BOTH.map(refusing));
    chains.extend(translating(networks));
    chains.extend(Ip::BOTH.map(|ip| leading(ip, settings.counting)));
    if settings.counting == Counting::On {
        chains.extend(Ip::BOTH.map(counting));
    }
    chains.extend(guarding(settings));
    chains
}

fn hooked(text: &str, hook: Hook, rules: Vec<Rule>) -> (Chain, Vec<Rule>) {
    let base = Some((hook, Policy::Accept));
    let name = name(text);
    (Chain { name, base }, rules)
}

fn translating(networks: &[Network]) -> [(Chain, Vec<Rule>); 3] {
    let find = || -> Vec<Rule> {
        let both = Ip::BOTH.into_iter();
        let find = both.flat_map(|ip| [find(ip, TCP), find(ip, UDP)]);
        let settle = networks.iter();
        let settle = settle.flat_map(|one| [settle_unserved(one, TCP), settle_unserved(one, UDP)]);
        find.chain(settle).collect()
    };
    let masquerade = networks.iter().flat_map(masquerade).collect();
    [
        hooked("prerouting", Hook::NatPrerouting(DSTNAT), find()),
        hooked("output", Hook::NatOutput(DSTNAT), find()),
        hooked("postrouting", Hook::NatPostrouting(SRCNAT), masquerade),
    ]
}

fn guarding(settings: &Settings) -> [(Chain, Vec<Rule>); 3] {
    let (networks, own) = (settings.ranges.networks(), &settings.own);
    let led = || networks.iter().map(|network| sort_out(network, &[], led));
    let spare = || own.iter().flat_map(spare);
    let refuse = |before: &[Expression]| -> Vec<Rule> {
        let rules = networks.iter().map(|network| refuse(network, before));
        rules.collect()
    };
    // TCP is refused before connection tracking keeps it: who connects again from the same port, when
    // somebody serves the address, would else be led by what was kept. Of others, a sender whose packet
    // is stopped as it leaves is told that it may not send, instead of that nobody is there: within the
    // host they are refused as they arrive.
    let connecting = refuse(&is_protocol(TCP));
    let leaving = refuse(&not_loopback(MetaKey::OutputInterface));
    let refused = connecting.into_iter().chain(leaving);
    let output = spare().chain(led()).chain(refused).collect();
    let limits = limit(networks, settings.opened);
    let forward = led().chain(refuse(&[])).chain(limits).collect();
    // What stays within the host was counted as it left.
    let arriving = not_loopback(MetaKey::InputInterface);
    let count = |network| sort_out(network, &arriving, counted);
    let count = match settings.counting {
        Counting::On => networks.iter().map(count).collect(),
        Counting::Off => Vec::new(),
    };
    let input = spare().chain(count).chain(refuse(&[])).collect();
    [
        hooked("guard-output", Hook::FilterOutput(FILTER), output),
        hooked("guard-forward", Hook::FilterForward(FILTER), forward),
        hooked("guard-input", Hook::FilterInput(FILTER), input),
    ]
}

/// Drops what the host would not forward but for us.
fn limit(networks: &[Network], opened: Opened) -> Vec<Rule> {
    let opened = [(Ip::V4, opened.ipv4), (Ip::V6, opened.ipv6)];
    let opened = opened.into_iter().filter(|(_, is_open)| *is_open);
    let opened: Vec<Ip> = opened.map(|(ip, _)| ip).collect();
    if opened.is_empty() {
        return Vec::new();
    }
    let accept = || Expression::Verdict(Verdict::Accept);
    let ours = networks
        .iter()
        .map(|network| [is_ours(network), vec![accept()]].concat());
    // With br_netfilter, what a bridge passes on between its own ports comes by here, and did so
    // before.
    let mut bridge = b"bridge".to_vec();
    bridge.resize(INTERFACE_KIND_LEN, 0);
    let is_bridge = |key| {
        let into = register(0);
        [
            Expression::Meta { key, into },
            compare(Comparison::Equal, &bridge),
        ]
    };
    let bridged = [
        &is_bridge(MetaKey::InputKind)[..],
        &is_bridge(MetaKey::OutputKind),
        &[accept()],
    ];
    let drop = |ip| [&is_ip(ip)[..], &[Expression::Verdict(Verdict::Drop)]].concat();
    ours.chain([bridged.concat()])
        .chain(opened.into_iter().map(drop))
        .collect()
}

fn register(index: u32) -> Register {
    Register::new(index)
}

/// Of what begins in the first register.
fn compare(how: Comparison, with: &[u8]) -> Expression {
    Expression::Compare {
        register: register(0),
        how,
        with: with.to_vec(),
    }
}

/// Nothing behind it is looked at: ranges do not overlap.
fn go_to(chain: Name) -> Expression {
    Expression::Verdict(Verdict::Goto(chain))
}

fn not_loopback(key: MetaKey) -> [Expression; 2] {
    let into = register(0);
    [
        Expression::Meta { key, into },
        compare(Comparison::NotEqual, &LOOPBACK.to_ne_bytes()),
    ]
}

fn is_ip(ip: Ip) -> [Expression; 2] {
    let key = MetaKey::NetworkProtocol;
    let into = register(0);
    [
        Expression::Meta { key, into },
        compare(Comparison::Equal, &[ip.number()]),
    ]
}

fn is_protocol(protocol: u8) -> [Expression; 2] {
    let key = MetaKey::TransportProtocol;
    let into = register(0);
    [
        Expression::Meta { key, into },
        compare(Comparison::Equal, &[protocol]),
    ]
}

/// Whether what begins in the first register lies in a network.
pub(super) fn lies_in(network: &Network) -> Vec<Expression> {
    let ip = Ip::of(network.address());
    let octets = octets(network.address());
    let len = u8::try_from(octets.len() * 8).unwrap_or(u8::MAX);
    let mut steps = Vec::new();
    if network.prefix() < len {
        let prefix = usize::from(network.prefix());
        let mask = (0..ip.address_len()).map(|index| {
            let bits = prefix.saturating_sub(index * 8).min(8);
            u8::try_from(0xFF00_u16 >> bits & 0xFF).unwrap_or(0)
        });
        steps.push(Expression::Mask {
            from: register(0),
            mask: mask.collect(),
            into: register(0),
        });
    }
    steps.push(compare(Comparison::Equal, &octets));
    steps
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn load(base: Base, offset: u32, len: usize, into: u32) -> Expression {
    Expression::Payload {
        base,
        offset,
        len: u32::try_from(len).unwrap_or(u32::MAX),
        into: register(into),
    }
}

/// Destination and its port, from the first register on.
fn destination(ip: Ip) -> [Expression; 2] {
    [
        load(Base::Network, ip.destination_at(), ip.address_len(), 0),
        load(Base::Transport, 2, 2, ip.behind_address()),
    ]
}

/// Source and its port.
fn source(ip: Ip) -> [Expression; 2] {
    [
        load(Base::Network, ip.source_at(), ip.address_len(), 0),
        load(Base::Transport, 0, 2, ip.behind_address()),
    ]
}

/// Whether the packet belongs to a connection to a service address. Connection tracking has no such
/// address for packets of the other version of IP.
fn is_ours(network: &Network) -> Vec<Expression> {
    let ip = Ip::of(network.address());
    let original = Expression::Conntrack {
        key: ip.original_destination(),
        into: register(0),
    };
    [&[original][..], &lies_in(network)].concat()
}

fn find(ip: Ip, protocol: u8) -> Rule {
    let look_up = Expression::VerdictMap {
        map: services(ip),
        key: register(0),
    };
    [
        &is_ip(ip)[..],
        &is_protocol(protocol),
        &destination(ip),
        &[look_up],
    ]
    .concat()
}

/// What no service has is translated to where it goes anyway: then it is decided, and no other program
/// sends it elsewhere, as Docker would with a port that it publishes on all addresses of this host.
fn settle_unserved(network: &Network, protocol: u8) -> Rule {
    let ip = Ip::of(network.address());
    let to = destination(ip);
    let same = Expression::DestinationNat {
        family: ip.family(),
        address: register(0),
        port: register(ip.behind_address()),
    };
    [
        &is_ip(ip)[..],
        &is_protocol(protocol),
        &to[..1],
        &lies_in(network),
        &to,
        &[same],
    ]
    .concat()
}

fn translate(ip: Ip, class: Class) -> Rule {
    let behind = ip.behind_address();
    let slot = register(behind + 1);
    let modulus = u32::from(class.slots());
    let client = register(behind + 2);
    let draw = match class.draw() {
        Draw::Random => vec![Expression::Random {
            modulus,
            into: slot,
        }],
        Draw::Source => vec![
            load(Base::Network, ip.source_at(), ip.address_len(), behind + 2),
            Expression::Hash {
                from: client,
                len: u32::try_from(ip.address_len()).unwrap_or(u32::MAX),
                modulus,
                seed: SOURCE_SEED,
                into: slot,
            },
        ],
    };
    let instance = Expression::Map {
        map: slots(ip),
        key: register(0),
        into: register(0),
    };
    let translate = Expression::DestinationNat {
        family: ip.family(),
        address: register(0),
        port: register(behind),
    };
    [&destination(ip)[..], &draw, &[instance, translate]].concat()
}

/// An instance on another host would answer a foreign client by itself, and finds no way back to a
/// client of this host that speaks from a service's address.
fn masquerade(network: &Network) -> [Rule; 2] {
    let ip = Ip::of(network.address());
    let [from, _] = source(ip);
    let leaves = not_loopback(MetaKey::OutputInterface);
    let is_foreign = [
        Expression::SourceAddressType { into: register(0) },
        compare(Comparison::NotEqual, &LOCAL_ADDRESS.to_ne_bytes()),
    ];
    let masquerade = [Expression::Masquerade];
    [
        [&leaves[..], &is_ours(network), &is_foreign, &masquerade].concat(),
        [
            &leaves[..],
            &is_ip(ip),
            &[from],
            &lies_in(network),
            &masquerade,
        ]
        .concat(),
    ]
}

/// What a map has translated goes to a chain of its own, and meets nothing behind this. Whether anybody
/// has is asked first, since most packets of a host are nobody's.
fn sort_out(network: &Network, before: &[Expression], to: fn(Ip) -> Name) -> Rule {
    let to = go_to(to(Ip::of(network.address())));
    [before, &is_translated(), &is_ours(network), &[to]].concat()
}

fn leading(ip: Ip, counting: Counting) -> (Chain, Vec<Rule>) {
    let is_dead = Expression::IsIn {
        set: dead(ip),
        key: register(0),
    };
    let reset = [
        &is_protocol(TCP)[..],
        &destination(ip),
        &[is_dead, Expression::Reject(Rejection::TcpReset)],
    ]
    .concat();
    let rules = match counting {
        // Answers are never to a dead instance.
        Counting::On => vec![
            [&is_reply()[..], &[go_to(counted(ip))]].concat(),
            reset,
            vec![go_to(counted(ip))],
        ],
        Counting::Off => vec![reset],
    };
    let (name, base) = (led(ip), None);
    (Chain { name, base }, rules)
}

/// Where this node itself listens, nobody is refused, nor is the answer: a client on this machine that
/// goes there has the very same address.
fn spare(own: &SocketAddr) -> [Rule; 2] {
    /// Where a transport header has its ports.
    const SOURCE_PORT: u32 = 0;
    const DESTINATION_PORT: u32 = 2;
    let ip = Ip::of(own.ip());
    let at = |address_at: u32, port_at: u32| {
        [
            &is_ip(ip)[..],
            &[
                load(Base::Network, address_at, ip.address_len(), 0),
                compare(Comparison::Equal, &octets(own.ip())),
                // Only TCP and UDP have a port there; what else has the same bytes is no harm.
                load(Base::Transport, port_at, 2, 0),
                compare(Comparison::Equal, &own.port().to_be_bytes()),
                Expression::Verdict(Verdict::Accept),
            ],
        ]
        .concat()
    };
    [
        at(ip.destination_at(), DESTINATION_PORT),
        at(ip.source_at(), SOURCE_PORT),
    ]
}

/// What no map translated must not reach a program of this host that listens on all addresses.
fn refuse(network: &Network, before: &[Expression]) -> Rule {
    let ip = Ip::of(network.address());
    let [to, _] = destination(ip);
    [
        before,
        &is_ip(ip),
        &[to],
        &lies_in(network),
        // A client's own address may be a service's: the answers to it are translated, too.
        &is_not_translated(),
        &[go_to(refusal(ip))],
    ]
    .concat()
}

fn refusing(ip: Ip) -> (Chain, Vec<Rule>) {
    let end = |protocol: u8, last| [&is_protocol(protocol)[..], &[last]].concat();
    let is_reset = [
        load(Base::Transport, FLAGS_AT, 1, 0),
        Expression::Mask {
            from: register(0),
            mask: vec![RESET],
            into: register(0),
        },
        compare(Comparison::NotEqual, &[0]),
    ];
    let accept = || Expression::Verdict(Verdict::Accept);
    let rules = vec![
        // Refusals themselves: a client's own address may be a service's.
        [&is_protocol(TCP)[..], &is_reset, &[accept()]].concat(),
        end(ip.icmp(), accept()),
        end(TCP, Expression::Reject(Rejection::TcpReset)),
        vec![Expression::Reject(Rejection::PortUnreachable)],
    ];
    let (name, base) = (refusal(ip), None);
    (Chain { name, base }, rules)
}

/// Nothing but TCP and UDP ever is.
fn is_translated() -> [Expression; 3] {
    translated(Comparison::NotEqual)
}

fn is_not_translated() -> [Expression; 3] {
    translated(Comparison::Equal)
}

/// `how` the bit compares with none.
fn translated(how: Comparison) -> [Expression; 3] {
    [
        Expression::Conntrack {
            key: ConntrackKey::Status,
            into: register(0),
        },
        Expression::Mask {
            from: register(0),
            mask: DESTINATION_NAT.to_ne_bytes().to_vec(),
            into: register(0),
        },
        compare(how, &[0; 4]),
    ]
}

fn is_reply() -> [Expression; 2] {
    [
        Expression::Conntrack {
            key: ConntrackKey::Direction,
            into: register(0),
        },
        compare(Comparison::Equal, &[REPLY]),
    ]
}

/// What has no room for more than headers of TCP is spared the look into a set: it would be half of what
/// counting costs a connection that is opened.
fn pass_bare(ip: Ip) -> Rule {
    let (at, at_most) = ip.bare();
    let accept = Expression::Verdict(Verdict::Accept);
    [
        &is_protocol(TCP)[..],
        &[
            load(Base::Network, at, 2, 0),
            compare(Comparison::AtMost, &at_most.to_be_bytes()),
            // Of what is longer than the field can say it says none.
            compare(Comparison::NotEqual, &[0; 2]),
            accept,
        ],
    ]
    .concat()
}

fn counting(ip: Ip) -> (Chain, Vec<Rule>) {
    let key = register(0);
    let count =
        |place: [Expression; 2], set| [&place[..], &[Expression::Count { set, key }]].concat();
    let accept = Expression::Verdict(Verdict::Accept);
    let answers = count(source(ip), received(ip));
    let rules = vec![
        pass_bare(ip),
        [&is_reply()[..], &answers, &[accept]].concat(),
        count(destination(ip), sent(ip)),
    ];
    let (name, base) = (counted(ip), None);
    (Chain { name, base }, rules)
}
