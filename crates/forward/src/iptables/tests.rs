//! In network namespaces, beside the rules of others. What every back end does is in `crate::tests`.

use std::fmt::Write as _;

use mainstay_testkit::{Netns, is_root, skip};

use super::*;
use crate::tests::{Host, Kind, NEEDS_ROOT, address, even, instances, ranges, run, serve, shares};

const SERVICE: &str = "10.96.0.1:8080";
const KINDS: [(Kind, &str); 2] = [
    (Kind::Legacy, "iptables-legacy"),
    (Kind::OverNft, "iptables-nft"),
];

/// What is not ours, without what was counted.
fn foreign(node: &Netns, program: &str) -> String {
    let tables = TABLES.map(|table| run(node, &format!("{program} -t {table} -S")));
    let all = tables.concat();
    let lines = all.lines().filter(|line| !line.contains("MAINSTAY-"));
    lines.collect::<Vec<_>>().join("\n")
}

fn add_rules_of_others(node: &Netns, program: &str) {
    for rule in [
        "-t nat -N DOCKER",
        "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        "-N DOCKER-USER",
        "-A FORWARD -j DOCKER-USER",
        "-A DOCKER-USER -j RETURN",
        "-P FORWARD DROP",
        "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
    ] {
        run(node, &format!("{program} {rule}"));
    }
}

#[test]
fn system_what_others_do_to_our_chains_is_undone_and_their_rules_stay() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    for (kind, program) in KINDS {
        let mut host = Host::new(kind);
        add_rules_of_others(&host.node, program);
        let theirs = foreign(&host.node, program);
        let own = instances(&host.node, &["127.0.0.1:9001", "127.0.0.1:9002"]);
        host.serve(SERVICE, even(&own[..1]));
        assert_eq!(host.check(), Found::InForce);
        for harm in [
            "-t nat -F",
            "-t nat -F MAINSTAY-TCP",
            "-t nat -D MAINSTAY-SERVICES 1",
            "-t nat -I MAINSTAY-1-TCP -p tcp -j DNAT --to-destination 127.0.0.1:9002",
            "-t nat -D PREROUTING -j MAINSTAY-SERVICES",
            "-t nat -I OUTPUT -j MAINSTAY-SERVICES",
            "-F MAINSTAY-REFUSE",
            "-I MAINSTAY-OUTPUT -j DROP",
            "-A MAINSTAY-DEAD -d 127.0.0.1/32 -p tcp -m tcp --dport 9001 -j REJECT --reject-with tcp-reset",
            "-N MAINSTAY-NEW",
        ] {
            run(&host.node, &format!("{program} {harm}"));
            if harm == "-t nat -F" {
                // They have to make their own again.
                add_nat_rules_of_others(&host.node, program);
            }
            let found = host.check();
            assert!(matches!(found, Found::Repaired(_)), "{program} {harm}");
            let found = shares(&host.node, SERVICE, 3);
            assert_eq!(found, [(own[0], 1000)].into(), "{program} {harm}");
            assert_eq!(host.check(), Found::InForce, "{program} {harm}");
            assert_eq!(foreign(&host.node, program), theirs, "{program} {harm}");
        }
        // What others do to their own is none of our business.
        run(&host.node, &format!("{program} -A INPUT -p udp -j ACCEPT"));
        assert_eq!(host.check(), Found::InForce);
        // A change finds out by itself.
        run(
            &host.node,
            &format!("{program} -t nat -F MAINSTAY-SERVICES"),
        );
        host.serve("10.96.0.2:8080", even(&own[1..]));
        for (service, to) in [(SERVICE, own[0]), ("10.96.0.2:8080", own[1])] {
            assert_eq!(shares(&host.node, service, 3), [(to, 1000)].into());
        }
        run(&host.node, &format!("{program} -D INPUT -p udp -j ACCEPT"));
        host.enter(|back_end| back_end.remove()).unwrap();
        assert_eq!(foreign(&host.node, program), theirs);
        let left = TABLES.map(|table| run(&host.node, &format!("{program} -t {table} -S")));
        assert!(!left.concat().contains("MAINSTAY"), "{left:?}");
    }
}

fn add_nat_rules_of_others(node: &Netns, program: &str) {
    for rule in [
        "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    ] {
        run(node, &format!("{program} -t nat {rule}"));
    }
}

#[test]
fn system_the_rules_of_a_service_are_the_published_ones() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    for (kind, variant) in [
        (Kind::Legacy, Variant::Legacy),
        (Kind::OverNft, Variant::Nft),
    ] {
        let mut host = Host::new(kind);
        let three = [100, 101, 102].map(|last| SocketAddr::from(([192, 168, 10, last], 80)));
        host.serve("10.10.1.128:8080", even(&three));
        let programs = Programs::find(Ip::V4, Some(variant)).unwrap();
        let saved = host.node.enter(|| look(&programs)).unwrap().nat;
        let chains = ["TCP", "1-TCP", "UDP", "1-UDP"].map(|chain| format!("MAINSTAY-{chain}"));
        let mut text = String::new();
        for chain in &chains {
            for line in &saved.chains[chain] {
                writeln!(text, "-A {chain} {}", line.text).unwrap();
            }
        }
        let expected = "-A MAINSTAY-TCP -d 10.10.1.128 -p tcp -m tcp --dport 8080 -j MAINSTAY-1-TCP\n\
            -A MAINSTAY-1-TCP -p tcp -m statistic --mode random --probability 0.33333333349 -j DNAT --to-destination 192.168.10.102:80\n\
            -A MAINSTAY-1-TCP -p tcp -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 192.168.10.101:80\n\
            -A MAINSTAY-1-TCP -p tcp -m statistic --mode random --probability 1.00000000000 -j DNAT --to-destination 192.168.10.100:80\n";
        let udp = expected.replace("tcp", "udp").replace("TCP", "UDP");
        assert_eq!(text, format!("{expected}{udp}"));
    }
}

#[test]
fn system_what_an_earlier_process_left_half_done_is_not_taken_over() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    for (kind, program) in KINDS {
        let mut host = Host::new(kind);
        let own = instances(&host.node, &["127.0.0.1:9001"]);
        for service in [SERVICE, "10.96.0.2:8080", "10.96.0.3:8080"] {
            host.serve(service, even(&own));
        }
        for harm in [
            "-F MAINSTAY-1-UDP",
            "-A MAINSTAY-2-TCP -j ACCEPT",
            "-D PREROUTING -j MAINSTAY-SERVICES",
        ] {
            run(&host.node, &format!("{program} -t nat {harm}"));
        }
        let mut host = host.start_again(kind);
        assert_eq!(host.back_end.in_force().0, [address("10.96.0.3:8080")]);
        assert_eq!(host.check(), Found::InForce);
        let listed = run(&host.node, &format!("{program} -t nat -S"));
        assert!(!listed.contains("MAINSTAY-1-TCP"), "{listed}");
        host.serve(SERVICE, even(&own));
        assert_eq!(shares(&host.node, SERVICE, 3), [(own[0], 1000)].into());
    }
}

#[test]
fn system_services_that_make_no_sense_are_refused() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let mut host = Host::new(Kind::Legacy);
    for (service, instance, said) in [
        ("192.0.2.1:80", "127.0.0.1:1", "none of the networks"),
        ("10.96.0.1:80", "[::1]:1", "different versions of IP"),
    ] {
        let batch = serve(service, even(&[address(instance)]));
        let error = host.enter(|back_end| back_end.apply(&batch)).unwrap_err();
        let ForwardError::Refused { source, .. } = error else {
            panic!("{error:?}");
        };
        assert!(source.to_string().contains(said), "{source}");
    }
}

#[test]
fn system_which_programs_there_are_is_said() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = Netns::new();
    let start = |variant| {
        let settings = Settings {
            ranges: ranges(),
            own: Vec::new(),
            variant,
        };
        node.enter(|| Iptables::start(settings)).unwrap()
    };
    for (variant, word) in [(Variant::Legacy, "(legacy)"), (Variant::Nft, "(nf_tables)")] {
        let mut iptables = start(Some(variant));
        assert_eq!(iptables.variant(), variant);
        let programs = iptables.programs();
        assert!(
            programs.iter().all(|one| one.contains(word)),
            "{programs:?}"
        );
        node.enter(|| iptables.remove()).unwrap();
    }
    let usual = start(None).programs();
    assert!(usual[0].contains("/iptables-restore "), "{usual:?}");
}
