//! Explanations of what real programs find, and rules as real programs load them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use mainstay_control::forward::{Batch, Share, Spread, Staying};
use mainstay_kernel::netlink::nft::Name;
use mainstay_testkit::{Netns, is_root, program, skip};

use super::*;
use crate::BackEnd as _;
use crate::nft::TABLE;
use crate::nft::tests::{
    address, answer, connect, even, instances, is_refused, node, run, serve, shares, start,
    three_hosts,
};
use crate::router::Opened;
use crate::tests::{Kind, ranges};
use crate::xtables::range_of;

const NEEDS_ROOT: &str = "needs root: makes network namespaces and rules in them";

fn asked(netns: &Netns, to: &str, from: Option<&str>) -> Explanation {
    let (to, port) = match to.parse::<SocketAddr>() {
        Ok(address) => (address.ip(), Some(address.port())),
        Err(_) => (to.parse().unwrap(), None),
    };
    let from = from.map(|from| from.parse().unwrap());
    let question = Question { to, port, from };
    let table = Name::new(TABLE).unwrap();
    netns.enter(|| explain(&gather(question, &table, Opened::default()).unwrap()))
}

/// As people read it.
fn told(explanation: &Explanation) -> String {
    let steps = explanation.steps.iter().map(|step| {
        let remedy = step.remedy.as_ref().map(|remedy| format!(" [{remedy}]"));
        format!(
            "{:?}: {}{}",
            step.effect,
            step.what,
            remedy.unwrap_or_default()
        )
    });
    steps.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn tells(explanation: &Explanation, verdict: Effect, words: &[&str]) {
    let told = told(explanation);
    assert_eq!(explanation.verdict, verdict, "{told}");
    for words in words {
        assert!(told.contains(words), "`{words}` in\n{told}");
    }
}

/// Does what a step advises.
fn obey(netns: &Netns, explanation: &Explanation, effect: Effect) {
    let mut steps = explanation.steps.iter();
    let step = steps
        .find(|step| step.effect == effect)
        .expect("there is one");
    let remedy = step.remedy.as_ref().expect("it has a remedy");
    let (_, command) = remedy.split_once(": ").expect("with a command");
    let mut sh = netns.command(&program("sh"));
    assert!(sh.args(["-c", command]).status().unwrap().success());
}

#[test]
fn system_each_step_of_a_connection_is_told_as_the_kernel_has_it() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = Netns::new();
    tells(
        &asked(&node, "10.96.0.1:8080", None),
        Effect::Diverted,
        &["no route leads to 10.96.0.1"],
    );
    let range = range_of("10.96.0.0/16").unwrap();
    node.enter(|| {
        let source = None;
        let prefix = range;
        let routes = mainstay_kernel::netlink::route::Routes::open().unwrap();
        let route = mainstay_kernel::netlink::route::LocalRoute { prefix, source };
        routes.add_local(&route).unwrap();
    });
    tells(
        &asked(&node, "10.96.0.1:8080", None),
        Effect::Diverted,
        &["there is no table `inet mainstay`", "would answer"],
    );
    let mut nft = start(&node);
    let own = instances(&node, &["127.0.0.1:9001", "127.0.0.1:9002"]);
    let weighed = Spread {
        staying: Staying::Free,
        shares: vec![
            Share {
                to: own[0],
                weight: 3,
            },
            Share {
                to: own[1],
                weight: 1,
            },
        ],
    };
    nft.apply(&serve("10.96.0.1:8080", weighed)).unwrap();
    connect(&node, "10.96.0.1:8080").unwrap();
    let goes = asked(&node, "10.96.0.1:8080", None);
    assert_eq!(
        told(&goes),
        "Passes: 10.96.0.1 is this machine's own by the route to 10.96.0.0/16 by interface `lo` (AnyIP): no \
         interface has it, and no neighbour is told\n\
         Passes: its first packet, from a program of this machine, meets the chain `output` of table `inet \
         mainstay`, which looks into the map `services4`; later packets follow the entry of connection \
         tracking\n\
         Passes: 10.96.0.1:8080 is a service of 2 instances (1 new connections so far): chance draws one \
         of 4 slots (`random4-4`)\n\
         Passes: 127.0.0.1:9001 gets 3 of 4 slots, 75.0 %, on this host: translated to it and not \
         masqueraded, it sees an address of this host as its client\n\
         Passes: 127.0.0.1:9002 gets 1 of 4 slots, 25.0 %, on this host: translated to it and not \
         masqueraded, it sees an address of this host as its client"
    );
    assert_eq!(asked(&node, "10.96.0.1", None), goes, "it has one port");
    nobody_serves_another(&node);
    run(&node, "nft add table inet mainstay { flags dormant ; }");
    tells(
        &asked(&node, "10.96.0.1:8080", None),
        Effect::Diverted,
        &["somebody switched the table"],
    );
}

fn nobody_serves_another(node: &Netns) {
    let everywhere = instances(node, &["0.0.0.0:8080"]);
    tells(
        &asked(node, "10.96.0.2:8080", None),
        Effect::Refused,
        &[
            "the map has no 10.96.0.2:8080",
            "a program listens on 0.0.0.0:8080 and would have answered",
        ],
    );
    assert!(is_refused(&connect(node, "10.96.0.2:8080")));
    assert_eq!(everywhere[0].port(), 8080);
}

/// Leaves what Docker leaves.
fn be_docker(node: &Netns) {
    for line in [
        "-P FORWARD DROP",
        "-N DOCKER-USER",
        "-A FORWARD -j DOCKER-USER",
    ] {
        let mut iptables = node.command(&program("iptables-nft"));
        assert!(iptables.args(line.split(' ')).status().unwrap().success());
    }
}

#[test]
fn system_what_stands_in_the_way_of_other_hosts_is_told_until_it_is_gone() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (node, client, host) = three_hosts();
    let mut nft = start(&node);
    let there = instances(&host, &["10.2.0.2:80"]);
    nft.apply(&serve("10.96.0.1:8080", even(&there))).unwrap();
    let service = "10.96.0.1:8080";
    let ask = || asked(&node, service, Some("10.1.0.2"));
    let reached = || {
        let stream = connect(&client, service).ok();
        stream.is_some_and(|stream| answer(&stream).is_ok())
    };
    tells(
        &ask(),
        Effect::Passes,
        &[
            "from 10.1.0.2, meets the chain `prerouting`",
            "10.2.0.2:80 gets 1 of 1 slots, 100.0 %, by the route to 10.2.0.0/24 by interface `veth",
            "masqueraded, since else it would answer the client by itself",
            "this host forwards IPv4",
        ],
    );
    assert!(reached());
    let set = |name: &str, value: &str| {
        let path = format!("/proc/sys/net/ipv4/{name}");
        node.enter(|| std::fs::write(path, value).unwrap());
    };
    set("ip_forward", "0");
    let stopped = ask();
    tells(&stopped, Effect::Blocked, &["net.ipv4.ip_forward is 0"]);
    // Programs of the node do not need it.
    tells(&asked(&node, service, None), Effect::Passes, &[]);
    assert!(connect(&node, service).is_ok());
    obey(&node, &stopped, Effect::Blocked);
    tells(&ask(), Effect::Passes, &[]);
    be_docker(&node);
    let stopped = ask();
    tells(
        &stopped,
        Effect::Blocked,
        &[
            "the chain FORWARD of iptables-nft drops",
            "iptables-nft -I DOCKER-USER -m conntrack --ctorigdst",
        ],
    );
    obey(&node, &stopped, Effect::Blocked);
    tells(&ask(), Effect::Passes, &[]);
    assert!(reached(), "what it advised helps");
    for interface in ["all", "veth-none"] {
        let is_there = node.enter(|| {
            std::fs::write(
                format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter"),
                "1",
            )
            .is_ok()
        });
        assert_eq!(is_there, interface == "all");
    }
    tells(&ask(), Effect::Passes, &["(rp_filter is 1 on"]);
    tells(
        &asked(&node, service, Some("203.0.113.9")),
        Effect::Blocked,
        &["no route leads back to 203.0.113.9"],
    );
}

#[test]
fn system_a_published_port_and_an_instance_on_loopback_are_told() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (node, client, _host) = three_hosts();
    let mut nft = start(&node);
    let own = instances(&node, &["127.0.0.1:9001"]);
    nft.apply(&serve("10.96.0.1:8080", even(&own))).unwrap();
    let stopped = asked(&node, "10.96.0.1:8080", Some("10.1.0.2"));
    tells(&stopped, Effect::Blocked, &["route_localnet is 0"]);
    tells(&asked(&node, "10.96.0.1:8080", None), Effect::Passes, &[]);
    node.enter(|| {
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
    });
    tells(
        &asked(&node, "10.96.0.1:8080", Some("10.1.0.2")),
        Effect::Passes,
        &["it sees 10.1.0.2 as its client"],
    );
    assert_eq!(
        answer(&connect(&client, "10.96.0.1:8080").unwrap()).unwrap(),
        own[0]
    );
    // A published port, as Docker has it: ours are asked first.
    let line = "-t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination 10.2.0.2:80";
    let mut iptables = node.command(&program("iptables-nft"));
    assert!(iptables.args(line.split(' ')).status().unwrap().success());
    assert_eq!(
        answer(&connect(&client, "10.96.0.1:8080").unwrap()).unwrap(),
        own[0]
    );
    run(&node, "nft add table ip early");
    run(
        &node,
        "nft add chain ip early first { type nat hook prerouting priority -150 ; }",
    );
    run(
        &node,
        "nft add rule ip early first tcp dport 8080 dnat to 10.2.0.2:80",
    );
    tells(
        &asked(&node, "10.96.0.1:8080", Some("10.1.0.2")),
        Effect::Passes,
        &["asked before ours"],
    );
    nft.apply(&Batch {
        dead: own,
        ..Batch::default()
    })
    .unwrap();
    tells(
        &asked(&node, "10.96.0.1:8080", None),
        Effect::Refused,
        &["is declared dead"],
    );
}

fn slots(shares: &[(SocketAddr, u64)], staying: Staying) -> Slots {
    let shares = shares.iter().map(|(to, weight)| Share {
        to: *to,
        weight: *weight,
    });
    let shares = shares.collect();
    Slots::of(&Spread { staying, shares }, None).expect("there are some")
}

fn load(netns: &Netns, command: &mut Command, text: &str) {
    command.stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut into = child.stdin.take().unwrap();
    into.write_all(text.as_bytes()).unwrap();
    drop(into);
    assert!(child.wait().unwrap().success(), "{netns:?}: {text}");
}

#[test]
fn system_nft_loads_our_rules_as_text_and_they_are_what_we_make() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    for (service, range, at) in [
        (
            "10.96.0.1:8080",
            "10.96.0.0/16",
            ["127.0.0.1:9001", "127.0.0.1:9002"],
        ),
        ("[fd96::1]:8080", "fd96::/112", ["[::1]:9001", "[::1]:9002"]),
    ] {
        let node = node();
        let own = instances(&node, &at);
        let weights = [(own[0], 3), (own[1], 1)];
        let of = slots(&weights, Staying::Free);
        let text = text::nft(TABLE, range_of(range).unwrap(), address(service), &of);
        let mut nft = node.command(&program("nft"));
        load(&node, nft.args(["-f", "-"]), &text);
        let found = shares(&node, service, 1000);
        assert!((700..800).contains(&found[&own[0]]), "{found:?}");
        assert!(is_refused(&connect(
            &node,
            &service.replace("8080", "9001")
        )));
        // Chains that do not depend on how many slots there are: the same, line by line.
        let ours = Netns::new();
        let mut back_end = start(&ours);
        back_end.apply(&serve(service, even(&own))).unwrap();
        for chain in [
            "postrouting",
            "guard-output",
            "guard-forward",
            "guard-input",
            "prerouting",
        ] {
            let listed = |netns: &Netns| -> Vec<String> {
                let listed = run(netns, &format!("nft list chain inet {TABLE} {chain}"));
                let lines = listed.lines().map(|line| line.trim().to_owned());
                let word = if service.starts_with('[') {
                    "ip6 daddr"
                } else {
                    "ip daddr"
                };
                // The text does not count.
                let counts = |line: &str| line.contains("counted");
                lines
                    .filter(|line| line.contains(word) && !counts(line))
                    .collect()
            };
            let (theirs, mine) = (listed(&node), listed(&ours));
            assert!(!mine.is_empty());
            assert_eq!(theirs, mine, "{chain}");
        }
        let staying = slots(&weights, Staying::Source);
        let text = text::nft(
            "other",
            range_of(range).unwrap(),
            address(service),
            &staying,
        );
        let mut nft = node.command(&program("nft"));
        load(&node, nft.args(["-c", "-f", "-"]), &text);
    }
}

/// One service of three equal instances, as everybody knows it.
const PUBLISHED: &str = "\
# iptables-restore --noflush
*nat
:MAINSTAY-SERVICE - [0:0]
-A PREROUTING -d 10.10.1.128/32 -p tcp -m tcp --dport 8080 -j MAINSTAY-SERVICE
-A PREROUTING -d 10.10.1.128/32 -p udp -m udp --dport 8080 -j MAINSTAY-SERVICE
-A OUTPUT -d 10.10.1.128/32 -p tcp -m tcp --dport 8080 -j MAINSTAY-SERVICE
-A OUTPUT -d 10.10.1.128/32 -p udp -m udp --dport 8080 -j MAINSTAY-SERVICE
-A MAINSTAY-SERVICE -p tcp -m statistic --mode random --probability 0.3333333333 -j DNAT --to-destination 192.168.10.102:80
-A MAINSTAY-SERVICE -p udp -m statistic --mode random --probability 0.3333333333 -j DNAT --to-destination 192.168.10.102:80
-A MAINSTAY-SERVICE -p tcp -m statistic --mode random --probability 0.5000000000 -j DNAT --to-destination 192.168.10.101:80
-A MAINSTAY-SERVICE -p udp -m statistic --mode random --probability 0.5000000000 -j DNAT --to-destination 192.168.10.101:80
-A MAINSTAY-SERVICE -p tcp -j DNAT --to-destination 192.168.10.100:80
-A MAINSTAY-SERVICE -p udp -j DNAT --to-destination 192.168.10.100:80
-A POSTROUTING ! -o lo -m conntrack --ctorigdst 10.10.1.128/32 -j MASQUERADE
COMMIT
";

#[test]
fn the_published_rules_are_of_probability_one_by_i_tried_from_the_last_down() {
    let instance = |last: u8| SocketAddr::from(([192, 168, 10, last], 80));
    let equal = [(instance(100), 1), (instance(101), 1), (instance(102), 1)];
    let text = text::iptables(address("10.10.1.128:8080"), Draw::Random, &equal);
    assert_eq!(text, PUBLISHED);
    // 5 of 100, then 25 of the 95 that are left.
    let unequal = [(instance(100), 70), (instance(101), 25), (instance(102), 5)];
    let text = text::iptables(address("10.10.1.128:8080"), Draw::Source, &unequal);
    assert!(text.contains("--probability 0.0500000000 -j DNAT --to-destination 192.168.10.102"));
    assert!(text.contains("--probability 0.2631578947 -j DNAT --to-destination 192.168.10.101"));
    assert!(text.contains("clients do not stay"));
}

#[test]
fn system_both_iptables_load_the_published_rules_and_spread_by_them() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    for (restore, service, at) in [
        (
            program("iptables-nft-restore"),
            "10.96.0.1:8080",
            ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"],
        ),
        (
            program("iptables-legacy-restore"),
            "10.96.0.1:8080",
            ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"],
        ),
        (
            program("ip6tables-nft-restore"),
            "[fd96::1]:8080",
            ["[::1]:9001", "[::1]:9002", "[::1]:9003"],
        ),
    ] {
        let node = node();
        let own = instances(&node, &at);
        let weights = [(own[0], 5), (own[1], 3), (own[2], 2)];
        let text = text::iptables(address(service), Draw::Random, &weights);
        let mut command = node.command(&restore);
        load(&node, command.arg("--noflush"), &text);
        let found = shares(&node, service, 2000);
        for ((to, weight), all) in weights.iter().zip([10_u32; 3]) {
            let wanted = u32::try_from(*weight).unwrap() * 1000 / all;
            assert!(
                found[to].abs_diff(wanted) < 45,
                "{}: {found:?}",
                restore.display()
            );
        }
    }
}

#[test]
fn system_rules_of_iptables_are_explained_as_the_kernel_has_them() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    for (kind, program) in [
        (Kind::Legacy, "iptables-legacy"),
        (Kind::OverNft, "iptables-nft"),
    ] {
        let node = Netns::new();
        node.enter(|| {
            let routes = mainstay_kernel::netlink::route::Routes::open().unwrap();
            for network in ranges().networks() {
                let (prefix, source) = (range_of(&network.to_string()).unwrap(), None);
                let route = mainstay_kernel::netlink::route::LocalRoute { prefix, source };
                routes.add_local(&route).unwrap();
            }
        });
        let mut back_end = node.enter(|| kind.start()).unwrap();
        let own = instances(&node, &["127.0.0.1:9001", "127.0.0.1:9002"]);
        let weighed = crate::tests::weighed(&[(own[0], 3), (own[1], 1)]);
        let batch = serve("10.96.0.1:8080", weighed);
        node.enter(|| back_end.apply(&batch)).unwrap();
        connect(&node, "10.96.0.1:8080").unwrap();
        let ask = || asked(&node, "10.96.0.1:8080", None);
        let whole = [
            "from a program of this machine, meets the chain `OUTPUT` of table `nat` of iptables",
            "10.96.0.1:8080 is a service of 2 instances (1 new connections so far): its rules are tried one after",
            "127.0.0.1:9001 gets 75.0 %, on this host",
            "127.0.0.1:9002 gets 25.0 %, on this host",
        ];
        tells(&ask(), Effect::Passes, &whole);
        tells(
            &asked(&node, "10.96.9.9:80", Some("10.1.1.1")),
            Effect::Refused,
            &["no rule is for 10.96.9.9:80", "`MAINSTAY-REFUSE`"],
        );
        // What somebody changed is told until it is repaired.
        let change = |line: &str| crate::tests::run(&node, &format!("{program} {line}"));
        change("-t nat -D OUTPUT -j MAINSTAY-SERVICES");
        let told = [": OUTPUT had no jump", "the agent repairs it"];
        tells(&ask(), Effect::Blocked, &told);
        node.enter(|| back_end.check()).unwrap();
        tells(&ask(), Effect::Passes, &whole);
        change("-t nat -D MAINSTAY-1-TCP 2");
        tells(
            &ask(),
            Effect::Blocked,
            &[
                "somebody changed rules that lead to services",
                "MAINSTAY-1-TCP was",
            ],
        );
        node.enter(|| back_end.check()).unwrap();
        tells(&ask(), Effect::Passes, &whole);
    }
}
