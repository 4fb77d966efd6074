//! With the programs of iptables and nf_tables, in namespaces.

use mainstay_testkit::{Netns, is_root, program, skip};

use super::*;

fn run(netns: &Netns, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let of = match words[0] {
        "ip" => program("ip"),
        "nft" => program("nft"),
        "iptables-nft" => program("iptables-nft"),
        "iptables-legacy" => program("iptables-legacy"),
        other => panic!("`{other}` is not known here"),
    };
    let output = netns.command(&of).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "`{line}`: {output:?}");
}

fn look(netns: &Netns) -> Vec<Concern> {
    let range = xtables::range_of("10.96.0.0/16").unwrap();
    let instances = ["10.2.0.2", "127.0.0.1"].map(|address| address.parse().unwrap());
    netns.enter(|| survey(&[range], &instances).concerns())
}

fn kinds(concerns: &[Concern]) -> Vec<ConcernKind> {
    concerns.iter().map(|concern| concern.kind).collect()
}

/// Does what the only concern of a kind says, as an administrator would.
fn obey(netns: &Netns, concerns: &[Concern], kind: ConcernKind) {
    let mut of_kind = concerns.iter().filter(|concern| concern.kind == kind);
    let concern = of_kind.next().expect("there is one");
    let (_, command) = concern.remedy.split_once(": ").expect("it has a command");
    run(netns, command);
    assert_eq!(of_kind.next(), None);
}

#[test]
fn system_dockers_policy_is_recognised_in_both_iptables_until_the_rule_is_there() {
    if !is_root() {
        return skip("needs root: makes network namespaces and rules in them");
    }
    for iptables in ["iptables-nft", "iptables-legacy"] {
        let (node, host) = (Netns::new(), Netns::new());
        Netns::join((&node, "10.2.0.1/24"), (&host, "10.2.0.2/24"));
        assert_eq!(
            kinds(&look(&node)),
            [ConcernKind::NotForwarding, ConcernKind::LoopbackUnreachable],
        );
        node.enter(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
        });
        assert_eq!(look(&node), []);
        run(&node, &format!("{iptables} -P FORWARD DROP"));
        run(&node, &format!("{iptables} -N DOCKER-USER"));
        run(&node, &format!("{iptables} -A FORWARD -j DOCKER-USER"));
        let found = look(&node);
        assert_eq!(kinds(&found), [ConcernKind::ForwardDropped], "{found:?}");
        assert!(found[0].what.contains("Docker"), "{}", found[0]);
        obey(&node, &found, ConcernKind::ForwardDropped);
        assert_eq!(look(&node), [], "{iptables}");
    }
}

#[test]
fn system_a_firewall_of_nf_tables_is_told_with_a_command_that_it_takes() {
    if !is_root() {
        return skip("needs root: makes network namespaces and rules in them");
    }
    let (node, host) = (Netns::new(), Netns::new());
    Netns::join((&node, "10.2.0.1/24"), (&host, "10.2.0.2/24"));
    node.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    run(&node, "nft add table inet wall");
    run(
        &node,
        "nft add chain inet wall way { type filter hook forward priority 0 ; policy drop ; }",
    );
    let found = look(&node);
    obey(&node, &found, ConcernKind::ForwardDropped);
    assert!(found[0].what.contains("`way` of table `inet wall`"));
}

#[test]
fn a_table_of_connections_is_a_concern_from_four_fifths_on() {
    let filled = |entries| {
        let survey = Survey {
            ranges: Vec::new(),
            forwards: [true; 2],
            tracked: Some(Fill {
                entries,
                entries_max: 1000,
            }),
            dropping: Vec::new(),
            elsewhere: Vec::new(),
            on_loopback: false,
            route_localnet: false,
        };
        survey.concerns()
    };
    assert_eq!(filled(799), []);
    let told = filled(800);
    assert_eq!(kinds(&told), [ConcernKind::TableFilling]);
    assert!(told[0].what.contains("800 of 1000 (80.0 %)"), "{}", told[0]);
}
