//! What every back end must do. Each function takes the kind; below, each is a test of each kind.

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

use mainstay_control::forward::{Batch, Spread, Staying};
use mainstay_testkit::{Netns, is_root, skip};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::*;
use crate::back_end::{ForwardError, Found};
use crate::measured::share_error;

const THREE: [&str; 3] = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"];
const SERVICE: &str = "10.96.0.1:8080";

/// The published example: 10.10.1.128:8080 to three instances on another host, a third each.
fn published(kind: Kind) {
    let mut host = Host::new(kind);
    let there = Netns::new();
    Netns::join(
        (&host.node, "192.168.10.1/24"),
        (&there, "192.168.10.100/24"),
    );
    for own in ["192.168.10.101/24", "192.168.10.102/24"] {
        let links = run(&there, "ip -o link show");
        let link = links
            .split(": ")
            .find(|word| word.starts_with("veth"))
            .unwrap();
        let link = link.split('@').next().unwrap();
        run(&there, &format!("ip address add {own} dev {link}"));
    }
    let at = [
        "192.168.10.100:80",
        "192.168.10.101:80",
        "192.168.10.102:80",
    ];
    let three = instances(&there, &at);
    host.serve("10.10.1.128:8080", even(&three));
    let found = shares(&host.node, "10.10.1.128:8080", 2400);
    assert_eq!(found.len(), 3, "{found:?}");
    for share in found.values() {
        assert!((290..377).contains(share), "{found:?}");
    }
    let counted = host
        .enter(|back_end| back_end.meter()?.connections())
        .unwrap();
    assert_eq!(counted, [(address("10.10.1.128:8080"), 2400)]);
}

fn weights(kind: Kind) {
    let mut host = Host::new(kind);
    for weights in [&[70, 25, 5][..], &[1], &[1; 7]] {
        let measure = |back_end: &mut dyn crate::BackEnd| {
            share_error(back_end, address(SERVICE), weights, 2500).unwrap()
        };
        let error = host.enter(measure);
        assert!(error < 4.0, "{error} percentage points with {weights:?}");
    }
}

/// From one instance to none and back; what is under way goes on.
fn drained(kind: Kind) {
    let mut host = Host::new(kind);
    let own = instances(&host.node, &THREE);
    host.serve(SERVICE, even(&own[..1]));
    let kept = connect(&host.node, SERVICE).unwrap();
    assert_eq!(answer(&kept).unwrap(), own[0]);
    host.serve(SERVICE, even(&own[1..2]));
    assert_eq!(shares(&host.node, SERVICE, 50), [(own[1], 1000)].into());
    host.serve(SERVICE, Spread::default());
    assert!(is_refused(&connect(&host.node, SERVICE)));
    assert_eq!(host.back_end.in_force().0, []);
    assert!(is_alive(&kept), "a connection is not cut");
    host.serve(SERVICE, even(&own[2..]));
    assert_eq!(shares(&host.node, SERVICE, 5), [(own[2], 1000)].into());
    assert_eq!(host.back_end.in_force().0, [address(SERVICE)]);
    let gone = vec![address(SERVICE)];
    host.apply(&Batch {
        gone,
        ..Batch::default()
    });
    assert!(is_refused(&connect(&host.node, SERVICE)));
    assert!(is_alive(&kept), "nor by the service's end");
}

fn dead(kind: Kind) {
    let mut host = Host::new(kind);
    let own = instances(&host.node, &THREE[..2]);
    host.serve(SERVICE, even(&own[..1]));
    let through = connect(&host.node, SERVICE).unwrap();
    let direct = connect(&host.node, THREE[0]).unwrap();
    for stream in [&through, &direct] {
        assert_eq!(answer(stream).unwrap(), own[0]);
    }
    let batch = Batch {
        services: vec![(address(SERVICE), even(&own[1..]))],
        dead: own[..1].to_vec(),
        ..Batch::default()
    };
    host.apply(&batch);
    assert!(is_reset(&through));
    // Probes and the gateway go there by its own address.
    assert!(is_alive(&direct));
    assert_eq!(host.back_end.in_force().1, own[..1]);
    assert_eq!(shares(&host.node, SERVICE, 10), [(own[1], 1000)].into());
    host.apply(&Batch {
        services: vec![(address(SERVICE), even(&own[..1]))],
        revived: own[..1].to_vec(),
        ..Batch::default()
    });
    assert_eq!(host.back_end.in_force().1, []);
    assert_eq!(shares(&host.node, SERVICE, 10), [(own[0], 1000)].into());
}

fn ipv6_and_udp(kind: Kind) {
    let mut host = Host::new(kind);
    let own = instances(&host.node, &["[::1]:9001"]);
    host.serve("[fd96::1]:8080", even(&own));
    let stream = connect(&host.node, "[fd96::1]:8080").unwrap();
    assert_eq!(answer(&stream).unwrap(), own[0]);
    assert!(is_refused(&connect(&host.node, "[fd96::2]:8080")));

    let echo = host
        .node
        .enter(|| UdpSocket::bind("127.0.0.1:9053").unwrap());
    echo.set_read_timeout(Some(DEADLINE)).unwrap();
    host.serve("10.96.0.53:53", even(&[echo.local_addr().unwrap()]));
    let client = || {
        let socket = host.node.enter(|| UdpSocket::bind("127.0.0.1:0").unwrap());
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.connect("10.96.0.53:53").unwrap();
        socket.send(b"question").unwrap();
        socket
    };
    let first = client();
    let mut datagram = [0; 16];
    let (len, from) = echo.recv_from(&mut datagram).unwrap();
    echo.send_to(&datagram[..len], from).unwrap();
    assert_eq!(first.recv(&mut datagram).unwrap(), 8);
    let gone = vec![address("10.96.0.53:53")];
    let batch = Batch {
        gone,
        ..Batch::default()
    };
    let back_end = &mut host.back_end;
    host.node.enter(|| back_end.apply(&batch)).unwrap();
    let error = client().recv(&mut datagram).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

fn staying(kind: Kind) {
    let mut host = Host::new(kind);
    let own = instances(&host.node, &THREE);
    let staying = |to: &[SocketAddr]| Spread {
        staying: Staying::Source,
        ..even(to)
    };
    host.serve(SERVICE, staying(&own));
    let from = |last: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        let source = SocketAddr::from((Ipv4Addr::new(127, 0, 7, last), 0));
        socket.bind(&source.into())?;
        socket.connect(&address(SERVICE).into())?;
        answer(&TcpStream::from(socket))
    };
    let ask = || {
        let node = &host.node;
        node.enter(|| -> Vec<SocketAddr> { (1..40).map(|last| from(last).unwrap()).collect() })
    };
    let before = ask();
    assert_eq!(ask(), before, "each stays");
    let used: std::collections::BTreeSet<SocketAddr> = before.iter().copied().collect();
    assert_eq!(used.len(), 3, "39 clients of three instances");
    let batch = serve(SERVICE, staying(&own[..2]));
    let back_end = &mut host.back_end;
    host.node.enter(|| back_end.apply(&batch)).unwrap();
    let node = &host.node;
    let after: Vec<SocketAddr> = node.enter(|| (1..40).map(|last| from(last).unwrap()).collect());
    for (was, is) in before.iter().zip(&after) {
        assert!(was == is || *was == own[2], "{was} became {is}");
    }
}

fn the_node_itself(kind: Kind) {
    let host = Host::new(kind);
    let own = instances(&host.node, &[OWN]);
    let stream = connect(&host.node, OWN).unwrap();
    assert_eq!(answer(&stream).unwrap(), own[0]);
    assert!(is_refused(&connect(&host.node, "10.96.0.254:5354")));
}

fn nobody_else_answers(kind: Kind) {
    if !kind.is_kernel() {
        // Its sockets are in the way of such a program: a test of its own.
        return;
    }
    let mut host = Host::new(kind);
    let everywhere = instances(&host.node, &["0.0.0.0:8080", "[::]:8081"]);
    assert!(is_refused(&connect(&host.node, "10.96.3.4:8080")));
    assert!(is_refused(&connect(&host.node, "[fd96::7]:8081")));
    host.serve(SERVICE, even(&everywhere[..1]));
    host.serve(SERVICE, even(&[]));
    assert!(is_refused(&connect(&host.node, SERVICE)));
    host.enter(|back_end| back_end.remove()).unwrap();
    let stream = connect(&host.node, "10.96.3.4:8080").unwrap();
    assert_eq!(answer(&stream).unwrap(), everywhere[0]);
}

/// A client's host behind the node and an instance's host, which knows no way back to the client but
/// by the node.
fn other_hosts(kind: Kind) {
    let mut host = Host::new(kind);
    let (client, there) = (Netns::new(), Netns::new());
    Netns::join((&host.node, "10.1.0.1/24"), (&client, "10.1.0.2/24"));
    Netns::join((&host.node, "10.2.0.1/24"), (&there, "10.2.0.2/24"));
    run(&client, "ip route add default via 10.1.0.1");
    let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    host.node.enter(forward);
    let foreign = instances(&there, &["10.2.0.2:80"]);
    let here = instances(&host.node, &["10.2.0.1:81"]);
    host.serve(SERVICE, even(&foreign));
    host.serve("10.96.0.2:8080", even(&here));
    for (from, to, who) in [
        (&client, SERVICE, foreign[0]),
        (&host.node, SERVICE, foreign[0]),
        (&client, "10.96.0.2:8080", here[0]),
    ] {
        assert_eq!(answer(&connect(from, to).unwrap()).unwrap(), who);
    }
    assert!(is_refused(&connect(&client, "10.96.0.1:22")));
    let streams = [&client, &host.node].map(|from| connect(from, SERVICE).unwrap());
    for stream in &streams {
        assert_eq!(answer(stream).unwrap(), foreign[0]);
    }
    host.apply(&Batch {
        services: vec![(address(SERVICE), Spread::default())],
        dead: foreign,
        ..Batch::default()
    });
    assert!(streams.iter().all(is_reset));
}

/// The next process has what the kernel kept, or begins with nothing.
fn started_again(kind: Kind) {
    let mut host = Host::new(kind);
    let own = instances(&host.node, &THREE);
    host.serve(SERVICE, even(&own));
    host.serve("[fd96::1]:80", even(&[address("[::1]:1")]));
    let lost = vec![address("10.9.9.9:1")];
    host.apply(&Batch {
        dead: lost.clone(),
        ..Batch::default()
    });
    shares(&host.node, SERVICE, 20);
    let before = host.back_end.in_force();
    let mut host = host.start_again(kind);
    if !kind.is_kernel() {
        assert_eq!(host.back_end.in_force(), (vec![], vec![]));
        assert!(is_refused(&connect(&host.node, SERVICE)));
        host.serve(SERVICE, even(&own));
        assert_eq!(shares(&host.node, SERVICE, 1).len(), 1);
        return;
    }
    assert_eq!(host.back_end.in_force(), before);
    assert_eq!(before.1, lost);
    shares(&host.node, SERVICE, 20);
    let counted = host
        .enter(|back_end| back_end.meter()?.connections())
        .unwrap();
    assert_eq!(counted[0], (address(SERVICE), 40), "nothing was made anew");
    assert_eq!(host.check(), Found::InForce);
    host.serve(SERVICE, even(&own[..1]));
    assert_eq!(shares(&host.node, SERVICE, 20), [(own[0], 1000)].into());
}

fn removed(kind: Kind) {
    let mut host = Host::new(kind);
    let own = instances(&host.node, &THREE);
    host.serve(SERVICE, even(&own));
    host.enter(|back_end| back_end.remove()).unwrap();
    assert_eq!(host.back_end.in_force(), (vec![], vec![]));
    assert!(is_refused(&connect(&host.node, SERVICE)));
    let left = match kind {
        Kind::Nft => run(&host.node, "nft list tables"),
        Kind::Legacy => run(&host.node, "iptables-legacy -t nat -S"),
        Kind::OverNft => run(&host.node, "iptables-nft -t nat -S"),
        Kind::Userspace => String::new(),
    };
    assert!(!left.to_lowercase().contains("mainstay"), "{left}");
    host.serve(SERVICE, even(&own[..1]));
    assert_eq!(shares(&host.node, SERVICE, 3), [(own[0], 1000)].into());
}

/// All or nothing: one of two services cannot be.
fn refused_changes(kind: Kind) {
    let mut host = Host::new(kind);
    let own = instances(&host.node, &THREE);
    host.serve(SERVICE, even(&own[..1]));
    let _taken = instances(&host.node, &["10.96.0.9:9001"]);
    let broken = match kind {
        // Which the kernel has no words for.
        Kind::Nft => ("[fd96::1]:80", "127.0.0.1:1"),
        // Of which iptables is told when the table of IPv4 is changed already.
        Kind::Legacy | Kind::OverNft => ("[fd96::1]:80", "[fe80::1%7]:80"),
        Kind::Userspace => ("10.96.0.9:9001", "127.0.0.1:1"),
    };
    let batch = Batch {
        services: vec![
            (address(SERVICE), even(&own[1..])),
            (address("10.96.0.2:8080"), even(&own)),
            (address(broken.0), even(&[address(broken.1)])),
        ],
        ..Batch::default()
    };
    let refused = host.enter(|back_end| back_end.apply(&batch)).unwrap_err();
    assert!(
        matches!(refused, ForwardError::Refused { .. }),
        "{refused:?}"
    );
    assert_eq!(host.back_end.in_force().0, [address(SERVICE)]);
    assert_eq!(shares(&host.node, SERVICE, 20), [(own[0], 1000)].into());
    assert!(is_refused(&connect(&host.node, "10.96.0.2:8080")));
    assert_eq!(host.check(), Found::InForce);
}

/// Without any right, in the namespace of a node.
fn without_rights(kind: Kind) {
    let node = network();
    let own = instances(&node, &THREE);
    let started = node.enter(|| {
        give_up_rights();
        let mut back_end = kind.start()?;
        back_end.apply(&serve(SERVICE, even(&own)))?;
        let low = back_end.apply(&serve("10.96.0.1:80", even(&own)));
        Ok::<_, ForwardError>((back_end, low))
    });
    match started {
        Err(ForwardError::Forbidden { .. }) if kind.is_kernel() => {}
        Ok((back_end, low)) if !kind.is_kernel() => {
            assert_eq!(shares(&node, SERVICE, 30).len(), 3);
            let text = format!("{:?}", low.unwrap_err());
            assert!(text.contains("Privileged"), "{text}");
            drop(back_end);
        }
        Ok(_) => panic!("it forwards without rights"),
        Err(error) => panic!("{error:?}"),
    }
}

/// Of this thread, and of what it starts.
fn give_up_rights() {
    for capability in [CapabilitySet::NET_ADMIN, CapabilitySet::NET_BIND_SERVICE] {
        rustix::thread::remove_capability_from_bounding_set(capability).unwrap();
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, sets).unwrap();
}

macro_rules! conforms {
    ($($name:ident => $body:ident,)+) => {
        conforms!(@kind nft, Nft, $($name => $body,)+);
        conforms!(@kind iptables_legacy, Legacy, $($name => $body,)+);
        conforms!(@kind iptables_nft, OverNft, $($name => $body,)+);
        conforms!(@kind userspace, Userspace, $($name => $body,)+);
    };
    (@kind $module:ident, $kind:ident, $($name:ident => $body:ident,)+) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    if !super::is_root() {
                        return super::skip(super::NEEDS_ROOT);
                    }
                    super::$body(super::Kind::$kind);
                }
            )+
        }
    };
}

conforms! {
    system_the_published_example_comes_out_in_thirds => published,
    system_shares_follow_the_weights => weights,
    system_an_instance_that_leaves_keeps_its_connections => drained,
    system_what_is_under_way_to_a_dead_instance_is_reset => dead,
    system_ipv6_and_udp_are_forwarded_too => ipv6_and_udp,
    system_clients_that_stay_move_only_with_their_instance => staying,
    system_where_the_node_itself_listens_it_is_reached => the_node_itself,
    system_no_program_that_listens_everywhere_answers_for_a_service => nobody_else_answers,
    system_other_hosts_reach_services_and_instances_on_others => other_hosts,
    system_the_next_process_goes_on => started_again,
    system_nothing_is_left_behind => removed,
    system_a_change_that_is_refused_changes_nothing => refused_changes,
    system_without_rights_it_works_or_says_why_not => without_rights,
}
