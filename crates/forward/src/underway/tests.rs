//! In network namespaces, with the rules of the nft back end and real programs on both ends.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use mainstay_testkit::{Netns, is_root, skip, wait_until};
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

use mainstay_kernel::netlink::conntrack::Fill;

use super::*;
use crate::nft::Nft;
use crate::nft::tests::{
    DEADLINE, NEEDS_ROOT, address, answer, connect, even, instances, node, run, serve, start,
    three_hosts,
};
use crate::{BackEnd as _, Batch};

const SERVICE: &str = "10.96.0.1:8080";
const SERVICE6: &str = "[fd96::1]:8080";
const OTHER_SERVICE: &str = "10.96.0.2:9090";

fn underway(netns: &Netns) -> Underway {
    netns.enter(|| Underway::open().unwrap())
}

/// Declares an instance dead: the service addresses lead to the ones that are left.
fn bury(nft: &mut Nft, dead: SocketAddr, services: &[(&str, &[SocketAddr])]) -> Dead {
    let spread = |(service, left): &(&str, &[SocketAddr])| (address(service), even(left));
    let batch = Batch {
        services: services.iter().map(spread).collect(),
        dead: vec![dead],
        ..Batch::default()
    };
    nft.apply(&batch).unwrap();
    Dead {
        instance: dead,
        services: batch.services.into_iter().map(|(to, _)| to).collect(),
    }
}

fn revive(nft: &mut Nft, instance: SocketAddr, service: &str) {
    let batch = Batch {
        revived: vec![instance],
        ..serve(service, even(&[instance]))
    };
    nft.apply(&batch).unwrap();
}

/// A connection that got its instance's word, and waits for more.
fn waiting(netns: &Netns, to: &str) -> TcpStream {
    let stream = connect(netns, to).unwrap();
    answer(&stream).unwrap();
    stream
}

fn outcome(mut stream: &TcpStream) -> Option<ErrorKind> {
    stream.read(&mut [0; 8]).err().map(|error| error.kind())
}

/// It waits still, and nothing was said.
fn is_untouched(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    outcome(stream) == Some(ErrorKind::WouldBlock)
}

#[test]
fn system_who_waits_for_a_dead_instance_is_told_and_nobody_else() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    for (services, hosts) in [
        (
            [SERVICE, OTHER_SERVICE],
            ["127.0.0.1:9001", "127.0.0.1:9002"],
        ),
        ([SERVICE6, "[fd96::2]:9090"], ["[::1]:9001", "[::1]:9002"]),
    ] {
        let node = node();
        let mut nft = start(&node);
        let [dies, lives] = instances(&node, &hosts)[..] else {
            unreachable!("two")
        };
        let mut clients = Vec::new();
        for to in [dies, lives] {
            for service in services {
                nft.apply(&serve(service, even(&[to]))).unwrap();
                clients.push(waiting(&node, service));
            }
        }
        let direct = waiting(&node, hosts[0]);
        let underway = underway(&node);
        let left = [lives];
        let dead = bury(
            &mut nft,
            dies,
            &services.map(|service| (service, &left[..])),
        );
        assert!(clients.iter().all(is_untouched), "rules alone tell nobody");
        let severed = underway.sever(std::slice::from_ref(&dead)).unwrap();
        for told in &clients[..2] {
            told.set_nonblocking(false).unwrap();
            assert_eq!(outcome(told), Some(ErrorKind::ConnectionAborted));
        }
        let expected = Severed {
            reset: 2,
            led_anew: 0,
        };
        assert_eq!(severed, expected);
        assert!(clients[2..].iter().all(is_untouched));
        assert!(is_untouched(&direct));
        assert_eq!(underway.sever(&[dead]).unwrap(), Severed::default());
    }
}

/// Nothing comes in any more, and nobody is told.
fn cut_off(host: &Netns) {
    run(host, "nft add table ip silent");
    run(
        host,
        "nft add chain ip silent input { type filter hook input priority 0 ; policy drop ; }",
    );
}

#[test]
fn system_who_still_asks_for_a_connection_gets_it_elsewhere() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (node, _client, host) = three_hosts();
    let mut nft = start(&node);
    let dies = address("10.2.0.2:80");
    cut_off(&host);
    let lives = instances(&node, &["10.2.0.1:81"]);
    nft.apply(&serve(SERVICE, even(&[dies]))).unwrap();
    let (node, underway) = (&node, underway(&node));
    std::thread::scope(|scope| {
        let asks = scope.spawn(move || connect(node, SERVICE));
        wait_until(DEADLINE, "it asks", || {
            let mut found = 0;
            let end = [End::Remote(address(SERVICE))];
            let each = |_, _| found += 1;
            underway
                .sockets
                .each(&end, &[State::SynSent], each)
                .unwrap();
            if found == 1 {
                Ok(())
            } else {
                Err(found.to_string())
            }
        });
        let dead = bury(&mut nft, dies, &[(SERVICE, &lives)]);
        let severed = underway.sever(&[dead]).unwrap();
        let expected = Severed {
            reset: 0,
            led_anew: 1,
        };
        assert_eq!(severed, expected);
        let stream = asks.join().unwrap().unwrap();
        assert_eq!(answer(&stream).unwrap(), lives[0]);
    });
}

#[test]
fn system_who_asks_from_another_host_does_not_reach_whoever_has_the_address_next() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (node, client, host) = three_hosts();
    let mut nft = start(&node);
    let dies = address("10.2.0.2:80");
    cut_off(&host);
    let lives = instances(&node, &["10.2.0.1:81"]);
    nft.apply(&serve(SERVICE, even(&[dies]))).unwrap();
    let (client, underway) = (&client, underway(&node));
    std::thread::scope(|scope| {
        let asks = scope.spawn(move || connect(client, SERVICE));
        wait_until(DEADLINE, "it asks", || {
            let asking = underway.led_to(Protocol::Tcp, &[dies]).unwrap();
            if asking.iter().any(|flow| flow.phase == Phase::Asked) {
                Ok(())
            } else {
                Err(format!("{asking:?}"))
            }
        });
        let dead = bury(&mut nft, dies, &[(SERVICE, &lives)]);
        underway.sever(&[dead]).unwrap();
        // The address is another service's before the SYN is sent again, after a second.
        let heir = instances(&host, &["10.2.0.2:80"]);
        run(&host, "nft delete table ip silent");
        revive(&mut nft, heir[0], OTHER_SERVICE);
        let stream = asks.join().unwrap().unwrap();
        assert_eq!(answer(&stream).unwrap(), lives[0]);
    });
}

#[test]
fn system_who_has_said_all_and_listens_is_told() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let mut nft = start(&node);
    let listener = node.enter(|| TcpListener::bind("127.0.0.1:9001").unwrap());
    let dies = listener.local_addr().unwrap();
    nft.apply(&serve(SERVICE, even(&[dies]))).unwrap();
    let client = connect(&node, SERVICE).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
    let dead = bury(&mut nft, dies, &[(SERVICE, &[])]);
    let severed = underway(&node).sever(&[dead]).unwrap();
    assert_eq!(severed.reset, 1);
    assert_eq!(outcome(&client), Some(ErrorKind::ConnectionAborted));
}

/// A server that tells by whom it was asked last, when it is looked.
struct Datagrams(UdpSocket);

impl Datagrams {
    fn bind(netns: &Netns, at: &str) -> Self {
        let socket = netns.enter(|| UdpSocket::bind(at).unwrap());
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Answers all that was asked. How many.
    fn answer(&self) -> usize {
        let mut count = 0;
        while let Ok((_, from)) = self.0.recv_from(&mut [0; 8]) {
            self.0.send_to(b"!", from).unwrap();
            count += 1;
        }
        count
    }
}

fn asker(netns: &Netns, to: &str) -> UdpSocket {
    let any = if address(to).is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    netns.enter(|| {
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.connect(to).unwrap();
        socket
    })
}

/// Who gets a datagram, of these servers.
fn round(asker: &UdpSocket, servers: &[&Datagrams]) -> SocketAddr {
    asker.send(b"?").unwrap();
    let from = wait_until(DEADLINE, "one has it", || {
        let one = servers.iter().find(|server| server.answer() > 0);
        one.map(|server| server.address())
            .ok_or_else(|| "none".to_owned())
    });
    asker.recv(&mut [0; 8]).unwrap();
    from
}

/// What becomes of a datagram that nobody has.
fn refusal(asker: &UdpSocket) -> ErrorKind {
    asker.send(b"?").unwrap();
    asker.recv(&mut [0; 8]).unwrap_err().kind()
}

#[test]
fn system_datagrams_leave_with_the_instance_and_its_address_can_be_given_away() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (node, client, host) = three_hosts();
    let mut nft = start(&node);
    let underway = underway(&node);
    let leaves = Datagrams::bind(&host, "10.2.0.2:53");
    let stays = Datagrams::bind(&host, "10.2.0.2:54");
    nft.apply(&serve(SERVICE, even(&[leaves.address()])))
        .unwrap();
    let askers = [asker(&node, SERVICE), asker(&client, SERVICE)];
    let all_to = |to: &Datagrams| {
        for asker in &askers {
            assert_eq!(round(asker, &[&leaves, &stays]), to.address());
        }
    };
    all_to(&leaves);
    nft.apply(&serve(SERVICE, even(&[stays.address()])))
        .unwrap();
    // Rules alone move nobody who goes on asking.
    all_to(&leaves);
    underway.release(&[leaves.address()]).unwrap();
    all_to(&stays);
    // The address is another service's from now on.
    nft.apply(&serve(OTHER_SERVICE, even(&[leaves.address()])))
        .unwrap();
    let other = asker(&node, OTHER_SERVICE);
    assert_eq!(round(&other, &[&leaves, &stays]), leaves.address());
    all_to(&stays);
    // The last one leaves.
    nft.apply(&serve(SERVICE, even(&[]))).unwrap();
    underway.release(&[stays.address()]).unwrap();
    for asker in &askers {
        assert_eq!(refusal(asker), ErrorKind::ConnectionRefused);
    }
    assert_eq!((leaves.answer(), stays.answer()), (0, 0));
    assert_eq!(round(&other, &[&leaves, &stays]), leaves.address());
    // And another comes.
    underway.admit(&[address(SERVICE)]).unwrap();
    nft.apply(&serve(SERVICE, even(&[leaves.address()])))
        .unwrap();
    all_to(&leaves);
}

#[test]
fn system_datagrams_leave_a_host_with_many_instances_that_dies() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let mut nft = start(&node);
    let underway = underway(&node);
    for (service, host) in [(SERVICE, "127.0.0.1"), (SERVICE6, "[::1]")] {
        let bind = |port| Datagrams::bind(&node, &format!("{host}:{port}"));
        let die: Vec<Datagrams> = (9001..9010).map(bind).collect();
        assert!(die.len() > WALKS_MAX);
        let lives = bind(9010);
        let mut askers = Vec::new();
        for one in &die {
            nft.apply(&serve(service, even(&[one.address()]))).unwrap();
            askers.push(asker(&node, service));
            assert_eq!(round(&askers[askers.len() - 1], &[one]), one.address());
        }
        let left = [lives.address()];
        let mut dead: Vec<Dead> = Vec::new();
        for one in &die {
            dead.push(bury(&mut nft, one.address(), &[(service, &left)]));
        }
        underway.sever(&dead).unwrap();
        for asker in &askers {
            assert_eq!(round(asker, &[&lives]), lives.address());
        }
        assert!(die.iter().all(|one| one.answer() == 0));
    }
}

/// A connection from a certain port.
fn connect_from(netns: &Netns, port: u16, to: &str) -> std::io::Result<TcpStream> {
    netns.enter(|| {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        let from = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        bind(&socket, &from)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(DEADLINE))?;
        rustix::net::connect(&socket, &address(to))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(stream)
    })
}

#[test]
fn system_a_host_that_comes_back_serves_also_those_whom_it_knew() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (node, _client, host) = three_hosts();
    let mut nft = start(&node);
    let underway = underway(&node);
    let there = instances(&host, &["10.2.0.2:80"]);
    nft.apply(&serve(SERVICE, even(&there))).unwrap();
    // Its source port is that of the connection before.
    let port = 40_001;
    let client = connect_from(&node, port, SERVICE).unwrap();
    answer(&client).unwrap();
    cut_off(&host);
    let dead = bury(&mut nft, there[0], &[(SERVICE, &[])]);
    assert_eq!(underway.sever(&[dead]).unwrap().reset, 1);
    assert_eq!(outcome(&client), Some(ErrorKind::ConnectionAborted));
    drop(client);
    run(&host, "nft delete table ip silent");
    let known = host.enter(|| Sockets::open().unwrap().crowds(&there).unwrap());
    assert_eq!(known[0].established, 1, "it knows the old one");
    revive(&mut nft, there[0], SERVICE);
    // Its SYN is taken for a stray packet of the old one, which ends that, and is sent again.
    let client = connect_from(&node, port, SERVICE).unwrap();
    assert_eq!(answer(&client).unwrap(), there[0]);
}

#[test]
fn system_whoever_gets_a_dead_instances_address_hears_nothing_of_its_clients() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (node, client, host) = three_hosts();
    let mut nft = start(&node);
    let dies = instances(&host, &["10.2.0.2:80"]);
    nft.apply(&serve(SERVICE, even(&dies))).unwrap();
    // On another host, so that nothing but a packet can tell it.
    let stale = waiting(&client, SERVICE);
    let dead = bury(&mut nft, dies[0], &[(SERVICE, &[])]);
    let severed = underway(&node).sever(&[dead]).unwrap();
    assert_eq!(severed, Severed::default());
    assert!(is_untouched(&stale));
    // Another machine gets its address, and an instance of another service.
    drop(host);
    run(&node, "ip route flush 10.2.0.0/24");
    let successor = Netns::new();
    Netns::join((&node, "10.2.0.1/24"), (&successor, "10.2.0.2/24"));
    let listener = successor.enter(|| TcpListener::bind("10.2.0.2:80").unwrap());
    listener.set_nonblocking(true).unwrap();
    revive(&mut nft, dies[0], OTHER_SERVICE);
    stale.set_nonblocking(false).unwrap();
    (&stale).write_all(b"for the other").unwrap();
    assert_eq!(outcome(&stale), Some(ErrorKind::ConnectionReset));
    assert_eq!(outcome_of(listener.accept()), Some(ErrorKind::WouldBlock));
    // Whom it does concern reaches it.
    let fresh = connect(&client, OTHER_SERVICE).unwrap();
    let far = wait_until(DEADLINE, "it arrives", || {
        listener.accept().map_err(|error| error.to_string())
    });
    drop((fresh, far));
}

fn outcome_of<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn system_who_was_refused_gets_through_as_soon_as_there_is_somebody() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let mut nft = start(&node);
    let underway = underway(&node);
    let many: Vec<String> = (1..8).map(|port| format!("10.96.0.9:{port}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(many.len() > WALKS_MAX);
    for (services, at) in [
        (&[SERVICE][..], "127.0.0.1:9001"),
        (&[SERVICE6], "[::1]:9001"),
        (&many, "127.0.0.1:9002"),
    ] {
        let server = Datagrams::bind(&node, at);
        let askers: Vec<UdpSocket> = services.iter().map(|to| asker(&node, to)).collect();
        for asker in &askers {
            assert_eq!(refusal(asker), ErrorKind::ConnectionRefused);
        }
        for service in services {
            nft.apply(&serve(service, even(&[server.address()])))
                .unwrap();
        }
        for asker in &askers {
            assert_eq!(refusal(asker), ErrorKind::ConnectionRefused, "rules alone");
        }
        let services: Vec<SocketAddr> = services.iter().map(|to| address(to)).collect();
        underway.admit(&services).unwrap();
        for asker in &askers {
            round(asker, &[&server]);
        }
    }
}

#[test]
fn system_what_is_in_flight_to_instances_here_and_elsewhere_is_counted() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let (node, client, host) = three_hosts();
    let mut nft = start(&node);
    let underway = underway(&node);
    let ports = 80..86;
    let there: Vec<String> = ports.map(|port| format!("10.2.0.2:{port}")).collect();
    let there: Vec<&str> = there.iter().map(String::as_str).collect();
    let there = instances(&host, &there);
    assert!(there.len() > WALKS_MAX);
    let here = instances(&node, &["10.2.0.1:81"])[0];
    let counts = |instances: &[SocketAddr]| {
        let draining: Vec<Draining> = instances
            .iter()
            .map(|one| Draining {
                instance: *one,
                whereabouts: if *one == here {
                    Whereabouts::Here
                } else {
                    Whereabouts::Elsewhere
                },
            })
            .collect();
        underway.in_flight(&draining).unwrap()
    };
    nft.apply(&serve(SERVICE, even(&[there[1]]))).unwrap();
    let led = [waiting(&node, SERVICE), waiting(&client, SERVICE)];
    nft.apply(&serve(SERVICE, even(&[here]))).unwrap();
    let arrived = [
        waiting(&node, SERVICE),
        waiting(&client, SERVICE),
        waiting(&node, "10.2.0.1:81"),
    ];
    // What no service led there is known by the host that it goes to.
    let direct = waiting(&node, "10.2.0.2:80");
    let order = [there[0], there[1], here];
    assert_eq!(counts(&order), [0, 2, 3]);
    let all = [&order[..], &there[2..]].concat();
    assert_eq!(counts(&all), [0, 2, 3, 0, 0, 0, 0]);
    assert_eq!(counts(&[here]), [3]);
    assert!(counts(&[]).is_empty());
    led[0].shutdown(Shutdown::Both).unwrap();
    drop(led);
    drop(arrived);
    wait_until(DEADLINE, "nothing is in flight", || {
        let counts = [counts(&order), counts(&all)];
        let all_ended = counts.iter().flatten().all(|count| *count == 0);
        all_ended.then_some(()).ok_or_else(|| format!("{counts:?}"))
    });
    drop(direct);
}

/// More than a machine with some hundred services has, and each of its programs waits.
const ENTRIES: usize = 30_000;
const SOCKETS: usize = 2_000;
/// How long whoever waits may go on waiting: it takes some 20 ms, and four times as long if the compiler
/// does not optimize.
const TOLD_WITHIN: Duration = Duration::from_millis(if cfg!(debug_assertions) { 400 } else { 100 });

#[test]
fn system_all_are_told_within_a_tenth_of_a_second_on_a_machine_with_many_connections() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let mut nft = start(&node);
    let underway = underway(&node);
    node.enter(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let crowd = (0..ENTRIES - SOCKETS)
            .map(u32::try_from)
            .map(Result::unwrap);
        for to in crowd.map(|one| Ipv4Addr::from_bits(0x7F10_0000 + one)) {
            // Refused or not, it is remembered.
            socket.send_to(b"!", (to, 9)).ok();
        }
    });
    let listen = |at| {
        let listener = node.enter(|| TcpListener::bind(at).unwrap());
        listener.set_nonblocking(true).unwrap();
        listener
    };
    let listeners = ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"].map(listen);
    let own = listeners.each_ref().map(|one| one.local_addr().unwrap());
    // Once would do, on a machine that has nothing else to do.
    let mut took = Vec::new();
    for _ in 0..3 {
        nft.apply(&Batch {
            revived: vec![own[0]],
            ..serve(SERVICE, even(&own))
        })
        .unwrap();
        let mut far: [Vec<TcpStream>; 3] = Default::default();
        let mut connect = || {
            let client = TcpStream::connect(address(SERVICE)).unwrap();
            for (far, listener) in far.iter_mut().zip(&listeners) {
                far.extend(listener.accept().ok().map(|(stream, _)| stream));
            }
            client
        };
        let clients: Vec<TcpStream> = node.enter(|| (0..SOCKETS).map(|_| connect()).collect());
        let expected = far[0].len();
        let entries = node.enter(|| Fill::read().unwrap().entries);
        assert!(entries >= 30_000, "{entries}");
        let dead = bury(&mut nft, own[0], &[(SERVICE, &own[1..])]);
        let begun = Instant::now();
        let severed = underway.sever(&[dead]).unwrap();
        took.push(begun.elapsed());
        assert_eq!(severed.reset, expected);
        assert!(expected > SOCKETS / 4, "{expected}");
        let told = clients.iter().filter(|client| !is_untouched(client));
        assert_eq!(told.count(), expected);
        if took.iter().any(|took| *took < TOLD_WITHIN) {
            eprintln!("told {expected} of {SOCKETS} in {took:?}");
            return;
        }
    }
    panic!("{took:?}");
}

fn drop_rights() {
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    rustix::thread::set_capabilities(None, sets).unwrap();
}

#[test]
fn system_without_the_right_it_is_told_which_one_is_missing() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let node = node();
    let mut nft = start(&node);
    let own = instances(&node, &["127.0.0.1:9001"]);
    nft.apply(&serve(SERVICE, even(&own))).unwrap();
    let waits = waiting(&node, SERVICE);
    let dead = bury(&mut nft, own[0], &[(SERVICE, &[])]);
    let error = node.enter(|| {
        drop_rights();
        Underway::open().unwrap().sever(&[dead]).unwrap_err()
    });
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    assert!(is_untouched(&waits));
}
