//! Against real connections that `nft` leads on, and flows that are put into the table.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use mainstay_testkit::{Netns, is_root, program, skip, wait_until};

use super::attributes::REPLY;
use super::*;
use crate::netlink::route::{LocalRoute, Routes};

/// `IPCTNL_MSG_CT_NEW`.
const NEW: u16 = 0;
const NEEDS_ROOT: &str = "needs root: makes network namespaces, and rules in them";
const SOON: Duration = Duration::from_secs(10);

/// 10.96.0.10:8080 and [fd00:96::10]:8080 are led to port 80 of 10.77.0.101 and fd00:77::101, or
/// wherever the map says.
const RULES: &str = "
table inet lb {
  map ep4 { type inet_proto : ipv4_addr . inet_service; elements = { tcp : 10.77.0.101 . 80, udp : 10.77.0.101 . 80 } }
  map ep6 { type inet_proto : ipv6_addr . inet_service; elements = { tcp : fd00:77::101 . 80, udp : fd00:77::101 . 80 } }
  chain out { type nat hook output priority -100; policy accept;
    meta l4proto { tcp, udp } ip daddr 10.96.0.10 th dport 8080 dnat ip to meta l4proto map @ep4
    meta l4proto { tcp, udp } ip6 daddr fd00:96::10 th dport 8080 dnat ip6 to meta l4proto map @ep6
  }
}
";
const SERVICE: &str = "10.96.0.10:8080";
const SERVICE6: &str = "[fd00:96::10]:8080";
const INSTANCE: &str = "10.77.0.101:80";
const OTHER: &str = "10.77.0.102:80";
const INSTANCE6: &str = "[fd00:77::101]:80";
const OTHER6: &str = "[fd00:77::102]:80";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn nft(netns: &Netns, input: &str) {
    let mut command = netns.command(&program("nft"));
    let command = command.args(["-f", "-"]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{input}");
}

/// A network with the service and two instances, of which the first is chosen.
fn forwarding() -> Netns {
    let netns = Netns::new();
    let ip = program("ip");
    for at in [
        "10.77.0.101/32",
        "10.77.0.102/32",
        "fd00:77::101/128",
        "fd00:77::102/128",
    ] {
        let mut command = netns.command(&ip);
        // An address of IPv6 is no source of a route while it is looked for on the network.
        let line = ["address", "add", at, "dev", "lo", "nodad"];
        let status = command.args(line).status();
        assert!(status.unwrap().success(), "{at}");
    }
    netns.enter(|| {
        let routes = Routes::open().unwrap();
        for (range, source) in [
            ("10.96.0.0/16", "10.77.0.101"),
            ("fd00:96::/64", "fd00:77::101"),
        ] {
            let prefix = crate::netlink::prefix::tests::read(range).unwrap();
            let source = Some(source.parse().unwrap());
            routes.add_local(&LocalRoute { prefix, source }).unwrap();
        }
    });
    nft(&netns, RULES);
    netns
}

/// From now on the second instance is chosen.
fn lead_to_the_other(netns: &Netns) {
    for (map, instance) in [("ep4", "10.77.0.102"), ("ep6", "fd00:77::102")] {
        nft(
            netns,
            &format!(
                "flush map inet lb {map}
                 add element inet lb {map} {{ tcp : {instance} . 80, udp : {instance} . 80 }}"
            ),
        );
    }
}

fn tuple(protocol: Protocol, source: SocketAddr, to: SocketAddr) -> Tuple {
    Tuple {
        protocol,
        source,
        destination: to,
    }
}

/// Puts flows into the table: as they began, and who answers them.
fn plant(conntrack: &Conntrack, flows: &[(Tuple, SocketAddr)]) {
    for batch in flows.chunks(FLOWS_AT_ONCE) {
        // NLM_F_CREATE, CTA_TIMEOUT
        let flags = REQUEST | ACK | 0x400;
        let originals = batch.iter().map(|flow| (&flow.0, flow));
        let request = requests((NEW, flags), originals, |out, (original, instance)| {
            let reply = tuple(original.protocol, *instance, original.source);
            attributes::write_tuple(out, REPLY, &reply);
            out.number(7, 3600);
        });
        let answers = conntrack.socket.transact(request.as_bytes()).unwrap();
        assert_eq!(answers.len(), batch.len());
        assert!(
            answers.iter().all(|answer| answer.errno == 0),
            "{:?}",
            answers[0]
        );
    }
}

/// `count` flows of clients elsewhere, from different addresses and ports.
fn strangers(
    protocol: Protocol,
    count: u16,
    (service, instance): (SocketAddr, SocketAddr),
) -> Vec<(Tuple, SocketAddr)> {
    let flow = |index: u16| {
        let [high, low] = index.to_be_bytes();
        let source = SocketAddr::from(([10, 1, high, low], 1024 + index));
        (tuple(protocol, source, service), instance)
    };
    (0..count).map(flow).collect()
}

fn filter(protocol: Protocol, instance: SocketAddr) -> Filter {
    let ends = Ends::Answering(instance);
    Filter { protocol, ends }
}

fn answered_by(conntrack: &Conntrack, protocol: Protocol, instance: &str) -> Vec<Flow> {
    let mut found = Vec::new();
    let each = |flow| found.push(flow);
    conntrack
        .each_answered_by(protocol, address(instance), each)
        .unwrap();
    found
}

/// A datagram to the service, and back from whoever has it.
fn round(client: &UdpSocket, servers: &[&UdpSocket]) -> SocketAddr {
    client.send(b"?").unwrap();
    wait_until(SOON, "a server has it", || {
        for server in servers {
            if let Ok((_, from)) = server.recv_from(&mut [0; 9]) {
                server.send_to(b"!", from).unwrap();
                client.recv(&mut [0; 9]).unwrap();
                return Ok(server.local_addr().unwrap());
            }
        }
        Err("nothing".to_owned())
    })
}

fn server(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn client(to: &str) -> UdpSocket {
    let to = address(to);
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.connect(to).unwrap();
    socket
}

#[test]
fn system_a_connection_is_found_by_how_it_was_addressed() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    forwarding().enter(|| {
        let conntrack = Conntrack::open().unwrap();
        for (service, instance) in [(SERVICE, INSTANCE), (SERVICE6, INSTANCE6)] {
            let listener = TcpListener::bind(instance).unwrap();
            let client = TcpStream::connect(service).unwrap();
            let mut far = listener.accept().unwrap().0;
            far.write_all(b"!").unwrap();
            (&client).read_exact(&mut [0]).unwrap();
            let local = client.local_addr().unwrap();
            let asked = tuple(Protocol::Tcp, local, address(service));
            let elsewhere = tuple(Protocol::Tcp, local, address(instance));
            let udp = tuple(Protocol::Udp, local, address(service));
            let found = conntrack.find(&[elsewhere, asked, udp]).unwrap();
            let [None, Some(flow), None] = found[..] else {
                panic!("{found:?}")
            };
            assert_eq!(flow.original, asked);
            assert_eq!(flow.reply.source, address(instance));
            assert_eq!(flow.reply.destination, local);
            assert!(flow.phase == Phase::Open && flow.led() == Led::On);
            assert_eq!(answered_by(&conntrack, Protocol::Tcp, instance), [flow]);
            assert_eq!(answered_by(&conntrack, Protocol::Udp, instance), []);
            assert_eq!(answered_by(&conntrack, Protocol::Tcp, service), []);
            assert_eq!(conntrack.delete(&[flow]).unwrap(), 1);
            assert_eq!(conntrack.delete(&[flow]).unwrap(), 0);
            assert_eq!(conntrack.find(&[asked]).unwrap(), [None]);
        }
    });
}

#[test]
fn system_the_flows_of_an_instance_are_told_from_all_others() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    Netns::new().enter(|| {
        let conntrack = Conntrack::open().unwrap();
        let count = u16::try_from(FLOWS_AT_ONCE).unwrap() * 3 + 7;
        for (service, instance, other) in
            [(SERVICE, INSTANCE, OTHER), (SERVICE6, INSTANCE6, OTHER6)]
        {
            let [service, at, other_at] = [service, instance, other].map(address);
            let next = SocketAddr::new(at.ip(), at.port() + 1);
            // Clients of IPv4 for IPv4, of IPv6 for IPv6.
            let of = |protocol, first: u16, to| -> Vec<_> {
                let flow = |(original, to): (Tuple, SocketAddr)| {
                    let port = original.source.port() + first;
                    let source = match service {
                        SocketAddr::V4(_) => SocketAddr::new(original.source.ip(), port),
                        SocketAddr::V6(_) => SocketAddr::new("fd00::1".parse().unwrap(), port),
                    };
                    (Tuple { source, ..original }, to)
                };
                strangers(protocol, count, (service, to))
                    .into_iter()
                    .map(flow)
                    .collect()
            };
            let mine = of(Protocol::Udp, 0, at);
            plant(&conntrack, &mine);
            plant(&conntrack, &of(Protocol::Tcp, 0, at));
            plant(&conntrack, &of(Protocol::Udp, count, other_at));
            plant(&conntrack, &of(Protocol::Udp, count * 2, next));
            let found = answered_by(&conntrack, Protocol::Udp, instance);
            let originals: BTreeSet<_> = found.iter().map(|flow| flow.original.source).collect();
            let expected: BTreeSet<_> = mine.iter().map(|(one, _)| one.source).collect();
            assert!(
                originals == expected,
                "{} of {}",
                originals.len(),
                expected.len()
            );
            assert_eq!(found.len(), mine.len());
            // The kernel sorts them out, of IPv6 by the port alone.
            let mut request = Writer::default();
            let header = (SUBSYSTEM | GET, REQUEST | DUMP);
            filter(Protocol::Udp, at).write(&mut request, header);
            let mut told = 0;
            conntrack
                .socket
                .dump(request.as_bytes(), |_| told += 1)
                .unwrap();
            let expected = if at.is_ipv4() {
                mine.len()
            } else {
                mine.len() * 2
            };
            assert_eq!(told, expected, "{at}");
            let asked: Vec<_> = mine.iter().map(|(original, _)| *original).collect();
            let all = conntrack.find(&asked).unwrap();
            assert!(
                all.iter()
                    .zip(&asked)
                    .all(|(one, asked)| one.unwrap().original == *asked)
            );
        }
        let fill = Fill::read().unwrap();
        assert_eq!(fill.entries, u64::from(count) * 8);
        assert!(fill.entries_max >= fill.entries, "{fill:?}");
    });
}

/// Both ways of deleting, of which kernels before 6.11 know one.
type Delete = fn(&Conntrack, Protocol, SocketAddr) -> io::Result<()>;

#[test]
fn system_udp_moves_off_an_instance_when_its_flows_are_deleted() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    let ways: [Delete; 2] = [Conntrack::delete_answered_by, |conntrack, protocol, at| {
        conntrack.find_and_delete(&filter(protocol, at))
    }];
    for delete in ways {
        let netns = forwarding();
        let netns = &netns;
        netns.enter(|| {
            let conntrack = Conntrack::open().unwrap();
            let cases = [(SERVICE, INSTANCE, OTHER), (SERVICE6, INSTANCE6, OTHER6)];
            let pairs = cases
                .map(|(service, leaves, stays)| (client(service), server(leaves), server(stays)));
            for (client, leaves, stays) in &pairs {
                let first = round(client, &[leaves, stays]);
                assert_eq!(first, leaves.local_addr().unwrap());
            }
            lead_to_the_other(netns);
            // Of other instances with the same port.
            let others = cases.map(|(service, _, stays)| {
                let [service, stays] = [service, stays].map(address);
                let source = SocketAddr::new(service.ip(), 4567);
                (tuple(Protocol::Udp, source, service), stays)
            });
            plant(&conntrack, &others);
            for (client, leaves, stays) in &pairs {
                let left = leaves.local_addr().unwrap();
                assert_eq!(
                    round(client, &[leaves, stays]),
                    left,
                    "it stays while it is tracked"
                );
                delete(&conntrack, Protocol::Tcp, left).unwrap();
                assert_eq!(round(client, &[leaves, stays]), left, "that was TCP's");
                delete(&conntrack, Protocol::Udp, left).unwrap();
                assert_eq!(round(client, &[leaves, stays]), stays.local_addr().unwrap());
            }
            let kept = conntrack
                .find(&others.map(|(original, _)| original))
                .unwrap();
            assert!(kept.iter().all(Option::is_some), "{kept:?}");
        });
    }
}

#[test]
fn system_what_is_led_on_is_told_with_how_far_it_is() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    forwarding().enter(|| {
        let conntrack = Conntrack::open().unwrap();
        let led_on = || {
            let mut found = Vec::new();
            let each = |flow| found.push(flow);
            conntrack.each_led(Led::On, each).unwrap();
            found
        };
        let phases = || -> Vec<_> { led_on().iter().map(|flow| flow.phase).collect() };
        for (service, instance) in [(SERVICE, INSTANCE), (SERVICE6, INSTANCE6)] {
            let listener = TcpListener::bind(instance).unwrap();
            // Not led on.
            let direct = TcpStream::connect(instance).unwrap();
            let _far = listener.accept().unwrap();
            assert_eq!(led_on(), []);
            let led = TcpStream::connect(service).unwrap();
            let far = listener.accept().unwrap().0;
            let [flow] = led_on()[..] else {
                panic!("{:?}", led_on())
            };
            let local = led.local_addr().unwrap();
            assert_eq!(flow.original.source, local);
            assert_eq!(flow.reply.source, address(instance));
            assert_eq!(flow.phase, Phase::Open);
            far.shutdown(Shutdown::Write).unwrap();
            assert_eq!(phases(), [Phase::Open], "the client may still speak");
            drop(led);
            wait_until(SOON, "it is over", || match phases()[..] {
                [Phase::Over] => Ok(()),
                _ => Err(format!("{:?}", phases())),
            });
            conntrack.delete(&[flow]).unwrap();
            drop(direct);
        }
        let client = client(SERVICE);
        let server = server(INSTANCE);
        client.send(b"?").unwrap();
        assert_eq!(phases(), [Phase::Asked]);
        round(&client, &[&server]);
        assert_eq!(phases(), [Phase::Open]);
    });
}

#[test]
fn system_without_the_right_nothing_is_told() {
    if !is_root() {
        return skip(NEEDS_ROOT);
    }
    Netns::new().enter(|| {
        let conntrack = Conntrack::open().unwrap();
        super::super::tests::drop_rights();
        let at = address(INSTANCE);
        let asked = tuple(Protocol::Tcp, at, at);
        for error in [
            conntrack.find(&[asked]).unwrap_err(),
            conntrack
                .each_answered_by(Protocol::Tcp, at, |_| ())
                .unwrap_err(),
            conntrack.delete_answered_by(Protocol::Tcp, at).unwrap_err(),
            conntrack.each_led(Led::On, |_| ()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        }
    });
}

/// A flow as the kernel tells it, without its header.
fn body_of(original: &Tuple, reply: &Tuple, tcp_state: u8) -> Vec<u8> {
    let mut out = Writer::default();
    out.raw(&[2, 0, 0, 0]);
    attributes::write_tuple(&mut out, ORIGINAL, original);
    attributes::write_tuple(&mut out, REPLY, reply);
    out.number(attributes::STATUS, 2);
    out.number(ID, 17);
    out.nest(4, |out| {
        out.nest(1, |out| out.attribute(1, &[tcp_state]));
    });
    out.as_bytes().to_vec()
}

#[test]
fn every_cut_and_every_byte_of_a_flow_is_read_or_left() {
    let [service, instance, client] = [SERVICE, INSTANCE, "10.1.2.3:4567"].map(address);
    let original = tuple(Protocol::Tcp, client, service);
    let reply = tuple(Protocol::Tcp, instance, client);
    let whole = body_of(&original, &reply, 7);
    let flow = |phase| {
        let id = 17;
        Some(Flow {
            original,
            reply,
            phase,
            id,
        })
    };
    assert_eq!(Flow::read(&whole), flow(Phase::Over));
    for state in [1, 2, 3, 4, 5, 9] {
        let open = body_of(&original, &reply, state);
        assert_eq!(Flow::read(&open), flow(Phase::Open), "{state}");
    }
    for cut in 0..whole.len() {
        // The state comes last, and may be missing.
        let read = Flow::read(&whole[..cut]);
        assert!([None, flow(Phase::Open)].contains(&read), "{cut}: {read:?}");
    }
    for at in 0..whole.len() {
        for value in 0..=u8::MAX {
            let mut broken = whole.clone();
            broken[at] = value;
            // None panics; most are read as something else.
            Flow::read(&broken);
        }
    }
}
