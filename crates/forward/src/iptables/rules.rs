//! Chains and rules.
//!
//! ```text
//! nat     PREROUTING, OUTPUT ──> MAINSTAY-SERVICES ──> MAINSTAY-TCP, MAINSTAY-UDP: a rule for each service
//!         MAINSTAY-7-TCP, MAINSTAY-7-UDP: a rule for each of its instances, which translates
//!         POSTROUTING ──> MAINSTAY-POSTROUTING: masquerade what leaves for another host
//! filter  OUTPUT ──> MAINSTAY-OUTPUT, FORWARD ──> MAINSTAY-FORWARD ──> MAINSTAY-DEAD: reset
//!         OUTPUT, FORWARD, INPUT ──> MAINSTAY-REFUSE: what no rule translated
//! ```
//!
//! They do what those of `nft` do, and know connections to services by the destination of their first
//! packet, too. A chain of others has one rule of ours: the jump into it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use mainstay_control::forward::{Slots, Spread, Staying};
use mainstay_model::Network;

use super::text::{canonical, probability};
use mainstay_model::forward::Ranges;

/// With what the names of all chains of ours begin.
pub(super) const PREFIX: &str = "MAINSTAY-";
/// By chance of the two hashes of a client's address: `-m cluster` takes 32 slots at most, so that two
/// of them make the 256 that a service has whose clients stay.
const OUTER_SLOTS: usize = 8;
const INNER_SLOTS: usize = 32;
const OUTER_SEED: u32 = 0x5eed_0001;
const INNER_SEED: u32 = 0x5eed_0002;

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ip {
    V4,
    V6,
}

impl Ip {
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// With what the names of its programs begin.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    fn icmp(self) -> &'static str {
        match self {
            Self::V4 => "icmp",
            Self::V6 => "ipv6-icmp",
        }
    }

    fn unreachable(self) -> &'static str {
        match self {
            Self::V4 => "icmp-port-unreachable",
            Self::V6 => "icmp6-port-unreachable",
        }
    }
}

/// What has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(super) const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The chain that knows the services.
    pub(super) fn chain(self) -> &'static str {
        match self {
            Self::Tcp => "MAINSTAY-TCP",
            Self::Udp => "MAINSTAY-UDP",
        }
    }
}

/// The chain that knows the dead.
pub(super) const DEAD: &str = "MAINSTAY-DEAD";

/// A service: the number in the names of its chains, and its rules, each without the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) number: u32,
    pub(super) rules: Vec<String>,
}

impl Service {
    pub(super) fn chain(&self, protocol: Protocol) -> String {
        chain_of(self.number, protocol)
    }
}

fn chain_of(number: u32, protocol: Protocol) -> String {
    let word = protocol.word().to_uppercase();
    format!("{PREFIX}{number}-{word}")
}

/// The number in the name of a service's chain.
pub(super) fn number_of(chain: &str, protocol: Protocol) -> Option<u32> {
    let rest = chain.strip_prefix(PREFIX)?;
    let number = rest.split_once('-')?.0.parse().ok()?;
    (chain_of(number, protocol) == chain).then_some(number)
}

/// Whether the order of rules is a part of what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Matters,
    /// Each stands for itself, and is changed alone, so that the others go on counting.
    Free,
}

/// What is to be in a table.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) chains: BTreeMap<String, (Order, Vec<String>)>,
    /// A chain of the kernel's, and the rule in it that leads into ours.
    pub(super) hooks: Vec<(&'static str, String)>,
}

impl Table {
    fn chain(&mut self, name: &str, order: Order, rules: Vec<String>) {
        let rules = rules.into_iter().map(|rule| canonical(&rule)).collect();
        self.chains.insert(name.to_owned(), (order, rules));
    }
}

/// The rules of instances, in the order in which they are tried: the i-th takes its share of what
/// those above it left, from the last i down to 1, which takes all. With equal weights that is 1/i.
pub(super) fn instance_rules(spread: &Spread) -> Vec<String> {
    match spread.staying {
        Staying::Free => chance(spread),
        Staying::Source => Slots::of(spread, None).map_or_else(Vec::new, |slots| stay(&slots)),
    }
}

fn chance(spread: &Spread) -> Vec<String> {
    let mut below = 0;
    let shares = spread.shares.iter().map(|share| {
        below += share.weight;
        #[expect(clippy::cast_precision_loss, reason = "the kernel has 31 bits")]
        let part = share.weight as f64 / below as f64;
        let part = probability(part);
        translate(
            &format!("-m statistic --mode random --probability {part}"),
            share.to,
        )
    });
    let mut rules: Vec<String> = shares.collect();
    rules.reverse();
    rules
}

pub(super) fn stay(slots: &Slots) -> Vec<String> {
    let mut rules = Vec::new();
    let cluster = |slots: usize, slot: usize, seed: u32| {
        format!(
            "-m cluster --cluster-total-nodes {slots} --cluster-local-node {} --cluster-hash-seed {seed}",
            slot + 1
        )
    };
    for (slot, owner) in slots.owners().iter().enumerate() {
        let outer = cluster(OUTER_SLOTS, slot / INNER_SLOTS % OUTER_SLOTS, OUTER_SEED);
        let inner = cluster(INNER_SLOTS, slot % INNER_SLOTS, INNER_SEED);
        rules.push(translate(&format!("{outer} {inner}"), *owner));
    }
    rules
}

fn translate(when: &str, to: SocketAddr) -> String {
    canonical(&format!("{when} -j DNAT --to-destination {to}"))
}

/// The rule by which a service is found.
pub(super) fn service_rule(address: SocketAddr, protocol: Protocol, chain: &str) -> String {
    format!("{} -j {chain}", is_to(address, protocol))
}

/// The rule by which what is under way to a dead instance is reset.
pub(super) fn dead_rule(address: SocketAddr) -> String {
    format!(
        "{} -j REJECT --reject-with tcp-reset",
        is_to(address, Protocol::Tcp)
    )
}

fn is_to(address: SocketAddr, protocol: Protocol) -> String {
    let (ip, port, word) = (address.ip(), address.port(), protocol.word());
    format!("-d {ip} -p {word} -m {word} --dport {port}")
}

/// The table `nat`.
pub(super) fn nat<'a>(
    ip: Ip,
    ranges: &Ranges,
    services: impl Iterator<Item = (&'a SocketAddr, &'a Service)>,
) -> Table {
    let mut table = Table::default();
    let mut find = [Vec::new(), Vec::new()];
    for (address, service) in services {
        for (protocol, find) in Protocol::BOTH.into_iter().zip(&mut find) {
            let chain = service.chain(protocol);
            find.push(service_rule(*address, protocol, &chain));
            let rules = service.rules.iter();
            let rules = rules.map(|rule| format!("-p {} {rule}", protocol.word()));
            table.chain(&chain, Order::Matters, rules.collect());
        }
    }
    for (protocol, find) in Protocol::BOTH.into_iter().zip(find) {
        table.chain(protocol.chain(), Order::Free, find);
    }
    let networks = || of_ip(ip, ranges);
    let split = networks().flat_map(|network| {
        Protocol::BOTH.map(|one| format!("-d {network} -p {} -j {}", one.word(), one.chain()))
    });
    table.chain("MAINSTAY-SERVICES", Order::Matters, split.collect());
    let masquerade = networks()
        .map(|network| format!("! -o lo -m conntrack --ctorigdst {network} -j MASQUERADE"));
    table.chain("MAINSTAY-POSTROUTING", Order::Matters, masquerade.collect());
    table.hooks = vec![
        ("PREROUTING", "-j MAINSTAY-SERVICES".to_owned()),
        ("OUTPUT", "-j MAINSTAY-SERVICES".to_owned()),
        ("POSTROUTING", "-j MAINSTAY-POSTROUTING".to_owned()),
    ];
    table
}

/// The table `filter`.
pub(super) fn filter<'a>(
    ip: Ip,
    ranges: &Ranges,
    own: &[SocketAddr],
    dead: impl Iterator<Item = &'a SocketAddr>,
) -> Table {
    let mut table = Table::default();
    let networks = || of_ip(ip, ranges);
    table.chain(DEAD, Order::Free, dead.copied().map(dead_rule).collect());
    let own = own.iter().filter(|own| Ip::of(own.ip()) == ip);
    let refuse = networks().flat_map(|network| refuse(ip, network));
    let refuse = own.flat_map(spare).chain(refuse).collect();
    table.chain("MAINSTAY-REFUSE", Order::Matters, refuse);
    let reset = || -> Vec<String> {
        let rules = networks()
            .map(|network| format!("-p tcp -m conntrack --ctorigdst {network} -j {DEAD}"));
        rules.collect()
    };
    let with = |last: &str| [reset(), vec![last.to_owned()]].concat();
    // Within the host it is refused as it arrives: a sender whose packet is stopped as it leaves is
    // told that it may not send, instead of that nobody is there.
    let output = with("! -o lo -j MAINSTAY-REFUSE");
    table.chain("MAINSTAY-OUTPUT", Order::Matters, output);
    table.chain(
        "MAINSTAY-FORWARD",
        Order::Matters,
        with("-j MAINSTAY-REFUSE"),
    );
    table.hooks = vec![
        ("INPUT", "-j MAINSTAY-REFUSE".to_owned()),
        ("OUTPUT", "-j MAINSTAY-OUTPUT".to_owned()),
        ("FORWARD", "-j MAINSTAY-FORWARD".to_owned()),
    ];
    table
}

/// Where this node itself listens, nobody is refused, nor is the answer: a client on this machine that
/// goes there has the very same address.
fn spare(own: &SocketAddr) -> [String; 4] {
    let (ip, port) = (own.ip(), own.port());
    let answer = |word: &str| format!("-s {ip} -p {word} -m {word} --sport {port} -j RETURN");
    [
        format!("{} -j RETURN", is_to(*own, Protocol::Tcp)),
        format!("{} -j RETURN", is_to(*own, Protocol::Udp)),
        answer("tcp"),
        answer("udp"),
    ]
}

/// What no rule translated must not reach a program of this host that listens on all addresses.
/// Refusals themselves pass, and answers to clients whose own address is a service's.
fn refuse(ip: Ip, network: &Network) -> [String; 4] {
    let untouched = "-m conntrack ! --ctstate DNAT";
    [
        format!("-d {network} -p tcp -m tcp --tcp-flags RST RST -j RETURN"),
        format!("-d {network} -p {} -j RETURN", ip.icmp()),
        format!("-d {network} -p tcp {untouched} -j REJECT --reject-with tcp-reset"),
        format!(
            "-d {network} {untouched} -j REJECT --reject-with {}",
            ip.unreachable()
        ),
    ]
}

fn of_ip(ip: Ip, ranges: &Ranges) -> impl Iterator<Item = &Network> {
    let networks = ranges.networks().iter();
    networks.filter(move |network| Ip::of(network.address()) == ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_control::forward::Share;

    fn spread(staying: Staying, weights: &[u64]) -> Spread {
        let shares = weights.iter().zip(100_u8..);
        let shares = shares.map(|(weight, last)| Share {
            to: SocketAddr::from(([192, 168, 10, last], 80)),
            weight: *weight,
        });
        Spread {
            staying,
            shares: shares.collect(),
        }
    }

    #[test]
    fn the_published_example_has_its_published_form() {
        assert_eq!(
            instance_rules(&spread(Staying::Free, &[1, 1, 1])),
            [
                "-m statistic --mode random --probability 0.33333333349 -j DNAT --to-destination 192.168.10.102:80",
                "-m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 192.168.10.101:80",
                "-m statistic --mode random --probability 1.00000000000 -j DNAT --to-destination 192.168.10.100:80",
            ]
        );
    }

    #[test]
    fn weights_are_shares_of_what_is_left() {
        let rules = instance_rules(&spread(Staying::Free, &[70, 25, 5]));
        let parts = ["0.0499999", "0.2631578", "1.00000"];
        for (rule, part) in rules.iter().zip(parts) {
            assert!(rule.contains(&format!("--probability {part}")), "{rule}");
        }
        assert_eq!(instance_rules(&spread(Staying::Free, &[])), [""; 0]);
    }

    #[test]
    fn who_stays_is_found_by_the_hash_of_its_address() {
        let rules = instance_rules(&spread(Staying::Source, &[1, 1]));
        assert_eq!(rules.len(), OUTER_SLOTS * INNER_SLOTS);
        let different: std::collections::BTreeSet<&String> = rules.iter().collect();
        assert_eq!(different.len(), rules.len());
    }

    #[test]
    fn a_chain_says_whose_it_is() {
        assert_eq!(number_of("MAINSTAY-17-UDP", Protocol::Udp), Some(17));
        for other in [
            "MAINSTAY-17-TCP",
            "MAINSTAY-UDP",
            "MAINSTAY-x-UDP",
            "MAINSTAY-017-UDP",
        ] {
            assert_eq!(number_of(other, Protocol::Udp), None, "{other}");
        }
    }
}
