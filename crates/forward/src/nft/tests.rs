//! In network namespaces, with real programs on both ends.

mod large;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use mainstay_control::forward::{Spread, Staying};
use mainstay_testkit::{Netns, is_root, skip};

use super::*;
pub(crate) use crate::tests::{
    DEADLINE, NEEDS_ROOT, address, answer, connect, even, instances, is_refused, run, serve,
    shares, weighed,
};

pub(crate) fn settings() -> Settings {
    let networks = ["10.96.0.0/16", "fd96::/112"];
    let networks = networks.map(|text| mainstay_model::Network::parse(text).unwrap());
    let ranges = Ranges::new(networks.to_vec()).unwrap();
    Settings::of(&ForwardSettings::new(ranges)).unwrap()
}

/// A node whose service addresses are its own.
pub(crate) fn node() -> Netns {
    let netns = Netns::new();
    run(&netns, "ip route add local 10.96.0.0/16 dev lo");
    run(&netns, "ip -6 route add local fd96::/112 dev lo");
    netns
}

pub(crate) fn start(netns: &Netns) -> Nft {
    netns.enter(|| Nft::start(settings())).unwrap()
}

#[test]
fn system_connections_follow_the_weights() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let mut nft = start(&node);
    let [a, b, c] = instances(
        &node,
        &["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"],
    )[..] else {
        unreachable!("three");
    };
    nft.apply(&serve("10.96.0.1:8080", even(&[a, b, c])))
        .unwrap();
    let found = shares(&node, "10.96.0.1:8080", 3000);
    assert!(
        found.values().all(|share| (290..375).contains(share)),
        "{found:?}"
    );
    nft.apply(&serve(
        "10.96.0.1:8080",
        weighed(&[(a, 70), (b, 25), (c, 5)]),
    ))
    .unwrap();
    let found = shares(&node, "10.96.0.1:8080", 3000);
    for (one, share) in [(a, 700_u32), (b, 250), (c, 50)] {
        let own = found.get(&one).copied().unwrap_or(0);
        assert!(
            own.abs_diff(share) < 35,
            "{own} instead of {share}: {found:?}"
        );
    }
    let mut meter = node.enter(|| nft.meter()).unwrap();
    let counted = meter.connections().unwrap();
    let [(address, count)] = counted[..] else {
        panic!("{counted:?}")
    };
    assert_eq!(address, self::address("10.96.0.1:8080"));
    assert_eq!(count, 3000, "those since the class changed");
    let mut traffic = || -> BTreeMap<_, _> {
        let counted = meter.traffic().unwrap().unwrap();
        counted.into_iter().collect()
    };
    let counted = traffic();
    assert!(
        counted[&a].received > counted[&c].received && counted[&c].received > 0,
        "{counted:?}"
    );
    let sent = |counted: &BTreeMap<_, Counted>| -> u64 {
        counted.values().map(|counted| counted.sent).sum()
    };
    assert_eq!(sent(&counted), 0, "who only connects sends nothing");
    let mut stream = connect(&node, "10.96.0.1:8080").unwrap();
    stream.write_all(&[0; 1000]).unwrap();
    assert!(sent(&traffic()) >= 1000, "{:?}", traffic());
}

#[test]
fn system_ipv6_and_udp_are_forwarded_too() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let mut nft = start(&node);
    let own = instances(&node, &["[::1]:9001"]);
    nft.apply(&serve("[fd96::1]:8080", even(&own))).unwrap();
    let stream = connect(&node, "[fd96::1]:8080").unwrap();
    assert_eq!(answer(&stream).unwrap(), own[0]);

    let echo = node.enter(|| UdpSocket::bind("127.0.0.1:9053").unwrap());
    nft.apply(&serve("10.96.0.53:53", even(&[echo.local_addr().unwrap()])))
        .unwrap();
    let client = node.enter(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    echo.set_read_timeout(Some(DEADLINE)).unwrap();
    client.connect("10.96.0.53:53").unwrap();
    client.send(b"question").unwrap();
    let mut datagram = [0; 16];
    let (len, from) = echo.recv_from(&mut datagram).unwrap();
    echo.send_to(&datagram[..len], from).unwrap();
    assert_eq!(client.recv(&mut datagram).unwrap(), 8);
    // Nobody serves it any more: told, instead of waited for.
    nft.apply(&Batch {
        gone: vec![address("10.96.0.53:53")],
        ..Batch::default()
    })
    .unwrap();
    let stranger = node.enter(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    stranger.set_read_timeout(Some(DEADLINE)).unwrap();
    stranger.connect("10.96.0.53:53").unwrap();
    stranger.send(b"question").unwrap();
    let error = stranger.recv(&mut datagram).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn system_where_the_node_itself_listens_in_a_range_nobody_is_refused() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let listening = instances(&node, &["10.96.0.53:53", "[::]:54", "10.96.0.53:80"]);
    let own = ["10.96.0.53:53", "[fd96::53]:54"];
    let with = Settings {
        own: own.map(address).to_vec(),
        ..settings()
    };
    let nft = node.enter(|| Nft::start(with)).unwrap();
    for (at, expected) in own.into_iter().zip(&listening) {
        assert_eq!(answer(&connect(&node, at).unwrap()).unwrap(), *expected);
    }
    // Another port there is refused, as that of any address.
    assert!(is_refused(&connect(&node, "10.96.0.53:80")));
    drop(nft);
    let _without = start(&node);
    assert!(is_refused(&connect(&node, own[0])));
}

#[test]
fn system_what_no_service_has_reaches_no_program_that_listens_everywhere() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let everywhere = instances(&node, &["0.0.0.0:8080", "[::]:8081"]);
    // Without rules it does.
    assert_eq!(
        answer(&connect(&node, "10.96.3.4:8080").unwrap()).unwrap(),
        everywhere[0]
    );
    let mut nft = start(&node);
    assert!(is_refused(&connect(&node, "10.96.3.4:8080")));
    assert!(is_refused(&connect(&node, "[fd96::7]:8081")));
    // A service that loses its last instance.
    let own = instances(&node, &["127.0.0.1:9001"]);
    nft.apply(&serve("10.96.0.1:8080", even(&own))).unwrap();
    let kept = connect(&node, "10.96.0.1:8080").unwrap();
    assert_eq!(answer(&kept).unwrap(), own[0]);
    nft.apply(&serve("10.96.0.1:8080", even(&[]))).unwrap();
    assert!(is_refused(&connect(&node, "10.96.0.1:8080")));
    // What is under way goes on.
    (&kept).write_all(b"still there").unwrap();
    nft.remove().unwrap();
    assert_eq!(
        answer(&connect(&node, "10.96.3.4:8080").unwrap()).unwrap(),
        everywhere[0]
    );
}

/// Connects from this port of the node, and gives it free at once.
fn connect_from(node: &Netns, port: u16, to: &str) -> std::io::Result<SocketAddr> {
    node.enter(|| {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )?;
        let own = SocketAddr::from(([127, 0, 0, 1], port));
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &own)?;
        rustix::net::connect(&socket, &address(to))?;
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE))?;
        answer(&stream)
    })
}

#[test]
fn system_who_was_refused_gets_through_from_the_same_port_when_somebody_serves() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let mut nft = start(&node);
    let own = instances(&node, &["127.0.0.1:9001"]);
    let refused = connect_from(&node, 40_001, "10.96.0.1:8080").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    nft.apply(&serve("10.96.0.1:8080", even(&own))).unwrap();
    let answered = connect_from(&node, 40_001, "10.96.0.1:8080").unwrap();
    assert_eq!(answered, own[0]);
}

/// A node, a client's host behind it and an instance's host, each a namespace, and the instance.
pub(crate) fn three_hosts() -> (Netns, Netns, Netns) {
    let (node, client, host) = (node(), Netns::new(), Netns::new());
    Netns::join((&node, "10.1.0.1/24"), (&client, "10.1.0.2/24"));
    Netns::join((&node, "10.2.0.1/24"), (&host, "10.2.0.2/24"));
    run(&client, "ip route add default via 10.1.0.1");
    node.enter(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
    (node, client, host)
}

#[test]
fn system_other_hosts_reach_services_through_the_node() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (node, client, host) = three_hosts();
    let mut nft = start(&node);
    let there = instances(&host, &["10.2.0.2:80"]);
    let here = instances(&node, &["10.2.0.1:81"]);
    nft.apply(&serve("10.96.0.1:8080", even(&there))).unwrap();
    nft.apply(&serve("10.96.0.2:8080", even(&here))).unwrap();
    // The instance's host has no way back to the client but by the node.
    assert_eq!(
        answer(&connect(&client, "10.96.0.1:8080").unwrap()).unwrap(),
        there[0]
    );
    assert_eq!(
        answer(&connect(&node, "10.96.0.1:8080").unwrap()).unwrap(),
        there[0]
    );
    assert_eq!(
        answer(&connect(&client, "10.96.0.2:8080").unwrap()).unwrap(),
        here[0]
    );
    assert!(is_refused(&connect(&client, "10.96.0.1:22")));
    // A client of the node itself, with a source that answers find.
    let own = "ip route replace local 10.96.0.0/16 dev lo src 10.2.0.1";
    run(&node, own);
    assert_eq!(
        answer(&connect(&node, "10.96.0.1:8080").unwrap()).unwrap(),
        there[0]
    );
    // Who is not a client of a service is not translated.
    run(&host, "ip route add default via 10.2.0.1");
    let other = host.enter(|| TcpListener::bind("10.2.0.2:9999").unwrap());
    let direct = connect(&client, "10.2.0.2:9999").unwrap();
    let (_, from) = other.accept().unwrap();
    assert_eq!(from, direct.local_addr().unwrap());
}

#[test]
fn system_a_host_that_forwards_for_us_alone_forwards_nothing_else() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (node, client, host) = three_hosts();
    run(&host, "ip route add default via 10.2.0.1");
    let there = instances(&host, &["10.2.0.2:80"]);
    let mut nft = start(&node);
    nft.apply(&serve("10.96.0.1:8080", even(&there))).unwrap();
    let direct = || connect(&client, "10.2.0.2:80").map(|stream| answer(&stream).unwrap());
    assert_eq!(direct().unwrap(), there[0]);
    let opened = Opened {
        ipv4: true,
        ipv6: false,
    };
    let settings = Settings {
        opened,
        ..settings()
    };
    drop(nft);
    let nft = node.enter(|| Nft::start(settings)).unwrap();
    let (services, _) = nft.in_force();
    assert_eq!(services.len(), 1, "they were taken over");
    let (service, counted) = (address("10.96.0.1:8080"), Duration::from_millis(300));
    let refused = client.enter(|| TcpStream::connect_timeout(&there[0], counted));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    let stream = connect(&client, &service.to_string()).unwrap();
    assert_eq!(answer(&stream).unwrap(), there[0]);
}

#[test]
fn system_a_port_that_another_program_publishes_takes_no_service_address() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (node, client, _host) = three_hosts();
    let published = instances(&node, &["10.1.0.1:9100"]);
    let own = instances(&node, &["10.1.0.1:9001"]);
    run(&node, "nft add table ip docker");
    for (hook, chain) in [("prerouting", "in"), ("output", "out")] {
        run(
            &node,
            &format!("nft add chain ip docker {chain} {{ type nat hook {hook} priority -100 ; }}"),
        );
        run(
            &node,
            &format!(
                "nft add rule ip docker {chain} fib daddr type local tcp dport 8080 dnat to 10.1.0.1:9100"
            ),
        );
    }
    let mut nft = start(&node);
    nft.apply(&serve("10.96.0.1:8080", even(&own))).unwrap();
    for from in [&node, &client] {
        let served = connect(from, "10.96.0.1:8080").unwrap();
        assert_eq!(answer(&served).unwrap(), own[0]);
        assert!(is_refused(&connect(from, "10.96.0.2:8080")));
        // Its own is left alone.
        let theirs = connect(from, "10.1.0.1:8080").unwrap();
        assert_eq!(answer(&theirs).unwrap(), published[0]);
    }
}

#[test]
fn system_what_is_under_way_to_a_dead_instance_is_reset() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (node, client, host) = three_hosts();
    let mut nft = start(&node);
    let there = instances(&host, &["10.2.0.2:80"]);
    nft.apply(&serve("10.96.0.1:8080", even(&there))).unwrap();
    let local = connect(&node, "10.96.0.1:8080").unwrap();
    let foreign = connect(&client, "10.96.0.1:8080").unwrap();
    let direct = connect(&node, "10.2.0.2:80").unwrap();
    for stream in [&local, &foreign, &direct] {
        assert_eq!(answer(stream).unwrap(), there[0]);
    }
    nft.apply(&Batch {
        services: vec![(address("10.96.0.1:8080"), even(&[]))],
        dead: there.clone(),
        ..Batch::default()
    })
    .unwrap();
    for mut stream in [&local, &foreign] {
        stream.write_all(b"hello").ok();
        let error = stream.read(&mut [0; 8]).unwrap_err();
        assert!(
            matches!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::ConnectionRefused
            ),
            "{error}"
        );
    }
    // Probes and the gateway go there by its own address.
    (&direct).write_all(b"hello").unwrap();
    assert_eq!(nft.in_force().1, there);
    nft.apply(&Batch {
        services: vec![(address("10.96.0.1:8080"), even(&there))],
        revived: there.clone(),
        ..Batch::default()
    })
    .unwrap();
    assert_eq!(
        answer(&connect(&client, "10.96.0.1:8080").unwrap()).unwrap(),
        there[0]
    );
}

#[test]
fn system_what_others_do_to_the_table_is_undone_and_their_tables_are_left_alone() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    run(&node, "nft add table inet theirs");
    let mut nft = start(&node);
    let own = instances(&node, &["127.0.0.1:9001"]);
    nft.apply(&serve("10.96.0.1:8080", even(&own))).unwrap();
    assert_eq!(nft.check().unwrap(), Found::InForce);
    run(&node, "nft add chain inet theirs mine");
    assert_eq!(nft.check().unwrap(), Found::InForce);
    for harm in [
        "nft delete table inet mainstay",
        "nft delete table arp mainstay",
        "nft flush table inet mainstay",
        "nft flush map inet mainstay services4",
        "nft delete element inet mainstay slots4 { 10.96.0.1 . 8080 . 0 }",
        "nft add element inet mainstay dead4 { 127.0.0.1 . 9001 }",
        "nft add chain inet mainstay theirs { type filter hook output priority 0 ; policy drop ; }",
        "nft insert rule inet mainstay guard-output drop",
        "nft add table inet mainstay { flags dormant ; }",
    ] {
        run(&node, harm);
        assert!(matches!(nft.check().unwrap(), Found::Repaired(_)), "{harm}");
        assert_eq!(
            answer(&connect(&node, "10.96.0.1:8080").unwrap()).unwrap(),
            own[0],
            "{harm}"
        );
        assert_eq!(nft.check().unwrap(), Found::InForce, "{harm}");
    }
    // A change finds out by itself.
    run(&node, "nft flush ruleset");
    run(&node, "nft add table inet theirs");
    nft.apply(&serve("10.96.0.2:8080", even(&own))).unwrap();
    for service in ["10.96.0.1:8080", "10.96.0.2:8080"] {
        assert_eq!(answer(&connect(&node, service).unwrap()).unwrap(), own[0]);
    }
    assert!(run(&node, "nft list tables").contains("inet theirs"));
    nft.remove().unwrap();
    assert_eq!(run(&node, "nft list tables").trim(), "table inet theirs");
}

#[test]
fn system_changes_of_others_tables_cost_no_reading_of_ours() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let own = instances(&node, &["127.0.0.1:9001"]);
    let mut nft = start(&node);
    nft.apply(&serve("10.96.0.1:8080", even(&own))).unwrap();
    for line in [
        "nft add table inet theirs",
        "nft add chain inet theirs input { type filter hook input priority 0 ; }",
        "nft add table ip mainstay",
        "nft delete table ip mainstay",
    ] {
        run(&node, line);
        assert_eq!(nft.check().unwrap(), Found::InForce, "{line}");
        assert_eq!(nft.readings(), 0, "{line}");
    }
    // Nor is a change hindered by them.
    run(&node, "nft add chain inet theirs mine");
    nft.apply(&serve("10.96.0.2:8080", even(&own))).unwrap();
    run(&node, "nft delete table inet theirs");
    assert_eq!(nft.check().unwrap(), Found::InForce);
    assert_eq!(nft.readings(), 0);
    // In the same transaction as something of theirs.
    let both = "nft add table inet theirs; flush map inet mainstay services4";
    run(&node, both);
    assert!(matches!(nft.check().unwrap(), Found::Repaired(_)));
    assert_eq!(nft.readings(), 1);
    for service in ["10.96.0.1:8080", "10.96.0.2:8080"] {
        assert_eq!(answer(&connect(&node, service).unwrap()).unwrap(), own[0]);
    }
    run(&node, "nft delete table inet theirs");
    assert_eq!(nft.check().unwrap(), Found::InForce);
    assert_eq!(nft.readings(), 1);
}

#[test]
fn system_the_next_process_takes_the_maps_over() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let own = instances(&node, &["127.0.0.1:9001", "127.0.0.1:9002"]);
    let mut first = start(&node);
    first.apply(&serve("10.96.0.1:8080", even(&own))).unwrap();
    first
        .apply(&Batch {
            dead: vec![address("10.9.9.9:1")],
            ..Batch::default()
        })
        .unwrap();
    shares(&node, "10.96.0.1:8080", 20);
    drop(first);
    run(&node, "nft flush chain inet mainstay output");
    run(
        &node,
        "nft add element inet mainstay slots4 { 10.96.7.7 . 1 . 0 : 10.0.0.1 . 1 }",
    );
    let mut second = start(&node);
    let (services, dead) = second.in_force();
    assert_eq!(services, [address("10.96.0.1:8080")]);
    assert_eq!(dead, [address("10.9.9.9:1")]);
    assert_eq!(
        node.enter(|| second.meter())
            .unwrap()
            .connections()
            .unwrap()[0]
            .1,
        20,
        "the elements are the same"
    );
    shares(&node, "10.96.0.1:8080", 20);
    assert_eq!(second.check().unwrap(), Found::InForce);
    assert!(!run(&node, "nft list map inet mainstay slots4").contains("10.96.7.7"));
    drop(second);
    // Something else under our name.
    run(&node, "nft delete table inet mainstay");
    run(&node, "nft add table inet mainstay");
    run(
        &node,
        "nft add map inet mainstay services4 { type ipv4_addr : verdict ; }",
    );
    let mut third = start(&node);
    assert_eq!(third.in_force().0, []);
    third.apply(&serve("10.96.0.1:8080", even(&own))).unwrap();
    shares(&node, "10.96.0.1:8080", 2);
}

#[test]
fn system_clients_of_one_source_stay_with_their_instance() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let mut nft = start(&node);
    let own = instances(
        &node,
        &["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"],
    );
    let spread = Spread {
        staying: Staying::Source,
        ..even(&own)
    };
    nft.apply(&serve("10.96.0.1:8080", spread)).unwrap();
    let found = shares(&node, "10.96.0.1:8080", 50);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn system_without_the_right_nothing_is_made_and_it_is_told() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let error = node.enter(|| {
        let nothing = rustix::thread::CapabilitySet::empty();
        let sets = rustix::thread::CapabilitySets {
            effective: nothing,
            permitted: nothing,
            inheritable: nothing,
        };
        rustix::thread::set_capabilities(None, sets).unwrap();
        Nft::start(settings()).unwrap_err()
    });
    assert!(matches!(error, ForwardError::Forbidden { .. }), "{error:?}");
}

#[test]
fn system_nobody_on_the_link_is_told_that_a_service_address_is_here() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (node, client, _host) = three_hosts();
    let own = instances(&node, &["10.1.0.1:9001"]);
    let asks = || -> bool {
        // As if the range were on the link: the address is asked for by ARP.
        run(&client, "ip neigh flush all");
        connect(&client, "10.96.0.1:8080").is_ok()
    };
    let links = run(&client, "ip -o link show type veth");
    let link = links.split(&[' ', '@'][..]).nth(1).unwrap();
    run(&client, &format!("ip route add 10.96.0.0/16 dev {link}"));
    let mut nft = start(&node);
    nft.apply(&serve("10.96.0.1:8080", even(&own))).unwrap();
    assert!(!asks());
    drop(nft);
    let answering = Settings {
        answering: Answering::On,
        ..settings()
    };
    let _nft = node.enter(|| Nft::start(answering)).unwrap();
    assert!(asks());
    // By a route it is reached either way.
    run(&client, &format!("ip route del 10.96.0.0/16 dev {link}"));
    assert!(connect(&client, "10.96.0.1:8080").is_ok());
}
