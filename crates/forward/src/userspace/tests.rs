//! What only this back end has. What every one does is in `crate::tests`.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};

use mainstay_testkit::{is_root, skip, wait_until};

use super::*;
use crate::tests::{
    DEADLINE, Host, Kind, NEEDS_ROOT, address, answer, connect, even, instances, is_refused,
    is_reset, serve, shares, weighed,
};

const SERVICE: &str = "10.96.0.1:8080";
/// More than is copied before it is spliced, and than all buffers hold.
const LEN: usize = 4 * 1024 * 1024;

fn in_flight(host: &mut Host) -> Vec<(SocketAddr, u64)> {
    host.back_end.meter().unwrap().in_flight().unwrap().unwrap()
}

#[test]
fn system_each_end_of_a_long_connection_is_carried_by_itself() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let mut host = Host::new(Kind::Userspace);
    let listener = host
        .node
        .enter(|| TcpListener::bind("127.0.0.1:9001").unwrap());
    let own = listener.local_addr().unwrap();
    // It answers after its client has said all.
    let instance = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).unwrap();
        said.reverse();
        client.write_all(&said).unwrap();
    });
    host.serve(SERVICE, even(&[own]));
    let mut client = connect(&host.node, SERVICE).unwrap();
    let said: Vec<u8> = (0..LEN)
        .map(|index| index.to_le_bytes()[0] ^ index.to_le_bytes()[2])
        .collect();
    client.write_all(&said).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    instance.join().unwrap();
    answer.reverse();
    assert!(answer == said, "{} bytes came back", answer.len());
    let traffic = host.back_end.meter().unwrap().traffic().unwrap().unwrap();
    let len = u64::try_from(LEN).unwrap();
    let counted = Counted {
        sent: len,
        received: len,
    };
    assert_eq!(traffic, [(own, counted)]);
    wait_until(DEADLINE, "nothing is in flight", || {
        match in_flight(&mut host)[..] {
            [(_, 0)] => Ok(()),
            ref other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn system_an_instance_that_refuses_costs_no_connection() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let mut host = Host::new(Kind::Userspace);
    let own = instances(&host.node, &["127.0.0.1:9001"]);
    let refuses = address("127.0.0.1:9002");
    host.serve(SERVICE, weighed(&[(own[0], 1), (refuses, 9)]));
    assert_eq!(shares(&host.node, SERVICE, 40), [(own[0], 1000)].into());
    // Nobody takes it.
    host.serve(SERVICE, even(&[refuses]));
    match connect(&host.node, SERVICE) {
        Ok(stream) => assert!(is_reset(&stream)),
        // Before it was looked at.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

#[test]
fn system_what_is_open_is_told_for_each_instance() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let mut host = Host::new(Kind::Userspace);
    let own = instances(&host.node, &["127.0.0.1:9001", "127.0.0.1:9002"]);
    host.serve(SERVICE, even(&own[..1]));
    let open: Vec<TcpStream> = (0..3)
        .map(|_| connect(&host.node, SERVICE).unwrap())
        .collect();
    for stream in &open {
        answer(stream).unwrap();
    }
    assert_eq!(in_flight(&mut host), [(own[0], 3)]);
    // It drains.
    host.serve(SERVICE, even(&own[1..]));
    assert_eq!(in_flight(&mut host), [(own[0], 3), (own[1], 0)]);
    drop(open);
    wait_until(DEADLINE, "it is drained", || {
        match in_flight(&mut host)[0] {
            (_, 0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // And is forgotten by the next change.
    host.serve("10.96.0.2:8080", even(&own[1..]));
    assert_eq!(in_flight(&mut host), [(own[1], 0)]);
}

#[test]
fn system_a_flow_leaves_an_instance_that_is_gone() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let mut host = Host::new(Kind::Userspace);
    let bind = |at: &str| {
        let socket = host.node.enter(|| UdpSocket::bind(at).unwrap());
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    };
    let (one, other, client) = (
        bind("127.0.0.1:9001"),
        bind("127.0.0.1:9002"),
        bind("127.0.0.1:0"),
    );
    let [first, second] = [&one, &other].map(|socket| socket.local_addr().unwrap());
    client.connect(SERVICE).unwrap();
    let mut datagram = [0; 16];
    host.serve(SERVICE, even(&[first]));
    for _ in 0..3 {
        client.send(b"question").unwrap();
        let (_, from) = one.recv_from(&mut datagram).unwrap();
        one.send_to(b"answer", from).unwrap();
        assert_eq!(client.recv(&mut datagram).unwrap(), 6);
    }
    assert_eq!(in_flight(&mut host), [(first, 1)], "one flow");
    host.serve(SERVICE, even(&[second]));
    client.send(b"question").unwrap();
    let (_, from) = other.recv_from(&mut datagram).unwrap();
    other.send_to(b"answer", from).unwrap();
    assert_eq!(client.recv(&mut datagram).unwrap(), 6);
    // Nobody listens there any more: the next datagrams find another.
    host.serve(SERVICE, even(&[first, second]));
    drop(other);
    one.set_read_timeout(Some(std::time::Duration::from_millis(50)))
        .unwrap();
    wait_until(DEADLINE, "the flow moves", || {
        client.send(b"question").ok();
        let heard = one.recv_from(&mut datagram);
        heard.map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn system_the_port_of_a_service_without_instances_stays_its_own() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let mut host = Host::new(Kind::Userspace);
    let own = instances(&host.node, &["127.0.0.1:9001"]);
    host.serve(SERVICE, even(&[]));
    assert!(is_refused(&connect(&host.node, SERVICE)));
    host.serve(SERVICE, even(&own));
    assert_eq!(shares(&host.node, SERVICE, 3), [(own[0], 1000)].into());
    let everywhere = || host.node.enter(|| TcpListener::bind("0.0.0.0:8080"));
    let error = everywhere().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    // And the other way round.
    let gone = vec![address(SERVICE)];
    let batch = Batch {
        gone,
        ..Batch::default()
    };
    host.back_end.apply(&batch).unwrap();
    let listener = everywhere().unwrap();
    let error = host
        .back_end
        .apply(&serve(SERVICE, even(&own)))
        .unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("Taken(10.96.0.1:8080)"), "{text}");
    drop(listener);
}

#[test]
fn datagrams_to_a_service_that_is_gone_are_refused_at_once_and_its_port_is_free() {
    let (mut back_end, service) = narrow(Limits::of_process());
    let instance = UdpSocket::bind("127.0.0.1:0").unwrap();
    instance.set_read_timeout(Some(DEADLINE)).unwrap();
    let own = instance.local_addr().unwrap();
    let gone = Batch {
        gone: vec![service],
        ..Batch::default()
    };
    // Each time somebody has the time between the word and the deed.
    for round in 0..200 {
        let serving = serve(&service.to_string(), even(&[own]));
        back_end.apply(&serving).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.connect(service).unwrap();
        client.send(b"question").unwrap();
        instance.recv_from(&mut [0; 16]).unwrap();
        let none = serve(&service.to_string(), even(&[]));
        back_end
            .apply(if round % 2 == 0 { &gone } else { &none })
            .unwrap();
        client.send(b"question").unwrap();
        let error = client.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::ConnectionRefused,
            "round {round}"
        );
        drop(UdpSocket::bind(service).unwrap());
    }
}

#[test]
fn addresses_that_are_not_the_hosts_are_explained() {
    let networks = ["127.96.0.0/16", "192.0.2.0/24"];
    let networks = networks.map(|text| mainstay_model::Network::parse(text).unwrap());
    let ranges = Ranges::new(networks.to_vec()).unwrap();
    let mut back_end = Userspace::start(Settings { ranges });
    let shares = even(&[address("127.0.0.1:1")]);
    for (service, said) in [
        ("192.0.2.1:8080", "is not an address of this host"),
        ("10.1.1.1:8080", "none of the networks"),
    ] {
        let error = back_end.apply(&serve(service, shares.clone())).unwrap_err();
        let ForwardError::Refused { source, .. } = error else {
            panic!("{error:?}");
        };
        assert!(source.to_string().contains(said), "{source}");
    }
    assert_eq!(back_end.in_force().0, []);
}

#[test]
fn a_thread_that_ended_is_started_again_with_all_that_it_had() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    let free = TcpListener::bind("127.96.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let networks = vec![mainstay_model::Network::parse("127.96.0.0/16").unwrap()];
    let ranges = Ranges::new(networks).unwrap();
    let mut back_end = Userspace::start(Settings { ranges });
    back_end
        .apply(&serve(&free.to_string(), even(&[own])))
        .unwrap();
    assert_eq!(back_end.check().unwrap(), Found::InForce);
    let asks = back_end.line.get().clone().unwrap();
    asks.try_send(Ask::Panic).unwrap();
    drop(asks);
    wait_until(DEADLINE, "the thread ends", || match back_end.check() {
        Ok(Found::Repaired(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let client = TcpStream::connect(free).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    drop(client);
    drop(accepted);
    assert_eq!(back_end.in_force().0, [free]);
}

/// On loopback, without root.
fn narrow(limits: Limits) -> (Userspace, SocketAddr) {
    let networks = vec![mainstay_model::Network::parse("127.96.0.0/16").unwrap()];
    let ranges = Ranges::new(networks).unwrap();
    let mut back_end = Userspace::start(Settings { ranges });
    back_end.limits = limits;
    let free = TcpListener::bind("127.96.0.1:0").unwrap();
    (back_end, free.local_addr().unwrap())
}

#[test]
fn more_clients_than_there_may_be_wait_and_take_nothing_from_the_others() {
    let limits = Limits {
        connections: 3,
        of_instance: 2,
        ..Limits::of_process()
    };
    let (mut back_end, service) = narrow(limits);
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let own = listeners.each_ref().map(|one| one.local_addr().unwrap());
    back_end
        .apply(&serve(&service.to_string(), even(&own)))
        .unwrap();
    let clients: Vec<TcpStream> = (0..5)
        .map(|_| TcpStream::connect(service).unwrap())
        .collect();
    let mut meter = back_end.meter().unwrap();
    let open = |meter: &mut dyn Meter| -> Vec<u64> {
        let open = meter.in_flight().unwrap().unwrap();
        open.into_iter().map(|(_, count)| count).collect()
    };
    wait_until(DEADLINE, "three are open", || {
        match open(meter.as_mut())[..] {
            [one, other] if one + other == 3 && one.max(other) == 2 => Ok(()),
            ref found => Err(format!("{found:?}")),
        }
    });
    // The others were accepted by the kernel, and have their turn when those in front are done.
    drop(clients);
    for listener in listeners {
        // Until the test ends: an instance that closes when its client does.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                stream.unwrap().read_to_end(&mut Vec::new()).ok();
            }
        });
    }
    wait_until(DEADLINE, "all were served", || {
        let counted = meter.connections().unwrap()[0].1;
        let open: u64 = open(meter.as_mut()).iter().sum();
        if (counted, open) == (5, 0) {
            Ok(())
        } else {
            Err(format!("{counted} served, {open} open"))
        }
    });
}

#[test]
fn the_flow_that_was_silent_for_longest_makes_room() {
    let limits = Limits {
        flows: 2,
        ..Limits::of_process()
    };
    let (mut back_end, service) = narrow(limits);
    let instance = UdpSocket::bind("127.0.0.1:0").unwrap();
    instance.set_read_timeout(Some(DEADLINE)).unwrap();
    let own = instance.local_addr().unwrap();
    back_end
        .apply(&serve(&service.to_string(), even(&[own])))
        .unwrap();
    let clients = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let ask = |client: &UdpSocket| {
        client.send_to(b"question", service).unwrap();
        instance.recv_from(&mut [0; 16]).unwrap().1
    };
    let first = ask(&clients[0]);
    let second = ask(&clients[1]);
    assert_eq!(ask(&clients[0]), first);
    ask(&clients[2]);
    assert_eq!(ask(&clients[0]), first, "it was not silent for longest");
    assert_ne!(ask(&clients[1]), second, "a new flow");
    let open = back_end.meter().unwrap().in_flight().unwrap().unwrap();
    assert_eq!(open, [(own, 2)]);
}
